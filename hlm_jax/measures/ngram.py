"""An interpolated modified Kneser-Ney model: over characters, the baseline of every result.

Chen & Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (TR-10-98),
section 3: three discounts an order, estimated from counts of counts; lower orders count distinct
left neighbours. Symbols never seen in training share the probability of one unknown symbol evenly,
so that the probabilities over the whole alphabet sum to 1: all of Unicode for characters, the
vocabulary for token ids. Two such models mixed are one again. A model that goes on counting what it
reads is a third kind. Numpy only; knows nothing of tokenizers or neural models.
"""

import abc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from hlm_jax.measures.weights import fit_weight

_START = 0  # pads the left of every text; never predicted
_UNKNOWN = 1
CODE_POINTS = 0x110000 - 0x800  # all of Unicode except the surrogates

Symbols = Sequence[Any]  # a string, or token ids
_Context = tuple[int, ...]


class NgramModel(abc.ABC):
    """A model that gives every symbol a probability; what a text costs under it."""

    @abc.abstractmethod
    def probabilities(self, text: Symbols) -> np.ndarray:
        """P(symbol | the symbols before it), float64 [len(text)]."""

    def bits(self, text: Symbols) -> float:
        """Total bits of `text`, every symbol counted."""
        return float(-np.log2(self.probabilities(text)).sum())

    def bits_per_char(self, texts: Iterable[Symbols]) -> float:
        """Bits per symbol over several texts, each scored from its own beginning."""
        texts = list(texts)
        return sum(map(self.bits, texts)) / sum(map(len, texts))


class KneserNey(NgramModel):
    """An n-gram model of symbols, fitted on `texts`, each of which starts afresh.

    Args:
      texts: strings, or sequences of token ids.
      order: the longest n-gram.
      alphabet_size: how many symbols there are, seen or not; the default is Unicode's characters.
    """

    def __init__(
        self, texts: Sequence[Symbols], order: int = 5, *, alphabet_size: int = CODE_POINTS
    ):
        if order < 1:
            raise ValueError(f"order must be at least 1, not {order}")
        self.order = order
        symbols = sorted({symbol for text in texts for symbol in text})
        self._index = {symbol: i for i, symbol in enumerate(symbols, start=2)}
        self._width = len(symbols) + 2  # grams are keyed by context * width + symbol
        self._unseen = alphabet_size - len(symbols)
        self._fit([self._ids(text) for text in texts])

    def _ids(self, text: Symbols) -> np.ndarray:
        ids = np.array([self._index.get(symbol, _UNKNOWN) for symbol in text], dtype=np.int64)
        return np.concatenate([np.full(self.order - 1, _START, dtype=np.int64), ids])

    def _fit(self, sequences: list[np.ndarray]) -> None:
        x = np.concatenate(sequences)
        predicted = x != _START
        # gram[n][i]: dense id of the n-gram that ends at i; 0-grams are all one.
        # The lists below are indexed by n, so their item 0 is never read.
        none: np.ndarray = np.zeros(0, np.int64)
        gram: list[np.ndarray] = [np.zeros(len(x), dtype=np.int64)]
        self._keys, first = [none], [none]
        for n in range(1, self.order + 1):
            context = np.concatenate([np.zeros(1, dtype=np.int64), gram[n - 1][:-1]])
            keys, at, inverse = np.unique(
                context * self._width + x, return_index=True, return_inverse=True
            )
            self._keys.append(keys)
            first.append(at)
            gram.append(inverse)
        # Of every n-gram its count; of every context its total, and what discounts take from it.
        self._count, self._total, self._kept_back = [none], [none], [none]
        self._discounts = [none]  # D(0), D1, D2, D3+ of every order
        # Of every n-gram its count less the discount; where those of each context begin.
        self._less, self._places = [none], [none]
        for n in range(1, self.order + 1):
            size = len(self._keys[n])
            if n == self.order:
                count = np.bincount(gram[n][predicted], minlength=size)
            else:  # distinct left neighbours: longer grams, each counted once at its suffix
                at = first[n + 1]
                count = np.bincount(gram[n][at[predicted[at]]], minlength=size)
            seen = count > 0
            discounts = discounts_of(count[seen])
            discount = np.where(seen, discounts[np.minimum(count, 3)], 0.0)
            context = self._keys[n] // self._width
            n_contexts = len(self._keys[n - 1]) if n > 1 else 1
            self._count.append(count)
            self._discounts.append(discounts)
            self._less.append(count - discount)
            self._places.append(np.searchsorted(context, np.arange(n_contexts + 1)))
            self._total.append(np.bincount(context, weights=count, minlength=n_contexts))
            self._kept_back.append(np.bincount(context, weights=discount, minlength=n_contexts))

    def probabilities(self, text: Symbols) -> np.ndarray:
        """P(symbol | up to order - 1 symbols before it), float64 [len(text)]."""
        ids = self._ids(text)
        n_seen = self._width - 2
        # The 0-gram: every seen symbol and the unknown one are equally likely.
        p = np.full(len(ids), 1.0 / (n_seen + bool(self._unseen)))
        for n, _, count, total, kept_back in self._counts(ids):
            followed = total > 0
            divisor = np.where(followed, total, 1)
            discount = self._discounts[n][np.minimum(count, 3)]
            p = (count - discount) / divisor + np.where(followed, kept_back / divisor, 1.0) * p
        p = np.where(ids == _UNKNOWN, p / max(1, self._unseen), p)
        return p[self.order - 1 :]

    def _counts(self, ids: np.ndarray) -> Iterator[tuple[int, Any, Any, Any, Any]]:
        """Yields (n, the context's place, the n-gram's count, the context's total, what discounts
        take from that) for every n up to the order, arrays of the n-grams that end at each symbol.

        What training does not have has counts of 0, and a context that it does not have place -1.
        """
        gram = np.zeros(len(ids), dtype=np.int64)
        for n in range(1, self.order + 1):
            context = np.concatenate([np.zeros(1, dtype=np.int64), gram])[:-1]
            known = context >= 0
            context = np.where(known, context, 0)
            key = context * self._width + ids
            place = np.minimum(np.searchsorted(self._keys[n], key), len(self._keys[n]) - 1)
            seen = known & (self._keys[n][place] == key)
            count = np.where(seen, self._count[n][place], 0)
            total = np.where(known, self._total[n][context], 0.0)
            kept_back = np.where(known, self._kept_back[n][context], 0.0)
            yield n, np.where(known, context, -1), count, total, kept_back
            gram = np.where(seen, place, -1)


