"""Autoregressive generation of token ids: logit filters, a jitted prefill and a jitted decoding loop over the KV cache.

Knows nothing of text. The random draw of token i in row b is a function of (seed, i, b) alone, so that the same seed gives
the same tokens however the work is cut into dispatches.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT, init_cache


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a token is drawn. Temperature 0 takes the likeliest; top_k 0, top_p 1, min_p 0, penalty 1 each change nothing.

    Filters apply in this order: repetition penalty (Keskar et al. 2019), temperature, top-k (Fan et al. 2018), top-p
    (Holtzman et al. 2020), min-p (Nguyen et al. 2024: p >= min_p x the largest p).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self):
        for name, low, high in (("top_p", 0, 1), ("min_p", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise UserError(
                    f"--{name} must lie between {low} and {high}, not {getattr(self, name)}"
                )
        if self.temperature < 0 or self.top_k < 0:
            raise UserError("--temperature and --top_k must not be negative")
        if self.repetition_penalty <= 0:
            raise UserError("--repetition_penalty must be positive (1 changes nothing)")


def filter_logits(logits_BV, seen_BV, strategy: Strategy):
    """Logits after every filter but temperature 0's argmax; what is ruled out is -inf. At least one token remains."""
    if strategy.repetition_penalty != 1.0:
        penalty = strategy.repetition_penalty
        penalised = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
        logits_BV = jnp.where(seen_BV, penalised, logits_BV)
    if strategy.temperature == 0.0:
        return logits_BV
    logits_BV = logits_BV / strategy.temperature
    if 0 < strategy.top_k < logits_BV.shape[-1]:
        kth = jax.lax.top_k(logits_BV, strategy.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV < kth, -jnp.inf, logits_BV)
    if strategy.top_p < 1.0:
        descending = jnp.sort(logits_BV, axis=-1)[:, ::-1]
        p = jax.nn.softmax(descending, axis=-1)
        # A token stays while those before it sum to less than top_p: the one that crosses the line is kept.
        inside = jnp.cumsum(p, axis=-1) - p < strategy.top_p
        smallest = jnp.min(
            jnp.where(inside.at[:, 0].set(True), descending, jnp.inf), axis=-1, keepdims=True
        )
        logits_BV = jnp.where(logits_BV < smallest, -jnp.inf, logits_BV)
    if strategy.min_p > 0.0:
        floor = logits_BV.max(-1, keepdims=True) + jnp.log(strategy.min_p)
        logits_BV = jnp.where(logits_BV < floor, -jnp.inf, logits_BV)
    return logits_BV


def _draw(logits_BV, seen_BV, key, strategy: Strategy):
    logits_BV = filter_logits(logits_BV, seen_BV, strategy)
    if strategy.temperature == 0.0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    # A key for every row: a row's draws do not depend on how many rows stand beside it.
    key_B = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(logits_BV.shape[0]))
    return jax.vmap(jax.random.categorical)(key_B, logits_BV).astype(jnp.int32)


