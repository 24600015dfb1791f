"""What teachers predict of the book: computed before the first step, and kept in a file.

Every epoch cuts other windows of the same tokens, and a prediction hardly depends on where the
window begins that it is made in. So teachers cost a run two readings of its book, each time that it
starts, however many epochs it has, and a student's step costs little more than another.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hlm_jax.measures.rowfile import require_room, row_file
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import Params

ROWS, BYTES = 32, 2**28  # the most windows, and bytes of logits, that a teacher computes at once


class Teaching:
    """The mean of the teachers' predictions after every token of a text.

    A teacher reads the clean text in windows of `block_size` tokens. The windows overlap by half,
    so that all predictions but the first ones have half a block of text or more before them.

    Args:
      teachers: models and their weights, one or more of one vocabulary.
      tokens: int32 [N], N >= block_size.
      block_size: tokens of a window, at most what every teacher reads.

    Attributes:
      n_bytes: size of the file.

    Raises:
      UserError: no room for the file.
    """

    def __init__(self, teachers: Sequence[tuple[GPT, Params]], tokens: np.ndarray, block_size: int):
        self._teachers, self._tokens, self._block = list(teachers), tokens, block_size
        self.vocab_size = self._teachers[0][0].cfg.vocab_size
        self._table: np.ndarray | None = None
        self.n_bytes = require_room(*self._shape)

    def read(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Lets the teachers read the text; takes them minutes. Their weights are then given up.

        Args:
          stopped: is asked now and then.

        Returns:
          Whether they have read it all: False where `stopped` was true.

        Raises:
          UserError: no room for the file.
        """
        table, done = row_file(*self._shape), 0
        for rows in self._predictions():
            if stopped():
                return False
            table[done : done + len(rows)] = rows
            done += len(rows)
        self._table = table
        self._teachers = []
        return True

    def rows_at(self, starts: np.ndarray) -> np.ndarray:
        """The predictions of windows that begin at `starts`, float16 [n, block_size, V].

        Row t of a window is the distribution of the token after its token t. A start of -1 stands
        for a window of another text: its rows are zeros.
        """
        assert self._table is not None, "read first"
        out = np.empty((len(starts), self._block, self.vocab_size), np.float16)
        for row, start in zip(out, starts, strict=True):
            row[:] = self._table[start : start + self._block] if start >= 0 else 0
        return out

    @property
    def _shape(self) -> tuple[int, int, str]:
        return self._tokens.size, self.vocab_size, "what the teachers predict"

    def _predictions(self) -> Iterator[np.ndarray]:
        """The rows of the table in their order, some at a time."""
        models, weights = zip(*self._teachers, strict=True)
        weights = jax.device_put(weights)

        @jax.jit
        def predict(weights, tokens_BT):
            return mean_probabilities(models, weights, tokens_BT).astype(jnp.float16)

        at_once = min(ROWS, max(1, BYTES // (self._block * self.vocab_size * 4)))
        last, done = len(self._tokens) - self._block, 0
        starts = [*range(0, last, max(1, self._block // 2)), last]
        for first in range(0, len(starts), at_once):
            some = starts[first : first + at_once]
            # The last call repeats a window, so that all have one shape.
            padded = np.array(some + [last] * (at_once - len(some)))
            windows = self._tokens[padded[:, None] + np.arange(self._block)]
            for start, rows in zip(some, np.asarray(predict(weights, windows)), strict=False):
                yield rows[done - start :]
                done = start + self._block


def mean_probabilities(
    models: Sequence[GPT], params: Sequence[Params], tokens_BT: jax.Array
) -> jax.Array:
    """Mean of the models' distributions of the token after each, float32 [B, T, V]."""
    of = [
        jax.nn.softmax(model.apply({"params": weights}, tokens_BT)[0].astype(jnp.float32))
        for model, weights in zip(models, params, strict=True)
    ]
    return sum(of[1:], of[0]) / len(of)