class Learner:
    """A KneserNey model that counts every symbol as well, once it has given its probability.

    It equals a model that is fitted anew before every symbol on the training texts and on what has
    been read, except that discounts stay those of training.

    Args:
      counts: False for a model that stays as it is.
    """

    def __init__(self, model: KneserNey, *, counts: bool = True):
        self._model, self._learns, order = model, counts, model.order
        self._discount = [of.tolist() for of in model._discounts]
        self._new: dict[Any, int] = {}  # symbols that training does not have
        # What comes to the model's own counts, by contexts: of the symbols after each, their counts
        # and these less discounts; the totals, and what discounts take from those.
        self._count = [defaultdict[_Context, dict[int, int]](dict) for _ in range(order + 1)]
        self._gain = [defaultdict[_Context, dict[int, float]](dict) for _ in range(order + 1)]
        self._total = [defaultdict[_Context, int](int) for _ in range(order + 1)]
        self._kept_back = [defaultdict[_Context, float](float) for _ in range(order + 1)]

    def read(self, text: Symbols) -> np.ndarray:
        """P(symbol | what was read before it), float64 [len(text)].

        Texts are read one after another; each starts afresh, as those of training do.
        """
        return np.fromiter((p for p, _ in self._read(text, None)), float, len(text))

    def distributions(
        self, text: Symbols, alphabet: Sequence[Any]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """As `read`; yields (P(symbol), P(each symbol of `alphabet`), float64 [alphabet]).

        What is not in `alphabet` has what is missing from a sum of 1.
        """
        for p, row in self._read(text, alphabet):
            assert row is not None
            yield p, row

    def _read(
        self, text: Symbols, alphabet: Sequence[Any] | None
    ) -> Iterator[tuple[float, np.ndarray | None]]:
        """Yields (the probability of every symbol, the distribution over the alphabet if any)."""
        model, order = self._model, self._model.order
        ids = model._ids(text)
        # [n][place]: (context, count of the n-gram, total of its context, what discounts take)
        trained: list[list[tuple[int, int, float, float]]] = [[]]
        for _, *values in model._counts(ids):
            trained.append(list(zip(*(value.tolist() for value in values), strict=True)))
        own, places = ids.tolist(), None
        for at, symbol in enumerate(text):
            i = at + order - 1
            row = None
            if alphabet is not None:
                if places is None:  # also after a symbol that is new
                    places = np.array([self._id(one) for one in alphabet], np.int64)
                row = self._row([of[i][0] for of in trained[1:]], own[i + 1 - order : i])[places]
            unseen, symbols = model._unseen - len(self._new), model._width - 2 + len(self._new)
            share = 1.0 / (symbols + bool(unseen))
            if (found := self._id(symbol)) == _UNKNOWN:
                share /= max(1, unseen)
            counts = [0]
            for n in range(1, order + 1):
                context = tuple(own[i + 1 - n : i])
                _, count, total, kept_back = trained[n][i]
                count += self._count[n].get(context, {}).get(found, 0)
                counts.append(count)
                if total := total + self._total[n].get(context, 0):
                    kept_back += self._kept_back[n].get(context, 0.0)
                    share *= kept_back / total
                    share += self._less(n, count) / total
            if self._learns:
                if found == _UNKNOWN:
                    found = self._new[symbol] = model._width + len(self._new)
                    places = None
                own[i] = found
                self._count_in(own[i + 1 - order : i], found, counts)
            yield share, row

    def _count_in(self, before: list[int], symbol: int, counts: list[int]) -> None:
        """Counts a symbol; `counts` are those of its n-grams so far, by n."""
        for n in range(self._model.order, 0, -1):
            context, count = tuple(before[len(before) + 1 - n :]), counts[n]
            gain = self._less(n, count + 1) - self._less(n, count)
            of, gains = self._count[n][context], self._gain[n][context]
            of[symbol] = of.get(symbol, 0) + 1
            gains[symbol] = gains.get(symbol, 0.0) + gain
            self._total[n][context] += 1
            self._kept_back[n][context] += 1 - gain
            if count:  # the shorter n-gram has this left neighbour already
                break

    def _row(self, contexts: list[int], before: list[int]) -> np.ndarray:
        """P(every symbol that has an id), and of each that has none P(_UNKNOWN); by id."""
        model = self._model
        unseen, symbols = model._unseen - len(self._new), model._width - 2 + len(self._new)
        p = np.full(model._width + len(self._new), 1.0 / (symbols + bool(unseen)))
        p[_UNKNOWN] /= max(1, unseen)
        for n, place in enumerate(contexts, start=1):
            context = tuple(before[len(before) + 1 - n :])
            total = self._total[n].get(context, 0)
            kept_back = self._kept_back[n].get(context, 0.0)
            if place >= 0:
                total += model._total[n][place]
                kept_back += model._kept_back[n][place]
            if not total:
                continue
            p *= kept_back / total
            if place >= 0:
                after = slice(*model._places[n][place : place + 2])
                p[model._keys[n][after] % model._width] += model._less[n][after] / total
            if gains := self._gain[n].get(context):
                ids = np.fromiter(gains, np.int64, len(gains))
                p[ids] += np.fromiter(gains.values(), float, len(gains)) / total
        return p

    def _id(self, symbol: Any) -> int:
        return self._model._index.get(symbol) or self._new.get(symbol, _UNKNOWN)

    def _less(self, n: int, count: int) -> float:
        """A count less its discount."""
        return count - self._discount[n][min(count, 3)]


class Mixture(NgramModel):
    """The weighted mean of the probabilities of two models of one alphabet.

    Args:
      model, other: the two.
      texts: the weight is the one under which these cost least; not empty.

    Attributes:
      weight: of `other`.
    """

    def __init__(self, model: NgramModel, other: NgramModel, texts: Sequence[Symbols]):
        self.model, self.other = model, other
        nats, others = (
            [-np.log(one.probabilities(text)) for text in texts] for one in (model, other)
        )
        self.weight = fit_weight(nats, others)

    def probabilities(self, text: Symbols) -> np.ndarray:
        """P(symbol | the symbols before it), float64 [len(text)]."""
        mine, others = self.model.probabilities(text), self.other.probabilities(text)
        return (1 - self.weight) * mine + self.weight * others


def discounts_of(counts: np.ndarray) -> np.ndarray:
    """D(0), D1, D2, D3+ of Chen & Goodman's equation 26.

    A text too small to estimate them gets 0.5, 1, 1.5.
    """
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = n1 / (n1 + 2 * n2)
    raw = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return np.clip(raw, [0, 0.05, 0.05, 0.05], [0, 1, 2, 3])
