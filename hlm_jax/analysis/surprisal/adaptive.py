"""A model that learns from a text while it is read by characters (dynamic evaluation).

Krause et al., arXiv 1709.07432. A step is taken after every half block of characters, on the tokens
that are new. What comes after them plays no part: not in the weights, nor in where tokens end.
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
        self._learner = Learner(model.evaluator, model.params, rate)
        self._learned = 0  # characters of the text that is being read

    @property
    def params(self) -> Params:
        return self._learner.params

    def update(self, search: Search) -> Params:
        """The parameters to read on with."""
        if search.done - self._learned >= max(1, self._block // 2) and search.done < search.size:
            self._step(search.text[: search.done])
        return self.params

    def finish(self, text: str) -> None:
        """Takes the last step of a text that has been read, before another one begins."""
        self._step(text)
        self._learned = 0

    def _step(self, read: str) -> None:
        # The tokens of what has been read alone: those of the whole text would tell what comes.
        tokenizer, old = self._tokenizer, len(read[: self._learned].encode())
        ids = [tokenizer.separator_id, *tokenizer.encode(read)]
        ends = np.cumsum([len(tokenizer.token_bytes(token)) for token in ids[1:]])
        half = max(1, self._block // 2)
        # A character may be several tokens, and a step is on half a block of them at most.
        for first in range(int(np.searchsorted(ends, old, side="right")), len(ids) - 1, half):
            end = min(first + half, len(ids) - 1)
            start = max(0, end - self._block)
            self._learner.read(ids[start : end + 1], first - start)
        self._learned = len(read)
