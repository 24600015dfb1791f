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

from hlm_jax.model import GPT
from hlm_jax.train_step import token_losses


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
        jobs = [(number, window) for number, ids in enumerate(sequences) for window in sliding_windows(len(ids) - 1, block)]
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
        sequences = [[tokenizer.separator_id, *tokenizer.encode(text)] for text in texts]
        nats = self.token_nats(params, sequences)
        return [Score(float(n.sum(dtype=np.float64)), len(n), len(text)) for n, text in zip(nats, texts, strict=True)]


def total(scores) -> Score:
    """The sum of Scores."""
    return sum(scores, Score(0.0, 0, 0))
