"""Clean text -> chapters: cut at headings and at the borders of files, else into equal parts.

What is no chapter, such as a table of contents or a preface, is left out and named.
"""

import dataclasses
import itertools
import re
import statistics
from collections.abc import Sequence

from hlm_jax.book import outline
from hlm_jax.book.dropped import Dropped
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.files import TextFile
from hlm_jax.book.folder import LETTERED, without_suffix
from hlm_jax.book.forms import UNIT
from hlm_jax.book.front import front_of
from hlm_jax.book.headings import SENTENCE_END, heading_of, label, number_in
from hlm_jax.book.outline import Outline, Start

FEW = 10  # a book with fewer chapters is split by their lengths, not by counting to ten
KEPT_FRONT = 0.2  # of the text: so much before the first of too few chapters is no preface
FEWEST = 3  # chapters; a book with fewer is cut into equal parts
LARGEST = 0.2  # of the text: where every one of few chapters is larger, parts are held out instead
BOOK = 5  # chapters from 1 on that make a file of a folder a book of its own
MOST_LISTED = 0.05  # of the text: more in tables of contents means that a pattern matches too much
_LEAD = 400  # characters above the first heading of a file that belong to that chapter

# Titles of an EPUB's pages about the book.
_ABOUT = re.compile(
    r"(?:about the (?:author|publisher)|also by\b.*|acknowledge?ments?|copyright\b.*|notes|endnotes"
    r"|index|bibliography|作者[简簡]介|版[权權].{0,4}|致[谢謝]|注[释釋]|尾注|[参參]考文[献獻]|索引)\s*$",
    re.I,
)


@dataclasses.dataclass(frozen=True)
class Chapter:
    """One chapter.

    Attributes:
      number: from 1; 0 for a prologue before the first chapter.
      heading: its heading or its file's name; empty where the book has neither.
      text: the chapter's text, with the heading line if it has one. A long line holds the heading
        and text after it.
    """

    number: int
    heading: str
    text: str

    @property
    def body(self) -> str:
        """The text below the heading, or after it in its line."""
        line, _, rest = self.text.partition("\n")
        if not self.heading or heading_of(line) != self.heading:
            return self.text
        below = line.strip()[len(self.heading) :].lstrip("。！？； \t\u3000")
        return f"{below}\n{rest}" if below else rest


@dataclasses.dataclass(frozen=True)
class Cut:
    """A book's chapters and how they came about.

    Attributes:
      cut_by: "headings", "files" or "equal parts".
      counts: how often a rule applied.
      dropped: what was left out.
      warnings: one line each.
      problem: why the book cannot be trained on; empty where it can.
    """

    chapters: tuple[Chapter, ...]
    cut_by: str
    counts: dict[str, int]
    dropped: tuple[Dropped, ...]
    warnings: tuple[str, ...]
    problem: str = ""


