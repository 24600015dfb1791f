"""The weights of models in a mixture, fitted on texts: one a model, or one for each kind of place.

The cost of the texts is convex in the weights, and scipy finds its minimum. Expectation
maximisation would stop far from it where models are alike, as steps of one run are. A weight
depends on the texts that it is fitted on and on what stands before a token, never on the token. So
a mixture's probabilities sum to 1.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

Nats = list[np.ndarray]  # nats of every token of every text, one float array a text

ENTROPIES = 4  # kinds of places by the entropy of the prediction; as many tokens in each
# Tokens that the global weight counts for in a kind of place. Few enough to be outweighed by the
# thousands of tokens of a usual kind, and enough for one that the texts have a few times.
PRIOR = 100.0
# Nats a token by which several weights may be worse than the best ones. A figure shows 1e-4 bits.
_GAP = 1e-5
# A probability counts as at least this part of that of the best model of its token, so that the
# cost is finite everywhere.
_LEAST = 1e-12


def fit_weights(nats: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The weights under which a mixture costs some texts least, float64 [models]; they sum to 1.

    Args:
      nats: of every model those of every token of every text, one float array a text.

    Raises:
      ValueError: no model or no token.
      RuntimeError: the weights found may be more than 1e-5 nats a token from the best ones.
    """
    p_NT = _relative(nats)
    if len(p_NT) == 1:
        return np.ones(1)
    if len(p_NT) == 2:
        weight = _best_weight(lambda w: _cost(p_NT[0], p_NT[1], w))
        return np.array([1 - weight, weight])
    return _best_weights(p_NT)


def fit_weight(nats: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """The weight of `other` in a mixture of two models that costs these symbols least.

    Args:
      nats, other: of every symbol of every text, one float array a text.
    """
    return float(fit_weights([nats, other])[1])


@dataclasses.dataclass(frozen=True)
class ContextWeights:
    """The weight of an n-gram model in a mixture with a neural one, by the kind of place.

    Drozdov et al. (arXiv 2210.15859) weight retrieved neighbours by how near they are. Here a kind
    of place is a pair: how many tokens before the place the n-gram model has seen together, and
    how sure the neural model is. Both are known before the token is.

    Attributes:
      edges: entropies in nats between the kinds, float [E - 1].
      weight_LE: of the n-gram model, by the length of the context and the entropy, float64 [L, E].
    """

    edges: np.ndarray
    weight_LE: np.ndarray

    @classmethod
    def fit(
        cls,
        nats: Sequence[np.ndarray],
        other: Sequence[np.ndarray],
        lengths: Sequence[np.ndarray],
        entropies: Sequence[np.ndarray],
        *,
        longest: int,
    ) -> "ContextWeights":
        """Those that are likeliest for some texts; each is drawn to the one weight of all places.

        The edges are quantiles of `entropies`. The prior is that of `PRIOR` more tokens in each
        kind of place, divided as the one weight divides them.

        Args:
          nats, other: of the neural and of the n-gram model, one float array a text.
          lengths: KneserNey.context_lengths of the texts.
          entropies: of the neural model's predictions, in nats, one float array a text.
          longest: the largest length that there is.
        """
        edges = np.quantile(np.concatenate(entropies), np.arange(1, ENTROPIES) / ENTROPIES)
        kinds = (longest + 1) * ENTROPIES
        kind_T = _kinds(np.concatenate(lengths), np.concatenate(entropies), edges)
        p_T, other_T = _relative([nats, other])
        of_all = fit_weight(nats, other)
        weight_K = np.full(kinds, of_all)
        for kind in np.unique(kind_T):
            mine = kind_T == kind
            weight_K[kind] = _likeliest_weight(p_T[mine], other_T[mine], of_all)
        return cls(edges, weight_K.reshape(longest + 1, ENTROPIES))

    def at(self, lengths_T: np.ndarray, entropies_T: np.ndarray) -> np.ndarray:
        """The weight of the n-gram model at every token of a text, float64 [T].

        Args:
          lengths_T, entropies_T: of the text, as in `fit`.
        """
        return self.weight_LE.reshape(-1)[_kinds(lengths_T, entropies_T, self.edges)]


def fitting_texts(text: str, validation: Sequence[str]) -> tuple[int, ...]:
    """Which of the validation texts the weights for `text` may be fitted on: their places.

    All those that neither are a part of it nor have it as a part.
    """
    return tuple(i for i, other in enumerate(validation) if other not in text and text not in other)


def _kinds(lengths_T: np.ndarray, entropies_T: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return lengths_T * ENTROPIES + np.searchsorted(edges, entropies_T, side="right")


def _relative(nats: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Probabilities of every token, divided by that of the model that is best there; [N, T]."""
    nats_NT = np.stack([np.concatenate(of).astype(np.float64) for of in nats])
    if not nats_NT.size:
        raise ValueError("weights cannot be fitted on texts without a token")
    return np.exp(nats_NT.min(axis=0) - nats_NT)


# --- the best weights ---


def _cost(p_T: np.ndarray, other_T: np.ndarray, weight: float) -> float:
    """Nats of some tokens, up to a constant, with this weight of the other model."""
    with np.errstate(divide="ignore"):  # a weight of 0 or 1 may leave a token without probability
        return float(-np.log((1 - weight) * p_T + weight * other_T).sum())


def _likeliest_weight(p_T: np.ndarray, other_T: np.ndarray, expected: float) -> float:
    """The best weight of the other model, with `PRIOR` more tokens divided by `expected`."""
    from scipy.special import xlog1py, xlogy

    def cost(weight: float) -> float:
        prior = xlogy(expected, weight) + xlog1py(1 - expected, -weight)
        return _cost(p_T, other_T, weight) - PRIOR * float(prior)

    return _best_weight(cost)


def _best_weight(cost: Callable[[float], float]) -> float:
    """Where a convex cost of a weight is least, from 0 to 1."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(cost, bounds=(0, 1), method="bounded", options={"xatol": 1e-8})
    return min(float(found.x), 0.0, 1.0, key=cost)  # it looks between the bounds, never at them


def _best_weights(p_NT: np.ndarray) -> np.ndarray:
    """The weights of three models or more, from equal ones on."""
    from scipy.optimize import minimize

    models, tokens = p_NT.shape
    p_NT = np.maximum(p_NT, _LEAST)

    def cost(weight_N: np.ndarray) -> tuple[float, np.ndarray]:
        mixed_T = np.maximum(weight_N @ p_NT, _LEAST)
        return -float(np.log(mixed_T).mean()), -(p_NT @ (1 / mixed_T)) / tokens

    found = minimize(
        cost,
        np.full(models, 1 / models),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * models,
        constraints={
            "type": "eq",
            "fun": lambda weight_N: weight_N.sum() - 1,
            "jac": lambda weight_N: np.ones(models),
        },
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    weight_N = np.maximum(found.x, 0)
    weight_N /= weight_N.sum()
    # By Jensen's inequality no weights are better than these by more than the logarithm of the
    # steepest descent. That tells more than scipy's own word of its success.
    gap = float(np.log(-cost(weight_N)[1].min()))
    if not gap <= _GAP:
        raise RuntimeError(
            f"the weights of {models} models were not found: those that scipy gives may be "
            f"{gap:.1e} nats a token from the best ones ({found.message})"
        )
    return weight_N
