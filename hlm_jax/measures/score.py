"""Nats per token and bits per character of any text, every character counted.

Bits per character are total bits / characters, whatever the tokenizer, so models with different
vocabularies can be compared. Windows slide at half stride: every token except those of a text's
first window has at least half a block of context. Knows nothing of files.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hlm_jax.book.tokenizer import Tokenizer
from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT
from hlm_jax.model.losses import token_losses
from hlm_jax.model.shape import Params

_ADAM = optax.scale_by_adam(b1=0.0, b2=0.999)  # of adaptive evaluation


@dataclasses.dataclass(frozen=True)
class Score:
    """What a text cost: total nats over `tokens` tokens that encode `chars` characters.

    Raises:
      ValueError: no token or no character; such a score has no mean.
    """

    nats: float
    tokens: int
    chars: int

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.chars < 1:
            raise ValueError(f"a score of {self.tokens} tokens and {self.chars} characters")

    @property
    def nats_per_token(self) -> float:
        """Mean cost of a token in nats."""
        return self.nats / self.tokens

    @property
    def bits_per_char(self) -> float:
        """Mean cost of a character in bits."""
        return self.nats / math.log(2) / self.chars

    def __add__(self, other: "Score") -> "Score":
        return Score(self.nats + other.nats, self.tokens + other.tokens, self.chars + other.chars)


def sliding_windows(length: int, block_size: int) -> list[tuple[int, int, int]]:
    """(start, first scored, end) of windows over `length` predictions: each is scored once."""
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
        self._adaptive_step = jax.jit(self._score_and_learn, donate_argnums=(0, 1))

    def _window_losses(
        self, params: Params, inputs_BT: jax.Array, targets_BT: jax.Array
    ) -> jax.Array:
        logits_BTV, _ = self.model.apply({"params": params}, inputs_BT)
        return token_losses(logits_BTV, targets_BT)

    def token_nats(self, params: Params, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Nats of every token of every sequence except its first, which is context only.

        Args:
          params: the model's parameters.
          sequences: token ids, at least one each; `encode` puts the chapter separator first.

        Returns:
          One float32 array of len(sequence) - 1 per sequence.
        """
        block = self.model.cfg.block_size
        jobs = [
            (number, window)
            for number, ids in enumerate(sequences)
            for window in sliding_windows(len(ids) - 1, block)
        ]
        nats = [np.zeros(len(ids) - 1, np.float32) for ids in sequences]

        def collect(batch, losses_BT) -> None:
            losses_BT = np.asarray(losses_BT)
            for row, (number, (start, scored, end)) in enumerate(batch):
                nats[number][scored:end] = losses_BT[row, scored - start : end - start]

        pending = None
        for first in range(0, len(jobs), self.batch_size):
            batch = jobs[first : first + self.batch_size]
            windows_BL = np.zeros((self.batch_size, block + 1), np.int32)
            for row, (number, (start, _, end)) in enumerate(batch):
                windows_BL[row, : end - start + 1] = sequences[number][start : end + 1]
            losses_BT = self._losses(params, windows_BL[:, :-1], windows_BL[:, 1:])
            if pending:  # the batch before is read while this one is computed
                collect(*pending)
            pending = batch, losses_BT
        if pending:
            collect(*pending)
        return nats

    def adaptive_token_nats(
        self, params: Params, sequences: Sequence[Sequence[int]], *, learning_rate: float
    ) -> list[np.ndarray]:
        """token_nats of a model that learns from what it has scored.

        Dynamic evaluation (Krause et al., arXiv 1709.07432). Sequences are read in order, window by
        window. A window's new tokens are scored first, then one Adam step is taken on them, so no
        token is scored by weights that have seen it.
        """
        block = self.model.cfg.block_size
        params = jax.tree.map(jnp.copy, params)  # donated at every step
        state = _ADAM.init(params)
        nats = []
        for ids in sequences:
            parts = []
            for start, first, end in sliding_windows(len(ids) - 1, block):
                window_L = np.zeros(block + 1, np.int32)
                window_L[: end - start + 1] = ids[start : end + 1]
                new_T = np.zeros(block, np.float32)
                new_T[first - start : end - start] = 1.0
                params, state, nats_T = self._adaptive_step(
                    params, state, window_L, new_T, learning_rate
                )
                parts.append((nats_T, slice(first - start, end - start)))
            rows = [np.asarray(nats_T)[part] for nats_T, part in parts]
            nats.append(np.concatenate(rows or [np.zeros(0, np.float32)]))
        return nats

    def _score_and_learn(
        self, params: Params, state, window_L: jax.Array, new_T: jax.Array, learning_rate: jax.Array
    ):
        """(params, state, nats_T) after one step on the tokens where `new_T` is 1."""

        def loss(params):
            nats_BT = self._window_losses(params, window_L[None, :-1], window_L[None, 1:])
            return (nats_BT[0] * new_T).sum() / new_T.sum(), nats_BT[0]

        grads, nats_T = jax.grad(loss, has_aux=True)(params)
        updates, state = _ADAM.update(grads, state)
        return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), state, nats_T

    def score(self, params: Params, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Score]:
        """A Score per text; every text begins like a chapter, after a separator.

        Raises:
          UserError: a text is empty.
        """
        return scores(self.token_nats(params, encode(tokenizer, texts)), texts)


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    """Token sequences to score: every text begins like a chapter, after a separator.

    Raises:
      UserError: a text is empty.
    """
    sequences = []
    for number, text in enumerate(texts, start=1):
        if not text:
            raise UserError(f"text {number} is empty: give at least one character to score")
        sequences.append([tokenizer.separator_id, *tokenizer.encode(text)])
    return sequences


def scores(nats: Iterable[np.ndarray], texts: Iterable[str]) -> list[Score]:
    """A Score per text from the nats of its tokens."""
    return [
        Score(float(of_text.sum(dtype=np.float64)), len(of_text), len(text))
        for of_text, text in zip(nats, texts, strict=True)
    ]


def total(scores: Iterable[Score]) -> Score:
    """The sum of Scores.

    Raises:
      UserError: there is none.
    """
    scores = list(scores)
    if not scores:
        raise UserError("there is no text to score")
    return functools.reduce(operator.add, scores)
