"""The best chain of numbered headings that go 1, 2, 3, …, and its repairs."""

import dataclasses
import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from hlm_jax.book.headings import RANKS, Candidate, misspelt

# Characters below a heading that make it a whole chapter: half of what is usual, in these limits.
_FULL_BODY = (20, 80)


def volumes_of(found: list[Candidate]) -> list[Candidate]:
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


def weighed(found: list[Candidate]) -> list[Candidate]:
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


def without_strays(chain: list[Candidate]) -> list[Candidate]:
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


def best_chain(
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


def lowest(chains: dict[str, tuple[float, list[Candidate]]]) -> tuple[list[Candidate], str]:
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


def fill_gaps(text: str, chain: list[Candidate], rest: list[Candidate]) -> list[Candidate]:
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


def without_summaries(
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
