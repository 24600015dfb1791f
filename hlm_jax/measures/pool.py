"""Several models as one by powers of their probabilities: a log-linear mixture.

P(x) is proportional to the product of P_k(x) ** weight_k over the models k (Klakow, "Log-linear
interpolation of language models", ICSLP 1998). Where one model excludes what another expects, the
product follows the first; a mean of probabilities would not. The weights are fitted on texts, whose
cost is convex in them. They are the same at every place, and the product is divided by its sum over
everything that may come there, so its probabilities sum to 1. The weights need not.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hlm_jax.errors import UserError

SAMPLE = 8192  # places that weights are fitted on, spread evenly over the texts
# Places that a draw towards equal weights counts for, so that few places give no wild ones and
# models that are alike share theirs.
PRIOR = 10.0
_AT_ONCE = 512  # places
_STEPS = 100
_GAIN = 1e-5  # nats a place, of a further step; a figure shows 1e-4 bits


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What models expected at T places of a text, and what came.

    Attributes:
      rows: natural logarithms of the probabilities of V symbols, [T, V], an array a model.
      symbols: that came, as columns of `rows`, int [T].
      rest: the column of all symbols that have none of their own, if there is one.
    """

    rows: Sequence[np.ndarray]
    symbols: np.ndarray
    rest: int | None = None


def fit_weights(texts: Sequence[Predictions]) -> np.ndarray:
    """The weights under which the log-linear mixture costs some texts least, float64 [models].

    Raises:
      ValueError: no place.
      UserError: a model's probabilities are no numbers.
      RuntimeError: the weights were not found.
    """
    places = sum(len(text.symbols) for text in texts)
    if not places:
        raise ValueError("weights cannot be fitted on texts without a token")
    every = -(-places // SAMPLE)
    rows = [
        np.concatenate([rows[::every] for rows in of])
        for of in zip(*(text.rows for text in texts), strict=True)
    ]
    sample = Predictions(rows, np.concatenate([text.symbols[::every] for text in texts]))
    parts = [jax.device_put(part) for part in _parts(sample)]
    equal_K = np.full(len(rows), 1 / len(rows))
    prior = PRIOR / len(sample.symbols)

    def costs(weights_K: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(nats a place, with the prior; its gradient; its second derivative)."""
        cost, gradient_K, curvature_KK = _means(weights_K, parts, len(sample.symbols))
        away_K = weights_K - equal_K
        cost += prior / 2 * float(away_K @ away_K)
        return cost, gradient_K + prior * away_K, curvature_KK + prior * np.eye(len(away_K))

    # Newton's method. scipy's would go on below the precision of float32, and then give up.
    weights_K, found = equal_K, costs(equal_K)
    if not np.isfinite(found[0]):
        raise UserError(
            "a model gives probabilities that are no numbers, so its weight cannot be fitted: "
            "choose another step of the run, or with --adaptive a lower --adaptive_rate"
        )
    for _ in range(_STEPS):
        cost, gradient_K, curvature_KK = found
        step_K = np.linalg.solve(curvature_KK, gradient_K)
        gain = float(gradient_K @ step_K)
        while gain >= _GAIN and not (found := costs(weights_K - step_K))[0] < cost:
            step_K, gain = step_K / 2, gain / 2
        if gain < _GAIN:
            return weights_K
        weights_K = weights_K - step_K
    raise RuntimeError(f"the weights of the models were not found in {_STEPS} steps")


def pooled_nats(text: Predictions, weights: np.ndarray) -> np.ndarray:
    """What every symbol costs under the log-linear mixture, in nats, float64 [T].

    A symbol without a column costs what the rest costs.
    """
    nats = [np.zeros(0)]
    for rows_KNV, symbols_N, real_N in _parts(text):
        found_N = np.asarray(_nats(weights, rows_KNV, symbols_N), np.float64)
        nats.append(found_N[real_N])
    return np.concatenate(nats)


_Part = tuple[np.ndarray, np.ndarray, np.ndarray]


def _parts(text: Predictions) -> Iterator[_Part]:
    """(rows [K, N, V], symbols [N], which are real [N]); N places at once, so one program does."""
    for first in range(0, len(text.symbols), _AT_ONCE):
        at = slice(first, first + _AT_ONCE)
        symbols_N = text.symbols[at]
        more = _AT_ONCE - len(symbols_N)
        rows_KNV = np.stack([np.pad(rows[at], ((0, more), (0, 0))) for rows in text.rows])
        yield rows_KNV, np.pad(symbols_N, (0, more)), np.arange(_AT_ONCE) < len(symbols_N)


def _means(
    weights_K: np.ndarray, parts: Iterable[_Part], places: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Over the places: of the cost in nats, its gradient and its second derivative."""
    sums = [_sums(weights_K, *part) for part in parts]
    cost, gradient_K, curvature_KK = (
        np.sum([np.asarray(of, np.float64) for of in every], axis=0) / places
        for every in zip(*sums, strict=True)
    )
    return float(cost), gradient_K, curvature_KK


def _logits(weights_K: jax.Array, rows_KNV: jax.Array) -> jax.Array:
    return jnp.tensordot(weights_K.astype(jnp.float32), rows_KNV, 1, precision="highest")


@jax.jit
def _nats(weights_K, rows_KNV, symbols_N) -> jax.Array:
    logits_NV = _logits(weights_K, rows_KNV.astype(jnp.float32))
    own_N = jnp.take_along_axis(logits_NV, symbols_N[:, None], 1)[:, 0]
    return jax.nn.logsumexp(logits_NV, axis=1) - own_N


@jax.jit
def _sums(weights_K, rows_KNV, symbols_N, real_N) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over the real places of the cost, its gradient and its second derivative.

    The cost of a place is a logarithm of a sum of exponentials: its derivatives are the mean and
    the covariance of the rows under the mixture.
    """
    rows_KNV = rows_KNV.astype(jnp.float32)
    logits_NV = _logits(weights_K, rows_KNV)
    own_N = jnp.take_along_axis(logits_NV, symbols_N[:, None], 1)[:, 0]
    nats_N = jax.nn.logsumexp(logits_NV, axis=1) - own_N
    p_NV = jax.nn.softmax(logits_NV) * real_N[:, None]
    mean_KN = (p_NV * rows_KNV).sum(axis=-1)
    own_KN = rows_KNV[:, jnp.arange(len(symbols_N)), symbols_N]
    gradient_K = (mean_KN - own_KN * real_N).sum(axis=1)
    away_KNV = rows_KNV - mean_KN[..., None]
    curvature_KK = jnp.einsum("KNV,LNV->KL", p_NV * away_KNV, away_KNV)
    return (nats_N * real_N).sum(), gradient_K, curvature_KK
