"""The copied spans of a text that arrives in parts, with their chapters."""

import numpy as np

from hlm_jax.measures.overlap import SPAN, OverlapIndex, Span, describe
from hlm_jax.measures.reference import Reference

NO_BOOK = "recitation: not measured, the book is not at hand"


class CopiedSpans:
    """Spans of SPAN characters or more that stand in the training text word for word.

    After the last part they are those of OverlapIndex.measure. Until then the last one may grow,
    and a longer match may stand in another chapter.
    """

    def __init__(self, index: OverlapIndex):
        self._index = index
        self._open = ""  # the end of the text, in which a match may still grow
        self._ranks = range(0)  # of the book's suffixes that begin with it
        self._before = 0  # characters before it
        self._decided: list[Span] = []  # spans that begin before it
        self._told: dict[int, Span] = {}  # by their start

    @property
    def open(self) -> int:
        """Characters that `feed` may have to look for again."""
        return len(self._open)

    def feed(self, text: str) -> list[Span]:
        """The spans that became known or grew with `text`.

        While the book goes on as the text does, that costs a search of `text` alone.
        """
        self._ranks = self._index.narrowed(self._ranks, len(self._open), text)
        self._open += text
        spans = self._grown() if self._ranks else self._searched()
        new = [span for span in spans if self._told.get(span.start) != span]
        self._told |= {span.start: span for span in new}
        return new

    def _grown(self) -> list[Span]:
        """The spans of a text whose whole open end stands in the book."""
        if len(self._open) < SPAN:
            return self._decided
        return self._with(self._decided, 0, len(self._open), self._index.place(self._ranks[0]))

    def _searched(self) -> list[Span]:
        """The spans; decides those that begin before the first match that may still grow."""
        lengths, places = self._index.matches(self._open)
        reach = np.arange(len(lengths)) + lengths
        growing = np.flatnonzero((reach == len(lengths)) & (lengths > 0))
        closed = int(growing[0]) if len(growing) else len(lengths)
        spans = self._decided
        for i in np.flatnonzero(lengths >= SPAN).tolist():
            spans = self._with(spans, i, int(reach[i]), int(places[i]))
            if i < closed:
                self._decided = spans
        self._open, self._before = self._open[closed:], self._before + closed
        self._ranks = self._index.narrowed(self._index.ranks, 0, self._open)
        return spans

    def _with(self, spans: list[Span], start: int, end: int, place: int) -> list[Span]:
        """The spans and, of a match in the open end, what they do not have yet."""
        start, end = self._before + start, self._before + end
        if spans and start < spans[-1].end:
            if end <= spans[-1].end:
                return spans
            start = spans[-1].end  # as in OverlapIndex.measure: only what is new counts
        return [*spans, Span(start, end, self._index.chapter_of(place))]


def merged(spans: list[list[int]]) -> list[list[int]]:
    """[start, end, chapter] in their order, the last of each start: the sum of all parts."""
    latest: dict[int, list[int]] = {}
    for span in spans:
        latest[span[0]] = span
    return [latest[start] for start in sorted(latest)]


def recitation(reference: Reference | None, text: str) -> str:
    """What scripts/sample.py prints below a text; takes a while for a long one."""
    if reference is None:
        return NO_BOOK
    line = describe(reference.overlap_index.measure(text), reference.human_overlap)
    return "\n".join(filter(None, [line, reference.describe_extra_overlap(text)]))
