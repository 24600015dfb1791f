"""Nats per token and bits per character of any text, every character counted.

Bits per character are total bits / characters, whatever the tokenizer, so models with different
vocabularies can be compared. Windows slide at half stride: every token except those of a text's
first window has at least half a block of context. Knows nothing of files.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hlm_jax.book.tokenizer import BaseTokenizer
from hlm_jax.errors import UserError
from hlm_jax.measures.progress import Progress
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


@dataclasses.dataclass(frozen=True)
class Details:
    """What a model expected at each token of a sequence after its first; T of them.

    Attributes:
      nats: what each token cost, float32 [T].
      rank: 1 for the likeliest token, int32 [T]; equally likely tokens share a rank.
      entropy: of the distribution that each token was drawn from, in nats, float32 [T].
      context: tokens that the model read before each, the separator included, int32 [T].
      top_ids, top_logprobs: the k likeliest tokens in falling order and the natural logarithms of
        their probabilities, int32 and float32 [T, k].
    """

    nats: np.ndarray
    rank: np.ndarray
    entropy: np.ndarray
    context: np.ndarray
    top_ids: np.ndarray
    top_logprobs: np.ndarray


def sliding_windows(
    length: int, block_size: int, stride: int | None = None
) -> list[tuple[int, int, int]]:
    """(start, first scored, end) of windows over `length` predictions: each is scored once.

    Args:
      stride: predictions from one window's start to the next, half a block by default. All except
        those of the first window have block_size - stride tokens of context or more.
    """
    stride = stride or max(1, block_size // 2)
    windows, scored, start = [], 0, 0
    while scored < length:
        end = min(start + block_size, length)
        windows.append((start, scored, end))
        scored, start = end, start + stride
    return windows


_Job = tuple[int, int, int, int]  # number of the sequence; start, first scored, end of a window


class Evaluator:
    """Scores token sequences with compiled functions of fixed shape [batch_size, block_size]."""

    def __init__(self, model: GPT, *, batch_size: int = 16):
        self.model, self.batch_size = model, batch_size
        self._losses = jax.jit(self._window_losses, static_argnames="rows")
        self._details = jax.jit(self._window_details, static_argnames=("size", "top"))
        self._adaptive_step = jax.jit(
            self._score_and_learn, donate_argnums=(0, 1), static_argnames="rows"
        )

    def _window_losses(
        self, params: Params, inputs_BT: jax.Array, targets_BT: jax.Array, *, rows: bool = False
    ) -> tuple[jax.Array, ...]:
        """(nats of the targets [B, T],), with `rows` also log-probabilities, float16 [B, T, V]."""
        logits_BTV, _ = self.model.apply({"params": params}, inputs_BT)
        nats_BT = token_losses(logits_BTV, targets_BT)
        if not rows:
            return (nats_BT,)
        logits_BTV = jax.lax.stop_gradient(logits_BTV).astype(jnp.float32)
        least = float(jnp.finfo(jnp.float16).min)
        return nats_BT, jnp.maximum(jax.nn.log_softmax(logits_BTV), least).astype(jnp.float16)

    def _window_details(
        self,
        params: Params,
        inputs_BT: jax.Array,
        targets_BT: jax.Array,
        at_B: jax.Array,
        *,
        size: int,
        top: int,
    ) -> tuple[jax.Array, ...]:
        """(nats, rank, entropy, top ids, top logprobs) of `size` predictions of a row from `at`."""
        logits_BTV, _ = self.model.apply({"params": params}, inputs_BT)
        nats_BT = token_losses(logits_BTV, targets_BT)  # as in _window_losses, to the last bit

        def cut(x: jax.Array) -> jax.Array:
            return jax.vmap(lambda row, at: jax.lax.dynamic_slice_in_dim(row, at, size))(x, at_B)

        log_p_BSV = jax.nn.log_softmax(cut(logits_BTV).astype(jnp.float32), axis=-1)
        own_BS1 = jnp.take_along_axis(log_p_BSV, cut(targets_BT)[..., None], axis=-1)
        rank_BS = 1 + (log_p_BSV > own_BS1).sum(axis=-1, dtype=jnp.int32)
        entropy_BS = -(jnp.exp(log_p_BSV) * log_p_BSV).sum(axis=-1)
        top_logprobs_BSk, top_ids_BSk = jax.lax.top_k(log_p_BSV, top)
        return cut(nats_BT), rank_BS, entropy_BS, top_ids_BSk, top_logprobs_BSk

    def token_nats(self, params: Params, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Nats of every token of every sequence except its first, which is context only.

        Args:
          params: the model's parameters.
          sequences: token ids, at least one each; `encode` puts the chapter separator first.

        Returns:
          One float32 array of len(sequence) - 1 per sequence.
        """
        jobs = self._windows(sequences)
        found = [np.zeros(len(ids) - 1, np.float32) for ids in sequences]

        def compute(inputs_BT, targets_BT, _) -> tuple[jax.Array, ...]:
            return self._losses(params, inputs_BT, targets_BT)

        for batch, (nats_BT,) in self._batches(sequences, jobs, compute):
            for row, (number, start, scored, end) in enumerate(batch):
                found[number][scored:end] = nats_BT[row, scored - start : end - start]
        return found

    def log_probabilities(
        self,
        params: Params,
        sequences: Sequence[Sequence[int]],
        *,
        learning_rate: float | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (nats, natural logarithms of all probabilities) of the next tokens of a sequence.

        float32 [n] and float16 [n, V]. The sequences come one after another, each without its first
        token, and each in several parts. The nats are those of token_nats or adaptive_token_nats.

        Args:
          learning_rate: as adaptive_token_nats; None for a model that stays as it is.
        """
        if learning_rate is not None:
            windows = self._adaptive_windows(params, sequences, learning_rate, rows=True)
            for _, values, part in windows:
                nats_T, rows_TV = (np.asarray(of)[part] for of in values)
                yield nats_T, rows_TV
            return

        def compute(inputs_BT, targets_BT, _) -> tuple[jax.Array, ...]:
            return self._losses(params, inputs_BT, targets_BT, rows=True)

        jobs = self._windows(sequences)
        for batch, (nats_BT, rows_BTV) in self._batches(sequences, jobs, compute):
            for row, (_, start, scored, end) in enumerate(batch):
                part = slice(scored - start, end - start)
                yield nats_BT[row, part], rows_BTV[row, part]

    def _windows(self, sequences: Sequence[Sequence[int]]) -> list[_Job]:
        """The sliding windows of all sequences, in their order."""
        block = self.model.cfg.block_size
        return [
            (number, *window)
            for number, ids in enumerate(sequences)
            for window in sliding_windows(len(ids) - 1, block)
        ]

    def token_details(
        self,
        params: Params,
        sequences: Sequence[Sequence[int]],
        *,
        top: int = 0,
        stride: int | None = None,
        progress: Progress | None = None,
    ) -> list[Details]:
        """The Details of every sequence; at the default stride their nats are those of token_nats.

        Args:
          params, sequences: as token_nats.
          top: how many of the likeliest tokens to report.
          stride: of the windows, from 1 to the block; half a block by default. A smaller one gives
            every token more context and takes longer, in inverse proportion.
          progress: told (windows done, all windows) after every batch.

        Raises:
          UserError: no such stride or `top`.
        """
        block, vocab_size = self.model.cfg.block_size, self.model.cfg.vocab_size
        size = max(1, block // 2) if stride is None else stride
        if not 1 <= size <= block:
            raise UserError(f"the stride must lie between 1 and the block of {block}, not {stride}")
        if not 0 <= top <= vocab_size:
            raise UserError(f"top must lie between 0 and the vocabulary of {vocab_size}, not {top}")
        jobs = [
            (number, start, first, end)
            for number, ids in enumerate(sequences)
            for start, scored, end in sliding_windows(len(ids) - 1, block, size)
            for first in range(scored, end, size)  # a first window is longer than its stride
        ]
        found = [_no_details(len(ids) - 1, top) for ids in sequences]

        def at(start: int, first: int) -> int:
            return min(first - start, block - size)

        def compute(inputs_BT, targets_BT, batch: Sequence[_Job]) -> tuple[jax.Array, ...]:
            at_B = np.zeros(self.batch_size, np.int32)
            at_B[: len(batch)] = [at(start, first) for _, start, first, _ in batch]
            return self._details(params, inputs_BT, targets_BT, at_B, size=size, top=top)

        done = 0
        for batch, arrays in self._batches(sequences, jobs, compute):
            for row, (number, start, first, last) in enumerate(batch):
                one, begin = found[number], first - start - at(start, first)
                end = min(first + size, last)
                into = one.nats, one.rank, one.entropy, one.top_ids, one.top_logprobs
                for target, values_BS in zip(into, arrays, strict=True):
                    target[first:end] = values_BS[row, begin : begin + end - first]
                one.context[first:end] = np.arange(first - start, end - start) + 1
            done += len(batch)
            if progress:
                progress(done, len(jobs))
        return found

    def _batches(
        self,
        sequences: Sequence[Sequence[int]],
        jobs: Sequence[_Job],
        compute: Callable[[np.ndarray, np.ndarray, Sequence[_Job]], tuple[jax.Array, ...]],
    ) -> Iterator[tuple[Sequence[_Job], list[np.ndarray]]]:
        """Yields (jobs, arrays of `compute`); a row of inputs and targets belongs to each job.

        A batch is read while the one after it is computed.
        """
        block = self.model.cfg.block_size
        pending: tuple[Any, Any] | None = None
        for first in range(0, len(jobs), self.batch_size):
            batch = jobs[first : first + self.batch_size]
            windows_BL = np.zeros((self.batch_size, block + 1), np.int32)
            for row, (number, start, _, end) in enumerate(batch):
                windows_BL[row, : end - start + 1] = sequences[number][start : end + 1]
            outputs = compute(windows_BL[:, :-1], windows_BL[:, 1:], batch)
            if pending:
                yield pending[0], [np.asarray(array) for array in pending[1]]
            pending = batch, outputs
        if pending:
            yield pending[0], [np.asarray(array) for array in pending[1]]

    def adaptive_token_nats(
        self, params: Params, sequences: Sequence[Sequence[int]], *, learning_rate: float
    ) -> list[np.ndarray]:
        """token_nats of a model that learns from what it has scored.

        Dynamic evaluation (Krause et al., arXiv 1709.07432). Sequences are read in order, window by
        window. A window's new tokens are scored first, then one Adam step is taken on them, so no
        token is scored by weights that have seen it.
        """
        parts: list[list[tuple[jax.Array, slice]]] = [[] for _ in sequences]
        windows = self._adaptive_windows(params, sequences, learning_rate, rows=False)
        for number, (nats_T,), part in windows:
            parts[number].append((nats_T, part))
        none = np.zeros(0, np.float32)
        return [np.concatenate([none, *(np.asarray(of)[at] for of, at in some)]) for some in parts]

    def _adaptive_windows(
        self,
        params: Params,
        sequences: Sequence[Sequence[int]],
        learning_rate: float,
        *,
        rows: bool,
    ) -> Iterator[tuple[int, tuple[jax.Array, ...], slice]]:
        """Yields (number of the sequence, Learner.read of a window, its part that is new)."""
        learner = Learner(self, params, learning_rate)
        for number, start, first, end in self._windows(sequences):
            window = sequences[number][start : end + 1]
            values = learner.read(window, first - start, rows=rows)
            yield number, values, slice(first - start, end - start)

    def _score_and_learn(
        self,
        params: Params,
        state,
        window_L: jax.Array,
        new_T: jax.Array,
        learning_rate: jax.Array,
        *,
        rows: bool,
    ):
        """(params, state, _window_losses of the row) after a step on the tokens where `new_T` is 1.

        The losses are those from before the step.
        """

        def loss(params):
            found = self._window_losses(params, window_L[None, :-1], window_L[None, 1:], rows=rows)
            nats_T, *_ = values = tuple(values_BT[0] for values_BT in found)
            return (nats_T * new_T).sum() / new_T.sum(), values

        grads, values = jax.grad(loss, has_aux=True)(params)
        updates, state = _ADAM.update(grads, state)
        return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), state, values

    def score(self, params: Params, tokenizer: BaseTokenizer, texts: Sequence[str]) -> list[Score]:
        """A Score per text; every text begins like a chapter, after a separator.

        Raises:
          UserError: a text is empty.
        """
        return scores(self.token_nats(params, encode(tokenizer, texts)), texts)


class Learner:
    """A model that takes an Adam step on every window once it has scored it.

    Attributes:
      params: those of now, on the device. A step gives new ones and frees these.
    """

    def __init__(self, evaluator: Evaluator, params: Params, learning_rate: float):
        self._evaluator, self._learning_rate = evaluator, learning_rate
        self.params = jax.tree.map(jnp.copy, params)  # donated at every step
        self._state = _ADAM.init(self.params)

    def read(
        self, window: Sequence[int], first: int, *, rows: bool = False
    ) -> tuple[jax.Array, ...]:
        """The costs of a window, and then a step on its new tokens.

        Returns:
          (nats, float32 [block],), with `rows` also all log-probabilities, float16 [block, V], from
          before the step.

        Args:
          window: 2 to block + 1 tokens.
          first: the first prediction of the window that is of a new token, from 0.
        """
        block, predictions = self._evaluator.model.cfg.block_size, len(window) - 1
        window_L = np.zeros(block + 1, np.int32)
        window_L[: len(window)] = window
        new_T = np.zeros(block, np.float32)
        new_T[first:predictions] = 1.0
        self.params, self._state, values = self._evaluator._adaptive_step(
            self.params, self._state, window_L, new_T, self._learning_rate, rows=rows
        )
        return values


def _no_details(length: int, top: int) -> Details:
    return Details(
        nats=np.zeros(length, np.float32),
        rank=np.zeros(length, np.int32),
        entropy=np.zeros(length, np.float32),
        context=np.zeros(length, np.int32),
        top_ids=np.zeros((length, top), np.int32),
        top_logprobs=np.zeros((length, top), np.float32),
    )


def encode(tokenizer: BaseTokenizer, texts: Iterable[str]) -> list[list[int]]:
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
