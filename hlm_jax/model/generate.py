"""Autoregressive generation of token ids: filters of logits, prefill, decoding with a KV cache.

How a row is drawn is data, not a program: SamplingParams become arrays [B], and rows of one batch
may differ in all of them. Token number i of a row is drawn with the key fold_in(key(seed), i) of
that row. The same seed gives the same tokens in any batch and however the work is cut into
dispatches. Axis letters: hlm_jax/model/__init__.py.
"""

import dataclasses
import functools
import math
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT, KVCache, init_cache
from hlm_jax.model.shape import Params

Automaton = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How the tokens of one row are drawn.

    Filters apply in this order: repetition penalty, temperature, top-k, top-p, min-p.

    Attributes:
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: keeps the k likeliest tokens (Fan et al. 2018); 0 keeps all.
      top_p: keeps the likeliest tokens up to this total probability (Holtzman et al. 2020).
      min_p: keeps tokens at least this fraction of the likeliest one's probability (Nguyen et al.
        2024).
      repetition_penalty: lowers tokens that occur in the prompt or the text so far (Keskar et al.
        2019); 1 changes nothing.
      seed: decides every draw, modulo 2**32.

    Raises:
      UserError: a value is impossible.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self):
        def require(name: str, kinds: tuple[type, ...], holds, rule: str) -> None:
            value = getattr(self, name)
            # A comparison with NaN is false: every rule below refuses it.
            if not isinstance(value, kinds) or isinstance(value, bool) or not holds(value):
                raise UserError(f"--{name} must be {rule}, not {value!r}")

        whole, number = (int, np.integer), (int, float, np.integer, np.floating)
        require("temperature", number, lambda x: 0 <= x < math.inf, "a number of at least 0")
        require("top_k", whole, lambda x: x >= 0, "a whole number of at least 0")
        require("top_p", number, lambda x: 0 <= x <= 1, "a number between 0 and 1")
        require("min_p", number, lambda x: 0 <= x <= 1, "a number between 0 and 1")
        require("repetition_penalty", number, lambda x: 0 < np.float32(x) < math.inf, "above 0")
        require("seed", whole, lambda x: True, "a whole number")


def samples(sampling: SamplingParams, n: int) -> list[SamplingParams]:
    """`n` rows of one request: row i is drawn with `seed` + i."""
    if n < 1:
        raise UserError(f"--num_samples must be at least 1, not {n}")
    return [dataclasses.replace(sampling, seed=sampling.seed + i) for i in range(n)]


class Block(NamedTuple):
    """What one dispatch made, n tokens for every row.

    Logarithms are natural and of the model's own distribution: before filters and automaton.

    Attributes:
      tokens: int32 [B, n].
      logprobs: float32 [B, n], of `tokens`.
      top_tokens: int32 [B, n, k], the k likeliest, in falling order.
      top_logprobs: float32 [B, n, k], of `top_tokens`.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    top_tokens: np.ndarray
    top_logprobs: np.ndarray


class SamplingArrays(NamedTuple):
    """The values of every row's SamplingParams, each an array [B]."""

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    repetition_penalty: jax.Array
    seed: jax.Array

    @classmethod
    def of(cls, sampling: Sequence[SamplingParams]) -> "SamplingArrays":
        def column(name: str, dtype: type, values) -> jax.Array:
            return jnp.asarray(np.array([values(getattr(row, name)) for row in sampling], dtype))

        return cls(
            column("temperature", np.float32, float),
            column("top_k", np.int32, lambda k: min(k, 2**31 - 1)),
            column("top_p", np.float32, float),
            column("min_p", np.float32, float),
            column("repetition_penalty", np.float32, float),
            column("seed", np.uint32, lambda seed: int(seed) % 2**32),
        )


def penalise(logits_BV: jax.Array, seen_BV: jax.Array, penalty_B: jax.Array) -> jax.Array:
    """Logits with those of seen tokens lowered: divided by the penalty, or times it below 0."""
    penalty_B1 = penalty_B[:, None]
    lowered_BV = jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
    return jnp.where(seen_BV, lowered_BV, logits_BV)


