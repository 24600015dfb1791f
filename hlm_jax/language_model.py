"""A model with its tokenizer: text in, logits, bits and text out. No files, no book.

Training uses it for samples, readers get it as part of a Run.
"""

import dataclasses
import functools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from hlm_jax.book.corpus import Chapter, clean_prompt
from hlm_jax.book.tokenizer import BaseTokenizer
from hlm_jax.book.utf8 import StreamDecoder
from hlm_jax.completion import Completion, Text, feed
from hlm_jax.errors import UserError
from hlm_jax.measures import extraction as extractions
from hlm_jax.measures.extraction import Extraction
from hlm_jax.measures.reference import Reference
from hlm_jax.measures.score import Evaluator, Score
from hlm_jax.model.generate import SamplingParams, samples, stream
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import Params

if TYPE_CHECKING:  # `surprisal` opens it; the reading of tables builds on this module
    from hlm_jax.analysis.surprisal import SurprisalTable

DISPATCH_TOKENS = 16  # of one dispatch of generation: how often text appears and stops are checked


def sampling_of(config: ConfigDict) -> SamplingParams:
    """The default sampling settings of a run: its config's section `sample`."""
    sample = config.sample
    return SamplingParams(
        temperature=sample.temperature,
        top_k=sample.top_k,
        top_p=sample.top_p,
        min_p=sample.min_p,
        repetition_penalty=sample.repetition_penalty,
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LanguageModel:
    """A GPT, its weights and its tokenizer.

    Attributes:
      params: nested dicts of arrays.
      sampling: how `generate` draws unless told otherwise.
      convert: the OpenCC configuration that the training text went through; prompts do too.
    """

    model: GPT
    params: Params
    tokenizer: BaseTokenizer
    sampling: SamplingParams = SamplingParams()  # noqa: RUF009 - frozen
    convert: str = ""

    def __repr__(self) -> str:
        cfg = self.model.cfg
        return f"<{type(self).__name__}: {cfg.form}, {cfg.n_parameters:,} parameters>"

    @functools.cached_property
    def device_params(self) -> Params:
        """The parameters on this machine's first device."""
        return jax.device_put(self.params, jax.local_devices()[0])

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """Scores token sequences with one compiled function."""
        return Evaluator(self.model)

    @functools.cached_property
    def _apply(self) -> Any:
        return jax.jit(lambda params, tokens: self.model.apply({"params": params}, tokens))

    def logits(self, text: str) -> np.ndarray:
        """Next-token logits, float32 [tokens + 1, vocab_size].

        Row i follows i tokens of `text`; row 0 follows the chapter separator alone.

        Raises:
          UserError: the text does not fit the block.
        """
        ids = [self.tokenizer.separator_id, *self.tokenizer.encode(text)]
        if len(ids) > self.model.cfg.block_size:
            raise UserError(
                f"the text has {len(ids) - 1} tokens: "
                f"logits() reads at most {self.model.cfg.block_size - 1}"
            )
        logits_BTV, _ = self._apply(self.device_params, jnp.asarray([ids], jnp.int32))
        return np.asarray(logits_BTV[0])

    def token_nats(self, sequences: list[list[int]]) -> list[np.ndarray]:
        """Nats of every token of every sequence except its first."""
        return self.evaluator.token_nats(self.device_params, sequences)

    def adaptive_token_nats(
        self, sequences: list[list[int]], learning_rate: float
    ) -> list[np.ndarray]:
        """token_nats of a model that goes on learning from what it has scored."""
        return self.evaluator.adaptive_token_nats(
            self.device_params, sequences, learning_rate=learning_rate
        )

    def log_probabilities(
        self, sequences: list[list[int]], learning_rate: float | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As measures.score.Evaluator.log_probabilities: (nats [n], natural logarithms [n, V])."""
        return self.evaluator.log_probabilities(
            self.device_params, sequences, learning_rate=learning_rate
        )

    def surprisal(
        self,
        text: str,
        *,
        unit: str = "token",
        top: int = 0,
        stride: int | None = None,
        reference: Reference | None = None,
    ) -> "SurprisalTable":
        """Bits of every token or character given the text before it; they sum to the text's cost.

        Windows slide over a text of any length. The text is taken exactly as it is, so that offsets
        are its own: clean and convert it first (book.corpus.clean_text) as the training text was.

        Args:
          unit, top, stride: as analysis.surprisal.surprisal_table.
          reference: a Run's own `reference` adds what counting expects, copies and the split.

        Returns:
          A table; iterating it gives rows with .start, .end, .text, .bits and the other columns.

        Raises:
          UserError: an empty text, an unknown unit or an impossible number.
        """
        from hlm_jax.analysis.surprisal import surprisal_table

        return surprisal_table(self, text, unit=unit, top=top, stride=stride, reference=reference)

    def score(self, texts: str | Sequence[str]) -> list[Score]:
        """A Score per text; every text is read like a chapter, from its beginning.

        Texts are cleaned and converted as the training text was.
        """
        several = [texts] if isinstance(texts, str) else texts
        cleaned = [clean_prompt(text, self.convert) for text in several]
        return self.evaluator.score(self.device_params, self.tokenizer, cleaned)

    def extraction(
        self,
        chapters: Iterable[Chapter],
        *,
        prefixes: int = extractions.PREFIXES,
        tokens: int = extractions.TOKENS,
    ) -> Extraction:
        """How much of these chapters greedy decoding repeats, see measures/extraction.py."""
        return extractions.extraction(
            self.model,
            self.device_params,
            self.tokenizer,
            chapters,
            prefixes=prefixes,
            tokens=tokens,
        )

    def encode_prompt(self, prompt: str | None) -> list[int]:
        """Token ids to continue; None begins a chapter.

        The prompt is cleaned and converted as the training text was. A prompt that does not fit the
        block is read by its last tokens, half a block of them, as generation slides; a UserWarning
        names their number.

        Raises:
          UserError: an empty prompt.
        """
        if prompt is None:
            return [self.tokenizer.separator_id]
        ids = self.tokenizer.encode(clean_prompt(prompt, self.convert))
        if not ids:
            raise UserError(
                "the prompt is empty: give some text, such as 宝玉笑道：, or no prompt at all to "
                "begin a chapter"
            )
        block = self.model.cfg.block_size
        if len(ids) < block:
            return ids
        kept = max(1, block // 2)
        warnings.warn(
            f"the prompt has {len(ids)} tokens and the model reads {block - 1}: "
            f"it goes on from the last {kept}",
            stacklevel=2,
        )
        return ids[-kept:]

    def stream(
        self,
        prompts: Sequence[str | None],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        stop_at_chapter_end: bool = False,
        **sampling: Any,
    ) -> Iterator[list[str]]:
        """Yields, for every prompt, the text that new tokens complete.

        Whole characters only, and nothing that may still turn out to be part of a stop string.
        Closing the iterator cancels the generation. Arguments and errors as of `complete`; a
        request is checked at once, before the first text is asked for.
        """
        texts = self._texts(prompts, stop, stop_at_chapter_end, sampling)
        steps = self._advance(texts, max_new_tokens)
        return ([text.take().text for text in texts] for _ in steps)

    def generate(
        self,
        prompt: str | Sequence[str | None] | None = None,
        *,
        num_samples: int = 1,
        max_new_tokens: int = 200,
        stop: Sequence[str] = (),
        stop_at_chapter_end: bool = False,
        **sampling: Any,
    ) -> list[str]:
        """The texts of `complete`."""
        completions = self.complete(
            prompt,
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            stop=stop,
            stop_at_chapter_end=stop_at_chapter_end,
            **sampling,
        )
        return [completion.text for completion in completions]

    def complete(
        self,
        prompt: str | Sequence[str | None] | None = None,
        *,
        num_samples: int = 1,
        max_new_tokens: int = 200,
        stop: Sequence[str] = (),
        stop_at_chapter_end: bool = False,
        top_logprobs: int = 0,
        **sampling: Any,
    ) -> list[Completion]:
        """Continues a prompt, or each of a list of prompts, `num_samples` times.

        Args:
          prompt: text to continue, or a list of texts; None begins a chapter.
          max_new_tokens: of each text.
          stop: strings that end a text; they are not part of it.
          stop_at_chapter_end: whether a text ends where the model begins a new chapter.
          top_logprobs: how many of the likeliest tokens to report for every token.
          sampling: fields of SamplingParams; those left out are the model's own. Row i is drawn
            with `seed` + i.

        Returns:
          A Completion per sample; those of one prompt stand together.

        Raises:
          UserError: an empty prompt or list, or an impossible number.
        """
        if num_samples < 1:
            raise UserError(f"num_samples must be at least 1, not {num_samples}")
        if prompt is None or isinstance(prompt, str):
            prompts: list[str | None] = [prompt] * num_samples
        else:
            prompts = [one for one in prompt for _ in range(num_samples)]
        texts = self._texts(prompts, stop, stop_at_chapter_end, sampling)
        for _ in self._advance(texts, max_new_tokens, top_logprobs=top_logprobs):
            pass
        return [text.completion() for text in texts]

    def _texts(
        self,
        prompts: Sequence[str | None],
        stop: Sequence[str],
        stop_at_chapter_end: bool,
        sampling: dict[str, Any],
    ) -> list[Text]:
        if isinstance(prompts, str):
            prompts = [prompts]
        if not prompts:
            raise UserError("no prompt was given: pass one, or None to begin a chapter")
        if isinstance(stop, str):
            stop = [stop]
        if any(not text for text in stop):
            raise UserError("a stop string is empty: give the text at which to stop, or none")
        settings = samples(dataclasses.replace(self.sampling, **sampling), len(prompts))
        end = self.tokenizer.separator_id if stop_at_chapter_end else None
        ids = {prompt: self.encode_prompt(prompt) for prompt in dict.fromkeys(prompts)}
        return [
            Text(ids[prompt], setting, StreamDecoder(self.tokenizer), list(stop), end)
            for prompt, setting in zip(prompts, settings, strict=True)
        ]

    def _advance(
        self, texts: list[Text], max_new_tokens: int, *, top_logprobs: int = 0
    ) -> Iterator[None]:
        """Checks the request; the iterator feeds the texts, a dispatch a step, to their end."""
        blocks = stream(
            self.model,
            self.device_params,
            [text.prompt for text in texts],
            [text.sampling for text in texts],
            max_new_tokens=max_new_tokens,
            automaton=self.tokenizer.utf8_automaton,
            dispatch_tokens=DISPATCH_TOKENS,
            top_logprobs=top_logprobs,
        )
        return feed(texts, blocks)
