"""Stylometry by counting: frequent characters, Delta, principal components, slices, Zeta.

The unit is a Han character, a kana or a Hangul syllable; of other scripts a word in lower case. No
text is segmented. Punctuation is left out, because a modern editor set it; it can be counted too.
The distances are those of delta.py.

Axes of arrays: N texts, F features, K components, A and B the texts of two sets.
"""

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np

from hlm_jax.analysis.authorship.delta import Scale, distances
from hlm_jax.errors import UserError

PER = 10_000  # frequencies are per 10,000 units
_ONE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_LETTER = f"(?:(?![{_ONE}])[^\\W\\d_])"
_CJK = "\u2e80"  # the first character of what is written without spaces, nearly
_UNIT = re.compile(f"[{_ONE}]|{_LETTER}+(?:['’]{_LETTER}+)*|\n|\\d+|[^\\w\\s]|_")
_COUNTED = re.compile(f"[{_ONE}]|[^\\W\\d_]")


def units(text: str, *, punctuation: bool = False) -> list[str]:
    """The units of a text in order, with "" where an n-gram may not run on.

    That is between paragraphs and, unless `punctuation` is counted, at every mark and number.
    """
    found = _UNIT.findall(text.lower())
    if punctuation:
        return ["" if unit == "\n" else unit for unit in found]
    return [unit if _COUNTED.match(unit) else "" for unit in found]


def grams(text: str, n: int, *, punctuation: bool = False) -> list[str | None]:
    """For every unit, the n-gram that begins there, or None where a border is in its way.

    Words of an n-gram are separated by a space, characters by nothing.
    """
    found = units(text, punctuation=punctuation)
    if n == 1:
        return [unit for unit in found if unit]
    padded = found + [""] * (n - 1)
    return [
        None if "" in (several := padded[i : i + n]) else functools.reduce(_joined, several)
        for i in range(len(found))
        if found[i]
    ]


def _joined(a: str, b: str) -> str:
    between = "" if a[-1] >= _CJK or b[0] >= _CJK or not (a[-1] + b[0]).isalnum() else " "
    return a + between + b


