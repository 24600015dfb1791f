"""Parts of a transformer that need no shape of a whole model: products, dropout, norms, positions.

Axis letters: hlm_jax/model/__init__.py.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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


def product(spec, x, y, out_dtype):
    """jnp.einsum of two operands of one type, summed in float32, in `out_dtype`."""
    if jax.default_backend() != "gpu":
        return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32).astype(out_dtype)
    # cuBLAS sums in float32 whatever it returns, and writes the rounded result itself. float32
    # operands would be rounded to TF32 where a card has it.
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.einsum(spec, x, y, preferred_element_type=out_dtype, precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _einsum(spec, dtype, out_dtype, a, b):
    return product(spec, a.astype(dtype), b.astype(dtype), out_dtype)


def _einsum_forward(spec, dtype, out_dtype, a, b):
    # Empty arrays that carry the operands' types: a gradient has the type of its operand.
    types = (jnp.zeros(0, a.dtype), jnp.zeros(0, b.dtype))
    a, b = a.astype(dtype), b.astype(dtype)
    return product(spec, a, b, out_dtype), (a, b, types)


def _einsum_backward(spec, dtype, out_dtype, saved, grad):
    a, b, (a_type, b_type) = saved
    left, right, out = spec.replace("->", ",").split(",")
    grad = grad.astype(dtype)

    def gradient(x, x_axes, y, y_axes, axes, result):
        # The operand that holds the result's first axis comes first: no transposed result.
        if axes[0] not in x_axes:
            x, x_axes, y, y_axes = y, y_axes, x, x_axes
        return product(f"{x_axes},{y_axes}->{axes}", x, y, result)

    grad_a = gradient(grad, out, b, right, left, a_type.dtype)
    grad_b = gradient(a, left, grad, out, right, b_type.dtype)
    return grad_a, grad_b


_einsum.defvjp(_einsum_forward, _einsum_backward)


class DropoutSeeds(NamedTuple):
    """Two words of seed, uint32, for every dropout of a step.

    Attributes:
      embedding: [2].
      attention: [L, P, 2], of P parts of the queries.
      branches: [L, 2, 2], of what attention and MLP add to the residual.
    """

    embedding: jax.Array
    attention: jax.Array
    branches: jax.Array


def dropout_seeds(key: jax.Array, n_layer: int, starts: Sequence[int]) -> DropoutSeeds:
    """The seeds under a key, all at once: one by one, each would take several kernels of a GPU.

    Args:
      starts: the first query of each part.
    """
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    layers = fold(key, jnp.arange(n_layer + 1))
    sites = jax.vmap(fold, (0, None))(layers[:-1], jnp.arange(3))
    attention = jax.vmap(fold, (0, None))(sites[:, 0], jnp.asarray(starts))
    words = jax.vmap(_words)
    return DropoutSeeds(
        _words(layers[-1]), jax.vmap(words)(attention), jax.vmap(words)(sites[:, 1:])
    )


def _words(key):
    return jax.random.bits(key, (2,), jnp.uint32)


def dropout(x: jax.Array, rate: float, seed: jax.Array | None) -> jax.Array:
    """Zeroes entries with probability `rate` and scales the rest; the identity without a seed.

    The bits are hashes of the index: a few integer operations instead of a cipher's rounds, and the
    same mask on any number of devices. On a GPU the backward pass computes them again: to store a
    mask and read it takes longer.
    """
    if seed is None or rate == 0.0:
        return x
    if jax.default_backend() == "gpu":
        return _recomputed_dropout(x, rate, seed)
    return dropped(x, rate, seed)


def dropped(
    x: jax.Array,
    rate: float,
    seed: jax.Array,
    *,
    start: Sequence[int] = (),
    whole: Sequence[int] = (),
) -> jax.Array:
    """`dropout` with a seed and a rate above 0; its own transpose in x.

    Indices count modulo 2**32, so of a larger array entries that far apart share their bits.

    Args:
      start, whole: of an array of shape `whole`, x is the part that begins at these indices.
    """
    bits = hashed(_index(x.shape, start or (0,) * x.ndim, whole or x.shape), seed)
    return jnp.where(bits >= jnp.uint32(rate * 2**32), x * (1.0 / (1.0 - rate)), 0).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _recomputed_dropout(x, rate, seed):
    return dropped(x, rate, seed)


def _recomputed_dropout_backward(rate, seed, grad):
    # Hidden from XLA, which would keep the mask of the forward pass instead.
    return dropped(grad, rate, jax.lax.optimization_barrier(seed)), None


_recomputed_dropout.defvjp(
    lambda x, rate, seed: (_recomputed_dropout(x, rate, seed), seed),
    _recomputed_dropout_backward,
)


def random_bits(shape: Sequence[int], key: jax.Array) -> jax.Array:
    """Random uint32 of this shape, cheap and independent of how the array is cut over devices."""
    return hashed(_index(shape, (0,) * len(shape), shape), _words(key))


def _index(shape, start, whole):
    """The number of every entry of a part, in the whole array read row by row; modulo 2**32."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(whole[axis + 1 :])
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        if start[axis]:
            index += jnp.uint32(start[axis] * stride % 2**32)
    return index


