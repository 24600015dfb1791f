"""Which heading-like lines begin the chapters of a text: numbers decide.

The best chain of numbers that go 1, 2, 3, … wins, so a table of contents and a sentence that
mentions another chapter are not taken for chapters. What does not fit is named in a warning.
"""

import dataclasses
import itertools
import re
import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from hlm_jax.book.forms import UNIT, listed_titles, marked_titles, numbered_forms
from hlm_jax.book.headings import RANKS, Candidate, candidates, heading_of, misspelt, number_in
from hlm_jax.book.numerals import parse_numeral

# Characters below a heading that make it a whole chapter: half of what is usual, in these limits.
_FULL_BODY = (20, 80)
_SHORT_BODY = 60  # characters below an entry of a table of contents, at most
_CONTENTS = re.compile(r"[\s#*【\[《]*(?:目\s*[录錄次]|回\s*目|总\s*目|contents|table of contents)")
_HALF = re.compile(r"\s*(?:[上中下]|[（(][上中下一二三四五1-9１-９][)）])$")
# A line that opens a volume without a number.
_PART = re.compile(
    r"(?m)^[\s#【《]*(?:[上中下][卷部册冊篇编編集]|[卷部篇][上中下])(?:[\s】》:：]+.{0,20})?$"
)
_CONTENTS = re.compile(_CONTENTS.pattern + r"[\s:：.】\]》]*$", re.I)


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
      sentences: lines that begin like a heading and are no heading.
      warnings: one line each.
      unit: of the chapters' numbers.
    """

    starts: tuple[Start, ...] = ()
    contents: tuple[tuple[int, int], ...] = ()
    repeated: tuple[tuple[int, int], ...] = ()
    apart: tuple[tuple[int, int], ...] = ()
    sentences: int = 0
    warnings: tuple[str, ...] = ()
    unit: str = ""


def outline(text: str, borders: Sequence[int] = ()) -> Outline:
    """The chapters of a text by their numbered headings.

    Args:
      text: one paragraph a line.
      borders: places where a new file begins; numbers may start anew there.
    """
    found = candidates(text)
    named = _outline(text, found, borders)
    if len(named.starts) >= 10 and RANKS[named.unit] <= RANKS["chapter"]:
        return named
    volumes = [one for one in found if one.rank > RANKS["chapter"]]
    best = named
    places = {one.start for one in found}
    for form in numbered_forms(text):
        form = [one for one in form if one.start not in places]
        other = _outline(text, sorted([*volumes, *form], key=lambda one: one.start), ())
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


def _outline(text: str, found: list[Candidate], borders: Sequence[int]) -> Outline:
    tables = _contents(text, found)
    listed = {one for table in tables for one in table.entries}
    rest = _weighed([one for one in found if one not in listed])
    opens = sorted([*borders, *(m.start() for m in _PART.finditer(text))])
    volumes = _volumes(rest)
    upper = _volumes(found) if len(tables) > 1 else volumes
    chains = {
        unit: _chain(text, [one for one in rest if one.unit == unit], upper, opens)
        for unit in dict.fromkeys(one.unit for one in rest)
    }
    chain, unit = _lowest(chains)
    # A list of another unit, such as the acts of a play that is performed, is text of the book.
    contents = tuple(
        table.place
        for table in tables
        if table.labelled or (table.unit == unit if chain else len(table.entries) >= 8)
    )
    if not chain:
        return Outline(contents=contents)
    chain = _without_strays(_fill_gaps(text, chain, rest))
    for other, (value, path) in chains.items():  # the letters before the chapters of a novel
        alike = other != unit and RANKS[other] == RANKS[unit] and value >= 2
        if alike and path[-1].start < chain[0].start:
            chain = path + chain
    chain, apart = _without_summaries(text, chain, upper, opens)
    chosen, known = set(chain), set(rest)
    repeated, strays, sentences = [], [], 0
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
            sentences += 1
    starts = [
        Start(at, heading_of(one.line), one.first)
        for at, one in zip(_with_volumes(chain, volumes, text), chain, strict=True)
    ]
    warnings = [
        f"{one.label!r} is taken for the heading of chapter {one.first}, which is missing"
        for one in chain
        if one not in known
    ]
    warnings += _number_warnings(chain, upper, opens) + [
        f"{one.label!r} looks like a heading but its number does not fit there: it was left "
        f"inside {before.label!r}"
        for one in strays
        if (before := _before(chain, one))
    ]
    return Outline(
        tuple(starts), contents, tuple(repeated), tuple(apart), sentences, tuple(warnings), unit
    )


def _volumes(found: list[Candidate]) -> list[Candidate]:
    """The candidates that may open a volume: no sentence, unless those of its unit go 1, 2, …."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for one in found:
        numbers[one.unit].append(one.first)
    regular = {
        unit for unit, n in numbers.items() if n == list(range(1, len(n) + 1)) and len(n) > 1
    }
    return [
        one
        for one in found
        if one.unit in regular or (one.strength >= 0.8 and not one.style.endswith("x"))
    ]


