"""Nats per token and bits per character of any text, every character counted.

Bits per character = total bits / characters, whatever the tokenizer: the only figure that models with different
vocabularies share. Windows slide at half stride, so that every token but a text's first ones has at least half a block
of context; the first window counts whole. Knows nothing of files.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hlm_jax.model.gpt import GPT
from hlm_jax.training.step import token_losses

_ADAM = optax.scale_by_adam(b1=0.0, b2=0.999)  # of adaptive evaluation


@dataclasses.dataclass(frozen=True)
class Score:
    """What a text cost: total nats over `tokens` tokens that spell `chars` characters."""

    nats: float
    tokens: int
    chars: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_per_char(self) -> float:
        return self.nats / math.log(2) / self.chars

    def __add__(self, other: "Score") -> "Score":
        return Score(self.nats + other.nats, self.tokens + other.tokens, self.chars + other.chars)


def sliding_windows(length: int, block_size: int) -> list[tuple[int, int, int]]:
    """(start, first scored, end) of windows over `length` predictions: each is scored exactly once."""
    stride = max(1, block_size // 2)
    windows, scored, start = [], 0, 0
    while scored < length:
        end = min(start + block_size, length)
        windows.append((start, scored, end))
        scored, start = end, start + stride
    return windows


class Evaluator:
    """Scores token sequences with one compiled function of fixed shape [batch_size, block_size]."""

    def __init__(self, model: GPT, *, batch_size: int = 16):
        self.model, self.batch_size = model, batch_size
        self._losses = jax.jit(self._window_losses)
        self._adaptive = None

    def _window_losses(self, params, inputs_BT, targets_BT):
        logits_BTV, _ = self.model.apply({"params": params}, inputs_BT)
        return token_losses(logits_BTV, targets_BT)

    def token_nats(self, params, sequences) -> list[np.ndarray]:
        """Nats of every token of every sequence but its first, which is context only (the chapter separator).

        Args:
          params: the model's parameters.
          sequences: token id sequences, each of at least one id.

        Returns:
          One float32 array of len(sequence) - 1 per sequence.
        """
        block = self.model.cfg.block_size
        jobs = [
            (number, window)
            for number, ids in enumerate(sequences)
            for window in sliding_windows(len(ids) - 1, block)
        ]
        out = [np.zeros(len(ids) - 1, np.float32) for ids in sequences]
        pending = None
        for first in range(0, len(jobs), self.batch_size):
            batch = jobs[first : first + self.batch_size]
            windows = np.zeros((self.batch_size, block + 1), np.int32)
            for row, (number, (start, _, end)) in enumerate(batch):
                windows[row, : end - start + 1] = sequences[number][start : end + 1]
            found = self._losses(params, jnp.asarray(windows[:, :-1]), jnp.asarray(windows[:, 1:]))
            self._collect(pending, out)  # read the batch before while this one is computed
            pending = batch, found
        self._collect(pending, out)
        return out

    @staticmethod
    def _collect(pending, out) -> None:
        if pending is None:
            return
        batch, found = pending
        found = np.asarray(found)
        for row, (number, (start, scored, end)) in enumerate(batch):
            out[number][scored:end] = found[row, scored - start : end - start]

    def score(self, params, tokenizer, texts) -> list[Score]:
        """A Score per text; every text begins like a chapter, after a separator."""
        return scores(self.token_nats(params, encode(tokenizer, texts)), texts)

    def adaptive_token_nats(self, params, sequences, *, learning_rate: float) -> list[np.ndarray]:
        """token_nats of a model that learns from what it has scored (dynamic evaluation, Krause et al., arXiv 1709.07432).

        The sequences are read in their order, window by window; a window's new tokens are scored first, and then one Adam step
        is taken on them, so that no token is scored by weights that have seen it.
        """
        if self._adaptive is None:
            self._adaptive = jax.jit(self._score_and_learn, donate_argnums=(0, 1))
        block = self.model.cfg.block_size
        params = jax.tree.map(jnp.copy, params)  # given away at every step
        state = _ADAM.init(params)
        out = []
        for ids in sequences:
            found = []
            for start, first, end in sliding_windows(len(ids) - 1, block):
                window = np.zeros(block + 1, np.int32)
                window[: end - start + 1] = ids[start : end + 1]
                new = np.zeros(block, np.float32)
                new[first - start : end - start] = 1.0
                params, state, nats_T = self._adaptive(params, state, window, new, learning_rate)
                found.append((nats_T, slice(first - start, end - start)))
            out.append(np.concatenate([np.asarray(nats_T)[part] for nats_T, part in found]))
        return out

    def _score_and_learn(self, params, state, window_U, new_T, learning_rate):
        def loss(params):
            nats_BT = self._window_losses(params, window_U[None, :-1], window_U[None, 1:])
            return (nats_BT[0] * new_T).sum() / new_T.sum(), nats_BT[0]

        grads, nats_T = jax.grad(loss, has_aux=True)(params)
        updates, state = _ADAM.update(grads, state)
        return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), state, nats_T


def encode(tokenizer, texts) -> list[list[int]]:
    """Token sequences to score: every text begins like a chapter, after a separator."""
    return [[tokenizer.separator_id, *tokenizer.encode(text)] for text in texts]


def scores(nats, texts) -> list[Score]:
    """A Score per text from the nats of its tokens."""
    return [
        Score(float(n.sum(dtype=np.float64)), len(n), len(text))
        for n, text in zip(nats, texts, strict=True)
    ]


def mix(nats, weights) -> list[np.ndarray]:
    """Nats of a mixture of models: the weighted mean of the probabilities that they give to every token.

    Args:
      nats: for every model the arrays of token_nats.
      weights: one per model; they sum to 1, and so do then the mixture's probabilities over the vocabulary.
    """
    assert abs(sum(weights) - 1) < 1e-9

    def one(of):
        return -np.logaddexp.reduce(
            [np.log(w) - np.asarray(n, np.float64) for w, n in zip(weights, of, strict=True) if w]
        )

    return [one(of) for of in zip(*nats, strict=True)]


def fit_weight(nats, other) -> float:
    """The weight of `other` in a mixture of two models that costs these tokens least (expectation maximisation; the cost is convex)."""
    a, b = (np.exp(-np.concatenate(of).astype(np.float64)) for of in (nats, other))
    weight = 0.5
    for _ in range(200):
        weight = float((weight * b / ((1 - weight) * a + weight * b)).mean())
    return weight


def total(scores) -> Score:
    """The sum of Scores."""
    return sum(scores, Score(0.0, 0, 0))


def paired_difference(
    bits, baseline_bits, chars, *, draws: int = 4000
) -> tuple[float, float, float]:
    """Difference in bits/char of two models on the same chapters, with its bootstrap interval (Efron & Tibshirani 1993).

    Args:
      bits, baseline_bits: total bits, [seeds, chapters]; a seed's two rows belong together.
      chars: characters of every chapter, [chapters].
      draws: resamples of chapters and of seeds.

    Returns:
      (difference, 2.5th percentile, 97.5th percentile); below 0 the first model is better.
    """
    saved, chars = np.subtract(bits, baseline_bits), np.asarray(chars, np.float64)
    seeds, chapters = saved.shape
    rng = np.random.default_rng(0)
    which = rng.integers(chapters, size=(draws, chapters))
    rows = rng.integers(seeds, size=(draws, seeds))
    drawn = saved[rows[:, :, None], which[:, None, :]].mean(axis=1).sum(axis=-1) / chars[which].sum(
        axis=-1
    )
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(saved.mean(axis=0).sum() / chars.sum()), float(low), float(high)
