"""Chapters taken exactly as they are, from a JSON file that this module wrote.

For texts that a program made, such as a book without its names: no rule may change them again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from hlm_jax.book.chapters import Chapter
from hlm_jax.book.errors import CorpusError

SUFFIX, _KEY = ".chapters.json", "chapters"


def write_given(chapters: Iterable[Chapter], path: str | Path) -> Path:
    """Writes chapters to a file that load_corpus reads as a book; its path, ending in SUFFIX.

    Raises:
      CorpusError: it cannot be written.
    """
    path = Path(os.path.expanduser(path))
    path = path if path.name.endswith(SUFFIX) else path.with_name(path.name + SUFFIX)
    partial = path.with_name(path.name + ".partial")
    rows = [[chapter.number, chapter.heading, chapter.text] for chapter in chapters]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({_KEY: rows}, ensure_ascii=False), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def read_given(path: str | Path) -> tuple[Chapter, ...]:
    """The chapters of a file of write_given.

    Raises:
      CorpusError: it cannot be read, has no chapters or a number twice, or an empty text.
    """
    try:
        rows = json.loads(Path(os.path.expanduser(path)).read_text(encoding="utf-8"))[_KEY]
        chapters = tuple(Chapter(int(n), str(heading), str(text)) for n, heading, text in rows)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError):
        raise CorpusError(f"{path}: no chapters as hlm_jax writes them") from None
    if len({chapter.number for chapter in chapters}) < len(chapters) or not chapters:
        raise CorpusError(f"{path}: no chapters, or two of one number")
    if empty := [chapter.number for chapter in chapters if not chapter.text.strip()]:
        raise CorpusError(f"{path}: chapter {empty[0]} has no text")
    return chapters
