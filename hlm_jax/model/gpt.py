"""The GPT: two published forms, GPT-2 and Qwen3, as one Flax Linen module with an explicit KV cache. No I/O.

Axis letters: B batch, T query position, S key position, H heads, K head width, D width, F hidden, V vocabulary.

"gpt2" (Radford et al. 2019): learned positions, pre-LayerNorm with biases, fused qkv, tanh GELU, tied output.
"qwen3" (Yang et al., arXiv 2505.09388): RMSNorm, rotary positions, RMS-normed queries and keys with gains, SwiGLU, no
biases, tied output. Parameter paths are the checkpoint's API: every submodule is named.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

LAYER_NORM_EPS = 1e-5
RMS_NORM_EPS = 1e-6
INIT_STD = 0.02
_MASKED = -1e30  # finite: a row of padding that may look at nothing stays a number
QUERY_ROWS = 128  # of attention on a CPU: the queries that share one product with all keys up to the last of them


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Shape of the model and its rates of dropout. `rope_theta` and the hidden width 8/3 x n_embd concern form "qwen3" only.

    `dropout` is the rate of the three sites of GPT-2: embeddings, attention weights and both residual branches;
    `embedding_dropout` replaces it at the first, unless it is -1.
    """

    form: str
    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    rope_theta: float
    embedding_dropout: float = -1.0

    @property
    def head_width(self) -> int:
        return self.n_embd // self.n_head

    @property
    def hidden_width(self) -> int:
        """4 x n_embd, or for SwiGLU 8/3 x n_embd rounded up to a multiple of 64 (the same number of weights)."""
        return 4 * self.n_embd if self.form == "gpt2" else -(-8 * self.n_embd // 3 // 64) * 64


@flax.struct.dataclass
class KVCache:
    """Keys and values of every layer, each a tuple of [B, H, S, K]; slot s holds the token at position s."""

    keys: tuple
    values: tuple

    @property
    def size(self) -> int:
        return self.keys[0].shape[2]


def init_cache(cfg: GPTConfig, batch_size: int, size: int, dtype=jnp.float32) -> KVCache:
    """An empty cache of `size` slots."""
    shape = (batch_size, cfg.n_head, size, cfg.head_width)
    # Distinct buffers: donation refuses one buffer given twice.
    return KVCache(
        tuple(jnp.zeros(shape, dtype) for _ in range(cfg.n_layer)),
        tuple(jnp.zeros(shape, dtype) for _ in range(cfg.n_layer)),
    )


def activation_dtype(dtype):
    """The type in which a product's result is kept: `dtype` on a GPU, where memory traffic decides; float32 on a CPU,
    whose fast products are exactly bfloat16 x bfloat16 -> float32."""
    return jnp.dtype(dtype) if jax.default_backend() == "gpu" else jnp.dtype(jnp.float32)


def einsum(spec: str, a, b, dtype, out_dtype=None):
    """jnp.einsum of two operands rounded to `dtype`, products summed in float32, result in `out_dtype` (activation_dtype).

    Its derivative is written out: every product of the backward pass then has the same form (operands in `dtype`, a float32
    sum), which is the one XLA has fast kernels for on every backend; left to autodiff they mix types and transpose.
    """
    return _einsum(spec, jnp.dtype(dtype), jnp.dtype(out_dtype or activation_dtype(dtype)), a, b)


def _product(spec, x, y, out_dtype):
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32).astype(out_dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _einsum(spec, dtype, out_dtype, a, b):
    return _product(spec, a.astype(dtype), b.astype(dtype), out_dtype)


def _einsum_forward(spec, dtype, out_dtype, a, b):
    types = (
        jnp.zeros(0, a.dtype),
        jnp.zeros(0, b.dtype),
    )  # gradients take the types of what they are gradients of
    a, b = a.astype(dtype), b.astype(dtype)
    return _product(spec, a, b, out_dtype), (a, b, types)


def _einsum_backward(spec, dtype, out_dtype, saved, grad):
    a, b, (a_type, b_type) = saved
    left, right, out = spec.replace("->", ",").split(",")
    grad = grad.astype(dtype)

    def product(x, x_axes, y, y_axes, axes, result):
        if (
            axes[0] not in x_axes
        ):  # the operand that holds the result's first axis stands first: no transposed result
            x, x_axes, y, y_axes = y, y_axes, x, x_axes
        return _product(f"{x_axes},{y_axes}->{axes}", x, y, result)

    return product(grad, out, b, right, left, a_type.dtype), product(
        a, left, grad, out, right, b_type.dtype
    )


_einsum.defvjp(_einsum_forward, _einsum_backward)


def dropout(x, rate: float, key):
    """Zeroes entries with probability `rate` and scales the rest; the identity where `key` is None.

    The bits are an integer hash of each entry's index under the key: a few integer operations instead of a cipher's
    rounds, and no dependence on how many devices share the array. The hash is `lowbias32` of Chris Wellons' "Prospecting
    for Hash Functions" (2018).
    """
    if key is None or rate == 0.0:
        return x
    keep = random_bits(x.shape, key) >= jnp.uint32(rate * 2**32)
    return jnp.where(keep, x * (1.0 / (1.0 - rate)), 0).astype(x.dtype)


def random_bits(shape, key):
    """Random uint32 of this shape, cheap and independent of how the array is cut over devices."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(
            math.prod(shape[axis + 1 :]) % 2**32
        )
    seed = jax.random.bits(key, (2,), jnp.uint32)
    return _hash(_hash(index ^ seed[0]) ^ seed[1])


def _hash(bits):
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def _site(key, number: int):
    return None if key is None else jax.random.fold_in(key, number)


class Dense(nn.Module):
    """x @ kernel (+ bias)."""

    features: int
    use_bias: bool
    dtype: str
    std: float = INIT_STD

    @nn.compact
    def __call__(self, x_BTD):
        kernel_DF = self.param(
            "kernel", nn.initializers.normal(self.std), (x_BTD.shape[-1], self.features)
        )
        y_BTF = einsum("BTD,DF->BTF", x_BTD, kernel_DF, self.dtype)
        if self.use_bias:
            y_BTF += self.param("bias", nn.initializers.zeros, (self.features,))
        return y_BTF


class LayerNorm(nn.Module):
    """Ba et al. 2016, with bias."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        return (
            x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + LAYER_NORM_EPS) * scale + bias
        )