def cut_book(files: Sequence[TextFile], *, heading: str, parts: int, is_epub: bool = False) -> Cut:
    """The chapters of a book.

    Args:
      files: clean texts in reading order, each ending with a newline.
      heading: a pattern of the user's own for heading lines; empty to detect them.
      parts: into how many parts a book without chapters is cut.
      is_epub: files are pages of an EPUB; a short page without a heading is no chapter.

    Raises:
      CorpusError: no line matches `heading`.
    """
    text = "".join(file.text for file in files)
    borders = list(itertools.accumulate((len(file.text) for file in files), initial=0))
    if heading:
        found = outline.outline_by(re.compile(heading), text, _own_numbers(files, borders))
        if not found.starts:
            raise CorpusError(
                f"corpus.heading={heading!r}: every line that it matches looks like one of a table "
                "of contents; it matches too much"
                if found.contents
                else f"no line matches corpus.heading={heading!r}: leave it empty, or give a "
                "pattern that matches the heading lines"
            )
    else:
        found = _outlined(text, files, borders, is_epub)
    starts, pages = _at_files(text, files, borders, found, is_epub)
    places = _without(found, pages)
    counts = {"repeated_headings": len(found.repeated)}
    dropped = [Dropped.of("table of contents", text[slice(*p)]) for p in found.contents]
    dropped += [
        Dropped.of("summaries or notes under chapter numbers", text[slice(*p)]) for p in found.apart
    ]
    dropped += [Dropped.of("page without a chapter", text[slice(*p)]) for p in pages]
    warnings = list(found.warnings)
    listed = sum(end - begin for begin, end in found.contents)
    if heading and listed > MOST_LISTED * len(text):
        warnings.append(
            f"corpus.heading={heading!r}: {listed / len(text):.0%} of the text is left out as a "
            "table of contents; the pattern may match too much"
        )
    if found.sentences:
        warnings.append(
            f"note: {_lines(len(found.sentences))} like a heading and "
            f"{'stay' if len(found.sentences) > 1 else 'stays'} in the text "
            f"(first: {found.sentences[0]!r})"
        )
    ends = [*(start.at for start in starts[1:]), len(text)][: len(starts)]
    spans = [
        (start, _kept(text, start.at, end, places)) for start, end in zip(starts, ends, strict=True)
    ]
    bare = [start for start, body in spans if _is_bare(start, body)]
    if bare:
        warnings.append(_no_text(bare))
    spans = [_without_marks(*span, counts) for span in spans if not _is_bare(*span)]
    first = spans[0][0].at if spans else len(text)
    front = _kept(text, 0, first, places)
    chapters: list[Chapter] = []
    bodies = [(start.heading, body) for start, body in spans]
    if spans:
        told: list[str] = []
        prologue, lost = front_of(front, spans, told)
        chapters = _numbered([_without_marks(*span, counts) for span in prologue] + spans)
        bodies = [(chapter.heading, chapter.text) for chapter in chapters]
        if _too_few(chapters) and sum(part.chars for part in lost) > KEPT_FRONT * len(text):
            bodies = [("", front), *((start.heading, body) for start, body in spans)]
            lost, told = [], []
        dropped += lost
        warnings += told
    cut_by = "files" if len(files) > 1 and not found.starts else "headings"
    problem = ""
    if _too_few(chapters):
        warnings.append(_few_chapters(chapters, heading))
        (chapters, problem), cut_by = _equal_parts(bodies or [("", front)], parts), "equal parts"
    elif len(chapters) < FEW:
        warnings.append(
            f"note: only {len(chapters)} chapters: whole ones are held out by their length"
        )
    counts = {rule: count for rule, count in counts.items() if count}
    return Cut(tuple(chapters), cut_by, counts, tuple(dropped), tuple(warnings), problem)


def _outlined(text: str, files: Sequence[TextFile], borders: list[int], is_epub: bool) -> Outline:
    """The outline of all files; of each alone where they are books of several units."""
    if len(files) < 2 or is_epub:
        return outline.outline(text, borders[1:-1])
    together = outline.outline(text, borders[1:-1], _own_numbers(files, borders))
    alone = [outline.outline(file.text) for file in files]
    books = [len(one.starts) >= BOOK and one.starts[0].number == 1 for one in alone]
    if all(books) and len({one.unit for one in alone}) > 1:
        return outline.joined(alone, borders, [file.name for file in files])
    missed = [
        f"{file.name}: {len(one.starts)} headings with {one.unit} are no chapters, because the "
        f"other files have {together.unit or 'none'}; read this file alone, or give corpus.heading"
        for file, one, book, begin, end in zip(
            files, alone, books, borders, borders[1:], strict=False
        )
        if book and one.unit not in (UNIT, together.unit)
        if not any(begin <= start.at < end for start in together.starts)
    ]
    return dataclasses.replace(together, warnings=(*together.warnings, *missed))


def _own_numbers(files: Sequence[TextFile], borders: list[int]) -> dict[int, int | None]:
    return dict(zip(borders, map(_own_number, files), strict=False))


def _own_number(file: TextFile) -> int | None:
    """The chapter number in a file's name; in the title behind 006b, which stands between."""
    name = without_suffix(file.name)
    lettered = LETTERED.match(name)
    return number_in(name[lettered.end() :] if lettered else name)


def _lines(count: int) -> str:
    return "1 line begins" if count == 1 else f"{count:,} lines begin"