def _falling(x: jax.Array) -> jax.Array:
    """float32 `x` sorted along its last axis, the largest first.

    Integers of the same order are sorted: on a CPU XLA takes a seventh of the time for them.
    """
    flip = jnp.int32(0x7FFFFFFF)  # negative floats fall where their bits rise
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    falling = ~jnp.sort(~jnp.where(bits < 0, bits ^ flip, bits), axis=-1)
    return jax.lax.bitcast_convert_type(jnp.where(falling < 0, falling ^ flip, falling), x.dtype)


def filter_logits(logits_BV: jax.Array, sampling: SamplingArrays) -> jax.Array:
    """Logits after temperature, top-k, top-p and min-p; what is ruled out is -inf.

    At least one token of every row stays. The results are relative to the row's largest logit, so
    that no temperature overflows; at temperature 0 they are those of temperature 1.
    """
    vocab_size = logits_BV.shape[-1]
    temperature_B = jnp.where(sampling.temperature > 0, sampling.temperature, 1.0)
    logits_BV = (logits_BV - logits_BV.max(-1, keepdims=True)) / temperature_B[:, None]
    counts_B = (sampling.top_k > 0) & (sampling.top_k < vocab_size)
    sums_B = sampling.top_p < 1.0

    def cut(logits_BV: jax.Array) -> jax.Array:
        falling_BV = _falling(logits_BV)
        # With ties more than k tokens stay.
        last_B1 = jnp.where(counts_B, sampling.top_k - 1, vocab_size - 1)[:, None]
        least_B1 = jnp.take_along_axis(falling_BV, last_B1, axis=-1)
        falling_BV = jnp.where(falling_BV < least_B1, -jnp.inf, falling_BV)
        p_BV = jax.nn.softmax(falling_BV, axis=-1)
        # A token stays while those before it sum to less than top_p: the one that crosses stays.
        inside_BV = jnp.cumsum(p_BV, axis=-1) - p_BV < sampling.top_p[:, None]
        inside_BV = (inside_BV | ~sums_B[:, None]).at[:, 0].set(True)
        inside_BV &= falling_BV >= least_B1
        least_B1 = jnp.where(inside_BV, falling_BV, jnp.inf).min(-1, keepdims=True)
        return jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)

    cuts = jnp.any((counts_B | sums_B) & (sampling.temperature > 0))
    logits_BV = jax.lax.cond(cuts, cut, lambda logits_BV: logits_BV, logits_BV)
    return jnp.where(logits_BV < jnp.log(sampling.min_p)[:, None], -jnp.inf, logits_BV)


def draw(
    logits_BV: jax.Array, seen_BV: jax.Array, sampling: SamplingArrays, number: jax.Array | int
) -> jax.Array:
    """Token number `number` of every row, int32 [B].

    A batch whose temperatures are all 0 pays for no filter and no random number.
    """
    logits_BV = penalise(logits_BV, seen_BV, sampling.repetition_penalty)
    likeliest_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)

    def random(logits_BV: jax.Array) -> jax.Array:
        def one(seed, logits_V):
            return jax.random.categorical(
                jax.random.fold_in(jax.random.key(seed), number), logits_V
            )

        drawn_B = jax.vmap(one)(sampling.seed, filter_logits(logits_BV, sampling))
        return jnp.where(sampling.temperature > 0, drawn_B.astype(jnp.int32), likeliest_B)

    some = jnp.any(sampling.temperature > 0)
    return jax.lax.cond(some, random, lambda logits_BV: likeliest_B, logits_BV)


class _State(NamedTuple):
    """What decoding carries from token to token, on the device."""

    cache: KVCache
    logits_BV: jax.Array  # of the next token
    seen_BV: jax.Array  # tokens of the prompt and after it
    state_B: jax.Array  # of the automaton