class RMSNorm(nn.Module):
    """Zhang & Sennrich 2019, over the last axis."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + RMS_NORM_EPS) * scale


def rotate(x_BHTK, position_BT, theta: float):
    """Rotary positions (Su et al. 2021), halves rotated against each other as in Qwen3."""
    half = x_BHTK.shape[-1] // 2
    frequency_K = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_B1TK = (position_BT[..., None] * frequency_K)[:, None, :, :]
    cos, sin = jnp.cos(angle_B1TK), jnp.sin(angle_B1TK)
    # (a, b) -> (a cos - b sin, b cos + a sin), without cutting the array into halves and joining them again.
    return x_BHTK * jnp.concatenate([cos, cos], -1) + jnp.roll(x_BHTK, half, -1) * jnp.concatenate(
        [-sin, sin], -1
    )


def _fused_attention(q_BHTK, k_BHSK, v_BHSK, mask_BTS, dtype):
    """cuDNN's flash attention on a GPU (compute capability >= 8.0, half precision), the same through XLA elsewhere. No dropout."""
    q_BTHK, k_BSHK, v_BSHK = (x.swapaxes(1, 2).astype(dtype) for x in (q_BHTK, k_BHSK, v_BHSK))
    implementation = "cudnn" if jax.default_backend() == "gpu" else "xla"
    y_BTHK = jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, mask=mask_BTS[:, None], implementation=implementation
    )
    return y_BTHK.swapaxes(1, 2)


