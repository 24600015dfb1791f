"""Burrows' Delta and its relatives: how far texts are apart by their most frequent features.

With f_i(D) the frequency of feature i in text D, and mean_i and s_i its mean and standard deviation
over the training texts, z_i(D) = (f_i(D) - mean_i) / s_i. Of n features:

    Delta(D, E)      = (1/n) sum_i |z_i(D) - z_i(E)|             Burrows 2002, simplified by Argamon 2008
    Manhattan(D, E)  = sum_i |f_i(D) - f_i(E)| / n               without z-scores
    Eder(D, E)       = (1/n) sum_i |z_i(D) - z_i(E)| (n - r_i + 1) / n, r_i the rank of feature i
    Cosine(D, E)     = 1 - z(D)·z(E) / (|z(D)| |z(E)|)           Smith & Aldridge 2011

Many programs name the variants differently; these formulas are what is computed here. A side is
represented by the mean z-score of its training texts.
"""  # noqa: E501 - formulas

import dataclasses
from collections.abc import Sequence

import numpy as np

MEASURES = ("delta", "cosine", "eder", "manhattan")
FEATURES = 150  # characters, the most frequent first


@dataclasses.dataclass(frozen=True)
class Scale:
    """Mean and standard deviation (n - 1) of every feature over training texts, [F]."""

    mean_F: np.ndarray
    deviation_F: np.ndarray

    @classmethod
    def of(cls, frequencies_NF: np.ndarray) -> "Scale":
        """The scale of training texts; one text alone has no deviation."""
        several = len(frequencies_NF) > 1
        deviation_F = (
            frequencies_NF.std(axis=0, ddof=1) if several else np.zeros(frequencies_NF.shape[1])
        )
        return cls(frequencies_NF.mean(axis=0), deviation_F)

    def z(self, frequencies_NF: np.ndarray) -> np.ndarray:
        """z-scores [N, F]; a feature without deviation gets 0."""
        known_F = self.deviation_F > 0
        spread_F = np.where(known_F, self.deviation_F, 1.0)
        return np.where(known_F, (frequencies_NF - self.mean_F) / spread_F, 0.0)


def distances(z_AF: np.ndarray, z_BF: np.ndarray, measure: str = "delta") -> np.ndarray:
    """The distance of every text of A from every text of B, float64 [A, B].

    Args:
      z_AF, z_BF: z-scores with the features in order of frequency; for "manhattan", frequencies.
      measure: one of MEASURES.

    Raises:
      ValueError: no such measure.
    """
    if measure not in MEASURES:
        raise ValueError(f"no distance is called {measure!r}: use {', '.join(MEASURES)}")
    n = z_AF.shape[1]
    if measure == "cosine":
        lengths_AB = np.outer(np.linalg.norm(z_AF, axis=1), np.linalg.norm(z_BF, axis=1))
        return 1.0 - (z_AF @ z_BF.T) / np.where(lengths_AB > 0, lengths_AB, 1.0)
    weights_F = (n - np.arange(n)) / n if measure == "eder" else np.ones(n)
    return np.stack([(np.abs(z_AF - row_F) * weights_F).mean(axis=1) for row_F in z_BF], axis=1)


class CharacterCounts:
    """How often every character occurs in every text, counted once for all folds.

    Args:
      texts: none of them empty.
      skip: characters that are no feature, such as the mark of a masked name.
    """

    def __init__(self, texts: Sequence[str], *, skip: str = "\n"):
        codes = [np.frombuffer(text.encode("utf-32-le"), np.uint32) for text in texts]
        symbols, inverse = np.unique(np.concatenate(codes), return_inverse=True)
        rows = np.repeat(np.arange(len(texts)), [len(code) for code in codes])
        self.characters = "".join(map(chr, symbols))
        cells = np.bincount(rows * len(symbols) + inverse, minlength=len(texts) * len(symbols))
        counts_NC = cells.reshape(len(texts), len(symbols)).astype(np.float64)
        counts_NC[:, [character in skip for character in self.characters]] = 0.0
        self.counts_NC = counts_NC
        self.frequencies_NC = counts_NC / np.maximum(counts_NC.sum(axis=1, keepdims=True), 1.0)

    def most_frequent(self, rows: np.ndarray, count: int = FEATURES) -> np.ndarray:
        """Columns of the characters that are most frequent in these texts taken together."""
        total_C = self.counts_NC[rows].sum(axis=0)
        order = np.argsort(-total_C, kind="stable")[:count]
        return order[total_C[order] > 0]


def delta_to_sides(
    counts: CharacterCounts,
    train_a: np.ndarray,
    train_b: np.ndarray,
    tested: np.ndarray,
    *,
    count: int = FEATURES,
) -> tuple[np.ndarray, np.ndarray]:
    """Delta of tested texts from each side; features and scale come from the training texts alone.

    Args:
      train_a, train_b, tested: rows of `counts`.
      count: features.

    Returns:
      (delta_a, delta_b), float64 [tested].
    """
    trained = np.concatenate([train_a, train_b])
    columns = counts.most_frequent(trained, count)
    frequencies_NF = counts.frequencies_NC[:, columns]
    scale = Scale.of(frequencies_NF[trained])
    z_NF = scale.z(frequencies_NF)
    sides = np.stack([z_NF[train_a].mean(axis=0), z_NF[train_b].mean(axis=0)])
    delta = distances(z_NF[tested], sides)
    return delta[:, 0], delta[:, 1]
