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
        self._before = 0  # characters before it
        self._decided: list[Span] = []  # spans that begin before it
        self._told: dict[int, Span] = {}  # by their start

    def feed(self, text: str) -> list[Span]:
        """The spans that became known or grew with `text`."""
        self._open += text
        lengths, places = self._index.matches(self._open)
        reach = np.arange(len(lengths)) + lengths
        growing = np.flatnonzero((reach == len(lengths)) & (lengths > 0))
        closed = int(growing[0]) if len(growing) else len(lengths)
        spans, decided = list(self._decided), len(self._decided)
        for i in np.flatnonzero(lengths >= SPAN).tolist():
            start, end = self._before + i, self._before + int(reach[i])
            if spans and start < spans[-1].end:
                if end <= spans[-1].end:
                    continue
                start = spans[-1].end  # as in OverlapIndex.measure: only what is new counts
            spans.append(Span(start, end, self._index.chapter_of(int(places[i]))))
            if i < closed:
                decided = len(spans)
        self._decided = spans[:decided]
        self._open, self._before = self._open[closed:], self._before + closed
        new = [span for span in spans if self._told.get(span.start) != span]
        self._told |= {span.start: span for span in new}
        return new


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
