"""How much of a text is copied from the training text: a suffix array, and measures made from it.

Characters only; knows nothing of models. A span counts as copied where it occurs in the training
text word for word. A copy never crosses the border of two chapters.
"""

import array
import bisect
import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hlm_jax.book.corpus import Chapter

SPAN = 15  # characters; held-out chapters of the book itself hold almost no copied span as long
ORDERS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 15)
STRETCH = 500  # characters: the longest copied span is reported for every stretch
_BORDER = "\0"


@dataclasses.dataclass(frozen=True)
class Span:
    """text[start:end] occurs word for word in the training chapter of this number."""

    start: int
    end: int
    chapter: int


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What one text has in common with the training text, or the sum over several texts.

    Positions are each text's own.

    Attributes:
      chars: characters of the text.
      seen: {n: (n-grams of the text that occur in the training text, n-grams of the text)}.
      spans: disjoint spans that cover every copied span of SPAN characters or more.
      longest: the longest copied span, of any length, within each STRETCH characters.
    """

    chars: int
    seen: dict[int, tuple[int, int]]
    spans: tuple[Span, ...]
    longest: tuple[Span, ...]

    def __add__(self, other: "Overlap") -> "Overlap":
        seen = {
            n: (self.seen[n][0] + other.seen[n][0], self.seen[n][1] + other.seen[n][1])
            for n in ORDERS
        }
        spans, longest = self.spans + other.spans, self.longest + other.longest
        return Overlap(self.chars + other.chars, seen, spans, longest)

    def seen_fraction(self, n: int) -> float:
        """Fraction of the n-grams that occur in the training text; nan for a shorter text."""
        seen, total = self.seen[n]
        return seen / total if total else float("nan")

    @property
    def copied_fraction(self) -> float:
        """Fraction of the characters inside copied spans."""
        return sum(span.end - span.start for span in self.spans) / self.chars if self.chars else 0.0

    def longest_lengths(self) -> np.ndarray:
        """Characters of the longest copied span of every STRETCH; [0] where nothing is copied."""
        return np.array([span.end - span.start for span in self.longest] or [0])


class OverlapIndex:
    """A suffix array over chapters: finds the longest copy from every position of a text.

    Manber & Myers 1993; built by doubling ranks, O(n log² n). A text of m characters is searched in
    O(m log n), whatever is copied: backward search (Ferragina & Manzini 2000) finds where each of
    its suffixes would stand among the book's, and Kasai et al. 2001 bound the comparisons by 4 m.
    """

    def __init__(self, chapters: Iterable[Chapter]):
        self._chapters = list(chapters)
        self._text = _BORDER + "".join(chapter.text + _BORDER for chapter in self._chapters)
        lengths = [len(chapter.text) + 1 for chapter in self._chapters]
        self._ends = np.cumsum([1, *lengths])[1:]
        suffixes = suffix_array(self._text)
        rank = np.empty(len(suffixes) + 1, np.int32)
        rank[suffixes] = np.arange(len(suffixes), dtype=np.int32)
        rank[-1] = -1  # the empty suffix stands before all others
        # Arrays of Python's own, because they are looked up one by one.
        # The border at place 0 stands in for the suffix after the last: it matches nothing.
        self._suffixes = array.array("i", np.append(suffixes, np.int32(0)).tobytes())
        # The rank of each suffix without its first character; rises among those that share it.
        self._next_ranks = array.array("i", rank[suffixes + 1].tobytes())
        # The suffixes that begin with _firsts[k] have the ranks _bounds[k] to _bounds[k + 1] - 1.
        counts = sorted(collections.Counter(self._text).items())
        self._firsts = [first for first, _ in counts]
        self._bounds = list(itertools.accumulate((n for _, n in counts), initial=0))

    def matches(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The longest prefix of text[i:] that occurs in the book, for every i.

        Of several places, the one reported is that of the suffix of the book just before text[i:]
        in the order of code points, or just after it where only that one shares the longest prefix.
        A "\\0" in the text matches nothing. The place of an empty match is 0.

        Returns:
          (lengths, places), int32 [len(text)] each; `chapter_of` maps a place to its chapter.
        """
        ranks = self._ranks(text)
        before = [self._suffixes[rank - 1] if rank else 0 for rank in ranks]
        after = [self._suffixes[rank] for rank in ranks]
        shared_before, shared_after = self._shared(text, before), self._shared(text, after)
        lengths = np.maximum(shared_before, shared_after)
        places = np.where(shared_before >= shared_after, before, after)
        return lengths, np.where(lengths > 0, places, 0).astype(np.int32)

    def _ranks(self, text: str) -> list[int]:
        """How many suffixes of the book stand before text[i:], cut at its first border, for all i.

        The rank of c + rest is found from that of rest: among the suffixes that begin with c,
        those stand before it whose own rest stands before rest.
        """
        ranks, rank = [0] * len(text), 0
        for i in range(len(text) - 1, -1, -1):
            if text[i] == _BORDER:
                rank = 0
                continue
            k = bisect.bisect_left(self._firsts, text[i])
            if k < len(self._firsts) and self._firsts[k] == text[i]:
                start, end = self._bounds[k], self._bounds[k + 1]
                rank = bisect.bisect_left(self._next_ranks, rank, start, end)
            else:
                rank = self._bounds[k]
            ranks[i] = rank
        return ranks

    def _shared(self, text: str, places: Sequence[int]) -> np.ndarray:
        """Length of the common prefix of text[i:] and the book from places[i], int32 [len(text)].

        `places` are those before text[i:] in the order, or those after it, for all i. Without
        their first character, text[i:] and its neighbour keep their order. The next neighbour lies
        between them, so what it shares is shorter by one character at most.
        """
        book, lengths, length = self._text, np.zeros(len(text), np.int32), 0
        ended = text + _BORDER
        for i, place in enumerate(places):
            length = max(0, length - 1)
            while (char := ended[i + length]) == book[place + length] and char != _BORDER:
                length += 1
            lengths[i] = length
        return lengths

    @property
    def ranks(self) -> range:
        """Those of all suffixes of the book in their order; `place` tells where each begins."""
        return range(len(self._text))

    def place(self, rank: int) -> int:
        """Where the suffix of this rank begins."""
        return self._suffixes[rank]

    def narrowed(self, ranks: range, shared: int, text: str) -> range:
        """The ranks of those suffixes that go on with `text`, O(m log n) for m characters.

        Args:
          ranks: of suffixes that share their first `shared` characters, no border among them.
        """
        start, stop = ranks.start, ranks.stop
        for length, char in enumerate(text, start=shared):
            if start == stop or char == _BORDER:
                return range(0)

            def at(place: int, length: int = length) -> str:
                return self._text[place + length]

            start = bisect.bisect_left(self._suffixes, char, start, stop, key=at)
            stop = bisect.bisect_right(self._suffixes, char, start, stop, key=at)
        return range(start, stop)

    def chapter_of(self, place: int) -> int:
        """The number of the chapter that a place of `matches` lies in."""
        return self._chapters[int(np.searchsorted(self._ends, place, side="right"))].number

    def measure_all(self, texts: Sequence[str]) -> Overlap:
        """The sum of the measures of one or more texts."""
        first, *others = [self.measure(text) for text in texts]
        return sum(others, first)

    def measure(self, text: str) -> Overlap:
        """The Overlap of a text; those of several texts can be added."""
        lengths, places = self.matches(text)
        seen = {n: (int((lengths >= n).sum()), max(0, len(text) - n + 1)) for n in ORDERS}
        spans: list[Span] = []
        for i in np.flatnonzero(lengths >= SPAN).tolist():
            start, end = i, i + int(lengths[i])
            if spans and start < spans[-1].end:
                if end <= spans[-1].end:
                    continue
                start = spans[-1].end  # overlaps the span before: only what is new counts
            spans.append(Span(start, end, self.chapter_of(int(places[i]))))
        longest = []
        for first in range(0, len(text), STRETCH):
            inside = lengths[first : first + STRETCH]
            inside = np.minimum(inside, np.arange(len(inside), 0, -1))  # cut at the stretch's end
            at = int(inside.argmax())
            if inside[at]:
                chapter = self.chapter_of(int(places[first + at]))
                longest.append(Span(first + at, first + at + int(inside[at]), chapter))
        return Overlap(len(text), seen, tuple(spans), tuple(longest))


