"""The GPT: two published forms, GPT-2 and Qwen3, as one Flax Linen module with an explicit KV cache. No I/O.

Axis letters: B batch, T query position, S key position, H heads, K head width, D width, F hidden, V vocabulary.

"gpt2" (Radford et al. 2019): learned positions, pre-LayerNorm with biases, fused qkv, tanh GELU, tied output.
"qwen3" (Yang et al., arXiv 2505.09388): RMSNorm, rotary positions, RMS-normed queries and keys with gains, SwiGLU, no
biases, tied output. Parameter paths are the checkpoint's API: every submodule is named.
"""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

LAYER_NORM_EPS = 1e-5
RMS_NORM_EPS = 1e-6
INIT_STD = 0.02
_MASKED = -1e30  # finite: a row of padding that may look at nothing stays a number


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Shape of the model. `rope_theta` and the hidden width 8/3 x n_embd concern form "qwen3" only."""

    form: str
    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    rope_theta: float

    @property
    def head_width(self) -> int:
        return self.n_embd // self.n_head

    @property
    def hidden_width(self) -> int:
        """4 x n_embd, or for SwiGLU 8/3 x n_embd rounded up to a multiple of 64 (the same number of weights)."""
        return 4 * self.n_embd if self.form == "gpt2" else -(-8 * self.n_embd // 3 // 64) * 64


@flax.struct.dataclass
class KVCache:
    """Keys and values of every layer, each a tuple of [B, S, H, K]; slot s holds the token at position s."""

    keys: tuple
    values: tuple

    @property
    def size(self) -> int:
        return self.keys[0].shape[1]


def init_cache(cfg: GPTConfig, batch_size: int, size: int, dtype=jnp.float32) -> KVCache:
    """An empty cache of `size` slots."""
    shape = (batch_size, size, cfg.n_head, cfg.head_width)
    # Distinct buffers: donation refuses one buffer given twice.
    return KVCache(
        tuple(jnp.zeros(shape, dtype) for _ in range(cfg.n_layer)),
        tuple(jnp.zeros(shape, dtype) for _ in range(cfg.n_layer)),
    )


def dropout(x, rate: float, key):
    """Zeroes entries with probability `rate` and scales the rest; the identity where `key` is None."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def _site(key, number: int):
    return None if key is None else jax.random.fold_in(key, number)


class Dense(nn.Module):
    """x @ kernel (+ bias)."""

    features: int
    use_bias: bool
    std: float = INIT_STD

    @nn.compact
    def __call__(self, x_BTD):
        kernel_DF = self.param("kernel", nn.initializers.normal(self.std), (x_BTD.shape[-1], self.features))
        y_BTF = jnp.einsum("BTD,DF->BTF", x_BTD, kernel_DF)
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
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + LAYER_NORM_EPS) * scale + bias


