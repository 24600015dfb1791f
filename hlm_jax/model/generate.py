"""Autoregressive generation of token ids: prefill and decoding with a KV cache or a memory.

Every row is a function of its own prompt and SamplingParams: the same seed gives the same tokens in
any batch, however the work is cut into dispatches, and whichever rows join or leave meanwhile.
Axis letters: hlm_jax/model/__init__.py.
"""

import dataclasses
import functools
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT, KVCache, init_cache
from hlm_jax.model.mogrifier import Memory
from hlm_jax.model.sampling import SamplingArrays, SamplingParams, draw, samples
from hlm_jax.model.shape import Params

__all__ = ["Block", "Decoder", "Program", "Row", "SamplingParams", "generate", "samples", "stream"]

Automaton = tuple[np.ndarray, np.ndarray]
SHORTEST = 16  # the smallest window of a prefill: shorter prompts share its program


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


class State(NamedTuple):
    """What decoding carries from token to token, on the device; R rows."""

    cache: KVCache | Memory
    logits_RV: jax.Array  # of the next token
    seen_RV: jax.Array  # tokens of the prompt and after it
    state_R: jax.Array  # of the automaton


class Program:
    """Prefill and decoding of one model, compiled for each number of rows and prompt window.

    Attributes:
      slots: of the cache: the most tokens of a row that its window holds.
      dispatch_tokens: the most tokens that one dispatch makes: the granularity of streaming.
      top_logprobs: k of Block.
    """

    def __init__(self, model: GPT, slots: int, dispatch_tokens: int, top_logprobs: int):
        self._model, self.slots = model, slots
        self.dispatch_tokens, self.top_logprobs = dispatch_tokens, top_logprobs
        self.prefill = jax.jit(self._prefill)
        self.insert = jax.jit(self._insert, donate_argnames="state")
        self.take = jax.jit(self._take)
        # A GPU asks the host before every turn of a loop whose count is not part of the program.
        static = ("count",) if jax.default_backend() == "gpu" else ()
        self.decode = jax.jit(self._decode, donate_argnames="state", static_argnames=static)

    def count(self, most: int) -> int:
        """How many tokens the next dispatch makes, of `most` at most.

        On a GPU a power of two, so that a few programs serve every length.
        """
        count = min(most, self.dispatch_tokens)
        return 1 << (count.bit_length() - 1) if jax.default_backend() == "gpu" else count

    @property
    def counts(self) -> list[int]:
        """How many tokens the dispatches make that have a compiled program of their own."""
        if jax.default_backend() != "gpu":
            return [1]
        return [1 << k for k in range(self.count(self.dispatch_tokens).bit_length())]

    def width(self, length: int) -> int:
        """Of the window that reads a prompt: powers of two, so that a few programs serve all."""
        return min(self.slots, max(SHORTEST, 1 << (length - 1).bit_length()))

    def _forward(self, params, tokens_RT, **more) -> Any:
        return self._model.apply({"params": params}, tokens_RT, **more)

    def _prefill(self, params, tokens_RT, last_R, seen_RV, state_R):
        """Reads R prompts, each padded at its right end; `last_R` is the last token of each."""
        # Products round keys and values to the model's dtype anyway: the cache holds them so.
        cfg, dtype = self._model.cfg, self._model.dtype
        cache = init_cache(cfg, tokens_RT.shape[0], self.slots, dtype)
        logits_RTV, cache = self._forward(params, tokens_RT, cache=cache, last_B=last_R)
        return State(cache, logits_RTV[:, 0], seen_RV, state_R)

    @staticmethod
    def _insert(state, one, row):
        """The state with row number `row` replaced by the only row of `one`."""

        def put(rows, new):
            return jax.lax.dynamic_update_slice_in_dim(rows, new, row * len(new), axis=0)

        return jax.tree.map(put, state, one)

    @staticmethod
    def _take(state, rows):
        """The rows of these numbers, [rows], in this order."""
        old = len(state.state_R)

        def take(x):
            heads = len(x) // old
            parts = x.reshape(old, heads, *x.shape[1:])[rows]
            return parts.reshape(len(rows) * heads, *x.shape[1:])

        return jax.tree.map(take, state)

    def _decode(self, params, head_DV, state, sampling, automaton, slot_R, number_R, tops, count):
        """Draws `count` tokens for every row; the first, from state.logits_RV, has `number_R`.

        Args:
          head_DV: as GPT's.
          slot_R: of the cache, where each row's next token goes.
          tops: whether to fill the last two arrays of Block; a batch that asks for none pays none.

        Returns:
          (state, the arrays of Block with n = dispatch_tokens, of which `count` are filled).
        """
        allowed_AV, after_AV = automaton
        rows, n, k = len(slot_R), self.dispatch_tokens, self.top_logprobs
        block = (
            jnp.zeros((rows, n), jnp.int32),
            jnp.zeros((rows, n), jnp.float32),
            jnp.zeros((rows, n, k), jnp.int32),
            jnp.zeros((rows, n, k), jnp.float32),
        )

        def likeliest(logits_RV):
            return tuple(jax.lax.top_k(logits_RV, k))

        def none(logits_RV):
            return jnp.zeros((rows, k), logits_RV.dtype), jnp.zeros((rows, k), jnp.int32)

        def body(i, carry):
            (cache, logits_RV, seen_RV, state_R), block = carry
            allowed_RV = jnp.where(allowed_AV[state_R], logits_RV, -jnp.inf)
            token_R = draw(allowed_RV, seen_RV, sampling, number_R + i)
            total_R1 = jax.nn.logsumexp(logits_RV, axis=-1, keepdims=True)
            logit_R1 = jnp.take_along_axis(logits_RV, token_R[:, None], axis=-1)
            top_Rk, top_tokens_Rk = jax.lax.cond(tops, likeliest, none, logits_RV)
            new = token_R, (logit_R1 - total_R1)[:, 0], top_tokens_Rk, top_Rk - total_R1
            put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=1)
            block = tuple(map(put, block, new))
            logits_RTV, cache = self._forward(
                params, token_R[:, None], cache=cache, start=slot_R + i, head_DV=head_DV
            )
            seen_RV = seen_RV.at[jnp.arange(rows), token_R].set(True)
            state_R = after_AV[state_R, token_R]
            return State(cache, logits_RTV[:, 0], seen_RV, state_R), block

        return jax.lax.fori_loop(0, count, body, (state, block))


