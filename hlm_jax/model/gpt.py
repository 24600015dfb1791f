"""The GPT: two published forms, GPT-2 and Qwen3, as one Flax Linen module with a KV cache.

"gpt2" (Radford et al. 2019): learned positions, LayerNorm before each branch, biases, one product
for queries, keys and values, tanh GELU, tied output.
"qwen3" (Yang et al., arXiv 2505.09388): RMSNorm before each branch, rotary positions, RMS-normed
queries and keys with gains, SwiGLU, no biases, tied output.

Parameter paths are the checkpoint's API: every submodule is named. Axis letters:
hlm_jax/model/__init__.py.
"""

from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hlm_jax.model.attention import half_attention
from hlm_jax.model.layers import (
    INIT_STD,
    Dense,
    LayerNorm,
    RMSNorm,
    activation_dtype,
    dropout,
    einsum,
    gelu,
    rotate,
)
from hlm_jax.model.shape import GPTConfig

__all__ = ["GPT", "GPTConfig", "KVCache", "init_cache"]

_MASKED = -1e30  # finite: a row of padding that may look at nothing stays a number
QUERY_ROWS = 128  # queries that share one product with all keys up to the last of them, on a CPU


@flax.struct.dataclass
class KVCache:
    """Keys and values of every layer, each [B x H, S, K]; slot s holds the token at position s.

    B and H are one axis, G, of the products too. With two axes, XLA copies the whole cache several
    times for each token.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @property
    def size(self) -> int:
        return self.keys[0].shape[1]


def init_cache(cfg: GPTConfig, batch_size: int, size: int, dtype: Any = jnp.float32) -> KVCache:
    """An empty cache of `size` slots."""
    shape = (batch_size * cfg.n_head, size, cfg.head_width)
    # Distinct buffers: donation refuses one buffer given twice.
    return KVCache(
        tuple(jnp.zeros(shape, dtype) for _ in range(cfg.n_layer)),
        tuple(jnp.zeros(shape, dtype) for _ in range(cfg.n_layer)),
    )


def _extended(cache_GSK, new_BHTK, start):
    """The cache of one layer with new keys or values written from slot `start` on; G = B x H."""
    new_GTK = new_BHTK.reshape(-1, *new_BHTK.shape[2:]).astype(cache_GSK.dtype)
    return jax.lax.dynamic_update_slice(cache_GSK, new_GTK, (0, start, 0))


def _site(key, number: int):
    return None if key is None else jax.random.fold_in(key, number)


def _fused_attention(q_BHTK, k_BHSK, v_BHSK, mask_BTS, dtype):
    """cuDNN's flash attention on a GPU, the same function through XLA elsewhere; no dropout.

    cuDNN needs compute capability >= 8.0 and half precision.
    """
    q_BTHK, k_BSHK, v_BSHK = (x.swapaxes(1, 2).astype(dtype) for x in (q_BHTK, k_BHSK, v_BHSK))
    implementation: Literal["cudnn", "xla"] = "cudnn" if jax.default_backend() == "gpu" else "xla"
    y_BTHK = jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, mask=mask_BTS[:, None], implementation=implementation
    )
    return y_BTHK.swapaxes(1, 2)


class Attention(nn.Module):
    """Causal self-attention; with a cache it reads and extends keys and values of earlier calls.

    Returns:
      ([B, T, D], (keys, values) as KVCache holds them or None).
    """

    cfg: GPTConfig
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, x_BTD, position_BT, mask_BTS, kv, start, key):
        cfg = self.cfg
        qwen3 = cfg.form == "qwen3"
        batch, length, _ = x_BTD.shape
        qkv = Dense(3 * cfg.n_embd, use_bias=not qwen3, dtype=self.dtype, name="qkv")(x_BTD)
        # Heads before positions: then every product of both passes is a plain batched one.
        qkv = qkv.reshape(batch, length, 3, cfg.n_head, cfg.head_width)
        q_BHTK, k_BHSK, v_BHSK = qkv.transpose(2, 0, 3, 1, 4)
        if qwen3:
            q_BHTK, k_BHSK = RMSNorm(name="q_norm")(q_BHTK), RMSNorm(name="k_norm")(k_BHSK)
            q_BHTK = rotate(q_BHTK, position_BT, cfg.rope_theta)
            k_BHSK = rotate(k_BHSK, position_BT, cfg.rope_theta)
        if kv is not None:
            k_GSK, v_GSK = _extended(kv[0], k_BHSK, start), _extended(kv[1], v_BHSK, start)
            kv = k_GSK, v_GSK
            y_BHTK = self._attend_cached(q_BHTK, k_GSK, v_GSK, mask_BTS)
        elif self.attention == "fused" and (key is None or cfg.dropout == 0.0):
            y_BHTK = _fused_attention(q_BHTK, k_BHSK, v_BHSK, mask_BTS, self.dtype)
        else:
            y_BHTK = self._attend(q_BHTK, k_BHSK, v_BHSK, mask_BTS, _site(key, 0))
        y_BTD = y_BHTK.swapaxes(1, 2).reshape(batch, length, cfg.n_embd)
        out_std = INIT_STD / (2 * cfg.n_layer) ** 0.5
        out = Dense(cfg.n_embd, use_bias=not qwen3, dtype=self.dtype, std=out_std, name="out")
        return out(y_BTD), kv

    def _attend_cached(self, q_BHTK, k_GSK, v_GSK, mask_BTS):
        """softmax(q k / sqrt(K)) v over all slots of a cache."""
        batch, heads, length, width = q_BHTK.shape
        q_GTK = q_BHTK.reshape(-1, length, width)
        scores_GTS = einsum("GTK,GSK->GTS", q_GTK, k_GSK, self.dtype, jnp.float32)
        scores_BHTS = scores_GTS.reshape(batch, heads, length, -1) * width**-0.5
        weight_BHTS = jax.nn.softmax(jnp.where(mask_BTS[:, None], scores_BHTS, _MASKED), axis=-1)
        weight_GTS = weight_BHTS.reshape(scores_GTS.shape)
        return einsum("GTS,GSK->GTK", weight_GTS, v_GSK, self.dtype).reshape(q_BHTK.shape)

    def _attend(self, q_BHTK, k_BHSK, v_BHSK, mask_BTS, key):
        """softmax(q k / sqrt(K)) v, where no query sees a later key.

        A CPU leaves out most of the scores that the mask would discard. Scores are bound by memory
        there: parts of QUERY_ROWS queries leave out a quarter of them at 256 tokens and up to half
        in a longer window. A GPU has better kernels for one whole product.
        """
        length = q_BHTK.shape[2]
        half = activation_dtype(self.dtype)
        if half != jnp.float32:
            heads = (x.astype(half) for x in (q_BHTK, k_BHSK, v_BHSK))
            key_data = None if key is None else jax.random.key_data(key)
            rate = 0.0 if key is None else self.cfg.dropout
            return half_attention(*heads, mask_BTS, key_data, rate)
        rows = QUERY_ROWS if jax.default_backend() == "cpu" else length
        parts = []
        for first in range(0, length, rows):
            queries, keys = slice(first, first + rows), slice(first + rows)
            q, k = q_BHTK[:, :, queries], k_BHSK[:, :, keys]
            scores_BHTS = einsum("BHTK,BHSK->BHTS", q, k, self.dtype, jnp.float32)
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
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        cfg = self.cfg
        qwen3 = cfg.form == "qwen3"
        up_BTF = Dense(cfg.hidden_width, use_bias=not qwen3, dtype=self.dtype, name="up")(x_BTD)
        if qwen3:
            gate = Dense(cfg.hidden_width, use_bias=False, dtype=self.dtype, name="gate")
            up_BTF *= jax.nn.silu(gate(x_BTD))
        else:
            up_BTF = gelu(up_BTF)
        out_std = INIT_STD / (2 * cfg.n_layer) ** 0.5
        down = Dense(cfg.n_embd, use_bias=not qwen3, dtype=self.dtype, std=out_std, name="down")
        return down(up_BTF)


class Block(nn.Module):
    """Pre-norm residual block; dropout on both residual branches."""

    cfg: GPTConfig
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, x_BTD, position_BT, mask_BTS, kv, start, key):
        norm = RMSNorm if self.cfg.form == "qwen3" else LayerNorm
        h_BTD = norm(self.dtype, name="attention_norm")(x_BTD)
        h_BTD, kv = Attention(self.cfg, self.dtype, self.attention, name="attention")(
            h_BTD, position_BT, mask_BTS, kv, start, key
        )
        x_BTD += dropout(h_BTD, self.cfg.dropout, _site(key, 1))
        h_BTD = MLP(self.cfg, self.dtype, name="mlp")(norm(self.dtype, name="mlp_norm")(x_BTD))
        return x_BTD + dropout(h_BTD, self.cfg.dropout, _site(key, 2)), kv


class GPT(nn.Module):
    """Token ids -> logits.

    Attributes:
      dtype: of the operands of every matrix product; sums and all else are float32.
      attention: "xla", or "fused" where there is neither a cache nor dropout.
    """

    cfg: GPTConfig
    dtype: str = "float32"
    attention: str = "xla"

    @nn.compact
    def __call__(
        self,
        tokens_BT: jax.Array,
        *,
        cache: KVCache | None = None,
        start: int | jax.Array = 0,
        pad_B: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache | None]:
        """Logits of the next token at every position.

        Args:
          tokens_BT: int32; ids must lie in the vocabulary (JAX does not check).
          cache: keys and values of the positions before `start`; None attends within `tokens_BT`.
          start: the slot of tokens_BT[:, 0], a scalar; start + T <= cache.size.
          pad_B: how many slots at the left of each row are padding; positions count from the first
            real token.
          dropout_key: None evaluates without dropout, as a cache requires.

        Returns:
          (logits_BTV float32, the cache with these tokens written or None).
        """
        if cache is not None and dropout_key is not None:
            raise ValueError("dropout with a cache: pass one of cache and dropout_key")
        cfg = self.cfg
        batch, length = tokens_BT.shape
        pad_B = jnp.zeros(batch, jnp.int32) if pad_B is None else pad_B
        slot_T = start + jnp.arange(length)
        slot_S = jnp.arange(length if cache is None else cache.size)
        position_BT = jnp.maximum(slot_T[None, :] - pad_B[:, None], 0)
        mask_BTS = (slot_S[None, None, :] <= slot_T[None, :, None]) & (
            slot_S[None, None, :] >= pad_B[:, None, None]
        )

        initial = nn.initializers.normal(INIT_STD)
        embedding_VD = self.param("token_embedding", initial, (cfg.vocab_size, cfg.n_embd))
        x_BTD = embedding_VD[tokens_BT]
        if cfg.form == "gpt2":
            table = self.param("position_embedding", initial, (cfg.block_size, cfg.n_embd))
            x_BTD += table[position_BT]
        x_BTD = dropout(x_BTD, cfg.dropout, _site(dropout_key, cfg.n_layer))
        keys, values = [], []
        for i in range(cfg.n_layer):
            kv = None if cache is None else (cache.keys[i], cache.values[i])
            x_BTD, kv = Block(cfg, self.dtype, self.attention, name=f"block_{i}")(
                x_BTD, position_BT, mask_BTS, kv, start, _site(dropout_key, i)
            )
            if kv is not None:
                keys.append(kv[0])
                values.append(kv[1])
        norm = RMSNorm if cfg.form == "qwen3" else LayerNorm
        x_BTD = norm(self.dtype, name="final_norm")(x_BTD)
        logits_BTV = einsum("BTD,VD->BTV", x_BTD, embedding_VD, self.dtype, jnp.float32)
        return logits_BTV, None if cache is None else KVCache(tuple(keys), tuple(values))
