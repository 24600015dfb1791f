"""Training windows of a token stream, as numpy batches.

Windows do not overlap within an epoch. Every epoch cuts them at a new random offset and draws them
in a new order. There is no iterator state: a batch is a function of the seed and its step.
"""

import functools
from collections.abc import Iterable

import numpy as np

from hlm_jax.book.corpus import Chapter
from hlm_jax.book.tokenizer import Tokenizer
from hlm_jax.errors import UserError


class DataError(UserError):
    """A text too short to train on."""


def token_stream(tokenizer: Tokenizer, chapters: Iterable[Chapter]) -> np.ndarray:
    """All chapters' tokens in order, a separator before each; int32 [n_tokens]."""
    ids: list[int] = []
    for chapter in chapters:
        ids.append(tokenizer.separator_id)
        ids.extend(tokenizer.encode(chapter.text))
    return np.array(ids, dtype=np.int32)


class Windows:
    """Batches of windows [batch_size, block_size + 1]: inputs are [:, :-1], targets [:, 1:].

    Args:
      tokens: int32 [n_tokens].
      block_size: tokens of a model's input.
      batch_size: windows in a step, over all devices and processes.
      seed: decides offsets and orders.

    Raises:
      DataError: fewer tokens than one window and its offset need.
    """

    def __init__(self, tokens: np.ndarray, *, block_size: int, batch_size: int, seed: int):
        # Offsets run over a whole block, and the last window of the largest offset must fit.
        self.windows_per_epoch = (len(tokens) - block_size) // block_size
        if self.windows_per_epoch < 1:
            raise DataError(
                f"the training text has {len(tokens):,} tokens, fewer than two blocks of "
                f"{block_size}: use a longer text or a smaller --config.model.block_size"
            )
        self._tokens, self._block, self._seed = tokens, block_size, seed
        self.batch_size = batch_size

    @property
    def steps_per_epoch(self) -> float:
        """Steps that see every window once; a batch may cross the border of two epochs."""
        return self.windows_per_epoch / self.batch_size

    def batch_at(self, step: int, rows: slice = slice(None)) -> np.ndarray:
        """The batch of a step, int32 [batch_size, block_size + 1].

        `rows` picks the rows that this process reads.
        """
        first = step * self.batch_size
        return self.rows_at(np.arange(first, first + self.batch_size)[rows])

    def rows_at(self, numbers: np.ndarray) -> np.ndarray:
        """Windows by their number in the endless sequence of all epochs, int32 [n, block_size + 1].

        A pure function of the seed and the numbers.
        """
        out = np.empty((len(numbers), self._block + 1), dtype=np.int32)
        for i, number in enumerate(numbers):
            epoch, place = divmod(int(number), self.windows_per_epoch)
            offset, order = self._epoch(epoch)
            start = offset + int(order[place]) * self._block
            out[i] = self._tokens[start : start + self._block + 1]
        return out

    @functools.lru_cache(maxsize=4)  # noqa: B019 - one object a run, a few epochs kept
    def _epoch(self, epoch: int) -> tuple[int, np.ndarray]:
        rng = np.random.default_rng((self._seed, epoch))
        return int(rng.integers(self._block)), rng.permutation(self.windows_per_epoch)
