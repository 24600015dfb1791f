"""How good a score tells two sides apart: the measures of authorship verification.

A score is higher for texts of side A. Probabilities are of side A, which is the positive class.
"""

import dataclasses
from typing import Any

import numpy as np

BAND = 0.1  # a probability nearer than this to 0.5 is no answer
DRAWS = 4000  # of the bootstrap and of the permutations


def auc(scores: np.ndarray, is_a: np.ndarray) -> float:
    """The probability that a text of A has the higher score of the two (ties count half)."""
    a, b = scores[is_a][:, None], scores[~is_a][None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def cohens_d(scores: np.ndarray, is_a: np.ndarray) -> float:
    """(mean of A - mean of B) / pooled deviation (Cohen 1988); nan where nothing varies."""
    a, b = scores[is_a], scores[~is_a]
    if len(a) < 2 or len(b) < 2:
        return float("nan")
    squares = (len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)
    pooled = np.sqrt(squares / (len(a) + len(b) - 2))
    return float((a.mean() - b.mean()) / pooled) if pooled > 0 else float("nan")


def c_at_1(p: np.ndarray, is_a: np.ndarray, band: float = BAND) -> float:
    """(1/n) (n_correct + n_unanswered n_correct / n) of Peñas & Rodrigo 2011."""
    answered = np.abs(p - 0.5) >= band
    correct = int((((p > 0.5) == is_a) & answered).sum())
    return (correct + int((~answered).sum()) * correct / len(p)) / len(p)


def f_05_u(p: np.ndarray, is_a: np.ndarray, band: float = BAND) -> float:
    """F0.5u of Bevendorff et al. 2019: F0.5 of class A; no answer is a false negative."""
    answered = np.abs(p - 0.5) >= band
    true_a = int(((p > 0.5) & is_a & answered).sum())
    false_a = int(((p > 0.5) & ~is_a & answered).sum())
    false_b = int(((p <= 0.5) & is_a & answered).sum())
    cost = 1.25 * true_a + 0.25 * (false_b + int((~answered).sum())) + false_a
    return 1.25 * true_a / cost if cost else 0.0


def brier(p: np.ndarray, is_a: np.ndarray) -> float:
    """Mean squared error of the probabilities; 0.25 is that of always saying 0.5."""
    return float(((p - is_a) ** 2).mean())


@dataclasses.dataclass(frozen=True)
class Logistic:
    """p(A) = 1 / (1 + exp(-(bias + weights · scores))).

    Attributes:
      weights: one for each score, [S].
    """

    weights: np.ndarray
    bias: float

    @classmethod
    def fit(cls, scores_NS: np.ndarray, is_a: np.ndarray, penalty: float = 1.0) -> "Logistic":
        """Newton's method, both sides of equal weight, on standardised scores with an L2 penalty.

        The penalty keeps the weights finite where the scores separate the sides completely.
        """
        scores_NS = np.asarray(scores_NS, np.float64).reshape(len(is_a), -1)
        mean_S, spread_S = scores_NS.mean(axis=0), scores_NS.std(axis=0)
        spread_S = np.where(spread_S > 0, spread_S, 1.0)
        x = np.column_stack([(scores_NS - mean_S) / spread_S, np.ones(len(is_a))])
        balance_N = np.where(is_a, 0.5 / is_a.sum(), 0.5 / (~is_a).sum()) * len(is_a)
        ridge = np.diag([penalty] * scores_NS.shape[1] + [1e-6])
        theta = np.zeros(x.shape[1])
        for _ in range(50):
            p = 1 / (1 + np.exp(-np.clip(x @ theta, -30, 30)))
            gradient = x.T @ (balance_N * (p - is_a)) + ridge @ theta
            curvature = (x.T * (balance_N * p * (1 - p))) @ x + ridge
            step = np.linalg.solve(curvature, gradient)
            theta -= step
            if np.abs(step).max() < 1e-9:
                break
        weights = theta[:-1] / spread_S
        return cls(weights, float(theta[-1] - weights @ mean_S))

    def __call__(self, scores_NS: np.ndarray) -> np.ndarray:
        """Probabilities of side A, [N]."""
        x = np.asarray(scores_NS, np.float64).reshape(-1, len(self.weights))
        return 1 / (1 + np.exp(-np.clip(x @ self.weights + self.bias, -500, 500)))


def calibrated(scores_NS: np.ndarray, is_a: np.ndarray, fold_N: np.ndarray) -> np.ndarray:
    """Probability of A for every text, by a Logistic fitted on the scores of the other folds.

    The models behind those scores were trained on the text itself, on its own side; the Logistic
    has one parameter for each score and one more.
    """
    scores_NS = np.asarray(scores_NS, np.float64).reshape(len(is_a), -1)
    p = np.full(len(is_a), 0.5)
    for fold in np.unique(fold_N):
        rest = fold_N != fold
        if is_a[rest].any() and (~is_a[rest]).any():
            p[~rest] = Logistic.fit(scores_NS[rest], is_a[rest])(scores_NS[~rest])
    return p


def figures(
    scores: np.ndarray, is_a: np.ndarray, p: np.ndarray, *, answers: np.ndarray | None = None
) -> dict[str, Any]:
    """Every measure of one score.

    Args:
      scores: [N].
      is_a: bool [N].
      p: calibrated probabilities of A, [N].
      answers: whether each text is given to A, bool [N]; by default where its score is above 0.

    Returns:
      chapters, correct, accuracy, balanced_accuracy, auc, c_at_1, f_05_u, brier, unanswered;
      effect: the mean score of A less that of B, in the unit of the score, with its 95 % bootstrap
      interval over texts (effect_low, effect_high); cohens_d likewise; permutation_p.
    """
    answers = scores > 0 if answers is None else answers
    right = answers == is_a
    rng = np.random.default_rng(0)
    effects, ds = _bootstrap(scores, is_a, rng)
    low, high = np.percentile(effects, [2.5, 97.5])
    d_low, d_high = np.nanpercentile(ds, [2.5, 97.5]) if np.isfinite(ds).any() else (np.nan, np.nan)
    return {
        "chapters": len(scores),
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "balanced_accuracy": float((right[is_a].mean() + right[~is_a].mean()) / 2),
        "auc": auc(scores, is_a),
        "c_at_1": c_at_1(p, is_a),
        "f_05_u": f_05_u(p, is_a),
        "brier": brier(p, is_a),
        "unanswered": int((np.abs(p - 0.5) < BAND).sum()),
        "effect": float(scores[is_a].mean() - scores[~is_a].mean()),
        "effect_low": float(low),
        "effect_high": float(high),
        "cohens_d": cohens_d(scores, is_a),
        "cohens_d_low": float(d_low),
        "cohens_d_high": float(d_high),
        "permutation_p": permutation_p(scores, is_a),
    }


def permutation_p(scores: np.ndarray, is_a: np.ndarray, draws: int = DRAWS) -> float:
    """How often sides dealt anew to the texts give a difference of means at least as large.

    (1 + such draws) / (1 + draws), so never 0. The scores stay those of the models that were
    trained for the true sides, and neighbouring texts are taken as independent: a small p says that
    the difference is no accident of which texts were drawn, not that two authors made it.
    """
    rng = np.random.default_rng(1)
    observed = scores[is_a].mean() - scores[~is_a].mean()
    dealt = rng.permuted(np.tile(is_a, (draws, 1)), axis=1)
    means_a = dealt @ scores / is_a.sum()
    means_b = (~dealt) @ scores / (~is_a).sum()
    return float((1 + (means_a - means_b >= observed - 1e-12).sum()) / (1 + draws))


def _bootstrap(
    scores: np.ndarray, is_a: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of means and values of d of texts drawn anew within each side, [DRAWS] each."""
    drawn = [
        side[rng.integers(len(side), size=(DRAWS, len(side)))]
        for side in (scores[is_a], scores[~is_a])
    ]
    effect = drawn[0].mean(axis=1) - drawn[1].mean(axis=1)
    n = [side.shape[1] for side in drawn]
    if min(n) < 2:
        return effect, np.full(DRAWS, np.nan)
    squares = sum(
        (len_ - 1) * side.var(axis=1, ddof=1) for len_, side in zip(n, drawn, strict=True)
    )
    pooled = np.sqrt(squares / (sum(n) - 2))
    return effect, np.where(pooled > 0, effect / np.where(pooled > 0, pooled, 1), np.nan)
