"""Every occurrence of words with its context, and how evenly words are spread. Needs no model."""

import dataclasses
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hlm_jax.analysis.stylometry import figures
from hlm_jax.analysis.tables import write_csv
from hlm_jax.book.chapters import Chapter
from hlm_jax.errors import UserError

SORTS = ("place", "left", "right")
PER = 10_000  # characters
LINE_END = "⏎"  # shown for a line end, narrow on every terminal
_LEVELS = " ▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class Hit:
    """One occurrence.

    Attributes:
      chapter: its number.
      offset: of its first character in the chapter's text, heading included.
      left, right: up to `width` characters of the same chapter on either side.
    """

    chapter: int
    offset: int
    left: str
    match: str
    right: str


def kwic(
    chapters: Sequence[Chapter],
    words: str | Sequence[str],
    *,
    width: int = 15,
    sort: str = "place",
    regex: bool = False,
) -> list[Hit]:
    """Every occurrence of a word, or of several, in the text of chapters.

    Occurrences do not overlap; where two words begin at one place, the longer one is found.

    Args:
      width: characters of context on each side.
      sort: "place"; "right" by the characters to the right; "left" by those to the left, the
        nearest first. Characters go by their code points, equal contexts by place.
      regex: words are Python's regular expressions; . stops at the end of a line.

    Raises:
      UserError: no word, an empty one, an unknown sort, or an expression that cannot be read or
        matches the empty text.
    """
    if sort not in SORTS:
        raise UserError(f"there is no sort {sort!r}: use {', '.join(SORTS)}")
    if width < 0:
        raise UserError("the width of the context is at least 0")
    pattern = _pattern([words] if isinstance(words, str) else words, regex)
    hits = [
        Hit(
            chapter.number,
            match.start(),
            chapter.text[max(0, match.start() - width) : match.start()],
            match[0],
            chapter.text[match.end() : match.end() + width],
        )
        for chapter in chapters
        for match in pattern.finditer(chapter.text)
        if match[0]
    ]
    if sort == "left":
        hits.sort(key=lambda hit: hit.left[::-1])
    elif sort == "right":
        hits.sort(key=lambda hit: hit.right)
    return hits


def _pattern(words: Sequence[str], regex: bool) -> re.Pattern[str]:
    if not words or not all(words):
        raise UserError("give a word to look for")
    if not regex:
        return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
    for word in words:
        try:
            alone = re.compile(word)
        except re.error as error:
            raise UserError(f"{word!r} is no regular expression: {error}") from None
        if alone.fullmatch(""):
            raise UserError(f"{word!r} matches the empty text: make it match a character")
    try:
        return re.compile("|".join(f"(?:{word})" for word in words))
    except re.error as error:  # such as the same group in two words
        raise UserError(f"these expressions do not go together: {error}") from None


def variants(chapters: Sequence[Chapter], word: str) -> dict[str, int]:
    """The word in the other script where the book has it: {simplified or traditional: hits}."""
    import opencc

    texts = [chapter.text for chapter in chapters]
    found = {}
    for way in ("t2s", "s2t"):
        other = opencc.OpenCC(way).convert(word)
        if other != word and (count := sum(text.count(other) for text in texts)):
            found[other] = count
    return found


# --- dispersion ---


@dataclasses.dataclass(frozen=True)
class Dispersion:
    """How a word is spread over chapters.

    Attributes:
      counts: in each chapter, int [chapters].
      rates: per 10,000 characters of each chapter, [chapters].
      total: occurrences.
      rate: per 10,000 characters of all.
      dp: Gries' deviation of proportions, from 0 (as the lengths of the chapters) to nearly 1 (all
        in the shortest one); None without occurrences.
      dp_norm: dp divided by its maximum, 0 to 1; None without occurrences or with one chapter.
      d: Juilland's D, 1 for equal rates, 0 where all stand in one of equal chapters; None without
        occurrences or with one chapter.
    """

    counts: np.ndarray
    rates: np.ndarray
    total: int
    rate: float
    dp: float | None
    dp_norm: float | None
    d: float | None


def dispersion(counts: ArrayLike, lengths: ArrayLike) -> Dispersion:
    """Measures of the spread of a word over chapters.

    With v_i a chapter's share of the occurrences, s_i its share of the characters, r_i its rate and
    n chapters:

        DP = 1/2 Σ |v_i - s_i|                      Gries 2008, IJCL 13(4)
        DPnorm = DP / (1 - min s_i)                 Lijffijt & Gries 2012, IJCL 17(1)
        D = 1 - (σ(r) / mean(r)) / √(n - 1)         Juilland & Chang-Rodríguez 1964; σ divides by n

    Args:
      counts, lengths: occurrences and characters of each chapter, [chapters]; every length is above
        0.
    """
    counted, chars = np.asarray(counts, np.int64), np.asarray(lengths, np.float64)
    rates = PER * counted / chars
    total = int(counted.sum())
    dp = dp_norm = d = None
    if total:
        share = chars / chars.sum()
        dp = float(np.abs(counted / total - share).sum() / 2)
        if len(chars) > 1:
            dp_norm = dp / float(1 - share.min())
            d = float(1 - rates.std() / rates.mean() / math.sqrt(len(chars) - 1))
    rate = float(PER * total / chars.sum()) if len(chars) else 0.0
    return Dispersion(counted, rates, total, rate, dp, dp_norm, d)