def _weighed(found: list[Candidate]) -> list[Candidate]:
    """The candidates; one of another style than most of its unit is weak.

    That is so only where the common style has its number as well, or where it is rare and goes on
    at once, as a sentence does. Its neighbours are no run of its style, as in another volume.
    """
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    by_unit: dict[str, list[Candidate]] = defaultdict(list)
    for one in found:
        numbers[one.unit, one.style].add(one.first)
        by_unit[one.unit].append(one)
    weak = set()
    for unit, ones in by_unit.items():
        style = max({one.style for one in ones}, key=lambda s: (len(numbers[unit, s]), s))
        most = numbers[unit, style]
        for before, one, after in zip([None, *ones], ones, [*ones[1:], None], strict=False):
            run = any(
                near and near.style == one.style and abs(near.first - one.first) == 1
                for near in (before, after)
            )
            share = len(numbers[unit, one.style]) / len(most)
            other = one.style != style and not run
            joined = one.style.endswith("x") and not style.endswith("x")
            if other and ((share <= 0.8 and one.first in most) or (share <= 0.2 and joined)):
                weak.add(one)
    return [dataclasses.replace(one, strength=0.2) if one in weak else one for one in found]


def _without_strays(chain: list[Candidate]) -> list[Candidate]:
    """The chain without a chapter whose neighbours' numbers follow each other.

    Another chapter must have its number: it is then a line that names that one. Also without a
    weak last one before the numbers start anew, where most chapters are not weak.
    """
    strong = statistics.median(one.strength for one in chain) >= 0.5
    counts = Counter(one.first for one in chain)
    kept = chain[:1]
    for one, after in itertools.zip_longest(chain[1:], chain[2:]):
        previous = kept[-1].last
        between = after is not None and after.first == previous + 1 and after.unit == one.unit
        last = strong and one.strength < 0.5 and after is not None and after.first <= one.last
        if last or (
            between and one.first not in (previous, previous + 1) and counts[one.first] > 1
        ):
            counts[one.first] -= 1
        else:
            kept.append(one)
    return kept


def outline_by(pattern: re.Pattern[str], text: str) -> Outline:
    """The chapters of a text whose heading lines a pattern of the user's own finds.

    The group "number", or the line itself, gives the number. Numbers are reported, not judged. A
    line that comes again after other headings is an entry of a table of contents, and one that
    comes again at once is a repeated heading.
    """
    places = [m.span() for m in re.finditer(r"(?m)^.+$", text) if pattern.search(m[0])]
    lines = [text[start:end].strip() for start, end in places]
    last_place = {line: i for i, line in enumerate(lines)}
    starts: list[Start] = []
    contents, repeated = [], []
    for i, (start, end) in enumerate(places):
        after = places[i + 1][0] if i + 1 < len(places) else len(text)
        whole = start, min(end + 1, len(text))
        if i and lines[i] == lines[i - 1]:
            repeated.append(whole)
        elif i + 1 < len(places) and lines[i + 1] == lines[i]:
            starts.append(_start_by(pattern, start, lines[i]))
        elif last_place[lines[i]] > i or not text[end:after].strip():
            contents.append(whole)
        else:
            starts.append(_start_by(pattern, start, lines[i]))
    warnings = []
    numbers = [start.number for start in starts]
    if len(set(numbers)) > 1 and None not in numbers:
        pairs = itertools.pairwise(starts)
        warnings = [w for a, b in pairs if (w := _step_warning(a.number, b.number, b.heading))]
    return Outline(tuple(starts), tuple(contents), tuple(repeated), warnings=tuple(warnings))


def _start_by(pattern: re.Pattern[str], at: int, line: str) -> Start:
    match = pattern.search(line)
    named = match.groupdict().get("number") if match else None
    return Start(at, heading_of(line), parse_numeral(named) if named else number_in(line))


@dataclasses.dataclass(frozen=True)
class _Table:
    """A table of contents: its entries, their unit, its place, and whether a line names it one."""

    entries: tuple[Candidate, ...]
    unit: str
    place: tuple[int, int]
    labelled: bool


