"""How much of a text is copied from the training text: a suffix array, and the measures of recitation made from it.

Characters only; knows nothing of models. A span counts as copied where it stands in the training text word for word; a copy
never runs over the border of two chapters.
"""

import dataclasses

import numpy as np

SPAN = 15  # characters: held-out chapters of the book itself hold almost no such span (docs/generalisation.md)
ORDERS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 15)
_BORDER = "\0"


@dataclasses.dataclass(frozen=True)
class Span:
    """text[start:end] stands word for word in the training chapter of this number."""

    start: int
    end: int
    chapter: int


@dataclasses.dataclass(frozen=True)
class Novelty:
    """Measures of one text, or the sum of several (positions are then each text's own)."""

    chars: int
    seen: dict[
        int, tuple[int, int]
    ]  # n: how many of its n-grams stand in the training text, and how many it has
    spans: tuple[
        Span, ...
    ]  # disjoint pieces that cover every copied span of SPAN characters or more
    longest: tuple[Span, ...]  # the longest copied span, of any length, within each 500 characters

    def __add__(self, other: "Novelty") -> "Novelty":
        seen = {
            n: (self.seen[n][0] + other.seen[n][0], self.seen[n][1] + other.seen[n][1])
            for n in ORDERS
        }
        return Novelty(
            self.chars + other.chars, seen, self.spans + other.spans, self.longest + other.longest
        )

    def seen_share(self, n: int) -> float:
        """Share of the n-grams that stand in the training text; nan where the text is shorter than n."""
        found, of = self.seen[n]
        return found / of if of else float("nan")

    def longest_lengths(self) -> np.ndarray:
        """Characters of the longest copied span of every 500."""
        return np.array([span.end - span.start for span in self.longest] or [0])

    @property
    def copied_share(self) -> float:
        """Share of the characters inside copied spans."""
        return sum(span.end - span.start for span in self.spans) / self.chars if self.chars else 0.0


class TrainingText:
    """A suffix array over chapters, which answers how far a text agrees with the book from each of its positions.

    Manber & Myers 1993; built by doubling ranks, O(n log² n).
    """

    def __init__(self, chapters):
        self._chapters = list(chapters)
        self._text = _BORDER + "".join(chapter.text + _BORDER for chapter in self._chapters)
        lengths = [len(chapter.text) + 1 for chapter in self._chapters]
        self._ends = np.cumsum([1, *lengths])[1:]
        self._suffixes = suffix_array(
            self._text
        ).tolist()  # Python's integers: looked up one by one

    def matches(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """(length, place): the longest prefix of text[i:] that stands in the book, and where, for every i; int32 [len(text)]."""
        lengths, places = np.zeros(len(text), np.int32), np.zeros(len(text), np.int32)
        known = 0
        for i in range(len(text)):
            # What follows a match matches at least one character less: the search starts from there.
            known, places[i] = self._longest(text, i, max(0, known - 1))
            lengths[i] = known
        return lengths, places

    def _longest(self, text: str, i: int, at_least: int) -> tuple[int, int]:
        limit = text.find(_BORDER, i)
        limit = len(text) - i if limit < 0 else limit - i
        length, place = 0, 0
        reach = max(8, 2 * at_least)
        while True:
            target = text[i : i + min(reach, limit)]
            low, high = 0, len(self._suffixes)
            while (
                low < high
            ):  # the first suffix not below the target; its neighbours share the longest prefixes
                middle = (low + high) // 2
                start = self._suffixes[middle]
                if self._text[start : start + len(target)] < target:
                    low = middle + 1
                else:
                    high = middle
            for neighbour in (low - 1, low):
                if 0 <= neighbour < len(self._suffixes):
                    start = self._suffixes[neighbour]
                    common = _common(target, self._text[start : start + len(target)])
                    if common > length:
                        length, place = common, start
            if length < len(target) or len(target) == limit:
                return length, place
            reach *= 4

    def chapter_of(self, place: int) -> int:
        """The number of the chapter that a place of `matches` lies in."""
        return self._chapters[int(np.searchsorted(self._ends, place, side="right"))].number

    def measure(self, text: str) -> Novelty:
        """The Novelty of a text; those of several texts can be added."""
        lengths, places = self.matches(text)
        seen = {n: (int((lengths >= n).sum()), max(0, len(text) - n + 1)) for n in ORDERS}
        spans, longest = [], []
        for i in np.flatnonzero(lengths >= SPAN).tolist():
            start, end = i, i + int(lengths[i])
            if spans and start < spans[-1].end:
                if end <= spans[-1].end:
                    continue
                start = spans[-1].end  # overlaps the span before: only what is new counts
            spans.append(Span(start, end, self.chapter_of(int(places[i]))))
        for first in range(0, len(text), 500):
            inside = np.minimum(
                lengths[first : first + 500], np.arange(min(500, len(text) - first), 0, -1)
            )
            if len(inside) and inside.max() > 0:
                at = int(inside.argmax())
                longest.append(
                    Span(
                        first + at,
                        first + at + int(inside[at]),
                        self.chapter_of(int(places[first + at])),
                    )
                )
        return Novelty(len(text), seen, tuple(spans), tuple(longest))


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


def _common(a: str, b: str) -> int:
    """Length of the common prefix."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


class Marker:
    """Puts the copied spans of a text that arrives in pieces into ⟦ ⟧; holds back only what may yet become part of one."""

    def __init__(self, book: TrainingText):
        self._book, self._text, self._done, self._inside = book, "", 0, False

    def feed(self, text: str) -> str:
        """What can be printed now that `text` has arrived."""
        self._text += text
        return self._print(final=False)

    def flush(self) -> str:
        """The rest, when nothing more comes."""
        return self._print(final=True)

    def _print(self, *, final: bool) -> str:
        lengths, _ = self._book.matches(self._text)
        starts = np.arange(len(lengths))
        change = np.zeros(
            len(lengths) + 1, np.int64
        )  # +1 where a copied span begins, -1 behind its end
        np.add.at(change, starts[lengths >= SPAN], 1)
        np.add.at(change, (starts + lengths)[lengths >= SPAN], -1)
        copied = np.cumsum(change)[:-1] > 0
        growing = starts[
            (starts + lengths == len(lengths)) & (lengths > 0)
        ]  # matches that the next piece may prolong
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


def mark(text: str, book: TrainingText) -> str:
    """The text with its copied spans in ⟦ ⟧."""
    marker = Marker(book)
    return marker.feed(text) + marker.flush()


def describe(novelty: Novelty, human: Novelty | None) -> str:
    """One line for the terminal: 5-grams seen, characters in copied spans, both beside the human row, and the longest span."""
    longest = max(novelty.longest, key=lambda span: span.end - span.start, default=None)
    where = (
        f"longest {longest.end - longest.start} (chapter {longest.chapter})"
        if longest
        else "no character of it is in the book"
    )
    grams, copied = (
        (
            f" (held-out chapters {x})"
            for x in (f"{human.seen_share(5):.1%}", f"{human.copied_share:.2%}")
        )
        if human
        else ("", "")
    )
    return (
        f"recitation: 5-grams from the training text {novelty.seen_share(5):.1%}{grams}, "
        f"copied spans of {SPAN}+ {novelty.copied_share:.1%} of the characters{copied}, {where}"
    )
