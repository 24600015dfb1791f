"""How the next token of a row is drawn: parameters, filters of logits, the draw itself.

How a row is drawn is data, not a program: SamplingParams become arrays [B], and rows of one batch
may differ in all of them. Token number i of a row is drawn with the key fold_in(key(seed), i) of
that row. Axis letters: hlm_jax/model/__init__.py.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hlm_jax.errors import UserError
from hlm_jax.model.layers import random_bits


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


class SamplingArrays(NamedTuple):
    """The values of every row's SamplingParams, each an array [B]."""

    temperature: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray
    min_p: np.ndarray
    repetition_penalty: np.ndarray
    seed: np.ndarray

    @classmethod
    def of(cls, sampling: Sequence[SamplingParams]) -> "SamplingArrays":
        def column(name: str, dtype: type, values) -> np.ndarray:
            return np.array([values(getattr(row, name)) for row in sampling], dtype)

        return cls(
            column("temperature", np.float32, float),
            column("top_k", np.int32, lambda k: min(k, 2**31 - 1)),
            column("top_p", np.float32, float),
            column("min_p", np.float32, float),
            column("repetition_penalty", np.float32, float),
            column("seed", np.uint32, lambda seed: int(seed) % 2**32),
        )


def penalise(logits_BV: jax.Array, seen_BV: jax.Array, penalty_B: ArrayLike) -> jax.Array:
    """Logits with those of seen tokens lowered: divided by the penalty, or times it below 0."""
    penalty_B1 = jnp.asarray(penalty_B)[:, None]
    lowered_BV = jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
    return jnp.where(seen_BV, lowered_BV, logits_BV)


def filter_logits(logits_BV: jax.Array, sampling: SamplingArrays) -> jax.Array:
    """Logits after temperature, top-k, top-p and min-p; what is ruled out is -inf.

    At least one token of every row stays; tokens as likely as the last one that stays stay too. The
    results are relative to the row's largest logit, so that no temperature overflows; at
    temperature 0 they are those of temperature 1.
    """
    vocab_size = logits_BV.shape[-1]
    draws_B = jnp.asarray(sampling.temperature > 0)
    temperature_B = jnp.where(draws_B, sampling.temperature, 1.0)
    logits_BV = (logits_BV - logits_BV.max(-1, keepdims=True)) / temperature_B[:, None]
    counts_B = draws_B & (sampling.top_k > 0) & (sampling.top_k < vocab_size)
    sums_B = draws_B & (sampling.top_p < 1.0)

    def cut_count(logits_BV: jax.Array) -> jax.Array:
        return _cut(logits_BV, jnp.ones_like, jnp.where(counts_B, sampling.top_k, jnp.inf))

    def cut_sum(logits_BV: jax.Array) -> jax.Array:
        least_B = sampling.top_p * jnp.exp(logits_BV).sum(-1)
        return _cut(logits_BV, jnp.exp, jnp.where(sums_B, least_B, jnp.inf))

    logits_BV = jax.lax.cond(jnp.any(counts_B), cut_count, lambda x: x, logits_BV)
    logits_BV = jax.lax.cond(jnp.any(sums_B), cut_sum, lambda x: x, logits_BV)
    return jnp.where(logits_BV < jnp.log(sampling.min_p)[:, None], -jnp.inf, logits_BV)


def _cut(
    logits_BV: jax.Array, weigh: Callable[[jax.Array], jax.Array], least_B: jax.Array
) -> jax.Array:
    """Logits of which the fewest of the largest are left whose weights sum to `least_B` or more.

    The largest stays, whatever it weighs. A row whose weights sum to less keeps all.
    """
    smallest = _smallest_by_sort if jax.default_backend() == "gpu" else _smallest_by_sums
    smallest_B = jnp.minimum(smallest(logits_BV, weigh, least_B), logits_BV.max(-1))
    return jnp.where(logits_BV < smallest_B[:, None], -jnp.inf, logits_BV)