def _contents(text: str, found: list[Candidate]) -> list[_Table]:
    """The tables of contents: headings with next to nothing between them.

    The last entry may have the text that follows the table below it. It is a chapter nevertheless
    where no other line has its number.
    """
    tables = []
    numbers = Counter((one.unit, one.first) for one in found)
    for block in _blocks(text, found):
        entries = [found[i] for i in block]
        own = Counter((one.unit, one.first) for one in entries)
        again = [numbers[key] > count for key, count in own.items()]
        bodies = [text[a.end : b.start].strip() for a, b in itertools.pairwise(entries)]
        empty = all(not body or re.fullmatch(r"[\d\s.…·]+", body) for body in bodies)
        # The headings of a volume, a part of it and a chapter may stand in a row.
        many = max(Counter(one.unit for one in entries).values()) >= 3
        labelled = bool(_CONTENTS.match(_line_before(text, entries[0].start)))
        if not (labelled or (many and (empty or sum(again) >= 0.7 * len(again)))):
            continue
        if sum(one.line[-1] in "。”" for one in entries) > 0.5 * len(entries):
            continue  # chapters of one line
        last = entries[-1]
        after = found[block[-1] + 1].start if block[-1] + 1 < len(found) else len(text)
        body = len(text[last.end : after].strip())
        # A line outside of the table that has its number is the chapter, unless a volume begins
        # or the line looks unlike the table's.
        alone = numbers[last.unit, last.first] == own[last.unit, last.first]
        if body > _SHORT_BODY and (
            alone
            or entries[-2].rank > last.rank
            or last.style not in [o.style for o in entries[:-1]]
        ):
            entries = entries[:-1]
            while entries and entries[-1].rank > last.rank:
                entries.pop()  # the volume that it opens
        if len(entries) < 2:
            continue
        lowest = min(entries, key=lambda one: one.rank).unit
        start = entries[0].start
        if labelled:
            start = text.rfind("\n", 0, start - 1) + 1
        place = start, min(entries[-1].end + 1, len(text))
        tables.append(_Table(tuple(entries), lowest, place, labelled))
    return tables


def _blocks(text: str, found: list[Candidate]) -> list[list[int]]:
    """Runs of three candidates or more with next to nothing between them, numbers rising."""
    blocks: list[list[int]] = []
    current: list[int] = []
    seen: dict[str, int] = {}
    for i, one in enumerate(found):
        near = current and len(text[found[current[-1]].end : one.start].strip()) <= _SHORT_BODY
        if near and one.first > seen.get(one.unit, -1):
            current.append(i)
        else:
            blocks.append(current)
            current, seen = [i], {}
        # Under a new heading of a higher rank the lower numbers may start anew.
        seen = {unit: n for unit, n in seen.items() if RANKS[unit] >= one.rank} | {
            one.unit: one.last
        }
    return [block for block in (*blocks, current) if len(block) >= 3]


def _line_before(text: str, at: int) -> str:
    before = text[:at].rstrip()
    return before[before.rfind("\n") + 1 :]


def _chain(
    text: str, found: list[Candidate], others: list[Candidate], borders: Sequence[int]
) -> tuple[float, list[Candidate]]:
    """(value, chapters) of the best chain through candidates of one unit.

    A chapter is worth its strength, less where next to no text follows. A step to the next number
    is free; gaps, repeats and steps back cost, a new start least where a volume or file begins.
    """
    n = len(found)
    if not n:
        return 0.0, []
    start = np.array([one.start for one in found], float)
    # A line that ends a sentence holds text of its chapter.
    end = np.array([one.start if one.line[-1] in "。！？”" else one.end for one in found], float)
    first, last = (np.array([getattr(o, k) for o in found]) for k in ("first", "last"))
    strength = np.array([one.strength for one in found])
    rank = found[0].rank
    opens = sorted([one.start for one in others if one.rank > rank] + list(borders))
    volume = np.searchsorted(opens, start, side="right")  # volumes opened before each candidate
    titles = np.array([hash(one.line) for one in found])
    uppers = np.array([hash(one.upper) for one in found])
    best, source = np.empty(n), np.full(n, -1)
    full = np.clip(0.5 * np.median(np.diff(start)) if n > 1 else np.inf, *_FULL_BODY)

    def worth(i, until):
        return strength[i] * np.minimum(1, (until - end[i]) / full)

    for j in range(n):
        begin = 0.0 if first[j] <= 1 else 0.3 + 0.02 * min(first[j], 35)
        best[j] = -begin - 1e-9 * start[j]
        if not j:
            continue
        step = first[j] - last[:j]
        cost = np.where(step > 1, 0.4 + 0.02 * np.minimum(step - 2, 30), 0.0)
        cost = np.where(step == 0, np.where(titles[:j] == titles[j], 3.0, 0.6), cost)
        cost = np.where(step < 0, 0.5 if first[j] > 1 else 1.0, cost)
        opened = (volume[:j] < volume[j]) | (uppers[:j] != uppers[j])
        cost = np.where((step <= 0) & opened & (first[j] <= 1), 0.1, cost)
        value = best[:j] + worth(slice(0, j), start[j]) - cost
        i = int(np.argmax(value))
        if value[i] > best[j]:
            best[j], source[j] = value[i], i
    total = best + worth(slice(0, n), float(len(text)))
    i = int(np.argmax(total))
    value, path = float(total[i]), []
    while i >= 0:
        path.append(found[i])
        i = int(source[i])
    path.reverse()
    while path and path[-1].strength < 0.5:  # a sentence after the last chapter
        path.pop()
    return value, path


