"""Many rows of numbers in a temporary file: what models predict at every place of a text."""

import shutil
import tempfile

import numpy as np

from hlm_jax.errors import UserError

_AT_ONCE = 2**26  # bytes


def row_file(n_rows: int, columns: int, what: str) -> np.ndarray:
    """float16 [n_rows, columns] in an unnamed file, mapped; it is gone with its last user.

    Its room is taken at once, so that writing rows cannot fail later.

    Args:
      what: takes the room, as the message of too little says it: "what the teachers predict".

    Raises:
      UserError: no room for the file.
    """
    size = require_room(n_rows, columns, what)
    if not size:
        return np.zeros((n_rows, columns), np.float16)
    try:
        with tempfile.TemporaryFile() as file:
            for start in range(0, size, _AT_ONCE):
                file.write(bytes(min(_AT_ONCE, size - start)))
            file.flush()
            return np.memmap(file, np.float16, "r+", shape=(n_rows, columns))
    except OSError as error:
        raise _no_room(what, size, error.strerror) from error


def require_room(n_rows: int, columns: int, what: str) -> int:
    """The bytes that `row_file` takes.

    Raises:
      UserError: they are not free.
    """
    size = n_rows * columns * 2
    try:
        free = shutil.disk_usage(tempfile.gettempdir()).free
    except OSError as error:
        raise _no_room(what, size, error.strerror) from error
    if free < size:
        raise _no_room(what, size, f"{free / 1e9:.1f} GB are free")
    return size


def _no_room(what: str, size: int, why: str | None) -> UserError:
    return UserError(
        f"{what} takes a temporary file of {size / 1e9:.1f} GB ({why}): make room, or set the "
        "environment variable TMPDIR to a folder that has it"
    )
