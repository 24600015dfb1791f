"""Tables as CSV files: UTF-8, LF, RFC 4180; texts with \\n for a line end, \\\\ for a backslash."""

import contextlib
import csv
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hlm_jax.errors import UserError


def write_csv(
    path: str | Path, head: Sequence[str], rows: Iterable[Sequence[Any]], *, bom: bool = False
) -> Path:
    """Writes a table in one go: a reader never sees half of it.

    Args:
      rows: None becomes an empty cell, a float 6 digits.
      bom: begin with a byte order mark, by which Excel knows UTF-8.

    Raises:
      UserError: the file cannot be written.
    """
    return write_text(path, ("\ufeff" if bom else "") + csv_text(head, rows))


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The table of write_csv as text."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return lines.getvalue()


def write_text(path: str | Path, text: str) -> Path:
    """Writes a file in one go, and the folders above it where they are missing.

    Raises:
      UserError: the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new file to write, with the suffix of `path`; it takes the place of `path` at the end.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(os.path.expanduser(path))
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(path.suffix, f".{path.stem}.", path.parent)
        os.close(handle)
        partial = Path(name)
        yield partial
        os.chmod(partial, 0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_place(path: str | Path) -> None:
    """Refuses a place where no file can be written, before the work for it is done.

    Raises:
      UserError: it is a folder, or the folder above it is none or may not be written to.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        raise UserError(f"{path}: cannot be written (Is a directory)")
    above = path.absolute().parent
    while not os.path.lexists(above) and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise UserError(f"{path}: cannot be written ({above} is not a folder)")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot be written (no permission to write in {above})")


def shown(path: str | Path) -> str:
    """A path as text that can be written anywhere: bytes of it that are not UTF-8 become \ufffd."""
    return os.fsencode(path).decode(errors="replace")


def cell_text(text: str) -> str:
    """A text on one line, as in CSV: \\n for a newline, \\\\ for a backslash."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def text_of_cell(cell: str) -> str:
    """The text that cell_text wrote; a backslash before any other sign is itself."""
    return re.sub(r"\\([\\nr])", lambda found: _SIGNS[found[1]], cell)


_SIGNS = {"\\": "\\", "n": "\n", "r": "\r"}


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return cell_text(value)
    if isinstance(value, float):  # numpy's float64 too
        return "" if value != value else f"{value:.6g}"
    return "" if value is None else value