class Program:
    """Prefill and decoding of one model, compiled for each batch size.

    Attributes:
      slots: of the cache: the most tokens of a row that one window holds.
      dispatch_tokens: the most tokens that one dispatch makes: the granularity of streaming.
      top_logprobs: k of Block.
    """

    def __init__(self, model: GPT, slots: int, dispatch_tokens: int, top_logprobs: int):
        self._model, self.slots = model, slots
        self.dispatch_tokens, self.top_logprobs = dispatch_tokens, top_logprobs
        self.prefill = jax.jit(self._prefill)
        # A GPU asks the host before every turn of a loop whose count is not part of the program.
        static = ("count",) if jax.default_backend() == "gpu" else ()
        self.decode = jax.jit(self._decode, donate_argnames="state", static_argnames=static)

    def count(self, most: int) -> int:
        """How many tokens the next dispatch makes, of `most` at most.

        On a GPU a power of two, so that a few programs serve every length.
        """
        count = min(most, self.dispatch_tokens)
        return 1 << (count.bit_length() - 1) if jax.default_backend() == "gpu" else count

    def _forward(self, params, tokens_BT, **more) -> Any:
        return self._model.apply({"params": params}, tokens_BT, **more)

    def _prefill(self, params, tokens_BT, pad_B):
        # Products round keys and values to the model's dtype anyway: the cache holds them so.
        cfg, dtype = self._model.cfg, self._model.dtype
        cache = init_cache(cfg, tokens_BT.shape[0], self.slots, dtype)
        logits_BTV, cache = self._forward(params, tokens_BT, cache=cache, pad_B=pad_B)
        return cache, logits_BTV[:, -1]

    def _decode(self, params, state, sampling, automaton, pad_B, slot, number, count):
        """Draws `count` tokens; the first, from state.logits_BV, is token `number` of its row.

        Returns:
          (state, the arrays of Block with n = dispatch_tokens, of which `count` are filled).
        """
        allowed_AV, after_AV = automaton
        batch, n, k = len(pad_B), self.dispatch_tokens, self.top_logprobs
        block = (
            jnp.zeros((batch, n), jnp.int32),
            jnp.zeros((batch, n), jnp.float32),
            jnp.zeros((batch, n, k), jnp.int32),
            jnp.zeros((batch, n, k), jnp.float32),
        )

        def body(i, carry):
            (cache, logits_BV, seen_BV, state_B), block = carry
            allowed_BV = jnp.where(allowed_AV[state_B], logits_BV, -jnp.inf)
            token_B = draw(allowed_BV, seen_BV, sampling, number + i)
            total_B1 = jax.nn.logsumexp(logits_BV, axis=-1, keepdims=True)
            logit_B1 = jnp.take_along_axis(logits_BV, token_B[:, None], axis=-1)
            top_Bk, top_tokens_Bk = jax.lax.top_k(logits_BV, k)
            new = token_B, (logit_B1 - total_B1)[:, 0], top_tokens_Bk, top_Bk - total_B1
            put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=1)
            block = tuple(map(put, block, new))
            logits_BTV, cache = self._forward(
                params, token_B[:, None], cache=cache, start=slot + i, pad_B=pad_B
            )
            seen_BV = seen_BV.at[jnp.arange(batch), token_B].set(True)
            state_B = after_AV[state_B, token_B]
            return _State(cache, logits_BTV[:, 0], seen_BV, state_B), block

        return jax.lax.fori_loop(0, count, body, (state, block))


@functools.lru_cache(maxsize=8)
def program(model: GPT, slots: int, dispatch_tokens: int, top_logprobs: int) -> Program:
    """The Program of these arguments; the eight used last are kept."""
    return Program(model, slots, dispatch_tokens, top_logprobs)