def dispersion_of(chapters: Sequence[Chapter], hits: Sequence[Hit]) -> Dispersion:
    """The spread of hits over the chapters that they were looked for in."""
    place = {chapter.number: i for i, chapter in enumerate(chapters)}
    counts = np.bincount([place[hit.chapter] for hit in hits], minlength=len(chapters))
    return dispersion(counts, [len(chapter.text) for chapter in chapters])


def places(chapters: Sequence[Chapter], hits: Sequence[Hit]) -> list[int]:
    """Where hits stand in characters from the beginning of the first chapter, in order."""
    starts = dict(
        zip((c.number for c in chapters), borders(chapters), strict=False)  # the end is no start
    )
    return sorted(starts[hit.chapter] + hit.offset for hit in hits)


def borders(chapters: Sequence[Chapter]) -> list[int]:
    """The chapters' beginnings and the end of the last, in characters, [chapters + 1]."""
    return [0, *np.cumsum([len(chapter.text) for chapter in chapters]).tolist()]


# --- files ---


def write_hits(path: str | Path, hits: Sequence[Hit]) -> Path:
    """Writes hits as CSV: chapter, offset, left, match, right; a line end is written as \\n.

    Raises:
      UserError: the file cannot be written.
    """
    head = [field.name for field in dataclasses.fields(Hit)]
    return write_csv(path, head, map(dataclasses.astuple, hits))


def draw(
    path: str | Path, chapters: Sequence[Chapter], found: Mapping[str, Sequence[Hit]], title: str
) -> Path:
    """Writes a PNG of where words stand: a stroke for every hit, and each chapter's rate.

    Raises:
      UserError: the file cannot be written.
    """
    picture = figures.dispersion(
        {word: places(chapters, hits) for word, hits in found.items()},
        {word: dispersion_of(chapters, hits).rates.tolist() for word, hits in found.items()},
        borders(chapters),
        [chapter.number for chapter in chapters],
        title=title,
    )
    return figures.save(picture, path)


# --- text for a terminal ---


def columns(text: str) -> int:
    """Columns that a text takes on a terminal: full-width characters two, marks above letters none.

    Characters of ambiguous width, such as “ and …, take one, as on most terminals.
    """
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def lines(hits: Sequence[Hit], numbers: int = 3) -> list[str]:
    """Hits one under another, the matches in one column: chapter:offset, left, match, right."""
    shown = [
        [part.replace("\n", LINE_END) for part in (hit.left, hit.match, hit.right)] for hit in hits
    ]
    before = max((columns(left) for left, _, _ in shown), default=0)
    middle = max((columns(match) for _, match, _ in shown), default=0)
    where = [f"{hit.chapter:{numbers}d}:{hit.offset:<6d}" for hit in hits]
    return [
        f"{place} {' ' * (before - columns(left))}{left} [{match}]"
        f"{' ' * (middle - columns(match))} {right}"
        for place, (left, match, right) in zip(where, shown, strict=True)
    ]


def bar(chapters: Sequence[Chapter], hits: Sequence[Hit], width: int = 80) -> tuple[str, str]:
    """(hits along the book as blocks, the full one for the most; numbers of chapters below)."""
    edges = borders(chapters)
    at = [min(width - 1, width * place // edges[-1]) for place in places(chapters, hits)]
    counts = np.bincount(at, minlength=width)
    top = max(1, int(counts.max()))
    blocks = "".join(_LEVELS[math.ceil(8 * n / top)] for n in counts)
    ruler = [" "] * width
    free = 0
    for chapter, edge in zip(chapters, edges, strict=False):
        cell, label = width * edge // edges[-1], str(chapter.number)
        first_or_ten = chapter is chapters[0] or chapter.number % 10 == 0
        if first_or_ten and cell >= free and cell + len(label) <= width:
            ruler[cell : cell + len(label)] = label
            free = cell + len(label) + 1
    return blocks, "".join(ruler).rstrip()


def summary(
    chapters: Sequence[Chapter], found: Mapping[str, Sequence[Hit]], *, per_chapter: bool = False
) -> list[str]:
    """What a terminal shows of words: counts, measures of dispersion, a bar of the book.

    Args:
      found: {word: its hits}.
      per_chapter: also a line for every chapter: number, count, rate, heading.
    """
    out = []
    for word, hits in found.items():
        spread = dispersion_of(chapters, hits)
        if not hits:
            there = " ".join(f"{other} ({n:,})" for other, n in variants(chapters, word).items())
            out.append(f"{word}: 0 in {_chapters(len(chapters))}{there and f'; it has {there}'}")
            continue
        inside = int((spread.counts > 0).sum())
        out.append(
            f"{word}: {spread.total:,} in {inside} of {_chapters(len(chapters))}, "
            f"{spread.rate:.2f} per 10,000 characters; chapters {spread.rates.mean():.1f} ± "
            f"{spread.rates.std():.1f}; DP {spread.dp:.3f}{_measures(spread)}"
        )
        out += bar(chapters, hits)
        if per_chapter:
            out += [
                f"{chapter.number:4d} {count:5d} {rate:7.2f}  {chapter.heading}"
                for chapter, count, rate in zip(chapters, spread.counts, spread.rates, strict=True)
            ]
    return out


def _measures(spread: Dispersion) -> str:
    if spread.d is None:
        return ""
    return f" (normed {spread.dp_norm:.3f}), Juilland's D {spread.d:.3f}"


def _chapters(count: int) -> str:
    return "1 chapter" if count == 1 else f"{count} chapters"