def _lowest(chains: dict[str, tuple[float, list[Candidate]]]) -> tuple[list[Candidate], str]:
    """The chain to cut at: the lowest rank that reaches into most chapters of the rank above."""
    ranked = sorted(chains.items(), key=lambda item: -item[1][0])
    if not ranked or ranked[0][1][0] <= 0:
        return [], ""
    unit, (_, chain) = ranked[0]
    for upper_unit, (upper_value, upper) in ranked[1:]:
        if RANKS[upper_unit] <= RANKS[unit] or upper_value < 2:
            continue
        ends = [one.start for one in upper[1:]] + [1 << 60]
        reached = {
            a.first
            for a, end in zip(upper, ends, strict=True)
            if any(a.start <= one.start < end for one in chain)
        }
        if len(reached) < 0.7 * len({one.first for one in upper}):
            unit, chain = upper_unit, upper
    return chain, unit


def _fill_gaps(text: str, chain: list[Candidate], rest: list[Candidate]) -> list[Candidate]:
    """The chain with the chapters of its gaps that have a wrong number or another unit."""
    out = [chain[0]]
    for one in chain[1:]:
        missing = one.first - out[-1].last - 1
        if missing > 0:
            between = [c for c in rest if out[-1].start < c.start < one.start]
            between = [c for c in between if c.strength >= 0.6 and c.line != out[-1].line]
            wanted = range(out[-1].last + 1, one.first)
            exact = [c for c in between if c.first in wanted]
            wrong = [c for c in between if c.unit == one.unit]
            numbers = [c.first for c in exact]
            if exact and numbers == sorted(set(numbers)):
                out += exact
            elif len(wrong) == missing:
                out += wrong
            else:
                out += misspelt(text, out[-1].end, one.start, wanted, one.unit)
        out.append(one)
    return out


def _without_summaries(
    text: str, chain: list[Candidate], rest: list[Candidate], borders: Sequence[int]
) -> tuple[list[Candidate], list[tuple[int, int]]]:
    """The chain without runs of short texts under the numbers of another run.

    Such a run is a list of summaries, or notes on the chapters.
    """
    runs: list[list[int]] = []
    for i, one in enumerate(chain):
        if not i or one.first <= chain[i - 1].last:
            runs.append([])
        runs[-1].append(i)
    if len(runs) < 2:
        return chain, []
    ends = [one.start for one in chain[1:]] + [len(text)]
    sizes = [end - one.end for one, end in zip(chain, ends, strict=True)]
    opens = [one.start for one in rest if one.rank > chain[0].rank] + list(borders)
    kept, apart = [], []
    for run in runs:
        numbers = {chain[i].first for i in run}
        begin = chain[run[0]].start
        previous = chain[run[0] - 1].start if run[0] else 0
        opened = any(previous < at <= begin for at in opens)
        rivals = [i for other in runs if other is not run for i in other]
        rivals = [i for i in rivals if chain[i].first in numbers]
        small = len({chain[i].first for i in rivals}) >= 0.7 * len(numbers) and (
            statistics.median(sizes[i] for i in run)
            < 0.25 * statistics.median(sizes[i] for i in rivals)
        )
        if small and not opened and len(run) >= 3:
            apart.append((begin, ends[run[-1]]))
        else:
            kept += [chain[i] for i in run]
    return kept, apart


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
    chain: list[Candidate], rest: list[Candidate], borders: Sequence[int]
) -> list[str]:
    warnings = []
    if chain[0].first > 1:
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
        if warning := _step_warning(a.last, b.first, b.label):
            warnings.append(warning)
    return warnings


def _step_warning(last: int | None, first: int | None, heading: str) -> str | None:
    if last is None or first is None or first == last + 1:
        return None
    if first > last + 1:
        missing = str(last + 1) if first == last + 2 else f"{last + 1} to {first - 1}"
        return f"gap: no chapter {missing} (before {heading!r})"
    if first == last:
        return f"repeat: chapter {first} stands twice ({heading!r})"
    return f"jump back: chapter {first} follows {last} ({heading!r})"
