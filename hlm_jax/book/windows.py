"""Training windows of token streams, as numpy batches.

Windows of a stream do not overlap within an epoch. Every epoch cuts them at a new random offset and
draws them in a new order. There is no iterator state: a batch is a function of the seed and its
step.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from hlm_jax.book.corpus import Chapter
from hlm_jax.book.tokenizer import BaseTokenizer
from hlm_jax.errors import UserError


class DataError(UserError):
    """A text too short to train on."""


def token_stream(tokenizer: BaseTokenizer, chapters: Iterable[Chapter]) -> np.ndarray:
    """All chapters' tokens in order, a separator before each; int32 [n_tokens]."""
    ids: list[int] = []
    for chapter in chapters:
        ids.append(tokenizer.separator_id)
        ids.extend(tokenizer.encode(chapter.text))
    return np.array(ids, dtype=np.int32)


class Windows:
    """An endless sequence of windows [block_size + 1]: inputs are [:-1], targets [1:].

    Args:
      tokens: int32 [n_tokens].
      block_size: tokens of a model's input.
      seed: decides offsets and orders.
      what: the text's name in the error.

    Raises:
      DataError: fewer tokens than one window and its offset need.
    """

    def __init__(
        self, tokens: np.ndarray, *, block_size: int, seed: int, what: str = "the training text"
    ):
        # Offsets run over a whole block, and the last window of the largest offset must fit.
        self.windows_per_epoch = (len(tokens) - block_size) // block_size
        if self.windows_per_epoch < 1:
            raise DataError(
                f"{what} has {len(tokens):,} tokens, fewer than two blocks of "
                f"{block_size}: use a longer text or a smaller --config.model.block_size"
            )
        self.tokens, self._block, self._seed = tokens, block_size, seed

    def rows_at(self, numbers: np.ndarray) -> np.ndarray:
        """Windows by their number in the endless sequence of all epochs, int32 [n, block_size + 1].

        A pure function of the seed and the numbers.
        """
        return self.tokens[self.starts_at(numbers)[:, None] + np.arange(self._block + 1)]

    def starts_at(self, numbers: np.ndarray) -> np.ndarray:
        """Where in the tokens these windows begin, int [n]."""
        out = np.empty(len(numbers), dtype=np.int64)
        for i, number in enumerate(numbers):
            epoch, place = divmod(int(number), self.windows_per_epoch)
            offset, order = self._epoch(epoch)
            out[i] = offset + int(order[place]) * self._block
        return out

    @functools.lru_cache(maxsize=4)  # noqa: B019 - one object a run, a few epochs kept
    def _epoch(self, epoch: int) -> tuple[int, np.ndarray]:
        rng = np.random.default_rng((self._seed, epoch))
        return int(rng.integers(self._block)), rng.permutation(self.windows_per_epoch)


@dataclasses.dataclass(frozen=True)
class Share:
    """The fraction of a batch's windows that further texts have: constant, falling, then none.

    Attributes:
      fraction: until step `hold`.
      hold, end: between these steps it falls to 0 in a straight line; hold <= end.
    """

    fraction: float
    hold: float
    end: float

    def before(self, step: int) -> float:
        """The sum of the fractions of all steps before `step`, taken as an integral."""
        fall = self.end - self.hold
        into = min(max(step - self.hold, 0.0), fall)
        fallen = into - into * into / (2 * fall) if fall else 0.0
        return self.fraction * (min(step, self.hold) + fallen)


@dataclasses.dataclass(frozen=True)
class Stage:
    """The steps from `first` on, until another stage begins.

    Attributes:
      batch_size: windows in a step, over all devices and processes.
      share: what further texts have of them; None where the book is alone.
    """

    first: int
    batch_size: int
    share: Share | None = None

    def windows(self, step: int) -> tuple[int, int]:
        """(windows of the book, of further texts) in this stage before `step`, which is in it."""
        total = (step - self.first) * self.batch_size
        if self.share is None:
            return total, 0
        fractions = self.share.before(step) - self.share.before(self.first)
        # The sum of the fractions of n steps may exceed n by a rounding error.
        extra = min(total, int(self.batch_size * fractions + 1e-6))
        return total - extra, extra


def windows_before(stages: Sequence[Stage], step: int) -> tuple[int, int]:
    """(windows of the book, of further texts) in all steps before `step`."""
    book = extra = 0
    for number, stage in enumerate(stages):
        if stage.first >= step:
            break
        later = [s.first for s in stages[number + 1 : number + 2]]
        of_book, of_extra = stage.windows(min([step, *later]))
        book, extra = book + of_book, extra + of_extra
    return book, extra


class Batches:
    """Batches of windows by step, int32 [batch_size, block_size + 1].

    Windows of further texts come before those of the book. No window is skipped or repeated where a
    batch crosses the border of two epochs, nor where a stage begins.

    Args:
      book: windows of the text that the model is of.
      extra: windows of further texts; None only where none of them is to be read.
      stages: in their order; the first begins at step 0.
    """

    def __init__(self, book: Windows, extra: Windows | None, stages: Sequence[Stage]):
        self._book, self._extra, self._stages = book, extra, list(stages)

    @property
    def batch_size(self) -> int:
        """Windows in a step of the last stage."""
        return self._stages[-1].batch_size

    @property
    def book_tokens(self) -> np.ndarray:
        """The tokens that the book's windows are cut from, int32 [n_tokens]."""
        return self._book.tokens

    def epochs(self, step: int) -> tuple[float, float]:
        """How often the book and the further texts were read before `step`."""
        book, extra = windows_before(self._stages, step)
        of_extra = extra / self._extra.windows_per_epoch if self._extra else 0.0
        return book / self._book.windows_per_epoch, of_extra

    def describe(self, step: int) -> str:
        """Which windows the batch of a step has, such as "windows 16 to 23"."""
        before, after = (windows_before(self._stages, at) for at in (step, step + 1))
        named = [
            f"windows {first} to {end - 1}{of}"
            for first, end, of in zip(before, after, ("", " of the further texts"), strict=True)
            if end > first
        ]
        return " and ".join(named)

    def batch_at(self, step: int, rows: slice = slice(None)) -> np.ndarray:
        """The batch of a step; `rows` picks the rows that this process reads."""
        book, extra = windows_before(self._stages, step)
        book_end, extra_end = windows_before(self._stages, step + 1)
        batch = self._book.rows_at(np.arange(book, book_end))
        if self._extra is not None and extra_end > extra:
            batch = np.concatenate([self._extra.rows_at(np.arange(extra, extra_end)), batch])
        return batch[rows]

    def starts_at(self, step: int, rows: slice = slice(None)) -> np.ndarray:
        """Where in book_tokens the windows of batch_at begin; -1 for those of further texts."""
        book, extra = windows_before(self._stages, step)
        book_end, extra_end = windows_before(self._stages, step + 1)
        of_book = self._book.starts_at(np.arange(book, book_end))
        return np.concatenate([np.full(extra_end - extra, -1), of_book])[rows]