@dataclasses.dataclass(frozen=True)
class Features:
    """The most frequent n-grams of some texts, the most frequent first.

    Attributes:
      names: the n-grams, [F].
      counts: how often each occurs in those texts, [F].
      n: units of an n-gram.
      punctuation: whether marks are units.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    n: int = 1
    punctuation: bool = False

    @property
    def unit(self) -> str:
        """What the n-grams are made of, for people: "characters" or "words"."""
        ones = sum(name[0] >= _CJK for name in self.names)
        return "characters" if 2 * ones > len(self.names) else "words"

    @classmethod
    def of(
        cls, texts: Iterable[str], count: int, n: int = 1, *, punctuation: bool = False
    ) -> "Features":
        """The `count` most frequent n-grams of the texts together; fewer where there are fewer.

        Raises:
          UserError: fewer than two n-grams, asked for or found.
        """
        if count < 2:
            raise UserError(f"{count} features: ask for two or more")
        counted: collections.Counter[str] = collections.Counter()
        for text in texts:
            counted.update(g for g in grams(text, n, punctuation=punctuation) if g)
        best = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:count]
        if len(best) < 2:
            raise UserError("stylometry needs at least two features: give a longer text")
        return cls(tuple(g for g, _ in best), tuple(c for _, c in best), n, punctuation)

    def codes(self, text: str) -> np.ndarray:
        """For every unit of a text, the index of the feature that begins there, or -1; int."""
        index = {name: i for i, name in enumerate(self.names)}
        found = grams(text, self.n, punctuation=self.punctuation)
        return np.array([index.get(g, -1) if g else -1 for g in found], np.int64)

    def frequencies(self, texts: Sequence[str]) -> np.ndarray:
        """Occurrences per 10,000 units of each text, [N, F]; 0 for a text without units."""
        return np.stack([self._per_units(self.codes(text)) for text in texts])

    def _per_units(self, codes: np.ndarray) -> np.ndarray:
        counts = np.bincount(codes[codes >= 0], minlength=len(self.names))
        return PER * counts / max(1, len(codes))


def coordinates(frequencies_NF: np.ndarray, scale: Scale, measure: str) -> np.ndarray:
    """What a distance compares: z-scores, or the frequencies themselves for "manhattan"; [N, F]."""
    return frequencies_NF if measure == "manhattan" else scale.z(frequencies_NF)


def ward(distances_NN: np.ndarray) -> np.ndarray:
    """The tree of texts as scipy's linkage, [N - 1, 4]: Ward's criterion on the distances.

    Ward (1963) is about squared Euclidean distances; on Delta it is a custom. It is R's "ward.D2".
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    symmetric = (distances_NN + distances_NN.T) / 2
    np.fill_diagonal(symmetric, 0)
    return linkage(squareform(symmetric, checks=False), "ward")


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of z-scores.

    Attributes:
      mean_F: what was subtracted, [F].
      loadings_FK: unit vectors; the largest loading of each is positive, [F, K].
      scores_NK: the texts on them, [N, K].
      explained_K: each one's part of the variance, 0 to 1, [K].
    """

    mean_F: np.ndarray
    loadings_FK: np.ndarray
    scores_NK: np.ndarray
    explained_K: np.ndarray

    @classmethod
    def of(cls, z_NF: np.ndarray, count: int = 2) -> "Components":
        """By singular values; at most as many components as there are."""
        mean = z_NF.mean(axis=0)
        _, sizes, rows = np.linalg.svd(z_NF - mean, full_matrices=False)
        loadings = rows[:count].T
        largest = np.abs(loadings).argmax(axis=0)
        loadings = loadings * np.sign(loadings[largest, np.arange(loadings.shape[1])])
        total = max(float((sizes**2).sum()), np.finfo(float).tiny)
        return cls(mean, loadings, (z_NF - mean) @ loadings, sizes[:count] ** 2 / total)

    def project(self, z_NF: np.ndarray) -> np.ndarray:
        """Other texts on the same components, [N, K]."""
        return (z_NF - self.mean_F) @ self.loadings_FK


# --- slices ---


@dataclasses.dataclass(frozen=True)
class Slice:
    """A stretch of the book, its frequencies, and where it lies.

    Attributes:
      first, last: indices of the texts that it touches.
      start: its first unit, counted through all texts.
      place: of its middle, in texts: index + 0 at a text's beginning, index + 1 at its end.
      frequencies_F: per 10,000 units.
    """

    first: int
    last: int
    start: int
    place: float
    frequencies_F: np.ndarray


def slices(features: Features, texts: Sequence[str], size: int, step: int) -> list[Slice]:
    """Stretches of `size` units, every `step` units, over the texts one after another.

    Raises:
      UserError: sizes below 1, or a book shorter than one slice.
    """
    if size < 1 or step < 1:
        raise UserError("a slice and its step have at least one unit")
    codes = [features.codes(text) for text in texts]
    borders = np.cumsum([0, *map(len, codes)])
    together = np.concatenate(codes)
    if len(together) < size:
        raise UserError(
            f"a slice of {size:,} is longer than the text, {len(together):,} units: "
            "give a smaller --slice"
        )

    def text_of(unit: int) -> int:
        return int(np.searchsorted(borders, unit, side="right")) - 1

    out = []
    for start in range(0, len(together) - size + 1, step):
        middle = start + size // 2
        at = text_of(middle)
        place = at + (middle - borders[at]) / (borders[at + 1] - borders[at])
        here = together[start : start + size].copy()
        here[size - features.n + 1 :] = -1  # n-grams that run over the end
        frequencies = features._per_units(here)
        out.append(Slice(text_of(start), text_of(start + size - 1), start, place, frequencies))
    return out


def rolling_distances(
    found: Sequence[Slice],
    frequencies_NF: np.ndarray,
    scale: Scale,
    members: np.ndarray,
    measure: str = "delta",
) -> np.ndarray:
    """The distance of every slice from the mean of a set of texts, [slices].

    Texts that a slice touches are left out of the mean: a slice would lie near its own text. NaN
    where no text is left. The idea is Rolling Delta's (Rybicki, Eder & Hoover 2016, in: Doing
    Digital Humanities).

    Args:
      frequencies_NF: of the texts.
      members: whether each text belongs to the set, bool [N].
    """
    x_NF = coordinates(frequencies_NF, scale, measure)
    out = np.full(len(found), np.nan)
    for i, one in enumerate(found):
        kept = members.copy()
        kept[one.first : one.last + 1] = False
        if kept.any():
            here = coordinates(one.frequencies_F[None], scale, measure)
            out[i] = distances(here, x_NF[kept].mean(axis=0, keepdims=True), measure)[0, 0]
    return out


# --- Zeta ---


@dataclasses.dataclass(frozen=True)
class Preference:
    """An n-gram and how two sets of texts differ in it.

    Attributes:
      zeta: 0 to 2; above 1 it is a marker of the first set, below 1 of the second.
      share_a, share_b: of each set's segments, those that have it, 0 to 1.
      per_a, per_b: occurrences per 10,000 units.
    """

    name: str
    zeta: float
    share_a: float
    share_b: float
    per_a: float
    per_b: float


def zeta(
    texts_a: Sequence[str],
    texts_b: Sequence[str],
    *,
    n: int = 1,
    segment: int = 2000,
    least: int = 5,
    punctuation: bool = False,
) -> list[Preference]:
    """Craig's Zeta of every n-gram, the first set's markers first.

    Zeta = (segments of A with it) / (segments of A) + (segments of B without it) / (segments of B)
    (Burrows 2007, LLC 22(1); in this form Craig & Kinney 2009, Shakespeare, Computers, and the
    Mystery of Authorship). It counts presence, so a word that stands a hundred times in one
    segment counts once.

    Args:
      segment: units of a segment, about: each set is cut into equal segments and nothing is left.
      least: n-grams with fewer occurrences in both sets together are left out.

    Raises:
      UserError: a set without text, or a segment below 1.
    """
    if segment < 1:
        raise UserError("a segment has at least one unit")
    shares: list[dict[str, float]] = []
    rates: list[dict[str, float]] = []
    total: collections.Counter[str] = collections.Counter()
    for texts in (texts_a, texts_b):
        found = [g for text in texts for g in grams(text, n, punctuation=punctuation)]
        if not found:
            raise UserError("Zeta compares two sets of chapters with text: one has none")
        pieces = np.linspace(0, len(found), max(1, round(len(found) / segment)) + 1).astype(int)
        holders: collections.Counter[str] = collections.Counter()
        for begin, end in itertools.pairwise(pieces):
            holders.update({g for g in found[begin:end] if g})
        counts = collections.Counter(g for g in found if g)
        total += counts
        shares.append({g: k / (len(pieces) - 1) for g, k in holders.items()})
        rates.append({g: PER * k / len(found) for g, k in counts.items()})
    out = []
    for name, count in total.items():
        if count >= least:
            share_a, share_b = (share.get(name, 0.0) for share in shares)
            per_a, per_b = (rate.get(name, 0.0) for rate in rates)
            out.append(Preference(name, share_a + 1 - share_b, share_a, share_b, per_a, per_b))
    return sorted(out, key=lambda one: (-one.zeta, one.per_b - one.per_a, one.name))
