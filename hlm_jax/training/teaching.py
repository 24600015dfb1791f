"""What teachers predict of the book: computed once, before the first step, and kept in a file.

Every epoch cuts other windows of the same tokens, and a prediction hardly depends on where the
window begins that it is made in. So teachers cost a run two readings of its book, however many
epochs it has, and a student's step as good as nothing.
"""

import functools
import tempfile
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import Params

ROWS = 32  # windows that a teacher reads at once


class Teaching:
    """The mean of the teachers' predictions after every token of a text.

    A teacher reads the clean text in windows of `block_size` tokens. The windows overlap by half,
    so that all predictions but the first ones have half a block of text or more before them.

    Args:
      teachers: models and their weights, one or more of one vocabulary.
      tokens: int32 [N], N >= block_size.
      block_size: tokens of a window, at most what every teacher reads.
    """

    def __init__(self, teachers: Sequence[tuple[GPT, Params]], tokens: np.ndarray, block_size: int):
        self._teachers, self._tokens, self._block = list(teachers), tokens, block_size

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return self._tokens.size * self._teachers[0][0].cfg.vocab_size * 2

    def rows_at(self, starts: np.ndarray) -> np.ndarray:
        """The predictions of windows that begin at `starts`, float16 [n, block_size, V].

        Row t of a window is the distribution of the token after its token t. A start of -1 stands
        for a window of another text: its rows are zeros. The first call lets the teachers read.

        Raises:
          UserError: no room for the file.
        """
        table = self._table
        out = np.zeros((len(starts), self._block, table.shape[1]), np.float16)
        for row, start in zip(out, starts, strict=True):
            if start >= 0:
                row[:] = table[start : start + self._block]
        return out

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """float16 [N, V], read from an unnamed file that lives as long as the process."""
        vocabulary = self._teachers[0][0].cfg.vocab_size
        try:
            with tempfile.TemporaryFile() as file:
                for part in self._predictions():
                    file.write(part.tobytes())
                file.flush()
                return np.memmap(file, np.float16, "r", shape=(len(self._tokens), vocabulary))
        except OSError as error:
            raise UserError(
                f"the teachers' predictions need a temporary file of {self.n_bytes / 1e9:.1f} GB "
                f"in {tempfile.gettempdir()} ({error.strerror}): make room, or set TMPDIR"
            ) from error

    def _predictions(self) -> Iterator[np.ndarray]:
        """The rows of the table in their order, some at a time."""
        models, weights = zip(*self._teachers, strict=True)
        weights = jax.device_put(weights)

        @jax.jit
        def predict(weights, tokens_BT):
            return mean_probabilities(models, weights, tokens_BT).astype(jnp.float16)

        last, done = len(self._tokens) - self._block, 0
        starts = [*range(0, last, max(1, self._block // 2)), last]
        for first in range(0, len(starts), ROWS):
            some = starts[first : first + ROWS]
            # The last call repeats a window, so that all have one shape.
            padded = np.array(some + [last] * (ROWS - len(some)))
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
