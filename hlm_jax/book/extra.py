"""Further texts beside the book: read and cleaned like it, trained on and never scored."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hlm_jax.book.corpus import EDITION, Corpus, load_corpus
from hlm_jax.book.errors import CorpusError
from hlm_jax.errors import UserError

# A chapter that a further text lacks, perhaps left out on purpose: in the report, not worth a line.
_LACKING = re.compile(r"^gap: |: no file has number ")


def load_extra(
    paths: Sequence[str], *, convert: str, drop_brackets: str, parts: int
) -> list[Corpus]:
    """Reads and cleans further texts, each like a book. A short one is fine: it is not split.

    Args:
      paths: files or folders, as load_corpus reads them.
      convert, drop_brackets, parts: as load_corpus.

    Returns:
      One Corpus for each path, in their order.

    Raises:
      CorpusError: a text that is missing, empty or undecodable, or that is given twice.
    """
    places: dict[Path, str] = {}
    names: dict[str, str] = {}
    books = []
    for path in paths:
        if not path:
            raise CorpusError("corpus.extra: an empty path: name a file or a folder")
        place = Path(os.path.expanduser(path)).resolve()
        if place in places:
            raise CorpusError(f"corpus.extra names {path} twice: give every text once")
        places[place] = path
        book = _load(path, convert, drop_brackets, parts)
        digest = book.report["sha256"]
        if digest in names:
            raise CorpusError(
                f"corpus.extra: {names[digest]} and {path} are the same text: give one of them"
            )
        names[digest] = path
        books.append(book)
    return books


def _load(path: str, convert: str, drop_brackets: str, parts: int) -> Corpus:
    try:
        book = load_corpus(
            path=path,
            edition=EDITION,
            cache_dir="",  # read only where no path is given
            convert=convert,
            parts=parts,
            drop_brackets=drop_brackets,
            write_cache=False,
            strict=False,
        )
    except UserError as error:
        raise CorpusError(f"corpus.extra: {error}") from error
    if not book.chapters:
        raise CorpusError(f"corpus.extra: {path}: {book.problem}")
    # What concerns only a book of which chapters are held out.
    kept = [
        line
        for line in book.report["warnings"]
        if line != book.problem and "are held out" not in line
    ]
    # The edition's own text states no path.
    source = {"path": str(Path(os.path.expanduser(path)).resolve())} | book.report["source"]
    report = book.report | {"source": source, "warnings": kept}
    return dataclasses.replace(book, report=report, problem="")


def extra_report(books: Sequence[Corpus]) -> list[dict[str, Any]]:
    """What a run records of its further texts: a JSON-able row for each, with its full path."""
    return [
        {
            "name": book.name,
            "path": book.report["source"]["path"],
            "sha256": book.report["sha256"],
            "chapters": book.report["chapters"],
            "characters": book.report["characters"],
            "warnings": list(book.report["warnings"]),
        }
        for book in books
    ]


def extra_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of all further texts that a run has read, from its corpus report.

    `former_extra` are those that it reads no more, or that the model read from which it started.
    """
    return [*report.get("extra", ()), *report.get("former_extra", ())]


def load_again(
    rows: Sequence[Mapping[str, Any]], *, convert: str, drop_brackets: str, parts: int
) -> list[Corpus]:
    """The further texts of these rows of extra_report.

    Raises:
      CorpusError: one of them cannot be read, or is another text now.
    """
    texts = load_extra(
        [row["path"] for row in rows], convert=convert, drop_brackets=drop_brackets, parts=parts
    )
    for row, text in zip(rows, texts, strict=True):
        if text.report["sha256"] != row["sha256"]:
            raise CorpusError(
                f"corpus.extra: {row['path']} is not the text that was trained on (sha256 "
                f"{text.report['sha256'][:12]}): put that text in its place"
            )
    return texts


def describe_extra(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for the terminal of the rows of extra_report; a second one where texts look wrong.

    Empty without further texts.
    """
    if not rows:
        return ""
    chapters, characters = (sum(row[name] for row in rows) for name in ("chapters", "characters"))
    lines = [
        f"further texts: {len(rows)}, {characters:,} characters in {chapters:,} "
        f"chapter{'s' if chapters > 1 else ''}, trained on at first and never scored"
    ]
    doubtful = [
        (row["name"], line)
        for row in rows
        for line in row["warnings"]
        if not line.startswith("note: ") and not _LACKING.search(line)
    ]
    if doubtful:
        name, line = doubtful[0]
        more = f" ({len(doubtful) - 1} more in corpus.json)" if len(doubtful) > 1 else ""
        lines.append(f"  warning: {name}: {line.removeprefix(f'{name}: ')}{more}")
    return "\n".join(lines)
