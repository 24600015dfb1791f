"""Lines that were broken at a fixed width -> paragraphs, one a line. Knows no chapters.

A book is joined only where its lines show one width. A book whose paragraphs are lines, as nearly
every Chinese download, has lines of all lengths and is left untouched.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Sequence

MIN_LINES = 40  # a text with fewer is judged together with the other texts of the book
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_TERMINAL = "。！？…”’」』）.!?\"'）〕】》~～♪—"
_CLOSING = "。，、；：！？…”’」』）】〕》〉,.;:!?)]%·—"
_QUOTES = "“‘「『"
_OPENING = "“‘「『（【〔《〈([—…"
_HEADING_CJK = re.compile(
    r"(?:正文\s*)?(?:[第卷][〇○零一二三四五六七八九十百千两0-9０-９ ]{1,7}"
    r"[回章节節卷部集折出齣话話篇幕]?(?:\s|$|[^。！？，；”」]{0,60}$)|(?:楔子|序|序[言章]|引子|尾[声聲]|目[录錄]|后记|後記)$)"
)
_HEADING_LATIN = re.compile(
    r"(?i:chapter|book|part|volume|vol|letter|act|scene|canto|section|kapitel|teil|chapitre"
    r"|livre|capitolo|cap[ií]tulo|parte|глава|часть)\.?\s+(?:[ivxlcdm]+|\d+|[A-Z][\w-]*)\b[.:]?"
    r"(?=$|\s*[^a-z\s]|\s\s)"
)
_LIST = re.compile(r"(?:[-*•·]|\(?(?:\d{1,3}|[a-z]|[ivx]{1,5})[.)])\s")


@dataclasses.dataclass(frozen=True)
class Line:
    """A line that is not blank.

    Attributes:
      text: without white space around it.
      indent: in half-width columns.
      blank: how many blank lines stand before it.
      row: its place among all lines of the text.
    """

    text: str
    indent: int
    blank: int
    row: int


def join_wrapped(texts: Sequence[str]) -> tuple[list[str], int, list[str]]:
    """The texts with wrapped lines joined, how many line ends were removed, and what was done.

    A note says at which width lines were joined, and how many joins may be wrong because nothing
    but a short last line tells where a paragraph ends.
    """
    per_text = [_lines(text) for text in texts]
    small = [lines for lines in per_text if len(lines) < MIN_LINES]
    pooled = _layout([line for lines in small for line in lines], " ".join(texts))
    joined, total, doubtful, notes = [], 0, 0, []
    joins: collections.Counter[str] = collections.Counter()
    for text, lines in zip(texts, per_text, strict=True):
        layout = pooled if len(lines) < MIN_LINES else _layout(lines, text)
        if layout is not None:
            text, count, doubts = _join(text, lines, layout)
            doubtful += doubts
            joins[f"{layout.width - (layout.base // 2 if layout.cjk else layout.base)}"] += count
            total += count
        elif _unfinished(lines):
            notes.append("most lines end inside a sentence but at no one width; they were left")
        joined.append(text)
    notes += [
        f"note: lines of {width} characters were joined into paragraphs ({count:,} joins)"
        for width, count in joins.items()
        if count
    ]
    if doubtful:
        notes.append(f"{doubtful:,} of the joins follow the end of a sentence and may be wrong")
    return joined, total, notes


def _unfinished(lines: list[Line]) -> bool:
    """Whether the lines look broken all the same: prose in lines that are short and go on."""
    if len(lines) < MIN_LINES or sum(len(line.text) > 100 for line in lines) > 0.03 * len(lines):
        return False
    going_on = sum(
        a.text[-1] not in _CLOSING + _TERMINAL
        and len(a.text) > 20
        and (b.text[0].islower() or CJK.match(b.text) is not None)
        for a, b in itertools.pairwise(lines)
    )
    prose = sum("，" in line.text or ", " in line.text for line in lines)
    return going_on > 0.5 * len(lines) and prose > 0.4 * len(lines)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a text was wrapped.

    Attributes:
      cjk: lines break between any two characters; False: between words.
      width: of a full line, in characters (full-width ones for CJK), indentation included.
      base: indentation of a line that continues a paragraph, in half-width columns.
      blank: how many blank lines stand between two lines of one paragraph.
      narrow: full-width characters by which a first line is narrower, its indentation being lost.
      half: an ASCII character counts as half a character.
      spoken: paragraphs often begin with a quotation mark, sentences inside them rarely do.
      slack: Latin only: by how many characters a wrapped line may end too early.
      words: Latin only: the text, to look words up in.
    """

    cjk: bool
    width: float
    base: int
    blank: int
    narrow: int = 0
    half: bool = True
    spoken: bool = False
    slack: int = 0
    words: frozenset[str] = frozenset()