class Attention(nn.Module):
    """Causal self-attention; with a cache it also reads and writes keys and values of earlier calls."""

    cfg: GPTConfig
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, x_BTD, position_BT, mask_BTS, kv, start, key):
        cfg = self.cfg
        qwen3 = cfg.form == "qwen3"
        batch, length, _ = x_BTD.shape
        qkv = Dense(3 * cfg.n_embd, use_bias=not qwen3, dtype=self.dtype, name="qkv")(x_BTD)
        # Heads before positions: the layout in which every product of both passes is one plain batched matrix product.
        qkv_3BHTK = qkv.reshape(batch, length, 3, cfg.n_head, cfg.head_width).transpose(
            2, 0, 3, 1, 4
        )
        q_BHTK, k_BHSK, v_BHSK = qkv_3BHTK
        if qwen3:
            q_BHTK = rotate(RMSNorm(name="q_norm")(q_BHTK), position_BT, cfg.rope_theta)
            k_BHSK = rotate(RMSNorm(name="k_norm")(k_BHSK), position_BT, cfg.rope_theta)
        if kv is not None:
            at = (0, 0, start, 0)
            k_BHSK = jax.lax.dynamic_update_slice(kv[0], k_BHSK.astype(kv[0].dtype), at)
            v_BHSK = jax.lax.dynamic_update_slice(kv[1], v_BHSK.astype(kv[1].dtype), at)
        if self.attention == "fused" and kv is None and (key is None or cfg.dropout == 0.0):
            y_BHTK = _fused_attention(q_BHTK, k_BHSK, v_BHSK, mask_BTS, self.dtype)
        else:
            y_BHTK = self._attend(
                q_BHTK, k_BHSK, v_BHSK, mask_BTS, causal=kv is None, key=_site(key, 0)
            )
        y_BTD = y_BHTK.swapaxes(1, 2).reshape(batch, length, cfg.n_embd)
        out_std = INIT_STD / (2 * cfg.n_layer) ** 0.5
        y_BTD = Dense(cfg.n_embd, use_bias=not qwen3, dtype=self.dtype, std=out_std, name="out")(
            y_BTD
        )
        return y_BTD, (k_BHSK, v_BHSK)

    def _attend(self, q_BHTK, k_BHSK, v_BHSK, mask_BTS, *, causal: bool, key):
        """softmax(q k / sqrt(K)) v. Where query t may see no key after t (`causal`), a CPU computes no score of most of those keys.

        There scores are bound by memory, and parts of QUERY_ROWS queries leave out a quarter of them at 256 tokens and up to half of
        a longer window's; a GPU has better kernels for one whole product.
        """
        length = q_BHTK.shape[2]
        rows = QUERY_ROWS if causal and jax.default_backend() == "cpu" else length
        parts = []
        for first in range(0, length, rows):
            queries = slice(first, first + rows)
            keys = slice(first + rows) if causal else slice(None)
            scores_BHTS = einsum(
                "BHTK,BHSK->BHTS",
                q_BHTK[:, :, queries],
                k_BHSK[:, :, keys],
                self.dtype,
                jnp.float32,
            )
            scores_BHTS = jnp.where(
                mask_BTS[:, None, queries, keys], scores_BHTS * self.cfg.head_width**-0.5, _MASKED
            )
            weight_BHTS = dropout(
                jax.nn.softmax(scores_BHTS, axis=-1), self.cfg.dropout, _site(key, first)
            )
            parts.append(einsum("BHTS,BHSK->BHTK", weight_BHTS, v_BHSK[:, :, keys], self.dtype))
        return jnp.concatenate(parts, axis=2)


class MLP(nn.Module):
    """Tanh GELU (gpt2) or SwiGLU (qwen3; Shazeer 2020)."""

    cfg: GPTConfig
    dtype: str

    @nn.compact
    def __call__(self, x_BTD):
        cfg = self.cfg
        qwen3 = cfg.form == "qwen3"
        up_BTF = Dense(cfg.hidden_width, use_bias=not qwen3, dtype=self.dtype, name="up")(x_BTD)
        if qwen3:
            up_BTF *= jax.nn.silu(
                Dense(cfg.hidden_width, use_bias=False, dtype=self.dtype, name="gate")(x_BTD)
            )
        else:
            up_BTF = jax.nn.gelu(up_BTF, approximate=True)
        out_std = INIT_STD / (2 * cfg.n_layer) ** 0.5
        return Dense(cfg.n_embd, use_bias=not qwen3, dtype=self.dtype, std=out_std, name="down")(
            up_BTF
        )


