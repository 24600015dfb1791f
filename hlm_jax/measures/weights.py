"""The weights of models in a mixture, fitted on texts: one a model, or one for each kind of place.

Expectation maximisation: the cost of the texts is convex in the weights. A weight depends on the
texts that it is fitted on and on what stands before a token, never on the token. So a mixture's
probabilities sum to 1. Numpy only.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

Nats = list[np.ndarray]  # nats of every token of every text, one float array a text

ENTROPIES = 4  # kinds of places by the entropy of the prediction; as many tokens in each
# Tokens that the global weight counts for in a kind of place. Few enough to be outweighed by the
# thousands of tokens of a usual kind, and enough for one that the texts have a few times.
PRIOR = 100.0
_ROUNDS = 200


def fit_weights(nats: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The weights under which a mixture costs some texts least, float64 [models]; they sum to 1.

    Args:
      nats: of every model those of every token of every text, one float array a text.

    Raises:
      ValueError: no model or no token.
    """
    p_NT = _relative(nats)
    weights_N = np.full(len(p_NT), 1 / len(p_NT))
    for _ in range(_ROUNDS):
        weights_N = weights_N * (p_NT @ (1 / (weights_N @ p_NT))) / p_NT.shape[1]
        weights_N /= weights_N.sum()  # holds against rounding
    return weights_N


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
        count_K = np.bincount(kind_T, minlength=kinds)
        p_T, other_T = _relative([nats, other])
        of_all = fit_weight(nats, other)
        weight_K = np.full(kinds, of_all)
        for _ in range(_ROUNDS):
            ours_T, others_T = (1 - weight_K[kind_T]) * p_T, weight_K[kind_T] * other_T
            share_K = np.bincount(kind_T, others_T / (ours_T + others_T), minlength=kinds)
            weight_K = (share_K + PRIOR * of_all) / (count_K + PRIOR)
        return cls(edges, np.minimum(weight_K, 1.0).reshape(longest + 1, ENTROPIES))

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
