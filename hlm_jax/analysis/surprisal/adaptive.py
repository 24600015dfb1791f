"""A model that learns from a text while it is read by characters (dynamic evaluation).

Krause et al., arXiv 1709.07432. A step is taken on every half block of new tokens of what has been
read. What comes after them plays no part: not in the weights, nor in where tokens end. Where later
characters change earlier tokens, a few characters are learned twice.
"""

from typing import Protocol

import numpy as np

from hlm_jax.language_model import LanguageModel
from hlm_jax.measures.score import Learner
from hlm_jax.model.shape import Params


class Search(Protocol):
    """A text, its characters in all, and how many have been read."""

    text: str
    size: int
    done: int


class AdaptiveModel:
    """A model that takes Adam steps while one text after another is read by characters."""

    def __init__(self, model: LanguageModel, rate: float):
        self._tokenizer, self._block = model.tokenizer, model.model.cfg.block_size
        self._half = max(1, self._block // 2)
        self._learner = Learner(model.evaluator, model.params, rate)
        self._begin()

    def _begin(self) -> None:
        self._learned = 0  # bytes of the text that is being read
        self._due = self._half  # characters read when half a block of tokens may be new

    @property
    def params(self) -> Params:
        return self._learner.params

    def update(self, search: Search) -> Params:
        """The parameters to read on with."""
        if self._due <= search.done < search.size:
            # What comes next may make the last token longer: it waits.
            new = self._learn(search.text[: search.done], 1, self._half)
            self._due = search.done + self._half - new
        return self.params

    def finish(self, text: str) -> None:
        """Takes the last step of a text that has been read, before another one begins."""
        self._learn(text, 0, 1)
        self._begin()

    def _learn(self, read: str, unsettled: int, least: int) -> int:
        """Steps on half a block of new tokens each, `least` in the last; how many are left."""
        # The tokens of what has been read alone: those of the whole text would tell what comes.
        tokenizer, half = self._tokenizer, self._half
        ids = [tokenizer.separator_id, *tokenizer.encode(read)]
        ids = ids[: len(ids) - unsettled]
        ends = np.cumsum([len(tokenizer.token_bytes(token)) for token in ids[1:]])
        first = int(np.searchsorted(ends, self._learned, side="right"))
        while len(ends) - first >= least:
            end = min(first + half, len(ends))
            start = max(0, end - self._block)
            self._learner.read(ids[start : end + 1], first - start)
            self._learned, first = int(ends[end - 1]), end
        return len(ends) - first