class RMSNorm(nn.Module):
    """Zhang & Sennrich 2019, over the last axis."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + RMS_NORM_EPS) * scale


def rotate(x_BTHK, position_BT, theta: float):
    """Rotary positions (Su et al. 2021), halves rotated against each other as in Qwen3."""
    half = x_BTHK.shape[-1] // 2
    frequency_K = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BT1K = (position_BT[..., None] * frequency_K)[:, :, None, :]
    a, b = x_BTHK[..., :half], x_BTHK[..., half:]
    cos, sin = jnp.cos(angle_BT1K), jnp.sin(angle_BT1K)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Attention(nn.Module):
    """Causal self-attention; with a cache it also reads and writes keys and values of earlier calls."""

    cfg: GPTConfig

    @nn.compact
    def __call__(self, x_BTD, position_BT, mask_BTS, kv, start, key):
        cfg = self.cfg
        qwen3 = cfg.form == "qwen3"
        batch, length, _ = x_BTD.shape
        qkv = Dense(3 * cfg.n_embd, use_bias=not qwen3, name="qkv")(x_BTD)
        q_BTHK, k_BTHK, v_BTHK = (
            part.reshape(batch, length, cfg.n_head, cfg.head_width) for part in jnp.split(qkv, 3, axis=-1)
        )
        if qwen3:
            q_BTHK = rotate(RMSNorm(name="q_norm")(q_BTHK), position_BT, cfg.rope_theta)
            k_BTHK = rotate(RMSNorm(name="k_norm")(k_BTHK), position_BT, cfg.rope_theta)
        k_BSHK, v_BSHK = k_BTHK, v_BTHK
        if kv is not None:
            at = (0, start, 0, 0)
            k_BSHK = jax.lax.dynamic_update_slice(kv[0], k_BTHK.astype(kv[0].dtype), at)
            v_BSHK = jax.lax.dynamic_update_slice(kv[1], v_BTHK.astype(kv[1].dtype), at)
        scores_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK) * cfg.head_width**-0.5
        scores_BHTS = jnp.where(mask_BTS[:, None], scores_BHTS.astype(jnp.float32), _MASKED)
        weight_BHTS = dropout(jax.nn.softmax(scores_BHTS, axis=-1), cfg.dropout, _site(key, 0))
        y_BTHK = jnp.einsum("BHTS,BSHK->BTHK", weight_BHTS, v_BSHK)
        y_BTD = y_BTHK.reshape(batch, length, cfg.n_embd)
        out_std = INIT_STD / (2 * cfg.n_layer) ** 0.5
        y_BTD = Dense(cfg.n_embd, use_bias=not qwen3, std=out_std, name="out")(y_BTD)
        return y_BTD, (k_BSHK, v_BSHK)


class MLP(nn.Module):
    """Tanh GELU (gpt2) or SwiGLU (qwen3; Shazeer 2020)."""

    cfg: GPTConfig

    @nn.compact
    def __call__(self, x_BTD):
        cfg = self.cfg
        qwen3 = cfg.form == "qwen3"
        up_BTF = Dense(cfg.hidden_width, use_bias=not qwen3, name="up")(x_BTD)
        if qwen3:
            up_BTF *= jax.nn.silu(Dense(cfg.hidden_width, use_bias=False, name="gate")(x_BTD))
        else:
            up_BTF = jax.nn.gelu(up_BTF, approximate=True)
        out_std = INIT_STD / (2 * cfg.n_layer) ** 0.5
        return Dense(cfg.n_embd, use_bias=not qwen3, std=out_std, name="down")(up_BTF)


class Block(nn.Module):
    """Pre-norm residual block; dropout on both residual branches."""

    cfg: GPTConfig

    @nn.compact
    def __call__(self, x_BTD, position_BT, mask_BTS, kv, start, key):
        norm = RMSNorm if self.cfg.form == "qwen3" else LayerNorm
        h_BTD = norm(name="attention_norm")(x_BTD)
        h_BTD, kv = Attention(self.cfg, name="attention")(h_BTD, position_BT, mask_BTS, kv, start, key)
        x_BTD += dropout(h_BTD, self.cfg.dropout, _site(key, 1))
        h_BTD = MLP(self.cfg, name="mlp")(norm(name="mlp_norm")(x_BTD))
        return x_BTD + dropout(h_BTD, self.cfg.dropout, _site(key, 2)), kv


class GPT(nn.Module):
    """Token ids -> logits."""

    cfg: GPTConfig

    @nn.compact
    def __call__(self, tokens_BT, *, cache: KVCache | None = None, start=0, pad_B=None, dropout_key=None):
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
        mask_BTS = (slot_S[None, None, :] <= slot_T[None, :, None]) & (slot_S[None, None, :] >= pad_B[:, None, None])

        embedding_VD = self.param("token_embedding", nn.initializers.normal(INIT_STD), (cfg.vocab_size, cfg.n_embd))
        x_BTD = embedding_VD[tokens_BT]
        if cfg.form == "gpt2":
            table = self.param("position_embedding", nn.initializers.normal(INIT_STD), (cfg.block_size, cfg.n_embd))
            x_BTD += table[position_BT]
        x_BTD = dropout(x_BTD, cfg.dropout, _site(dropout_key, cfg.n_layer))
        keys, values = [], []
        for i in range(cfg.n_layer):
            kv = None if cache is None else (cache.keys[i], cache.values[i])
            x_BTD, (k, v) = Block(cfg, name=f"block_{i}")(x_BTD, position_BT, mask_BTS, kv, start, _site(dropout_key, i))
            keys.append(k)
            values.append(v)
        x_BTD = (RMSNorm if cfg.form == "qwen3" else LayerNorm)(name="final_norm")(x_BTD)
        logits_BTV = jnp.einsum("BTD,VD->BTV", x_BTD, embedding_VD)
        return logits_BTV, None if cache is None else KVCache(tuple(keys), tuple(values))