def suffix_array(text: str) -> np.ndarray:
    """Starts of all suffixes in their order by code points, int32 [len(text)]."""
    rank = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    n, width = len(rank), 1
    while True:
        key = np.full(n, -1, np.int64)
        key[: n - width] = rank[width:]
        order = np.lexsort((key, rank))
        changed = (np.diff(rank[order]) != 0) | (np.diff(key[order]) != 0)
        rank = np.empty(n, np.int64)
        rank[order] = np.concatenate([[0], np.cumsum(changed)])
        if rank[order[-1]] == n - 1:
            return order.astype(np.int32)
        width *= 2


class Marker:
    """Puts the copied spans of a text that arrives in parts into ⟦ ⟧.

    Holds back only characters that may yet become part of a copied span.
    """

    def __init__(self, index: OverlapIndex):
        self._index, self._text, self._done, self._inside = index, "", 0, False

    def feed(self, text: str) -> str:
        """What can be printed now that `text` has arrived."""
        self._text += text
        return self._print(final=False)

    def flush(self) -> str:
        """The rest, when nothing more comes."""
        return self._print(final=True)

    def _print(self, *, final: bool) -> str:
        lengths, _ = self._index.matches(self._text)
        starts = np.arange(len(lengths))
        # +1 where a copied span begins, -1 after its end.
        change = np.zeros(len(lengths) + 1, np.int64)
        np.add.at(change, starts[lengths >= SPAN], 1)
        np.add.at(change, (starts + lengths)[lengths >= SPAN], -1)
        copied = np.cumsum(change)[:-1] > 0
        # Matches that reach the end of the text, which the next part may prolong.
        growing = starts[(starts + lengths == len(lengths)) & (lengths > 0)]
        decided = len(lengths) if final or not len(growing) else int(growing[0])
        out = []
        while self._done < len(lengths) and (self._done < decided or copied[self._done]):
            if copied[self._done] != self._inside:
                self._inside = not self._inside
                out.append("⟦" if self._inside else "⟧")
            out.append(self._text[self._done])
            self._done += 1
        if final and self._inside:
            out.append("⟧")
        return "".join(out)


