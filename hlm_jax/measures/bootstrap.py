"""The difference of two models on the same chapters, with its bootstrap interval."""

import numpy as np
from numpy.typing import ArrayLike


def paired_difference(
    bits: ArrayLike, baseline_bits: ArrayLike, chars: ArrayLike, *, draws: int = 4000
) -> tuple[float, float, float]:
    """Difference in bits per character and its 95 % interval (Efron & Tibshirani 1993).

    Chapters and seeds are both drawn anew, with replacement.

    Args:
      bits, baseline_bits: total bits, [seeds, chapters]; a seed's two rows belong together.
      chars: characters of every chapter, [chapters].
      draws: number of resamples.

    Returns:
      (difference, 2.5th percentile, 97.5th percentile). Below 0 the first model is better.
    """
    difference, lengths = np.subtract(bits, baseline_bits), np.asarray(chars, np.float64)
    seeds, chapters = difference.shape
    rng = np.random.default_rng(0)
    columns = rng.integers(chapters, size=(draws, chapters))
    rows = rng.integers(seeds, size=(draws, seeds))
    drawn = difference[rows[:, :, None], columns[:, None, :]].mean(axis=1).sum(axis=-1)
    low, high = np.percentile(drawn / lengths[columns].sum(axis=-1), [2.5, 97.5])
    return float(difference.mean(axis=0).sum() / lengths.sum()), float(low), float(high)
