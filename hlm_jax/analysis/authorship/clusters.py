"""Chapters grouped without being told the sides: does a break show by itself?

Principal components, two means, and the best single break of a row of chapters, on z-scores of the
most frequent characters. No label is used except to compare the result with it.
"""

from typing import Any

import numpy as np

from hlm_jax.analysis.authorship.delta import FEATURES, CharacterCounts, Scale

_STARTS = 20  # of two means; the best is kept
_SHUFFLES = 200  # of the order of the texts


def pca(z_NF: np.ndarray, components: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Principal components.

    Returns:
      (scores [N, components], shares of the variance [components]).
    """
    centred = z_NF - z_NF.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    shares = s**2 / max((s**2).sum(), 1e-12)
    return (u * s)[:, :components], shares[:components]


def two_means(z_NF: np.ndarray, seed: int = 0) -> np.ndarray:
    """k-means with two groups (Lloyd), the best of 20 starts; bool [N]."""
    rng, best, cost = np.random.default_rng(seed), np.zeros(len(z_NF), bool), np.inf
    for _ in range(_STARTS):
        centres = z_NF[rng.choice(len(z_NF), 2, replace=False)]
        group = np.zeros(len(z_NF), bool)
        for _ in range(100):
            away = ((z_NF[:, None] - centres[None]) ** 2).sum(axis=2)
            new = away[:, 1] < away[:, 0]
            if (new == group).all() and _ > 0:
                break
            group = new
            if group.all() or not group.any():
                break
            centres = np.stack([z_NF[~group].mean(axis=0), z_NF[group].mean(axis=0)])
        total = float(away.min(axis=1).sum())
        if total < cost - 1e-9 and group.any() and not group.all():
            best, cost = group, total
    return best


def best_break(z_NF: np.ndarray, least: int = 5) -> tuple[int, np.ndarray]:
    """The one break of a row of chapters that leaves the least variance on both of its sides.

    Args:
      least: chapters on each side.

    Returns:
      (chapters before the break, share of the variance that each break explains [N + 1]; nan where
      a side would be shorter than `least`).
    """
    n = len(z_NF)
    centred = z_NF - z_NF.mean(axis=0)
    before = np.cumsum(centred, axis=0)
    total = float((centred**2).sum())
    explained = np.full(n + 1, np.nan)
    for k in range(least, n - least + 1):
        sums = before[k - 1]
        explained[k] = float((sums**2).sum()) * (1 / k + 1 / (n - k)) / max(total, 1e-12)
    return int(np.nanargmax(explained)), explained


def adjusted_rand(first: np.ndarray, second: np.ndarray) -> float:
    """Agreement of two groupings, 1 for the same and 0 for chance (Hubert & Arabie 1985)."""

    def pairs(x: np.ndarray) -> float:
        return float((x * (x - 1) / 2).sum())

    table = np.array([[(first == i) & (second == j) for j in (0, 1)] for i in (0, 1)]).sum(axis=2)
    both, rows, columns = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected = rows * columns / pairs(np.array([len(first)]))
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((both - expected) / (most - expected))


def unsupervised(texts: list[str], is_a: np.ndarray, *, count: int = FEATURES) -> dict[str, Any]:
    """What groups and what break the texts show when no side is told.

    Args:
      texts: in the order of the book.
      is_a: the sides, to compare with.

    Returns:
      agreement: the share of texts in the right group, the better of the two namings;
      adjusted_rand: of the groups with the sides;
      break_after: texts before the best single break, break_explains its share of the variance,
      break_p how often the texts in another order have a break that explains as much;
      true_break_explains: that of the break between the sides, nan where they are no row;
      component_1, component_2: [N]; shares; group: bool [N].
    """
    counts = CharacterCounts(texts)
    columns = counts.most_frequent(np.arange(len(texts)), count)
    frequencies_NF = counts.frequencies_NC[:, columns]
    z_NF = Scale.of(frequencies_NF).z(frequencies_NF)
    scores, shares = pca(z_NF)
    group = two_means(z_NF)
    same = float((group == is_a).mean())
    least = max(2, min(5, len(texts) // 4))
    at, explained = best_break(z_NF, least)
    rng = np.random.default_rng(0)
    shuffled = [np.nanmax(best_break(rng.permutation(z_NF), least)[1]) for _ in range(_SHUFFLES)]
    border = int(is_a.sum())
    in_a_row = bool(is_a[:border].all() or (~is_a)[: len(is_a) - border].all())
    border = border if is_a[0] else len(is_a) - border
    return {
        "agreement": max(same, 1 - same),
        "adjusted_rand": adjusted_rand(group, is_a),
        "break_after": at,
        "break_explains": float(explained[at]),
        "break_p": float((1 + (shuffled >= explained[at]).sum()) / (1 + _SHUFFLES)),
        "true_break_explains": float(explained[border]) if in_a_row else float("nan"),
        "component_1": scores[:, 0],
        "component_2": scores[:, 1] if scores.shape[1] > 1 else np.zeros(len(texts)),
        "shares": shares,
        "group": group == is_a if same < 0.5 else group,
        "explained": explained,
    }
