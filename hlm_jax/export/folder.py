"""The folder that an export fills: whole or not there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hlm_jax.errors import UserError


def check_out(out: str | Path) -> Path:
    """The folder to write, which must be new or empty.

    Raises:
      UserError: it holds something, or is no folder.
    """
    out = Path(os.path.expanduser(out)).absolute()
    try:
        if out.is_dir() and any(out.iterdir()):
            raise UserError(f"{out} is not empty: name a new folder, or remove what it holds")
    except OSError as error:
        raise UserError(f"{out} cannot be read ({error.strerror})") from None
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a new folder")
    return out


@contextlib.contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """An empty folder beside `out` to write into; it takes the place of `out` at the end.

    Where the block fails, nothing is left of it.

    Raises:
      UserError: `out` holds something, or cannot be written.
    """
    out = check_out(out)
    partial = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield partial
        mask = os.umask(0)
        os.umask(mask)
        for path in partial.iterdir():
            path.chmod(0o666 & ~mask)  # safetensors writes files that only their owner reads
        partial.chmod(0o777 & ~mask)  # and mkdtemp makes such a folder
        partial.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error})") from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