class Block(nn.Module):
    """Pre-norm residual block; dropout on both residual branches."""

    cfg: GPTConfig
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, x_BTD, position_BT, mask_BTS, kv, start, key):
        norm = RMSNorm if self.cfg.form == "qwen3" else LayerNorm
        h_BTD = norm(name="attention_norm")(x_BTD)
        h_BTD, kv = Attention(self.cfg, self.dtype, self.attention, name="attention")(
            h_BTD, position_BT, mask_BTS, kv, start, key
        )
        x_BTD += dropout(h_BTD, self.cfg.dropout, _site(key, 1))
        h_BTD = MLP(self.cfg, self.dtype, name="mlp")(norm(name="mlp_norm")(x_BTD))
        return x_BTD + dropout(h_BTD, self.cfg.dropout, _site(key, 2)), kv


class GPT(nn.Module):
    """Token ids -> logits."""

    cfg: GPTConfig
    dtype: str = "float32"  # of the operands of every matrix product; sums and all else are float32
    attention: str = "xla"  # or "fused", used where there is neither a cache nor dropout

    @nn.compact
    def __call__(
        self, tokens_BT, *, cache: KVCache | None = None, start=0, pad_B=None, dropout_key=None
    ):
        """Logits of the next token at every position.

        Args:
          tokens_BT: int32; ids must lie in the vocabulary (JAX does not check).
          cache: keys and values of the positions before `start`; None attends within `tokens_BT` alone.
          start: the slot that tokens_BT[:, 0] stands in, a scalar; start + T <= cache.size.
          pad_B: how many slots at the left of each row are padding; positions count from the first real token.
          dropout_key: None evaluates without dropout.

        Returns:
          (logits_BTV float32, the cache with these tokens written or None).
        """
        cfg = self.cfg
        batch, length = tokens_BT.shape
        pad_B = jnp.zeros(batch, jnp.int32) if pad_B is None else pad_B
        slot_T = start + jnp.arange(length)
        slot_S = jnp.arange(length if cache is None else cache.size)
        position_BT = jnp.maximum(slot_T[None, :] - pad_B[:, None], 0)
        mask_BTS = (slot_S[None, None, :] <= slot_T[None, :, None]) & (
            slot_S[None, None, :] >= pad_B[:, None, None]
        )

        embedding_VD = self.param(
            "token_embedding", nn.initializers.normal(INIT_STD), (cfg.vocab_size, cfg.n_embd)
        )
        x_BTD = embedding_VD[tokens_BT]
        if cfg.form == "gpt2":
            table = self.param(
                "position_embedding", nn.initializers.normal(INIT_STD), (cfg.block_size, cfg.n_embd)
            )
            x_BTD += table[position_BT]
        x_BTD = dropout(
            x_BTD,
            cfg.dropout if cfg.embedding_dropout < 0 else cfg.embedding_dropout,
            _site(dropout_key, cfg.n_layer),
        )
        keys, values = [], []
        for i in range(cfg.n_layer):
            kv = None if cache is None else (cache.keys[i], cache.values[i])
            x_BTD, (k, v) = Block(cfg, self.dtype, self.attention, name=f"block_{i}")(
                x_BTD, position_BT, mask_BTS, kv, start, _site(dropout_key, i)
            )
            keys.append(k)
            values.append(v)
        x_BTD = (RMSNorm if cfg.form == "qwen3" else LayerNorm)(name="final_norm")(x_BTD)
        logits_BTV = einsum("BTD,VD->BTV", x_BTD, embedding_VD, self.dtype, jnp.float32)
        return logits_BTV, None if cache is None else KVCache(tuple(keys), tuple(values))
