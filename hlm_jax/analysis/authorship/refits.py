"""Kneser-Ney models of many parts of one collection of texts, without counting anew for each.

A cross-validation with its controls fits hundreds of models of nearly the same texts. Every n-gram
of the collection gets an id once; a model of some of its texts is then a few sums over ids. The
probabilities are those of measures/ngram.py fitted on the same texts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hlm_jax.measures.ngram import CODE_POINTS, discounts_of

_START = 0  # pads the left of every text; never predicted


class Collection:
    """Texts whose parts are fitted and scored.

    Args:
      texts: at least one, none of them empty.
      order: the longest n-gram.
    """

    def __init__(self, texts: Sequence[str], order: int = 5):
        self.order = order
        pads, codes, begins, place = order - 1, [], [], 0
        for text in texts:
            begins.append(place + pads)
            codes.append(np.zeros(pads, np.int64))
            codes.append(np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64) + 1)
            place += pads + len(text)
        self._begins, self._lengths = begins, [len(text) for text in texts]
        _, symbols = np.unique(np.concatenate(codes), return_inverse=True)
        width = int(symbols.max()) + 1
        # Indexed by n; a 0-gram is nothing, and all 0-grams are one.
        self._gram = [np.zeros(place, np.int64)]  # [n][position]: the n-gram that ends there
        self._context = [np.zeros(1, np.int64)]  # [n][n-gram]: its first n - 1 symbols
        self._suffix = [np.zeros(1, np.int64)]  # [n][n-gram]: its last n - 1 symbols
        for n in range(1, order + 1):
            before = np.concatenate([[0], self._gram[n - 1][:-1]])
            keys, first, gram = np.unique(
                before * width + symbols, return_index=True, return_inverse=True
            )
            self._context.append(keys // width)
            self._suffix.append(self._gram[n - 1][first])
            self._gram.append(gram)

    def fit(self, parts: Mapping[int, int]) -> "PartModel":
        """The model of some texts.

        Args:
          parts: {index of a text: characters of its beginning that are used}.
        """
        places = [
            np.arange(self._begins[index], self._begins[index] + min(chars, self._lengths[index]))
            for index, chars in sorted(parts.items())
        ]
        return PartModel(self, np.concatenate(places))

    def span(self, index: int) -> slice:
        """The positions of a text's characters."""
        return slice(self._begins[index], self._begins[index] + self._lengths[index])


class PartModel:
    """An interpolated modified Kneser-Ney model of some of a collection's texts."""

    def __init__(self, collection: Collection, places: np.ndarray):
        self._of, order = collection, collection.order
        # [n][n-gram]: its discounted share of its context; [n][context]: what is kept back, less 1.
        self._discounted: list[np.ndarray] = [np.zeros(0)] * (order + 1)
        self._backoff: list[np.ndarray] = [np.zeros(0)] * (order + 1)
        grams = collection._gram[order][places]
        for n in range(order, 0, -1):
            size, contexts = len(collection._context[n]), len(collection._context[n - 1])
            count = np.bincount(grams, minlength=size)
            seen = np.flatnonzero(count > 0)
            counts, context = count[seen], collection._context[n][seen]  # contexts ascend
            discount = discounts_of(counts)[np.minimum(counts, 3)]
            starts = np.flatnonzero(np.diff(context, prepend=-1))
            runs = np.diff(starts, append=len(context))
            total = np.add.reduceat(counts, starts)
            self._backoff[n] = np.zeros(contexts)
            self._backoff[n][context[starts]] = np.add.reduceat(discount, starts) / total - 1.0
            self._discounted[n] = np.zeros(size)
            self._discounted[n][seen] = (counts - discount) / np.repeat(total, runs)
            grams = collection._suffix[n][seen]  # each distinct n-gram once, at its suffix
        self._known = np.zeros(len(collection._context[1]), bool)
        self._known[seen] = True

    def bits(self, index: int) -> np.ndarray:
        """Bits of every character of one text, float64 [chars]."""
        span, grams = self._of.span(index), self._of._gram
        places = np.arange(span.start, span.stop)
        n_seen = int(self._known.sum())
        p = np.full(span.stop - span.start, 1.0 / (n_seen + 1))
        for n in range(1, self._of.order + 1):
            context = grams[n - 1][places - 1] if n > 1 else 0
            p = self._discounted[n][grams[n][span]] + (1.0 + self._backoff[n][context]) * p
        known = self._known[grams[1][span]]
        return -np.log2(np.where(known, p, p / (CODE_POINTS - n_seen)))