class Generator:
    """Generates with one model and one strategy; compiled functions are kept for further calls.

    `dispatch_tokens` is how many tokens one dispatch makes: the granularity of streaming.
    """

    def __init__(self, model: GPT, strategy: Strategy, *, dispatch_tokens: int = 64):
        self.model, self.strategy, self.dispatch_tokens = model, strategy, dispatch_tokens
        self._prefill = jax.jit(self._prefill_step)
        self._decode = jax.jit(self._decode_steps, donate_argnums=(1,))

    def _prefill_step(self, params, tokens_BT, pad_B):
        cache = init_cache(self.model.cfg, tokens_BT.shape[0], self.model.cfg.block_size)
        logits_BTV, cache = self.model.apply(
            {"params": params}, tokens_BT, cache=cache, pad_B=pad_B
        )
        return cache, logits_BTV[:, -1]

    def _decode_steps(
        self, params, cache, logits_BV, seen_BV, state_B, automaton, pad_B, key, slot, first, count
    ):
        """Draws `count` tokens, the first from `logits_BV`; all of it stays on the device."""
        allowed_SV, after_SV = automaton
        batch = logits_BV.shape[0]
        out_BN = jnp.zeros((batch, self.dispatch_tokens), jnp.int32)

        def body(i, carry):
            cache, logits_BV, seen_BV, state_B, out_BN = carry
            logits_BV = jnp.where(allowed_SV[state_B], logits_BV, -jnp.inf)
            token_B = _draw(logits_BV, seen_BV, jax.random.fold_in(key, first + i), self.strategy)
            out_BN = jax.lax.dynamic_update_slice(out_BN, token_B[:, None], (0, i))
            seen_BV = seen_BV.at[jnp.arange(batch), token_B].set(True)
            state_B = after_SV[state_B, token_B]
            logits_BTV, cache = self.model.apply(
                {"params": params}, token_B[:, None], cache=cache, start=slot + i, pad_B=pad_B
            )
            return cache, logits_BTV[:, 0], seen_BV, state_B, out_BN

        return jax.lax.fori_loop(0, count, body, (cache, logits_BV, seen_BV, state_B, out_BN))

    def stream(
        self, params, prompts, max_new_tokens: int, seed: int, automaton=None
    ) -> Iterator[np.ndarray]:
        """Yields int32 [batch, n] blocks of new tokens, `max_new_tokens` columns in all.

        Args:
          params: the model's parameters.
          prompts: one token sequence per row, 1 to block_size - 1 ids each; rows may differ in length.
          max_new_tokens: how many tokens to make. When the window is full it slides: the latest half is read again.
          seed: decides every draw.
          automaton: what may follow what (Willard & Louf, arXiv 2307.09702): which tokens a state allows, bool [S, V], and the
            state after each, int [S, V]; every row begins in state 0. None allows everything.

        Raises:
          UserError: a prompt is empty or does not fit the window.
        """
        block, vocab = self.model.cfg.block_size, self.model.cfg.vocab_size
        if max_new_tokens < 1:
            raise UserError(f"--max_new_tokens must be at least 1, not {max_new_tokens}")
        for prompt in prompts:
            if not 1 <= len(prompt) < block:
                raise UserError(
                    f"a prompt has {len(prompt)} tokens: this model reads 1 to {block - 1}"
                )
            if not 0 <= min(prompt) <= max(prompt) < vocab:
                raise UserError(f"a prompt holds token ids outside 0..{vocab - 1}")
        history = [list(map(int, prompt)) for prompt in prompts]
        seen = np.zeros((len(prompts), vocab), bool)
        for row, prompt in enumerate(history):
            seen[row, prompt] = True
        seen_BV, key, made = jnp.asarray(seen), jax.random.key(seed), 0
        state_B = jnp.zeros(len(prompts), jnp.int32)
        automaton = tuple(
            map(
                jnp.asarray,
                automaton or (np.ones((1, vocab), bool), np.zeros((1, vocab), np.int32)),
            )
        )
        width = min(block - 1, _bucket(max(map(len, history))))
        while made < max_new_tokens:
            rows = [ids[-width:] for ids in history]
            pad_B = jnp.array([width - len(ids) for ids in rows], jnp.int32)
            tokens_BT = jnp.array([[0] * (width - len(ids)) + ids for ids in rows], jnp.int32)
            cache, logits_BV = self._prefill(params, tokens_BT, pad_B)
            slot = width
            while made < max_new_tokens and slot < block:
                count = min(self.dispatch_tokens, max_new_tokens - made, block - slot)
                cache, logits_BV, seen_BV, state_B, out_BN = self._decode(
                    params,
                    cache,
                    logits_BV,
                    seen_BV,
                    state_B,
                    automaton,
                    pad_B,
                    key,
                    slot,
                    made,
                    count,
                )
                new = np.asarray(out_BN)[:, :count]
                for ids, row in zip(history, new.tolist(), strict=True):
                    ids.extend(row)
                made, slot = made + count, slot + count
                yield new
            width = max(1, block // 2)

    def generate(
        self, params, prompts, max_new_tokens: int, seed: int, automaton=None
    ) -> np.ndarray:
        """All new tokens at once, int32 [batch, max_new_tokens]."""
        return np.concatenate(
            list(self.stream(params, prompts, max_new_tokens, seed, automaton)), axis=1
        )


def spread_windows(sequences, tokens: int, number: int) -> np.ndarray:
    """At most `number` windows of 2 x `tokens` ids, spread evenly over token sequences; int32 [n, 2 x tokens], n may be 0."""
    windows = [
        ids[at : at + 2 * tokens]
        for ids in sequences
        for at in range(0, len(ids) - 2 * tokens + 1, tokens)
    ]
    chosen = np.linspace(0, len(windows) - 1, min(number, len(windows))).astype(int)
    return np.array([windows[i] for i in chosen], np.int32).reshape(-1, 2 * tokens)


def extracted_tokens(model: GPT, params, windows) -> np.ndarray:
    """How many tokens of every window's second half greedy decoding gives back from the first, before it errs; int [n].

    The extraction test of Carlini et al., arXiv 2202.07646.
    """
    half = windows.shape[1] // 2
    made = generator(model, Strategy(temperature=0.0)).generate(
        params, windows[:, :half].tolist(), half, 0
    )
    same = made == windows[:, half:]
    return np.where(same.all(axis=1), half, same.argmin(axis=1))


def _bucket(length: int) -> int:
    """The next power of two, so that a few compiled prefills serve every prompt."""
    return 1 << (length - 1).bit_length()


@functools.cache
def generator(model: GPT, strategy: Strategy, dispatch_tokens: int = 64) -> Generator:
    """A Generator, one for each distinct set of arguments."""
    return Generator(model, strategy, dispatch_tokens=dispatch_tokens)