def stream(
    model: GPT,
    params: Params,
    prompts: Sequence[Sequence[int]],
    sampling: Sequence[SamplingParams],
    *,
    max_new_tokens: int,
    automaton: Automaton | None = None,
    dispatch_tokens: int = 64,
    top_logprobs: int = 0,
) -> Generator[Block, None, None]:
    """Yields new tokens in Blocks of at most `dispatch_tokens`, `max_new_tokens` in all.

    When the window of the row with the longest prompt is full, it slides for all rows: the latest
    half is read again. Until then a row does not depend on the rows next to it. Closing the
    iterator cancels what was not yet dispatched.

    Args:
      prompts: one token sequence a row; rows may differ in length. Of a prompt longer than
        block_size - 1 the last block_size // 2 ids are read.
      sampling: one SamplingParams a row.
      automaton: what may follow what (Willard & Louf, arXiv 2307.09702): the tokens that a state
        allows, bool [A, V], and the state after each, int [A, V]. Every row begins in state 0. None
        allows everything.
      top_logprobs: k of Block.

    Raises:
      UserError: there is no prompt, a prompt is empty or holds ids outside the vocabulary, or a
        number is out of range.
    """
    vocab_size = model.cfg.vocab_size
    if not len(prompts):
        raise UserError("there is no prompt: give at least one")
    if len(sampling) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, but {len(sampling)} SamplingParams")
    if max_new_tokens < 1:
        raise UserError(f"--max_new_tokens must be at least 1, not {max_new_tokens}")
    if dispatch_tokens < 1:
        raise UserError(f"dispatch_tokens must be at least 1, not {dispatch_tokens}")
    if not 0 <= top_logprobs <= vocab_size:
        raise UserError(f"top_logprobs must lie between 0 and {vocab_size}, not {top_logprobs}")
    if model.cfg.block_size < 2:
        raise UserError("a model with model.block_size=1 cannot generate: train one with 2 or more")
    for prompt in prompts:
        if not len(prompt):
            raise UserError("a prompt has no tokens: give at least one")
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise UserError(f"a prompt holds token ids outside 0..{vocab_size - 1}")
    if automaton is None:
        automaton = np.ones((1, vocab_size), bool), np.zeros((1, vocab_size), np.int32)
    compiled = program(model, model.cfg.block_size, dispatch_tokens, top_logprobs)
    rows = [list(map(int, prompt)) for prompt in prompts]
    return _stream(compiled, model, params, rows, sampling, max_new_tokens, automaton)


def _stream(
    compiled: Program,
    model: GPT,
    params: Params,
    rows: list[list[int]],
    sampling: Sequence[SamplingParams],
    max_new_tokens: int,
    automaton: Automaton,
) -> Generator[Block, None, None]:
    block_size = model.cfg.block_size
    seen = np.zeros((len(rows), model.cfg.vocab_size), bool)
    for row, ids in enumerate(rows):
        seen[row, ids] = True
    seen_BV, state_B = jnp.asarray(seen), jnp.zeros(len(rows), jnp.int32)
    settings, tables = SamplingArrays.of(sampling), tuple(map(jnp.asarray, automaton))
    half, made = max(1, block_size // 2), 0
    lengths = [len(ids) if len(ids) < block_size else half for ids in rows]
    width = min(block_size - 1, _bucket(max(lengths)))
    while made < max_new_tokens:
        read = [ids[-length:] for ids, length in zip(rows, lengths, strict=True)]
        pad_B = jnp.array([width - len(ids) for ids in read], jnp.int32)
        tokens_BT = jnp.array([[0] * (width - len(ids)) + ids for ids in read], jnp.int32)
        cache, logits_BV = compiled.prefill(params, tokens_BT, pad_B)
        state, slot = _State(cache, logits_BV, seen_BV, state_B), width
        while made < max_new_tokens and slot < block_size:
            count = compiled.count(min(max_new_tokens - made, block_size - slot))
            state, arrays = compiled.decode(
                params, state, settings, tables, pad_B, slot, made, count=count
            )
            block = Block(*(np.asarray(x)[:, :count] for x in arrays))
            for ids, new in zip(rows, block.tokens.tolist(), strict=True):
                ids.extend(new)
            made, slot = made + count, slot + count
            yield block
        seen_BV, state_B = state.seen_BV, state.state_B
        lengths, width = [half] * len(rows), half


def generate(
    model: GPT,
    params: Params,
    prompts: Sequence[Sequence[int]],
    sampling: Sequence[SamplingParams],
    *,
    max_new_tokens: int,
    automaton: Automaton | None = None,
    dispatch_tokens: int = 64,
) -> np.ndarray:
    """All new tokens of `stream` at once, int32 [B, max_new_tokens]."""
    blocks = stream(
        model,
        params,
        prompts,
        sampling,
        max_new_tokens=max_new_tokens,
        automaton=automaton,
        dispatch_tokens=dispatch_tokens,
    )
    return np.concatenate([block.tokens for block in blocks], axis=1)


def _bucket(length: int) -> int:
    """The next power of two, so that a few compiled prefills serve every prompt."""
    return 1 << (length - 1).bit_length()
