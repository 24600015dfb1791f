"""What reading a book found, for people and for programs. Formats; decides nothing."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from hlm_jax.book.chapters import Chapter
from hlm_jax.book.corpus import Corpus
from hlm_jax.book.headings import label
from hlm_jax.book.splits import describe_split

Splits = Mapping[str, Sequence[Chapter]]
SHOWN = 40  # characters of a chapter's beginning
PARAGRAPHS = 3
TELLING = 80  # characters of a paragraph that shows how the text was cleaned


def summary(report: Mapping[str, Any], splits: Splits) -> str:
    """A corpus report as a few lines: sizes, cleaning, what was left out or looks wrong."""
    encoding = report["source"].get("encoding")
    lines = [
        f"corpus {report['name']}: {report['characters']:,} characters "
        f"({report['distinct_characters']:,} distinct) in {report['chapters']} chapters of "
        f"{report['shortest_chapter']:,} to {report['longest_chapter']:,}, cut by "
        f"{report['cut_by']}" + (f"; read as {encoding}" if encoding else "")
    ]
    if counts := [f"{rule} {n}" for rule, n in report["cleaning"].items() if n]:
        lines.append(f"  cleaning: {', '.join(counts)}")
    lines += [f"  left out: {_dropped(part)}" for part in report["dropped"]]
    lines.append(f"  {describe_split(splits, report['chapters'])}")
    lines += [
        f"  {line}" if line.startswith("note: ") else f"  warning: {line}"
        for line in report["warnings"]
    ]
    return "\n".join(lines)


def full(
    book: Corpus, splits: Splits, tokens_per_character: float | None, advice: Sequence[str] = ()
) -> str:
    """Everything that reading the book found: its summary, chapters and three paragraphs."""
    lines = [summary(book.report, splits), ""]
    split_of = _split_of(splits)
    lines += [
        f"{chapter.number:5d}  {split_of.get(chapter.number, '-'):5s} {len(chapter.text):8,}  "
        f"{label(chapter.heading, 60) or label(chapter.text, 30)}"
        for chapter in book.chapters
    ]
    if tokens_per_character is not None:
        lines += [
            "",
            f"tokens per character: {tokens_per_character:.3f} "
            "(how many tokens the model reads for one character)",
        ]
    paragraphs = [
        (chapter.number, line)
        for chapter in book.chapters
        for line in chapter.body.splitlines()
        if len(line) >= 20
    ]
    long = [paragraph for paragraph in paragraphs if len(paragraph[1]) >= TELLING]
    paragraphs = long if len(long) >= PARAGRAPHS else paragraphs
    shown = random.Random(0).sample(paragraphs, min(PARAGRAPHS, len(paragraphs)))
    for number, line in sorted(shown):
        lines += ["", f"chapter {number}: {label(line, 300)}"]
    return "\n".join([*lines, "", *advice])


def as_json(
    book: Corpus,
    splits: Splits,
    tokens_per_character: float | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The same as one JSON-able object."""
    split_of = _split_of(splits)
    report = book.report
    chapters = [
        {
            "number": chapter.number,
            "heading": chapter.heading,
            "chars": len(chapter.text),
            "split": split_of.get(chapter.number, ""),
            "first": chapter.body[:SHOWN].replace("\n", " ").strip(),
        }
        for chapter in book.chapters
    ]
    return {
        "name": report["name"],
        "source": report["source"],
        "encoding": report["source"].get("encoding", ""),
        "characters": report["characters"],
        "cut_by": report["cut_by"],
        "chapters": chapters,
        "dropped": report["dropped"],
        "cleaning": report["cleaning"],
        "warnings": report["warnings"],
        "tokens_per_character": tokens_per_character,
        "settings": dict(settings),
        "sha256": report["sha256"],
    }


def _split_of(splits: Splits) -> dict[int, str]:
    """The split of every chapter by its number."""
    return {chapter.number: name for name, chapters in splits.items() for chapter in chapters}


def _dropped(part: Mapping[str, Any]) -> str:
    return f"{part['what']}, {part['chars']:,} characters ({part['first']!r})"
