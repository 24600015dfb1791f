"""Causal attention with dropout as one kernel: scores never leave the chip.

Flash attention (Dao et al., arXiv 2205.14135) written in Pallas, which XLA compiles with Triton for
GPUs of compute capability >= 8.0. It reads the product of queries, keys and values as it lies, so
no array is transposed. The backward pass computes the probabilities again from the logarithm of the
sum over keys, and dropout's bits from their index: they are those of hlm_jax.model.layers.

Axis letters: hlm_jax/model/__init__.py; 3 is queries, keys, values.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from hlm_jax.model.layers import hashed

BLOCK = 64  # rows and columns of the scores that a kernel holds at once
_MASKED = -1e30
INTERPRET = False  # tests run the kernels on a CPU, as plain JAX


def fits(length: int, width: int, dtype) -> bool:
    """Whether the kernels read windows of `length` and heads of `width` in this type."""
    return _block(length) >= 16 and width in (16, 32, 64, 128) and jnp.dtype(dtype).itemsize == 2


def _block(length: int) -> int:
    return min(BLOCK, length & -length)  # the largest power of two that divides the length


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def flash_attention(qkv_BT3HK: jax.Array, seed: jax.Array, rate: float) -> jax.Array:
    """softmax(q k / sqrt(K)) v, no query sees a later key: [B, T, 3, H, K] -> [B, T, H, K].

    Args:
      qkv_BT3HK: of a half type.
      seed: uint32 [3]: two words of the dropout of probabilities, and the number of the first row
        of the batch, of which other devices may hold other rows.
      rate: of that dropout; 0 for none.
    """
    return _forward(qkv_BT3HK, seed, rate)[0]


def _forward(qkv, seed, rate):
    batch, length, _, heads, width = qkv.shape
    block = _block(length)
    y, log_sum = pl.pallas_call(
        functools.partial(_forward_kernel, rate=rate, block=block),
        out_shape=(
            jax.ShapeDtypeStruct((batch, length, heads, width), qkv.dtype),
            jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
        ),
        grid=(length // block, heads, batch),
        in_specs=[*_parts(length, width), _SEED],
        out_specs=(
            pl.BlockSpec((None, block, None, width), lambda i, h, b: (b, i, h, 0)),
            pl.BlockSpec((None, None, block), lambda i, h, b: (b, h, i)),
        ),
        name="flash_attention",
        compiler_params=_compiler(width),
        interpret=INTERPRET,
    )(qkv, qkv, qkv, _words(seed))
    return y, (qkv, seed, y, log_sum)


def _backward(rate, saved, grad_BTHK):
    qkv, seed, y, log_sum = saved
    batch, length, _, heads, width = qkv.shape
    block = _block(length)
    grad = grad_BTHK.astype(qkv.dtype)
    # The sum over keys of weight x its gradient, by way of the output (Dao et al., section 3.1).
    rows = (grad.astype(jnp.float32) * y.astype(jnp.float32)).sum(-1).swapaxes(1, 2)
    row = pl.BlockSpec((None, None, length), lambda i, h, b: (b, h, 0))
    grads = pl.pallas_call(
        functools.partial(_backward_kernel, rate=rate, block=block),
        out_shape=jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
        grid=(length // block, heads, batch),
        in_specs=[
            *_parts(length, width),
            pl.BlockSpec((None, length, None, width), lambda i, h, b: (b, 0, h, 0)),
            row,
            row,
            _SEED,
        ],
        out_specs=pl.BlockSpec((None, block, 3, None, width), lambda i, h, b: (b, i, 0, h, 0)),
        name="flash_attention_gradient",
        compiler_params=_compiler(width),
        interpret=INTERPRET,
    )(qkv, qkv, qkv, grad, log_sum, rows, _words(seed))
    return grads, None


flash_attention.defvjp(_forward, _backward)

_SEED = pl.BlockSpec((4,), lambda i, h, b: (0,))


def _compiler(width):
    return triton.CompilerParams(num_warps=4 if width <= 64 else 8, num_stages=2)


def _parts(length, width):
    """Queries, keys and values of one head, each a view of the same array."""
    shape = (None, length, None, None, width)
    return [pl.BlockSpec(shape, lambda i, h, b, part=part: (b, 0, part, h, 0)) for part in range(3)]


def _words(seed):
    return jnp.pad(seed, (0, 1))  # the kernels read powers of two


def _forward_kernel(q_ref, k_ref, v_ref, seed_ref, y_ref, log_sum_ref, *, rate, block):
    """The output of one block of queries of one head."""
    width = q_ref.shape[1]
    i = pl.program_id(0)
    tile = _Tile(q_ref, seed_ref, rate, block)
    q = q_ref[pl.ds(i * block, block), :]

    def body(j, carry):
        most, total, y = carry
        at = pl.ds(j * block, block)
        scores = tile.scores(q, k_ref[at, :], i, j)
        higher = jnp.maximum(most, scores.max(1))
        weight = jnp.exp(scores - higher[:, None])
        shrink = jnp.exp(most - higher)
        total = total * shrink + weight.sum(1)
        y = y * shrink[:, None]
        y += triton.dot(tile.dropped(weight, i, j).astype(v_ref.dtype), v_ref[at, :])
        return higher, total, y

    start = (
        jnp.full(block, _MASKED, jnp.float32),
        jnp.zeros(block, jnp.float32),
        jnp.zeros((block, width), jnp.float32),
    )
    most, total, y = jax.lax.fori_loop(0, i + 1, body, start)
    y_ref[...] = (y / total[:, None]).astype(y_ref.dtype)
    log_sum_ref[...] = most + jnp.log(total)


def _backward_kernel(
    q_ref, k_ref, v_ref, grad_ref, log_sum_ref, rows_ref, seed_ref, out_ref, *, rate, block
):
    """The gradients of one block of queries, and of the keys and values at the same positions."""
    length, width = q_ref.shape
    n = pl.program_id(0)
    tile = _Tile(q_ref, seed_ref, rate, block)
    half = q_ref.dtype
    here = pl.ds(n * block, block)
    zero = jnp.zeros((block, width), jnp.float32)

    def gradients(q, k, v, grad, at, i, j):
        """Of the scores, and the dropped weights."""
        weight = jnp.exp(tile.scores(q, k, i, j) - log_sum_ref[at][:, None])
        grad_weight = tile.dropped(triton.dot(grad, v, trans_b=True), i, j)
        grad_scores = weight * (grad_weight - rows_ref[at][:, None]) * width**-0.5
        return grad_scores.astype(half), tile.dropped(weight, i, j).astype(half)

    k, v = k_ref[here, :], v_ref[here, :]

    def of_keys(i, carry):
        grad_k, grad_v = carry
        at = pl.ds(i * block, block)
        q, grad = q_ref[at, :], grad_ref[at, :]
        grad_scores, weight = gradients(q, k, v, grad, at, i, n)
        grad_k += triton.dot(grad_scores, q, trans_a=True)
        grad_v += triton.dot(weight, grad, trans_a=True)
        return grad_k, grad_v

    grad_k, grad_v = jax.lax.fori_loop(n, length // block, of_keys, (zero, zero))
    q, grad = q_ref[here, :], grad_ref[here, :]

    def of_queries(j, grad_q):
        at = pl.ds(j * block, block)
        k = k_ref[at, :]
        grad_scores, _ = gradients(q, k, v_ref[at, :], grad, here, n, j)
        return grad_q + triton.dot(grad_scores, k)

    grad_q = jax.lax.fori_loop(0, n + 1, of_queries, zero)
    for part, value in enumerate((grad_q, grad_k, grad_v)):
        out_ref[:, part, :] = value.astype(half)


class _Tile:
    """Scores and dropout of one block of queries by one of keys, of a kernel's head."""

    def __init__(self, q_ref, seed_ref, rate, block):
        self.length, self.width = q_ref.shape
        self.rate, self.block = rate, block
        if rate:
            self.seed = seed_ref[0], seed_ref[1]
            row = seed_ref[2] + pl.program_id(2).astype(jnp.uint32)
            heads = pl.num_programs(1)
            self.head = row * jnp.uint32(heads) + pl.program_id(1).astype(jnp.uint32)

    def _at(self, i, j):
        """The positions of the queries and of the keys, [block, 1] and [1, block]."""
        within = jax.lax.iota(jnp.int32, self.block)
        return (i * self.block + within)[:, None], (j * self.block + within)[None, :]

    def scores(self, q, k, i, j):
        queries, keys = self._at(i, j)
        scores = triton.dot(q, k, trans_b=True) * self.width**-0.5
        return jnp.where(keys <= queries, scores, _MASKED)

    def dropped(self, x, i, j):
        if not self.rate:
            return x
        queries, keys = self._at(i, j)
        length = jnp.uint32(self.length)
        index = (self.head * length + queries.astype(jnp.uint32)) * length
        bits = hashed(index + keys.astype(jnp.uint32), self.seed)
        keep = bits >= jnp.uint32(self.rate * 2**32)
        return jnp.where(keep, x * (1.0 / (1.0 - self.rate)), 0.0)
