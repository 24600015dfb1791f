"""The weight of one model in a mean of two models' probabilities, fitted on texts.

The cost of the texts is convex in the weight, and scipy finds its minimum. The weight depends on
the texts that it is fitted on alone, never on a symbol. So a mixture's probabilities sum to 1.
"""

from collections.abc import Sequence

import numpy as np

Nats = list[np.ndarray]  # nats of every token of every text, one float array a text


def fit_weight(nats: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """The weight of `other`, 0 to 1, in the mixture that costs these symbols least.

    Args:
      nats, other: of every symbol of every text, one float array a text.

    Raises:
      ValueError: no symbol.
    """
    from scipy.optimize import minimize_scalar

    nats_T, other_T = (np.concatenate(of).astype(np.float64) for of in (nats, other))
    if not nats_T.size:
        raise ValueError("a weight cannot be fitted on texts without a token")
    # Relative to the better of the two, which leaves the best weight as it is.
    least_T = np.minimum(nats_T, other_T)
    p_T, other_p_T = np.exp(least_T - nats_T), np.exp(least_T - other_T)

    def cost(weight: float) -> float:
        with np.errstate(divide="ignore"):  # 0 or 1 may leave a symbol without probability
            return float(-np.log((1 - weight) * p_T + weight * other_p_T).sum())

    found = minimize_scalar(cost, bounds=(0, 1), method="bounded", options={"xatol": 1e-8})
    return min(float(found.x), 0.0, 1.0, key=cost)  # it looks between the bounds, never at them