def _smallest_by_sort(logits_BV, weigh, least_B):
    """The smallest logit that stays; few kernels on a GPU."""
    falling_BV = -jnp.sort(-logits_BV, axis=-1)
    weight_BV = weigh(falling_BV)
    stays_BV = jnp.cumsum(weight_BV, axis=-1) - weight_BV < least_B[:, None]
    return jnp.where(stays_BV, falling_BV, jnp.inf).min(-1)


def _smallest_by_sums(logits_BV, weigh, least_B):
    """The smallest logit that stays, bit by bit: 32 sums take a tenth of a sort on a CPU."""
    weight_BV, sign = weigh(logits_BV), jnp.uint32(1 << 31)
    plain_BV = jnp.where(logits_BV == 0, 0.0, logits_BV)  # no negative zero
    bits_BV = jax.lax.bitcast_convert_type(plain_BV, jnp.uint32)
    # Numbers in the order of the floats: of negative floats all bits are turned, else the sign.
    key_BV = bits_BV ^ jnp.where(bits_BV >= sign, jnp.uint32(2**32 - 1), sign)

    def narrow(i, key_B):
        higher_B = key_B | (sign >> i.astype(jnp.uint32))
        sum_B = jnp.where(key_BV >= higher_B[:, None], weight_BV, 0).sum(-1)
        return jnp.where(sum_B >= least_B, higher_B, key_B)

    key_B = jax.lax.fori_loop(0, 32, narrow, jnp.zeros(len(logits_BV), jnp.uint32))
    stays_BV = key_BV >= jnp.minimum(key_B, key_BV.max(-1))[:, None]
    return jnp.where(stays_BV, logits_BV, jnp.inf).min(-1)


def _argmax(x_BV: jax.Array) -> jax.Array:
    """The first place of each row's largest number, int32 [B].

    By two plain reductions: on a CPU XLA takes a fifth of the time of jnp.argmax for them.
    """
    places_V = jnp.arange(x_BV.shape[-1], dtype=jnp.int32)
    largest_BV = x_BV == x_BV.max(axis=-1, keepdims=True)
    return jnp.where(largest_BV, places_V, places_V[-1]).min(axis=-1)


def exponentials(seed_B: ArrayLike, number_B: ArrayLike, vocab_size: int) -> jax.Array:
    """Exponential random numbers, above 0, [B, V]: of weights w, the largest w / number is drawn.

    Its probability is w / sum(w): this is the Gumbel-max draw (Yellott 1977) without its outer
    logarithm. It hardly depends on rounding, unlike a search in the running sum, so a text is the
    same in a batch of another size. The bits are hashes under a key for each row: for a small model
    a cipher's bits for the whole vocabulary take a third of the time of a token.
    """

    def one(seed, number):
        key = jax.random.fold_in(jax.random.key(seed), number)
        return random_bits((vocab_size,), key)

    bits_BV = jax.vmap(one)(jnp.asarray(seed_B), jnp.asarray(number_B))
    # In (0, 1), the finest near 0, where draws are small and win.
    uniform_BV = jnp.minimum((bits_BV.astype(jnp.float32) + 0.5) * 2.0**-32, 1 - 2.0**-24)
    return -jnp.log1p(-uniform_BV)


def draw(
    logits_BV: jax.Array, seen_BV: jax.Array, sampling: SamplingArrays, number_B: jax.Array
) -> jax.Array:
    """The next token of every row, int32 [B]: token number `number_B` of its text.

    A batch whose temperatures are all 0 pays for no filter and no random number.
    """
    logits_BV = penalise(logits_BV, seen_BV, sampling.repetition_penalty)
    likeliest_B = _argmax(logits_BV)

    def random(logits_BV: jax.Array) -> jax.Array:
        weight_BV = jnp.exp(filter_logits(logits_BV, sampling))  # the largest of a row is 1
        drawn_B = _argmax(weight_BV / exponentials(sampling.seed, number_B, logits_BV.shape[1]))
        return jnp.where(sampling.temperature > 0, drawn_B, likeliest_B)

    some = jnp.any(sampling.temperature > 0)
    return jax.lax.cond(some, random, lambda logits_BV: likeliest_B, logits_BV)
