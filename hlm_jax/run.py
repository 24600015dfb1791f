"""The reading face of a finished or running training: weights, logits, surprisal, generation. Needs only a checkpoint."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from hlm_jax import checkpoint
from hlm_jax.book.corpus import Chapter, load_corpus, split_chapters
from hlm_jax.book.tokenizer import StreamDecoder, Tokenizer
from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.overlap import Novelty, TrainingText
from hlm_jax.measures.score import Evaluator, Score
from hlm_jax.model.generate import Strategy, extracted_tokens, generator, spread_windows
from hlm_jax.model.gpt import GPT, GPTConfig


@dataclasses.dataclass(frozen=True)
class Surprisal:
    """One token's cost in context: `bits` for the text[start:end] it spells; bytes of one character share its span."""

    text: str
    start: int
    end: int
    bits: float


@dataclasses.dataclass(frozen=True)
class Extraction:
    """How much of the book greedy decoding gives back when it is given the tokens before (sampling.extracted_tokens)."""

    prefixes: int
    exact: float  # share of the continuations that equal the book's in all `tokens` tokens
    mean_tokens: float  # tokens until the first difference from the book, on average
    tokens: int


def describe_extraction(split: str, found: Extraction) -> str:
    """One line for the terminal."""
    if not found.prefixes:
        return f"extraction, {split} chapters: none has {2 * found.tokens} tokens"
    return (
        f"extraction, {split} chapters: {found.exact:.1%} of {found.prefixes} greedy continuations repeat the book for all {found.tokens} "
        f"tokens, {found.mean_tokens:.1f} tokens on average"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained model and what it was trained with. `params` are numpy arrays (nested dicts), averaged where a run kept an average."""

    workdir: Path
    step: int
    config: ConfigDict
    params: dict
    tokenizer: Tokenizer
    meta: dict

    @functools.cached_property
    def model(self) -> GPT:
        return GPT(GPTConfig(**self.config.model))

    @functools.cached_property
    def device_params(self) -> dict:
        """The parameters on this machine's first device."""
        return jax.device_put(self.params, jax.local_devices()[0])

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        return Evaluator(self.model)

    @functools.cached_property
    def chapters(self) -> dict[str, list[Chapter]]:
        """The book's chapters by split, read again from the corpus that the run was trained on."""
        corpus = load_corpus(**self.config.corpus)
        if corpus.report["sha256"] != self.meta["corpus"]["sha256"]:
            raise UserError(
                f"the corpus at hand ({corpus.name}) is not the text that {self.workdir} was trained on"
            )
        return split_chapters(corpus.chapters, **self.config.split)

    @functools.cached_property
    def floor(self) -> KneserNey:
        """The Kneser-Ney 5-gram of the same training chapters."""
        return KneserNey([chapter.text for chapter in self.chapters["train"]])

    def logits(self, text: str) -> np.ndarray:
        """Next-token logits, float32 [tokens + 1, vocab_size]: row i follows i tokens of `text`, row 0 the chapter separator.

        Raises:
          UserError: the text does not fit the block.
        """
        ids = [self.tokenizer.separator_id, *self.tokenizer.encode(text)]
        if len(ids) > self.model.cfg.block_size:
            raise UserError(
                f"the text has {len(ids) - 1} tokens: logits() reads at most {self.model.cfg.block_size - 1}"
            )
        logits_BTV, _ = self._apply(self.device_params, jnp.asarray([ids], jnp.int32))
        return np.asarray(logits_BTV[0])

    @functools.cached_property
    def _apply(self):
        return jax.jit(lambda params, tokens_BT: self.model.apply({"params": params}, tokens_BT))

    def surprisal(self, text: str) -> list[Surprisal]:
        """Bits of every token given what stands before it (sliding windows, any length). The bits sum to the text's cost."""
        ids = self.tokenizer.encode(text)
        (nats,) = self.evaluator.token_nats(
            self.device_params, [[self.tokenizer.separator_id, *ids]]
        )
        spans = self.tokenizer.char_offsets(ids)
        return [
            Surprisal(text[start:end], start, end, float(n) / math.log(2))
            for (start, end), n in zip(spans, nats, strict=True)
        ]

    def score(self, texts) -> list[Score]:
        """A Score per text, as scripts/evaluate.py reports them."""
        return self.evaluator.score(self.device_params, self.tokenizer, texts)

    @functools.cached_property
    def training_text(self) -> TrainingText:
        """The chapters that the run was trained on, searchable for copied spans."""
        return TrainingText(self.chapters["train"])

    @functools.cached_property
    def human_row(self) -> Novelty | None:
        """What real chapters 10, 20, … score against training chapters that lack them; None for a book of fewer than ten."""
        if self.chapters["val"]:
            held_out, book = self.chapters["val"], self.training_text
        else:
            splits = split_chapters(self.chapters["train"], held_out=True)
            held_out, book = splits["val"], TrainingText(splits["train"])
        if not held_out:
            return None
        first, *others = [book.measure(chapter.text) for chapter in held_out]
        return sum(others, first)

    def extraction(self, split: str, *, prefixes: int = 64, tokens: int = 50) -> Extraction:
        """Greedy continuations of `prefixes` places spread evenly over the chapters of a split, each from the `tokens` tokens before.

        Chapters shorter than 2 x `tokens` have no such place; where none has, `prefixes` of the result is 0.
        """
        tokens = min(tokens, self.model.cfg.block_size // 2)
        windows = spread_windows(
            [self.tokenizer.encode(chapter.text) for chapter in self.chapters[split]],
            tokens,
            prefixes,
        )
        if not len(windows):
            return Extraction(0, math.nan, math.nan, tokens)
        lengths = extracted_tokens(self.model, self.device_params, windows)
        return Extraction(
            len(windows), float((lengths == tokens).mean()), float(lengths.mean()), tokens
        )

    def encode_prompt(self, prompt: str | None) -> list[int]:
        """Token ids to continue; None begins a chapter.

        Raises:
          UserError: an empty prompt, or one that leaves no room in the block.
        """
        if prompt is None:
            return [self.tokenizer.separator_id]
        if not prompt:
            raise UserError(
                "the prompt is empty: give some text, such as 宝玉笑道：, or leave --prompt out to begin a chapter"
            )
        ids = self.tokenizer.encode(prompt)
        if len(ids) >= self.model.cfg.block_size:
            raise UserError(
                f"the prompt has {len(ids)} tokens: this model reads at most {self.model.cfg.block_size - 1}; shorten it"
            )
        return ids

    def stream(
        self, prompts, *, max_new_tokens: int, seed: int = 0, **strategy
    ) -> Iterator[list[str]]:
        """Yields, for every prompt, the text that new tokens complete: whole characters, and never bytes that make none."""
        decoders = [StreamDecoder(self.tokenizer) for _ in prompts]
        ids = [self.encode_prompt(prompt) for prompt in prompts]
        blocks = generator(self.model, Strategy(**strategy), 16).stream(
            self.device_params, ids, max_new_tokens, seed, self.tokenizer.utf8_automaton
        )
        for block in blocks:
            yield [decoder.feed(row) for decoder, row in zip(decoders, block.tolist(), strict=True)]

    def generate(
        self,
        prompt=None,
        *,
        num_samples: int = 1,
        max_new_tokens: int = 200,
        seed: int = 0,
        **strategy,
    ) -> list[str]:
        """`num_samples` continuations of a prompt (or one of each of a list of prompts), without the prompt.

        Keyword arguments are those of sampling.Strategy: temperature, top_k, top_p, min_p, repetition_penalty.
        """
        prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt] * num_samples
        parts = list(self.stream(prompts, max_new_tokens=max_new_tokens, seed=seed, **strategy))
        return ["".join(row) for row in zip(*parts, strict=True)]


def load_run(workdir, step: str | int = "best") -> Run:
    """Opens a run for reading, on any machine, whatever devices trained it.

    Args:
      workdir: the folder given to training as --workdir.
      step: "best" by validation bits per character, "latest", or a number.

    Raises:
      UserError: no such run, or a damaged checkpoint.
    """
    found, params, meta = checkpoint.read(workdir, step)
    return Run(
        Path(workdir),
        found,
        ConfigDict(meta["config"]),
        params,
        checkpoint.tokenizer_of(meta),
        meta,
    )
