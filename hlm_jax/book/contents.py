"""Tables of contents: headings with next to nothing between them, and the titles in a list.

Their entries are no chapters. Titles without numbers are known as headings by the list of them.
"""

import dataclasses
import itertools
import re
from collections import Counter, defaultdict

from hlm_jax.book.headings import RANKS, Candidate
from hlm_jax.book.numerals import HAN

SHORT_BODY = 60  # characters below an entry of a table of contents, at most
_MOST = 60  # characters of an entry
# The line above a table of contents.
_LABEL = re.compile(
    r"(?im)^[\s#*【\[《]*(?:目\s*[录錄次]|回\s*目|总\s*目|contents|table of contents)"
    r"[\s:：.】\]》]*$"
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of contents: its entries, their unit, its place, and whether a line names it one."""

    entries: tuple[Candidate, ...]
    unit: str
    place: tuple[int, int]
    labelled: bool


def tables_of_contents(text: str, found: list[Candidate]) -> list[Table]:
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
        labelled = bool(_LABEL.match(_line_before(text, entries[0].start)))
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
        if body > SHORT_BODY and (
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
        tables.append(Table(tuple(entries), lowest, place, labelled))
    return tables


def _blocks(text: str, found: list[Candidate]) -> list[list[int]]:
    """Runs of three candidates or more with next to nothing between them, numbers rising."""
    blocks: list[list[int]] = []
    current: list[int] = []
    seen: dict[str, int] = {}
    for i, one in enumerate(found):
        near = current and len(text[found[current[-1]].end : one.start].strip()) <= SHORT_BODY
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


_NUMBER = re.compile(rf"^(?:[0-9]+|[ivxlcIVXLC]+|[{HAN}]+)[.．、:：]\s*")
_PAGE = re.compile(r"[\s.…·—\-]*(?:[(（]?[0-9]+[)）]?)?\s*$")


def listed_titles(text: str) -> list[tuple[int, int]]:
    """Places of the lines that a table of contents lists and that stand again below, in order.

    Empty unless the whole list stands below; a preface may follow the list.
    """
    label = _LABEL.search(text, 0, 20_000)
    if not label:
        return []
    lines = [(m.start(), m.end(), _plain(m[0])) for m in re.finditer(r"(?m)^.+$", text)]
    lines = [line for line in lines if line[0] > label.end()]
    places: dict[str, list[int]] = defaultdict(list)
    for i, (_, _, plain) in enumerate(lines):
        if len(plain) <= _MOST:
            places[plain].append(i)
    again = next((i for i, line in enumerate(lines) if i >= 3 and line[2] == lines[0][2]), 0)
    found: list[tuple[int, int]] = []
    at = again
    for i, (_, _, plain) in enumerate(lines[:again]):
        later = [place for place in places[plain] if place >= at and plain]
        if not later:  # the list ends here, or it is none
            rest = {line[2] for line in lines[i:again]}
            return [] if any(places[other][-1:] > [again] for other in rest if other) else found
        found.append(lines[later[0]][:2])
        at = later[0] + 1
    return found


def marked_titles(text: str) -> list[tuple[int, int]]:
    """Places of the lines # Title, of the highest level that has three or more."""
    for level in range(1, 5):
        found = [m.span() for m in re.finditer(rf"(?m)^#{{{level}}} +[^\n]{{1,80}}$", text)]
        if len(found) >= 3:
            return found
    return []


def _plain(line: str) -> str:
    """A title without its number, that of its page, its spaces and its case."""
    return re.sub(r"\s+", "", _NUMBER.sub("", _PAGE.sub("", line))).lower()