def _without_marks(start: Start, body: str, counts: dict[str, int]) -> tuple[Start, str]:
    """A chapter without the # of Markdown in its heading and in the lines above it."""
    if not start.heading.startswith("#") or start.heading not in body:
        return start, body
    end = body.index(start.heading) + len(start.heading)
    head, count = re.subn(r"(?m)^#+[ \t\u3000]*", "", body[:end])
    counts["markdown_marks"] = counts.get("markdown_marks", 0) + count
    return dataclasses.replace(start, heading=start.heading.lstrip("# \t\u3000")), head + body[end:]


def _is_bare(start: Start, body: str) -> bool:
    """Whether there is no text but the heading. A file's name need not stand in the file."""
    body = body.strip()
    return not body or (body == start.heading and body[-1] not in SENTENCE_END)


def _no_text(bare: list[Start]) -> str:
    names = [
        label(start.heading, 20) if start.number is None else f"chapter {start.number}"
        for start in bare
    ]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    have = "has" if len(names) == 1 else "have"
    return f"{', '.join(names[:4])}{more} {have} no text below the heading: left out"


def _at_files(
    text: str, files: Sequence[TextFile], borders: list[int], found: Outline, is_epub: bool
) -> tuple[list[Start], list[tuple[int, int]]]:
    """(starts, pages): the outline's starts and those of files without one; short EPUB pages."""
    if len(files) < 2:
        return list(found.starts), []
    starts: list[Start] = []
    pages: list[tuple[int, int]] = []
    alone = False  # whether the file before is a chapter of its own
    firsts = [file.text.split("\n", 1)[0] for file in files]
    titled = [len(line) <= 60 and line[-1] not in SENTENCE_END for line in firsts]
    short = min(_LEAD, statistics.median(map(len, (file.text for file in files))) / 2)
    for i, (file, begin, end) in enumerate(zip(files, borders, borders[1:], strict=False)):
        inside = [start for start in found.starts if begin <= start.at < end]
        page = is_epub and (end - begin < short or bool(_ABOUT.match(firsts[i])))
        before_all = is_epub and len(found.starts) >= FEWEST and begin < found.starts[0].at
        goes_on = is_epub and any(titled) and not titled[i]
        if not inside and (page or before_all):
            if page and starts:
                pages.append((begin, end))
            continue
        if not inside and starts and (goes_on or heading_of(firsts[i]) == starts[-1].heading):
            continue  # the rest of a chapter, whose heading may stand in the file before
        if not inside:
            title = heading_of(firsts[i]) if is_epub and titled[i] else _title(file)
            starts.append(Start(begin, title, _own_number(file)))
        elif (lead := text[begin : inside[0].at]).strip():
            short_lead = len(lead) <= _LEAD and not any(map(_is_prose, lead.splitlines()))
            if begin and short_lead:
                inside[0] = dataclasses.replace(inside[0], at=begin)
            elif alone or not (begin or short_lead or len(found.starts) >= FEWEST):
                starts.append(Start(begin, _title(file), None))
        alone = not inside
        starts += inside
    return starts, pages


def _title(file: TextFile) -> str:
    """A file's name as the heading of its text: 楔子 of "000 楔子.txt", 012 of "012.txt".

    The file's first line in full where write_chapters made the name of it.
    """
    name = without_suffix(file.name)
    title = re.sub(r"^[0-9]{1,5}[A-Za-z]?[\s_.、\-]+(?=\D.*[^\W\d_]|[^\W\d_])", "", name)
    line = heading_of(file.text.split("\n", 1)[0])
    return line if line and title_in_name(line) == title else title


def title_in_name(heading: str) -> str:
    """A heading as part of a file's name."""
    return re.sub(r'[\s/\\:*?"<>|.]+', " ", heading)[:40].strip()


def _is_prose(line: str) -> bool:
    return len(line) > 60 or (len(line) > 12 and line[-1] in SENTENCE_END)