def _lines(text: str) -> list[Line]:
    lines, blank = [], 0
    for row, raw in enumerate(text.split("\n")):
        stripped = raw.strip()
        if not stripped:
            blank += 1
            continue
        lead = raw[: len(raw) - len(raw.lstrip())]
        indent = sum({"\u3000": 2, "\t": 4}.get(char, 1) for char in lead) if lead else 0
        lines.append(Line(stripped, indent, blank, row))
        blank = 0
    return lines


def _layout(lines: list[Line], text: str) -> Layout | None:
    """The layout of a wrapped text; None of any other."""
    if len(lines) < 20:
        return None
    sample = text[:: max(1, len(text) // 20_000)]
    wide, letters = len(CJK.findall(sample)), len(_LETTER.findall(sample))
    if wide * 2 > letters:
        return _layout_cjk(lines)
    return _layout_latin(lines, text)


def _spacing(lines: list[Line]) -> int:
    """How many blank lines stand between two lines of one paragraph: nearly always 0."""
    blank, count = collections.Counter(line.blank for line in lines[1:]).most_common(1)[0]
    return blank if count >= 0.7 * (len(lines) - 1) else 0


def _width(line: Line, half: bool) -> float:
    """Of the line with its indentation, in full-width characters."""
    width: float = len(line.text)
    if half:
        width -= len(line.text.encode("ascii", "ignore")) / 2
    return width + line.indent / 2


def _layout_cjk(lines: list[Line]) -> Layout | None:
    best: tuple[int, int, bool] = (0, 0, True)
    for half in (True, False):
        counts = collections.Counter(int(_width(line, half)) for line in lines)
        # A quick no: a book of paragraphs has many lines longer than any page is wide.
        if sum(n for width, n in counts.items() if width > 100) > 0.03 * len(lines):
            return None
        for width in range(16, 100):
            best = max(best, (sum(counts[width + i] for i in (-1, 0, 1)), width, half))
    most, width, half = best
    if most < 15:
        return None
    widths = [_width(line, half) for line in lines]
    counts = collections.Counter(map(int, widths))
    width = max(range(width - 1, width + 2), key=lambda w: counts[w])
    # First lines that lost their indentation may outnumber the full lines.
    width = max(w for w in (width, width + 2) if counts[w] >= 0.3 * counts[width])
    full = [line for line, w in zip(lines, widths, strict=True) if width - 1 <= w < width + 3]
    longer = sum(w >= width + 3 for w in widths)
    near = sum(counts[width - i] for i in range(4, 12)) / 8
    ended = sum(line.text[-1] in _CLOSING for line in full)
    prose = sum("，" in line.text or "。" in line.text or "、" in line.text for line in full)
    # In verse the first comma stands at one place.
    commas = collections.Counter(line.text.find("，") for line in full if "，" in line.text)
    verse = max(commas.values(), default=0) > 0.4 * len(full)
    if (
        len(full) < max(15, 0.15 * len(lines))
        or longer > 0.03 * len(lines)
        or counts[width] < 3 * near
        or ended > 0.5 * len(full)
        or verse
        or prose < 0.5 * len(full)  # a list or a table of contents
    ):
        return None
    after = [
        b.indent
        for a, b, w in zip(lines, lines[1:], widths, strict=False)
        if abs(w - width) < 2 and a.text[-1] not in _CLOSING  # the sentence goes on
    ]
    base = collections.Counter(after).most_common(1)[0][0] if after else 0
    # Where every line has the same indentation, a first line may be two characters narrower.
    firsts: collections.Counter[int] = collections.Counter()
    for before, w in itertools.pairwise(widths):
        if before < width - 4:
            firsts[int(w)] += 1
    narrow = 2 if firsts[width - 2] > 2 * firsts[width] + 2 else 0
    begins = [
        b.text[0] in _QUOTES for b, w in zip(lines[1:], widths, strict=False) if w < width - 4
    ]
    inside = re.findall(r"[。！？][”’」』]?(?=(.))", "\n".join(line.text for line in lines[:3000]))
    speech = sum(begins) / max(1, len(begins))
    speech_inside = sum(char in _QUOTES for char in inside) / max(1, len(inside))
    spoken = speech > 0.25 and speech > 4 * speech_inside
    return Layout(True, width, base, _spacing(lines), narrow, half, spoken)


def _layout_latin(lines: list[Line], text: str) -> Layout | None:
    lengths = sorted(len(line.text) + line.indent for line in lines)
    width = lengths[int(0.995 * (len(lengths) - 1))]
    if not 35 <= width <= 110:
        return None
    base = collections.Counter(line.indent for line in lines).most_common(1)[0][0]
    blank = _spacing(lines)
    pairs = [(a, b) for a, b in itertools.pairwise(lines) if b.blank == blank and b.indent == base]
    sure = [(a, b) for a, b in pairs if b.text[0].islower() and a.text[-1] not in ".!?:"]
    if len(sure) < max(8, 0.3 * len(pairs)):
        return None
    # By how much the lines of prose miss the width: none where a program wrapped them.
    missed = sorted(width - _reach(a, b) for a, b in sure)
    slack = max(0, missed[int(0.97 * (len(missed) - 1))] + 1)
    if slack > 0.3 * width:
        return None
    words: frozenset[str] = frozenset()
    if any(line.text[-1] == "-" for line in lines):
        words = frozenset(re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text.lower()))
    return Layout(False, width, base, blank, slack=slack, words=words)


def _reach(a: Line, b: Line) -> int:
    """How long line a would be with the first word of line b."""
    space = not a.text.endswith(("-", "—"))
    return a.indent + len(a.text) + space + len(b.text.split(None, 1)[0])


def _join(text: str, lines: list[Line], layout: Layout) -> tuple[str, int, int]:
    """The text with its lines joined, how many were, and how many of these are in doubt.

    Indentation of a paragraph's first line and blank lines between paragraphs stay.
    """
    rows = text.split("\n")
    marks = sum(line.indent > layout.base + 1 or line.blank > layout.blank for line in lines)
    marked = marks > 0.03 * len(lines)
    verse, prose = (set(), set()) if layout.cjk else _blocks(lines, layout)
    out: list[str] = []
    done, count, doubts, first = 0, 0, 0, True
    for i, line in enumerate(lines):
        joins = (
            i > 0
            and i not in verse
            and (
                _continues_cjk(lines, i, layout, first)
                if layout.cjk
                else _continues_latin(lines[i - 1], line, layout, i in prose)
            )
        )
        first = not joins
        if joins:
            doubts += not marked and lines[i - 1].text[-1] in _TERMINAL
            out[-1] = _glue(out[-1].rstrip(), line.text, layout)
            count += 1
        else:
            out += rows[done : line.row + 1]
        done = line.row + 1
    out += rows[done:]
    return "\n".join(out), count, doubts


def _continues_cjk(lines: list[Line], i: int, layout: Layout, first: bool) -> bool:
    """Whether line i continues the paragraph of the line before it.

    first: the line before is the first line of its paragraph.
    """
    a, b = lines[i - 1], lines[i]
    if b.blank != layout.blank or b.indent > layout.base + 1 or b.indent < layout.base - 1:
        return False
    if _is_heading(a, layout) or _is_heading(b, layout):
        return False
    width = _width(a, layout.half)
    room = layout.width - width - (layout.narrow if first else 0)
    end = a.text[-1]
    if room <= -3 or room > 4:
        return False
    if end not in _CLOSING:  # the sentence goes on
        return True
    if end in "，、,":
        return room <= 2
    # A full line: the next character did not fit, or may not stand at the line's end or beginning.
    pushed = 0
    if b.text[0] in _OPENING or b.text[0].isascii():
        pushed = 1
    for char in b.text[1:3]:
        if char not in _CLOSING:
            break
        pushed += 1
    if room > pushed:
        return False
    if layout.spoken and end in _TERMINAL and b.text[0] in _QUOTES:
        return False
    if layout.narrow and end in _TERMINAL:
        # A line as long as a first line, and not the last of its paragraph, begins a paragraph.
        here = layout.width - _width(b, layout.half) - layout.narrow
        hangs = -1 <= here < 0 and b.text[-1] in _CLOSING
        return not ((0 <= here < 1 or hangs) and b.text[-1] not in _TERMINAL)
    return True


def _is_heading(line: Line, layout: Layout) -> bool:
    if layout.cjk:
        heading = _HEADING_CJK.match(line.text)
        short = _width(line, layout.half) < layout.width - 1
        return heading is not None and (short or heading[0][-1].isspace())
    if line.text.isupper() and len(_LETTER.findall(line.text)) > 1:
        return len(line.text) < 0.8 * layout.width
    return _HEADING_LATIN.match(line.text) is not None


def _continues_latin(a: Line, b: Line, layout: Layout, prose: bool = False) -> bool:
    """Whether line b continues line a: its first word did not fit at a's end.

    prose: most lines of the block continue; the others may end earlier.
    """
    if (
        b.blank != layout.blank
        or b.indent != layout.base
        or a.indent not in range(layout.base, layout.base + 9)
    ):
        return False
    least = layout.width - layout.slack
    if prose and b.text[0].islower():
        least = min(least, int(layout.width * 0.6))
    elif prose and layout.slack > 1:
        least = min(least, int(layout.width * 0.8))
    if len(a.text) + a.indent > layout.width + 3 or _reach(a, b) <= least:
        return False
    if not _LETTER.search(a.text) or not _LETTER.search(b.text):
        return False
    if _LIST.match(b.text) and a.text[-1] in ".!?:;":
        return False
    # A line that goes on cannot be followed by a heading, only by a word in capitals.
    return not (_is_heading(a, layout) or (a.text[-1] in _TERMINAL and _is_heading(b, layout)))


def _blocks(lines: list[Line], layout: Layout) -> tuple[set[int], set[int]]:
    """Lines of blocks of verse, and lines of blocks most of whose lines continue.

    Verse is four lines or more that all begin with a capital and end early.
    """
    verse: set[int] = set()
    prose: set[int] = set()
    block: list[int] = []
    for i in range(len(lines) + 1):
        if i < len(lines) and (not block or lines[i].blank == layout.blank):
            block.append(i)
            continue
        texts = [lines[j].text for j in block]
        early = sum(map(len, texts[:-1])) < 0.85 * layout.width * (len(texts) - 1)
        capitals = all(t.lstrip("“”‘\"'_(—-[`").lstrip()[:1].isupper() for t in texts)
        if len(texts) > 3 and early and capitals:
            verse.update(block)
        elif len(texts) > 2:
            pairs = [_continues_latin(lines[j - 1], lines[j], layout) for j in block[1:]]
            if sum(pairs) >= max(2, 0.6 * len(pairs)):
                prose.update(block)
        block = [i]
    return verse, prose


def _glue(a: str, b: str, layout: Layout) -> str:
    """Two lines as one: with a space between words; a hyphen stays unless the word is known."""
    if layout.cjk:
        latin = a[-1].isascii() and a[-1].isalnum() and b[0].isascii() and b[0].isalnum()
        return a + " " * latin + b
    if a.endswith(("--", "—")) or b.startswith(("--", "—")):
        return a + b
    left = re.search(r"([^\W\d_]+)-$", a[-40:]) if a[-1] == "-" else None
    right = re.match(r"[^\W\d_]+", b)
    if left and right:
        whole = (left[1] + right[0]).lower()
        hyphenated = f"{left[1]}-{right[0]}".lower()
        known = whole in layout.words and hyphenated not in layout.words
        return (a[:-1] if known else a) + b
    return f"{a} {b}"