@functools.lru_cache(maxsize=8)
def program(model: GPT, slots: int, dispatch_tokens: int, top_logprobs: int) -> Program:
    """The Program of these arguments; the eight used last are kept."""
    return Program(model, slots, dispatch_tokens, top_logprobs)


@dataclasses.dataclass(eq=False)
class Row:
    """A text as token ids, while it is written.

    Attributes:
      ids: the prompt and what follows it.
      sampling: how it is drawn.
      tops: whether the likeliest tokens are asked for.
      made: tokens after the prompt.
      state: of the automaton, after `made` tokens.
      slot: of the cache, where the next token goes.
    """

    ids: list[int]
    sampling: SamplingParams
    tops: bool = False
    made: int = 0
    state: int = 0
    slot: int = 0


class Decoder:
    """Rows that are written together; they join and leave between dispatches.

    A row that has filled its window reads the latest half of it again, alone.
    """

    def __init__(self, compiled: Program, params: Params, automaton: Automaton):
        self._compiled, self._params = compiled, params
        cpu = jax.default_backend() == "cpu"
        self._head_DV = jnp.asarray(params["token_embedding"]).T if cpu else None
        self._after_AV = automaton[1]
        self._automaton = tuple(map(jnp.asarray, automaton))
        self._vocab_size = automaton[1].shape[1]
        self._state: State | None = None
        self._together = False  # rows were read at once, so a program that does so is compiled
        self.rows: list[Row | None] = []  # None: the place is free

    def open(self, rows: Sequence[Row]) -> None:
        """Begins with these rows, read at once, and with no free place."""
        self.rows, self._state, self._together = list(rows), self._read(rows), True

    def join(self, places: Iterable[int], rows: Iterable[Row]) -> None:
        """Puts rows of the same ids, which are read once, at the first of these free places."""
        one = None
        for place, row in zip(places, rows, strict=False):
            if self.rows[place]:
                raise ValueError(f"place {place} is taken")
            one = one or self._read([row])
            row.slot = self._length(row)
            self._put(place, row, one)

    def _put(self, place: int, row: Row, one: State) -> None:
        self.rows[place] = row
        self._state = self._compiled.insert(self._state, one, np.int32(place))

    def leave(self, row: Row) -> None:
        """Frees the row's place; it is written no further."""
        self.rows[self.rows.index(row)] = None

    def resize(self, places: int) -> None:
        """Has `places` places from now on; rows move to the first of them, in their order."""
        if self._state is None:
            self._state, self.rows = self._read([Row([0], SamplingParams())]), [None]
        held = [place for place, row in enumerate(self.rows) if row]
        if len(held) > places:
            raise ValueError(f"{len(held)} rows do not fit in {places} places")
        if places != len(self.rows):
            numbers = np.array((held + [0] * places)[:places], np.int32)
            self._state = self._compiled.take(self._state, numbers)
            self.rows = [self.rows[place] for place in held] + [None] * (places - len(held))

    def dispatch(self, most: int) -> Block:
        """Draws the same number of tokens for every row, `most` at most; those of free places lie.

        Rows keep the tokens that were drawn.
        """
        compiled, slots = self._compiled, self._compiled.slots
        if self._state is None or not any(self.rows):
            raise ValueError("no row has joined")
        full = [(place, row) for place, row in enumerate(self.rows) if row and row.slot == slots]
        if self._together and len(full) == len(self.rows):
            self._state = self._read([row for _, row in full])
        else:
            for place, row in full:
                self._put(place, row, self._read([row]))
        held = [row for row in self.rows if row]
        count = compiled.count(min(most, slots - max(row.slot for row in held)))
        blank = Row([], SamplingParams(temperature=0.0))  # a free place draws nothing
        rows = [row or blank for row in self.rows]
        self._state, arrays = compiled.decode(
            self._params,
            self._head_DV,
            self._state,
            SamplingArrays.of([row.sampling for row in rows]),
            self._automaton,
            np.array([row.slot for row in rows], np.int32),
            np.array([row.made for row in rows], np.int32),
            np.bool_(any(row.tops for row in held)),
            count=count,
        )
        block = Block(*(np.asarray(x)[:, :count] for x in arrays))
        for place, new in enumerate(block.tokens.tolist()):
            if written := self.rows[place]:
                written.ids.extend(new)
                written.made, written.slot = written.made + count, written.slot + count
                for token in new:
                    written.state = int(self._after_AV[written.state, token])
        return block

    def _length(self, row: Row) -> int:
        """How many of the latest tokens a row reads when it joins or has filled its window."""
        slots = self._compiled.slots
        return len(row.ids) if len(row.ids) < slots else max(1, slots // 2)

    def _read(self, rows: Sequence[Row]) -> State:
        """The rows' windows, read by one prefill."""
        lengths = [self._length(row) for row in rows]
        width = self._compiled.width(max(lengths))
        tokens_RT = np.zeros((len(rows), width), np.int32)
        seen_RV = np.zeros((len(rows), self._vocab_size), bool)
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            tokens_RT[number, :length] = row.ids[-length:]
            seen_RV[number, row.ids] = True
            row.slot = length
        last_R = np.array(lengths, np.int32) - 1
        state_R = np.array([row.state for row in rows], np.int32)
        return self._compiled.prefill(self._params, tokens_RT, last_R, seen_RV, state_R)


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

    When the window of a row is full, it slides: the latest half is read again. A row does not
    depend on the rows next to it. Closing the iterator cancels what was not yet dispatched.

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
    compiled = program(model, model.cfg.block_size, dispatch_tokens, top_logprobs)
    rows = [
        Row(list(map(int, prompt)), one, tops=top_logprobs > 0)
        for prompt, one in zip(prompts, sampling, strict=True)
    ]
    decoder = Decoder(compiled, params, automaton or anything(vocab_size))
    return _stream(decoder, rows, max_new_tokens)


def _stream(
    decoder: Decoder, rows: Sequence[Row], max_new_tokens: int
) -> Generator[Block, None, None]:
    decoder.open(rows)
    while (left := max_new_tokens - rows[0].made) > 0:
        yield decoder.dispatch(left)


def anything(vocab_size: int) -> Automaton:
    """The automaton that allows every token."""
    return np.ones((1, vocab_size), bool), np.zeros((1, vocab_size), np.int32)


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
