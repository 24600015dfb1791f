"""What the checks compare: the run's own ids, logits and greedy texts."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hlm_jax.book.tokenizer import SEPARATOR
from hlm_jax.errors import UserError
from hlm_jax.measures.score import encode
from hlm_jax.model.generate import SamplingParams, generate
from hlm_jax.model.shape import Params
from hlm_jax.run import Run

PROMPTS, NEW_TOKENS = 20, 32
PROMPT_CHARS = 12
WINDOWS = 4  # of a whole block, whose logits are compared
TIE = 0.01  # logits nearer than this may swap places under another order of sums
# What other tools read differently, see docs/export.md.
_OTHERWISE = re.compile(f"▁|{re.escape(SEPARATOR)}|<unk>")


@dataclasses.dataclass(frozen=True)
class Result:
    """One check. `passed` is None where it was not run or judges nothing."""

    passed: bool | None
    line: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "note"}[self.passed]
        return f"{word:6s} {self.line}"


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """Texts and what the run makes of them.

    Attributes:
      texts: chapters of the book, or texts that the run wrote where the book is not at hand.
      about: what they are, for people.
      prompts: the beginnings of lines.
      new_tokens: how many tokens follow every prompt within one block.
    """

    run: Run
    texts: list[str]
    about: str
    prompts: list[str]
    new_tokens: int

    @classmethod
    def of(cls, run: Run) -> "Material":
        """Takes the run's book where it is at hand."""
        try:
            chapters = [c.text for split in run.reference.splits.values() for c in split]
            about = f"{len(chapters):,} chapters of the book"
        except UserError:
            if run.corpus is not None:
                raise
            chapters = run.generate(num_samples=PROMPTS, max_new_tokens=200, seed=0)
            about = f"{len(chapters)} texts that the run wrote (the book is not at hand)"
        texts = [_OTHERWISE.sub("", text) for text in chapters]
        about += f", {sum(map(len, texts)):,} characters"
        if left := sum(map(len, chapters)) - sum(map(len, texts)):
            about += f", without {left} that other tools read otherwise"
        lines = [line for text in texts for line in text.split("\n") if line]
        chosen = np.linspace(0, len(lines) - 1, min(PROMPTS, len(lines))).astype(int)
        half = max(1, run.model.cfg.block_size // 2)
        prompts = [_fitting(run, lines[i][:PROMPT_CHARS], half) for i in chosen]
        longest = max(len(run.tokenizer.encode(prompt)) for prompt in prompts)
        new_tokens = max(1, min(NEW_TOKENS, run.model.cfg.block_size - longest))
        return cls(run, texts, about, prompts, new_tokens)

    def windows(self) -> np.ndarray:
        """Token ids from the beginnings of texts, int32 [n, at most block_size]."""
        length = self.run.model.cfg.block_size
        sequences = [ids[:length] for ids in encode(self.run.tokenizer, self.texts)]
        length = max(map(len, sequences))
        full = [ids for ids in sequences if len(ids) == length]
        return np.array(full[:WINDOWS], np.int32)

    @functools.cached_property
    def _apply(self) -> Any:
        return jax.jit(lambda params, ids_BT: self.run.model.apply({"params": params}, ids_BT)[0])

    def logits(self, params: Params, ids_BT: np.ndarray) -> np.ndarray:
        """The run's float32 logits [B, T, V] with these weights, in full precision."""
        length = ids_BT.shape[1]
        # Always a whole block, so that one program serves all: no token sees what follows it.
        padded = np.pad(ids_BT, ((0, 0), (0, self.run.model.cfg.block_size - length)))
        with jax.default_matmul_precision("highest"):
            return np.asarray(self._apply(params, jnp.asarray(padded)))[:, :length]

    def greedy(self, params: Params) -> list[list[int]]:
        """The likeliest tokens after every prompt, up to a separator and with it."""
        prompts = [self.run.tokenizer.encode(prompt) for prompt in self.prompts]
        sampling = [SamplingParams(temperature=0.0)] * len(prompts)
        with jax.default_matmul_precision("highest"):
            made = generate(
                self.run.model, params, prompts, sampling, max_new_tokens=self.new_tokens
            )
        return [self.ended(ids) for ids in made.tolist()]

    def ended(self, ids: list[int]) -> list[int]:
        """Token ids up to the first separator and with it."""
        separator = self.run.tokenizer.separator_id
        return ids[: ids.index(separator) + 1] if separator in ids else ids

    def compared(self, params: Params, theirs: list[list[int]]) -> tuple[int, int, float]:
        """(equal prompts, prompts that differ only after a tie, the widest gap at a difference).

        Args:
          theirs: the greedy tokens of another program, ended as `greedy` ends them.
        """
        equal, ties, widest = 0, 0, 0.0
        for prompt, mine, other in zip(self.prompts, self.greedy(params), theirs, strict=True):
            if mine == other:
                equal += 1
                continue
            pairs = zip(mine, other, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), -1)
            gap = np.inf  # one of the two stopped early
            if at >= 0:
                ids = self.run.tokenizer.encode(prompt) + mine[:at]
                last = self.logits(params, np.array([ids], np.int32))[0, -1]
                gap = float(last[mine[at]] - last[other[at]])
            ties, widest = ties + (gap < TIE), max(widest, gap)
        return equal, ties, widest

    def greedy_result(self, params: Params, who: str, theirs: list[list[int]]) -> Result:
        """Whether another program writes the same greedy texts."""
        equal, ties, widest = self.compared(params, theirs)
        line = f"{who}: greedy text of {equal} of {len(theirs)} prompts is ours"
        line += f", {self.new_tokens} tokens each"
        if equal < len(theirs):
            line += f"; {ties} differ after a tie (logits within {TIE}), widest gap {widest:.2g}"
        return Result(equal + ties == len(theirs), line)


def _fitting(run: Run, text: str, most: int) -> str:
    """The text's beginning that has at most this many tokens."""
    while len(text) > 1 and len(run.tokenizer.encode(text)) > most:
        text = text[:-1]
    return text


def ids_result(who: str, about: str, mine: list[list[int]], theirs: list[list[int]]) -> Result:
    """Whether another program encodes the texts to the same ids."""
    equal = sum(a == b for a, b in zip(mine, theirs, strict=True))
    line = f"{who}: ids of {equal:,} of {len(mine):,} texts are ours; {about}"
    return Result(equal == len(mine), line)