def mark(text: str, index: OverlapIndex) -> str:
    """The text with its copied spans in ⟦ ⟧."""
    marker = Marker(index)
    return marker.feed(text) + marker.flush()


def describe(overlap: Overlap, human: Overlap | None) -> str:
    """One line for the terminal: 5-grams seen, characters in copied spans, the longest span.

    Args:
      human: the overlap of held-out chapters, printed next to the first two figures.
    """
    longest = max(overlap.longest, key=lambda span: span.end - span.start, default=None)
    where = "no character of it is in the book"
    if longest:
        where = f"longest {longest.end - longest.start} (chapter {longest.chapter})"
    grams = f" (held-out chapters {_percent(human.seen_fraction(5))})" if human else ""
    copied = f" (held-out chapters {human.copied_fraction:.2%})" if human else ""
    return (
        f"recitation: 5-grams from the training text {_percent(overlap.seen_fraction(5))}{grams}, "
        f"copied spans of {SPAN}+ {overlap.copied_fraction:.1%} of the characters{copied}, {where}"
    )


def _percent(fraction: float) -> str:
    """A fraction for people; – where a text is too short to have one."""
    return "–" if np.isnan(fraction) else f"{fraction:.1%}"


def summary(overlap: Overlap) -> dict[str, Any]:
    """The measures as a JSON-able dict, as scripts/novelty.py prints them."""
    lengths = overlap.longest_lengths()
    return {
        "chars": overlap.chars,
        "seen": {n: overlap.seen_fraction(n) for n in ORDERS},
        "copied_share": overlap.copied_fraction,
        "longest_per_500": {
            "median": float(np.median(lengths)),
            "p90": float(np.percentile(lengths, 90)),
            "max": int(lengths.max()),
        },
    }


def table(rows: Mapping[str, Overlap]) -> str:
    """A Markdown table of several texts' measures, under a line that names the columns."""
    head = ["text", "characters", *(f"{n}-grams" for n in ORDERS)]
    head += [f"in spans {SPAN}+", "longest: median, 90 %, max"]
    lines = [
        f"n-grams that occur in the training text, characters in copied spans of {SPAN}+, longest "
        "copied span per 500 characters\n",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for name, overlap in rows.items():
        values = summary(overlap)
        longest = values["longest_per_500"]
        cells = [
            name,
            f"{overlap.chars:,}",
            *map(_percent, values["seen"].values()),
        ]
        cells.append(f"{overlap.copied_fraction:.2%}")
        cells.append(f"{longest['median']:.0f}, {longest['p90']:.0f}, {longest['max']}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
