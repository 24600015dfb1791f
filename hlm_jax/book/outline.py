"""Which heading-like lines begin the chapters of a text: numbers decide.

The best chain of numbers that go 1, 2, 3, … wins, so a table of contents and a sentence that
mentions another chapter are not taken for chapters. What does not fit is named in a warning.
chain.py finds the chain, contents.py the tables of contents, headings.py and forms.py the lines.
"""

import dataclasses
import itertools
import re
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence, Set

from hlm_jax.book.chain import (
    best_chain,
    fill_gaps,
    lowest,
    volumes_of,
    weighed,
    without_strays,
    without_summaries,
)
from hlm_jax.book.contents import listed_titles, marked_titles, tables_of_contents
from hlm_jax.book.forms import UNIT, numbered_forms
from hlm_jax.book.headings import RANKS, Candidate, candidates, heading_of, number_in
from hlm_jax.book.numerals import parse_numeral

_ENTRY_BODY = 0.25  # of the text below a heading: below its entry in a table of contents is less
_HALF = re.compile(r"\s*(?:[上中下]|[（(][上中下一二三四五1-9１-９][)）])$")
# A line that opens a volume without a number.
_PART = re.compile(
    r"(?m)^[\s#【《]*(?:[上中下][卷部册冊篇编編集]|[卷部篇][上中下])(?:[\s】》:：]+.{0,20})?$"
)


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a chapter begins: its place in the text, its heading and its number if it has one."""

    at: int
    heading: str
    number: int | None


@dataclasses.dataclass(frozen=True)
class Outline:
    """The chapters of a text and what else looked like them.

    Attributes:
      starts: in order.
      contents: places (start, end) of tables of contents.
      repeated: places of lines that repeat the heading of their own chapter.
      apart: places of runs of headings that are no chapters, such as summaries of the chapters.
      sentences: lines that begin like a heading and are no heading, shortened.
      warnings: one line each.
      unit: of the chapters' numbers.
    """

    starts: tuple[Start, ...] = ()
    contents: tuple[tuple[int, int], ...] = ()
    repeated: tuple[tuple[int, int], ...] = ()
    apart: tuple[tuple[int, int], ...] = ()
    sentences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unit: str = ""


def outline(
    text: str, borders: Sequence[int] = (), named_numbers: Mapping[int, int | None] | None = None
) -> Outline:
    """The chapters of a text by their numbered headings.

    Args:
      text: one paragraph a line.
      borders: places where a new file begins; numbers may start anew there.
      named_numbers: the place where each file begins, the first too, and the number in its name. A
        file without a heading is a chapter of its own, so that its number is not missing.
    """
    found = candidates(text)
    named = _outline(text, found, borders, named_numbers or {})
    if len(named.starts) >= 10 and RANKS[named.unit] <= RANKS["chapter"]:
        return named
    volumes = [one for one in found if one.rank > RANKS["chapter"]]
    best = named
    places = {one.start for one in found}
    for form in numbered_forms(text):
        form = [one for one in form if one.start not in places]
        other = _outline(
            text, sorted([*volumes, *form], key=lambda one: one.start), (), named_numbers or {}
        )
        if _goes_through(other, text) and len(other.starts) > max(2, len(best.starts)):
            best = other
    titles = (listed_titles(text) or marked_titles(text)) if len(best.starts) < 3 else []
    if len(titles) >= 3:
        starts = [Start(start, text[start:end].strip(), None) for start, end in titles]
        return dataclasses.replace(Outline(), starts=tuple(starts))
    return best


def _goes_through(found: Outline, text: str) -> bool:
    """Whether numbered lines of one form cut the whole text, and are no list in it."""
    if len(found.starts) < 3 or found.unit != UNIT or found.starts[0].number not in (1, 2):
        return False
    places = [start.at for start in found.starts]
    sizes = [b - a for a, b in itertools.pairwise([*places, len(text)])]
    front = places[0] - sum(end - start for start, end in found.contents)
    usual = 8 * statistics.median(sizes)
    even = sum(size for size in (front, *sizes) if size > usual) < 0.3 * len(text)
    return even and len(found.warnings) <= 0.1 * len(sizes)


def joined(outlines: Sequence[Outline], places: Sequence[int], names: Sequence[str]) -> Outline:
    """The outlines of several files as one.

    Args:
      places: where each file begins.
      names: of the files; they stand before the warnings.
    """

    def moved(kind: str) -> tuple[tuple[int, int], ...]:
        return tuple(
            (begin + at, end + at)
            for one, at in zip(outlines, places, strict=False)
            for begin, end in getattr(one, kind)
        )

    return Outline(
        tuple(
            dataclasses.replace(start, at=start.at + at)
            for one, at in zip(outlines, places, strict=False)
            for start in one.starts
        ),
        moved("contents"),
        moved("repeated"),
        moved("apart"),
        tuple(line for one in outlines for line in one.sentences),
        tuple(
            f"{name}: {warning}"
            for one, name in zip(outlines, names, strict=True)
            for warning in one.warnings
        ),
    )


def _outline(
    text: str,
    found: list[Candidate],
    borders: Sequence[int],
    named_numbers: Mapping[int, int | None],
) -> Outline:
    tables = tables_of_contents(text, found)
    listed = {one for table in tables for one in table.entries}
    rest = weighed([one for one in found if one not in listed])
    opens = sorted([*borders, *(m.start() for m in _PART.finditer(text))])
    volumes = volumes_of(rest)
    upper = volumes_of(found) if len(tables) > 1 else volumes
    chains = {
        unit: best_chain(text, [one for one in rest if one.unit == unit], upper, opens)
        for unit in dict.fromkeys(one.unit for one in rest)
    }
    chain, unit = lowest(chains)
    # A list of another unit, such as the acts of a play that is performed, is text of the book.
    contents = tuple(
        table.place
        for table in tables
        if table.labelled or (table.unit == unit if chain else len(table.entries) >= 8)
    )
    if not chain:
        return Outline(contents=contents)
    chain = without_strays(fill_gaps(text, chain, rest))
    for other, (value, path) in chains.items():  # the letters before the chapters of a novel
        alike = other != unit and RANKS[other] == RANKS[unit] and value >= 2
        if alike and path[-1].start < chain[0].start:
            chain = path + chain
    chain, apart = without_summaries(text, chain, upper, opens)
    chosen, known = set(chain), set(rest)
    repeated, strays, sentences = [], [], []
    for one in rest:
        if one in chosen or one.rank > RANKS[unit]:
            continue
        own = _before(chain, one)
        if own and own.line == one.line:
            repeated.append((one.start, min(one.end + 1, len(text))))
        elif any(start <= one.start < end for start, end in apart):
            continue
        elif one.unit == unit and one.strength >= 0.8 and own:
            strays.append(one)
        else:
            sentences.append(one.label)
    starts = [
        Start(at, heading_of(one.line), one.first)
        for at, one in zip(_with_volumes(chain, volumes, text), chain, strict=True)
    ]
    warnings = [
        f"{one.label!r} is taken for the heading of chapter {one.first}, which is missing"
        for one in chain
        if one not in known
    ]
    warnings += _number_warnings(chain, upper, opens, named_numbers) + [
        f"{one.label!r} looks like a heading but its number does not fit there: it was left "
        f"inside {before.label!r}"
        for one in strays
        if (before := _before(chain, one))
    ]
    return Outline(
        tuple(starts),
        contents,
        tuple(repeated),
        tuple(apart),
        tuple(sentences),
        tuple(warnings),
        unit,
    )


def outline_by(
    pattern: re.Pattern[str], text: str, named_numbers: Mapping[int, int | None] | None = None
) -> Outline:
    """The chapters of a text whose heading lines a pattern of the user's own finds.

    The group "number", or the line itself, gives the number. Numbers are reported, not judged. A
    line that comes again at once is a repeated heading. One that comes again later is an entry of a
    table of contents where it has next to no text below it, compared with the later one. The last
    entry may have the text that follows the table below it.
    """
    places = [m.span() for m in re.finditer(r"(?m)^.+$", text) if pattern.search(m[0])]
    lines = [text[start:end].strip() for start, end in places]
    last_place = {line: i for i, line in enumerate(lines)}
    starts: list[Start] = []
    contents: list[tuple[int, int]] = []
    repeated = []
    ends = [*(start for start, _ in places[1:]), len(text)][: len(places)]
    bodies = [len(text[end:after].strip()) for (_, end), after in zip(places, ends, strict=True)]
    first_entry = ""  # of the table that the line before belongs to
    for i, (start, end) in enumerate(places):
        whole = start, min(end + 1, len(text))
        later = last_place[lines[i]]
        last_entry = first_entry and i + 1 < len(places) and lines[i + 1] == first_entry
        entry = later > i and (bodies[i] < _ENTRY_BODY * bodies[later] or last_entry)
        if i and lines[i] == lines[i - 1]:
            repeated.append(whole)
        elif i + 1 < len(places) and lines[i + 1] == lines[i]:
            starts.append(_start_by(pattern, start, lines[i]))
        elif entry or not bodies[i]:
            first_entry = first_entry or lines[i]
            if contents and contents[-1][1] == start:
                contents[-1] = contents[-1][0], whole[1]
            else:
                contents.append(whole)
            continue
        else:
            starts.append(_start_by(pattern, start, lines[i]))
        first_entry = ""
    warnings = []
    numbers = [start.number for start in starts]
    if len(set(numbers)) > 1 and None not in numbers:
        for a, b in itertools.pairwise(starts):
            own = _between(named_numbers or {}, a.at, b.at)
            if warning := _step_warning(a.number, b.number, b.heading, own):
                warnings.append(warning)
    return Outline(tuple(starts), tuple(contents), tuple(repeated), warnings=tuple(warnings))


def _start_by(pattern: re.Pattern[str], at: int, line: str) -> Start:
    match = pattern.search(line)
    named = match.groupdict().get("number") if match else None
    return Start(at, heading_of(line), parse_numeral(named) if named else number_in(line))


def _with_volumes(chain: list[Candidate], rest: list[Candidate], text: str) -> list[int]:
    """Where each chapter begins: at the volume heading before it, where there is one."""
    upper = [one.start for one in rest if one.rank > chain[0].rank]
    places = []
    for previous, one in zip([None, *chain], chain, strict=False):
        after = previous.end if previous else 0
        volumes = upper[bisect_left(upper, after) : bisect_left(upper, one.start)]
        volumes = [at for at in volumes if len(text[at : one.start]) < 400]
        places.append(min(volumes, default=one.start))
    return places


def _before(chain: list[Candidate], one: Candidate) -> Candidate | None:
    at = bisect_left(chain, one.start, key=lambda c: c.start)
    return chain[at - 1] if at else None


def _number_warnings(
    chain: list[Candidate],
    rest: list[Candidate],
    borders: Sequence[int],
    named_numbers: Mapping[int, int | None],
) -> list[str]:
    warnings = []
    if set(range(1, chain[0].first)) - _between(named_numbers, -1, chain[0].start):
        warnings.append(f"the first chapter is numbered {chain[0].first}: {chain[0].label}")
    opens = [one.start for one in rest if one.rank > chain[0].rank] + list(borders)
    for a, b in itertools.pairwise(chain):
        new = any(a.start < at <= b.start for at in opens) or a.upper != b.upper
        if b.first <= 1 and b.first <= a.last and new:
            continue  # a new volume or file counts anew
        if (
            b.first == a.last
            and a.line != b.line
            and _HALF.sub("", a.line) == _HALF.sub("", b.line)
        ):
            continue  # the second half of a chapter
        own = _between(named_numbers, a.start, b.start)
        if warning := _step_warning(a.last, b.first, b.label, own):
            warnings.append(warning)
    return warnings


def _between(named_numbers: Mapping[int, int | None], start: int, end: int) -> set[int | None]:
    """The numbers of the files that lie between two headings and hold neither."""
    places = [at for at in named_numbers if start < at <= end]
    return {named_numbers[at] for at in places[:-1]}


def _step_warning(
    last: int | None, first: int | None, heading: str, own: Set[int | None] = frozenset()
) -> str | None:
    """What is wrong about a step between two numbers; `own` are the numbers of files between."""
    if last is None or first is None or first == last + 1:
        return None
    if first > last + 1:
        numbers = [number for number in range(last + 1, first) if number not in own]
        if not numbers:
            return None
        whole = len(numbers) == numbers[-1] - numbers[0] + 1 > 1
        missing = f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))
        return f"gap: no chapter {missing} (before {heading!r})"
    if first == last:
        return f"repeat: chapter {first} stands twice ({heading!r})"
    return f"jump back: chapter {first} follows {last} ({heading!r})"