def hashed(index: jax.Array, seed: Any) -> jax.Array:
    """Random uint32 for indices, under two words of seed.

    `lowbias32` of Chris Wellons' "Prospecting for Hash Functions" (2018), twice.
    """
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
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y_BTF = y_BTF + bias if y_BTF.dtype == bias.dtype else _add_bias(y_BTF, bias)
        return y_BTF


@jax.custom_vjp
def _add_bias(y_BTF, bias_F):
    """y + bias in the half type of y; the bias's gradient is summed in float32."""
    return y_BTF + bias_F.astype(y_BTF.dtype)


_add_bias.defvjp(
    lambda y_BTF, bias_F: (_add_bias(y_BTF, bias_F), None),
    lambda _, grad_BTF: (grad_BTF, grad_BTF.astype(jnp.float32).sum((0, 1))),
)


def gelu(x: jax.Array) -> jax.Array:
    """Tanh GELU. In a half type the backward pass starts from the input alone."""
    return jax.nn.gelu(x, approximate=True) if x.dtype == jnp.float32 else _half_gelu(x)


@jax.custom_vjp
def _half_gelu(x):
    return jax.nn.gelu(x, approximate=True)


def _half_gelu_backward(x, grad):
    y = jax.lax.optimization_barrier(x).astype(jnp.float32)
    _, derivative = jax.vjp(lambda y: jax.nn.gelu(y, approximate=True), y)
    return (derivative(grad.astype(jnp.float32))[0].astype(x.dtype),)


_half_gelu.defvjp(lambda x: (_half_gelu(x), x), _half_gelu_backward)


class LayerNorm(nn.Module):
    """Ba et al. 2016, with bias, over the last axis. Computed in float32, an activation after."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        half = activation_dtype(self.dtype)
        if half != jnp.float32:
            return _half_layer_norm(x, scale, bias, half)
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        variance = jnp.square(x).mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(variance + LAYER_NORM_EPS) * scale + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _half_layer_norm(x, scale, bias, half):
    """LayerNorm in float32 that returns a half type and reads its input as seldom as it can.

    Sum and sum of squares come from one pass, and so do both sums of the backward pass.
    """
    return _half_layer_norm_forward(x, scale, bias, half)[0]


def _half_layer_norm_forward(x, scale, bias, half):
    x = x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    variance = jnp.maximum(jnp.square(x).mean(-1, keepdims=True) - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    y = ((x - mean) * inverse * scale + bias).astype(half)
    return y, (x, scale, bias, mean, inverse, y)


def _half_layer_norm_backward(half, saved, grad):
    x, scale, bias, mean, inverse, y = saved
    grad = grad.astype(jnp.float32)
    normed = (x - mean) * inverse
    along = tuple(range(x.ndim - 1))
    grad_scale, grad_bias = (grad * normed).sum(along), grad.sum(along)
    inner = grad * scale
    # Normed x scale is what the norm returned. The barrier makes XLA read the half array and not
    # compute it again from the float32 input.
    y = jax.lax.optimization_barrier(y)
    plain = inner.mean(-1, keepdims=True)
    with_normed = (grad * (y.astype(jnp.float32) - bias)).mean(-1, keepdims=True)
    return (inner - plain - normed * with_normed) * inverse, grad_scale, grad_bias


_half_layer_norm.defvjp(_half_layer_norm_forward, _half_layer_norm_backward)


class RMSNorm(nn.Module):
    """Zhang & Sennrich 2019, over the last axis. Computed in float32, an activation after."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        y = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + RMS_NORM_EPS) * scale
        return y.astype(activation_dtype(self.dtype))


def rotate(x: jax.Array, position_BT: jax.Array, theta: float, heads_axis: int = 1) -> jax.Array:
    """Rotary positions (Su et al. 2021), halves rotated against each other as in Qwen3.

    Args:
      x: [B, H, T, K], or [B, T, H, K] with heads_axis 2.
    """
    half = x.shape[-1] // 2
    frequency_K = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.expand_dims(position_BT[..., None] * frequency_K, heads_axis)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # (a, b) -> (a cos - b sin, b cos + a sin), without cutting the array and joining it again.
    kept = x * jnp.concatenate([cos, cos], -1)
    return kept + jnp.roll(x, half, -1) * jnp.concatenate([-sin, sin], -1)


def log_sum_exp(*parts: jax.Array) -> jax.Array:
    """log sum exp over the last axis of float32 arrays side by side, each read once.

    Of finite numbers. Maximum and sum are one reduction (Milakov & Gimelshein, arXiv 1805.02867);
    apart, they read the array twice.
    """

    def joined(a, b):
        most = jnp.maximum(a[0], b[0])
        return most, a[1] * jnp.exp(a[0] - most) + b[1] * jnp.exp(b[0] - most)

    start = jnp.float32(jnp.finfo(jnp.float32).min), jnp.float32(0)
    sums = [jax.lax.reduce((x, jnp.ones_like(x)), start, joined, (x.ndim - 1,)) for x in parts]
    most, total = functools.reduce(joined, sums)
    return most + jnp.log(total)
