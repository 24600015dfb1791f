"""Parts of a transformer that need no shape of a whole model: products, dropout, norms, positions.

Axis letters: hlm_jax/model/__init__.py.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

LAYER_NORM_EPS = 1e-5
RMS_NORM_EPS = 1e-6
INIT_STD = 0.02


def activation_dtype(dtype: Any) -> jnp.dtype:
    """The type in which a product's result is kept.

    `dtype` on a GPU, where memory traffic decides. float32 on a CPU, whose fast products are
    exactly bfloat16 x bfloat16 -> float32.
    """
    return jnp.dtype(dtype) if jax.default_backend() == "gpu" else jnp.dtype(jnp.float32)


def einsum(spec: str, a: jax.Array, b: jax.Array, dtype: Any, out_dtype: Any = None) -> jax.Array:
    """jnp.einsum of two operands rounded to `dtype`; products are summed in float32.

    Its derivative is written out, so that every product of the backward pass has the same form:
    operands in `dtype`, a float32 sum. XLA has fast kernels for that form on every backend; left to
    autodiff, products mix types and transpose.

    Args:
      out_dtype: of the result; None is activation_dtype(dtype).
    """
    return _einsum(spec, jnp.dtype(dtype), jnp.dtype(out_dtype or activation_dtype(dtype)), a, b)


def _product(spec, x, y, out_dtype):
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32).astype(out_dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _einsum(spec, dtype, out_dtype, a, b):
    return _product(spec, a.astype(dtype), b.astype(dtype), out_dtype)


def _einsum_forward(spec, dtype, out_dtype, a, b):
    # Empty arrays that carry the operands' types: a gradient has the type of its operand.
    types = (jnp.zeros(0, a.dtype), jnp.zeros(0, b.dtype))
    a, b = a.astype(dtype), b.astype(dtype)
    return _product(spec, a, b, out_dtype), (a, b, types)


def _einsum_backward(spec, dtype, out_dtype, saved, grad):
    a, b, (a_type, b_type) = saved
    left, right, out = spec.replace("->", ",").split(",")
    grad = grad.astype(dtype)

    def product(x, x_axes, y, y_axes, axes, result):
        # The operand that holds the result's first axis comes first: no transposed result.
        if axes[0] not in x_axes:
            x, x_axes, y, y_axes = y, y_axes, x, x_axes
        return _product(f"{x_axes},{y_axes}->{axes}", x, y, result)

    grad_a = product(grad, out, b, right, left, a_type.dtype)
    grad_b = product(a, left, grad, out, right, b_type.dtype)
    return grad_a, grad_b


_einsum.defvjp(_einsum_forward, _einsum_backward)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes entries with probability `rate` and scales the rest; the identity without a key.

    The bits are `random_bits`: a few integer operations instead of a cipher's rounds, and the same
    mask on any number of devices.
    """
    if key is None or rate == 0.0:
        return x
    keep = random_bits(x.shape, key) >= jnp.uint32(rate * 2**32)
    return jnp.where(keep, x * (1.0 / (1.0 - rate)), 0).astype(x.dtype)


def random_bits(shape: Sequence[int], key: jax.Array) -> jax.Array:
    """Random uint32 of this shape, cheap and independent of how the array is cut over devices.

    Each is an integer hash of the entry's index under the key: `lowbias32` of Chris Wellons'
    "Prospecting for Hash Functions" (2018).
    """
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    seed = jax.random.bits(key, (2,), jnp.uint32)
    return _hash(_hash(index ^ seed[0]) ^ seed[1])


def _hash(bits):
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


class Dense(nn.Module):
    """x @ kernel (+ bias)."""

    features: int
    use_bias: bool
    dtype: str
    std: float = INIT_STD

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        shape = (x_BTD.shape[-1], self.features)
        kernel_DF = self.param("kernel", nn.initializers.normal(self.std), shape)
        y_BTF = einsum("BTD,DF->BTF", x_BTD, kernel_DF, self.dtype)
        if self.use_bias:
            y_BTF += self.param("bias", nn.initializers.zeros, (self.features,))
        return y_BTF


class LayerNorm(nn.Module):
    """Ba et al. 2016, with bias, over the last axis."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        variance = jnp.square(x).mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(variance + LAYER_NORM_EPS) * scale + bias


class RMSNorm(nn.Module):
    """Zhang & Sennrich 2019, over the last axis."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + RMS_NORM_EPS) * scale


def rotate(x_BHTK: jax.Array, position_BT: jax.Array, theta: float) -> jax.Array:
    """Rotary positions (Su et al. 2021), halves rotated against each other as in Qwen3."""
    half = x_BHTK.shape[-1] // 2
    frequency_K = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_B1TK = (position_BT[..., None] * frequency_K)[:, None, :, :]
    cos, sin = jnp.cos(angle_B1TK), jnp.sin(angle_B1TK)
    # (a, b) -> (a cos - b sin, b cos + a sin), without cutting the array and joining it again.
    kept = x_BHTK * jnp.concatenate([cos, cos], -1)
    return kept + jnp.roll(x_BHTK, half, -1) * jnp.concatenate([-sin, sin], -1)