def _without(found: Outline, pages: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted([*found.contents, *found.repeated, *found.apart, *pages])


def _kept(text: str, start: int, end: int, places: list[tuple[int, int]]) -> str:
    """text[start:end] without the places that lie in it."""
    out, at = [], start
    for begin, stop in places:
        if start <= begin < end:
            out.append(text[at : max(at, begin)])
            at = max(at, min(stop, end))
    return "".join([*out, text[at:end]])


def _numbered(spans: list[tuple[Start, str]]) -> list[Chapter]:
    """Chapters under their own numbers where these rise, else counted from 1."""
    numbers = [start.number for start, _ in spans]
    own = None not in numbers and all(a < b for a, b in itertools.pairwise(numbers))  # type: ignore
    if not own:
        prologue = bool(spans) and numbers[0] == 0 and spans[0][0].at == 0
        numbers = list(range(0 if prologue else 1, len(spans) + (0 if prologue else 1)))
    return [
        Chapter(int(number or 0), start.heading, body if body.endswith("\n") else body + "\n")
        for number, (start, body) in zip(numbers, spans, strict=True)
    ]


def _too_few(chapters: list[Chapter]) -> bool:
    lengths = [len(chapter.text) for chapter in chapters if chapter.number]
    return len(lengths) < FEWEST or (len(lengths) < FEW and min(lengths) > LARGEST * sum(lengths))


def _few_chapters(chapters: list[Chapter], heading: str) -> str:
    """Why the book is cut into equal parts, and what to do about it."""
    if len(chapters) >= FEWEST:
        return (
            f"note: only {len(chapters)} chapters, each over a fifth of the text: equal parts of "
            "them are held out"
        )
    found = f"only {len(chapters)} chapters" if chapters else "no chapter headings"
    if len(chapters) == 1:
        found = "only one chapter"
    if heading:
        lines = "one line" if len(chapters) == 1 else f"only {len(chapters)} lines"
        return (
            f"the pattern corpus.heading={heading!r} matches {lines} with text below: the book is "
            "cut into equal parts"
        )
    return (
        f"{found}: the book is cut into equal parts; give the pattern of its heading lines with "
        "--config.corpus.heading=PATTERN, or a folder with one file a chapter"
    )


# --- equal parts ---


def _equal_parts(bodies: list[tuple[str, str]], parts: int) -> tuple[list[Chapter], str]:
    """(about `parts` parts, why the text is too short for them or "").

    They are cut at paragraphs, or after sentences where there are too few. None crosses the border
    of two texts.
    """
    total = sum(len(body) for _, body in bodies)
    cut: list[tuple[str, str]] = []
    for heading, body in bodies:
        share = max(1, round(parts * len(body) / total)) if body else 0
        pieces = _pieces(body, share)
        for i, piece in enumerate(pieces):
            part = f"{heading} ({i + 1}/{len(pieces)})" if heading and len(pieces) > 1 else heading
            cut.append((part, piece))
    chapters = [Chapter(i + 1, heading, piece) for i, (heading, piece) in enumerate(cut)]
    if not chapters:
        return [], "no text in it besides a table of contents"
    if len(chapters) >= min(parts, FEW):
        return chapters, ""
    return chapters, (
        f"too short to be cut into {parts} parts ({total:,} characters in {len(chapters)} "
        "sentences): use a longer text"
    )


def _pieces(text: str, parts: int) -> list[str]:
    """The text in `parts` pieces of about one length, or in fewer where it has fewer sentences."""
    paragraphs = text.splitlines(keepends=True)
    if len(paragraphs) < parts:  # one long line: cut after sentences instead
        paragraphs = re.findall(r"[^。！？.!?\n]*[。！？.!?\n”’\"]*", text)
        paragraphs = [p for p in paragraphs if p]
    parts = min(parts, len(paragraphs))
    current, done = "", 0
    pieces: list[str] = []
    for i, paragraph in enumerate(paragraphs):
        current += paragraph
        left = len(paragraphs) - i - 1
        missing = parts - len(pieces) - 1
        full = (done + len(current)) * parts >= len(text) * (len(pieces) + 1)
        if missing and (full or left == missing):
            done += len(current)
            pieces.append(current)
            current = ""
    return [*pieces, current] if current else pieces
