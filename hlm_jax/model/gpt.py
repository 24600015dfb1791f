"""The GPT: two published forms, GPT-2 and Qwen3, as one Flax Linen module with a KV cache.

A third form, "mogrifier", has the layers of an LSTM between embedding and output (mogrifier.py).

"gpt2" (Radford et al. 2019): learned positions, LayerNorm before each branch, biases, one product
for queries, keys and values, tanh GELU, tied output.
"qwen3" (Yang et al., arXiv 2505.09388): RMSNorm before each branch, rotary positions, RMS-normed
queries and keys with gains, SwiGLU, no biases, tied output; several heads of queries may share
one head of keys and values, and a head may have any even width.

Parameter paths are the checkpoint's API: every submodule is named. Axis letters:
hlm_jax/model/__init__.py.
"""

import functools
from typing import Any, Literal, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from hlm_jax.model.attention import half_attention, part_attention
from hlm_jax.model.flash import flash_attention
from hlm_jax.model.layers import (
    INIT_STD,
    Dense,
    LayerNorm,
    RMSNorm,
    activation_dtype,
    dropout,
    dropout_seeds,
    einsum,
    gelu,
    product,
    rotate,
)
from hlm_jax.model.mogrifier import Memory, Mogrifier, init_memory
from hlm_jax.model.shape import GPTConfig

__all__ = ["GPT", "GPTConfig", "KVCache", "init_cache"]

_MASKED = -1e30  # finite: a difference of two of them is a number
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


def init_cache(
    cfg: GPTConfig, batch_size: int, size: int, dtype: Any = jnp.float32
) -> KVCache | Memory:
    """An empty cache of `size` slots; of a Mogrifier LSTM its memory, of any length."""
    if cfg.form == "mogrifier":
        return init_memory(cfg, batch_size)
    shape = (batch_size * cfg.n_head, size, cfg.head_width)
    # Distinct buffers: donation refuses one buffer given twice.
    return KVCache(
        tuple(jnp.zeros(shape, dtype) for _ in range(cfg.n_layer)),
        tuple(jnp.zeros(shape, dtype) for _ in range(cfg.n_layer)),
    )


def _extended(cache_GSK, new_BHTK, start):
    """The cache of one layer with new keys or values written from slot `start` on; G = B x H."""
    heads = new_BHTK.shape[1]
    new_GTK = new_BHTK.reshape(-1, *new_BHTK.shape[2:]).astype(cache_GSK.dtype)
    if not jnp.ndim(start):
        return jax.lax.dynamic_update_slice(cache_GSK, new_GTK, (0, start, 0))

    def write(cache_SK, new_TK, slot):
        return jax.lax.dynamic_update_slice(cache_SK, new_TK, (slot, 0))

    return jax.vmap(write)(cache_GSK, new_GTK, jnp.repeat(start, heads))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _positions(table_SD, position_BT, dtype):
    """Rows of the table, for positions 0, 1, … in every row of the batch.

    Their gradient is a sum over the batch. Autodiff would scatter the rows one by one.
    """
    return table_SD[position_BT]


def _positions_backward(dtype, table_SD, grad_BTD):
    # A product with ones, in the half type like every product. For a sum XLA would put the batch
    # last in all arrays of the residual stream, and a GPU would move a quarter more bytes a step.
    grad_BTD = grad_BTD.astype(activation_dtype(dtype))
    ones_B = jnp.ones(len(grad_BTD), grad_BTD.dtype)
    grad_TD = product("B,BTD->TD", ones_B, grad_BTD, jnp.float32)
    return jnp.zeros_like(table_SD).at[: len(grad_TD)].set(grad_TD), None


_positions.defvjp(lambda table, position, _: (table[position], table), _positions_backward)


def query_rows(length: int) -> int:
    """How many queries share one product of float32 attention in a window of this length.

    A CPU's attention is bound by the memory that scores take. A GPU has better kernels for one
    whole product than for parts of it.
    """
    return QUERY_ROWS if jax.default_backend() == "cpu" else length


def _fused_attention(q_BTHK, k_BSHK, v_BSHK, dtype):
    """cuDNN's flash attention on a GPU, the same function through XLA elsewhere; no dropout.

    No query sees a later key. cuDNN needs compute capability >= 8.0 and half precision.
    """
    implementation: Literal["cudnn", "xla"] = "cudnn" if jax.default_backend() == "gpu" else "xla"
    heads = (x.astype(dtype) for x in (q_BTHK, k_BSHK, v_BSHK))
    return jax.nn.dot_product_attention(*heads, is_causal=True, implementation=implementation)


def _flash_attention(qkv_BT3HK, rate, seed, mesh):
    """The project's kernel, which has dropout; over a mesh every device has its own rows."""
    seed = jnp.append(seed, jnp.uint32(0))
    if mesh is None or mesh.size == 1:
        return flash_attention(qkv_BT3HK, seed, rate)

    def local(qkv_BT3HK, seed):
        device = jax.lax.axis_index(mesh.axis_names).astype(jnp.uint32)
        return flash_attention(qkv_BT3HK, seed.at[2].set(device * len(qkv_BT3HK)), rate)

    rows = PartitionSpec(mesh.axis_names)
    specs = (rows, PartitionSpec())
    each = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
    return each(qkv_BT3HK, seed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _heads(qkv_BT3HK, dtype):
    """Queries, keys and values, each [B, H, T, K].

    Their gradients are rounded to `dtype` before they are joined, so that fewer bytes move. The
    products that read them would round them; a bias's gradient is a sum of the rounded ones.
    """
    return tuple(qkv_BT3HK.transpose(2, 0, 3, 1, 4))


def _heads_backward(dtype, _, grads):
    # The barrier keeps XLA from joining them value by value while it computes them.
    parts = jax.lax.optimization_barrier([g.swapaxes(1, 2).astype(dtype) for g in grads])
    return (jnp.stack(parts, 2).astype(grads[0].dtype),)


_heads.defvjp(lambda qkv, dtype: (_heads(qkv, dtype), None), _heads_backward)


class Attention(nn.Module):
    """Causal self-attention; with a cache it reads and extends keys and values of earlier calls.

    Returns:
      ([B, T, D], (keys, values) as KVCache holds them or None).
    """

    cfg: GPTConfig
    dtype: str
    attention: str
    mesh: Mesh | None

    @nn.compact
    def __call__(self, x_BTD, position_BT, mask_BTS, causal, kv, start, seeds):
        cfg = self.cfg
        qwen3 = cfg.form == "qwen3"
        batch, length, _ = x_BTD.shape
        qkv = Dense(cfg.qkv_width, use_bias=not qwen3, dtype=self.dtype, name="qkv")(x_BTD)
        fused = self.attention == "fused" and causal
        # Heads before positions: then every product of both passes is a plain batched one. A fused
        # kernel reads positions first, as they lie.
        if cfg.kv_heads == cfg.n_head:
            qkv = qkv.reshape(batch, length, 3, cfg.n_head, cfg.head_width)
            if fused:
                q, k, v = qkv.transpose(2, 0, 1, 3, 4)
            elif jax.default_backend() == "cpu":
                q, k, v = _heads(qkv, self.dtype)
            else:
                q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        else:
            cuts = cfg.n_head, cfg.n_head + cfg.kv_heads
            qkv = qkv.reshape(batch, length, -1, cfg.head_width)
            q, k, v = jnp.split(qkv if fused else qkv.swapaxes(1, 2), cuts, axis=2 if fused else 1)
        if qwen3:
            q, k = RMSNorm(name="q_norm")(q), RMSNorm(name="k_norm")(k)
            heads = 2 if fused else 1
            # Without a cache all rows have the same positions, and share the table of angles.
            positions = position_BT[:1] if causal else position_BT
            q, k = (rotate(x, positions, cfg.rope_theta, heads) for x in (q, k))
            if cfg.kv_heads != cfg.n_head:  # all that follows has one head of each for a query's
                k, v = (jnp.repeat(x, cfg.n_head // cfg.kv_heads, axis=heads) for x in (k, v))
        if kv is not None:
            k_GSK, v_GSK = _extended(kv[0], k, start), _extended(kv[1], v, start)
            kv = k_GSK, v_GSK
            y_BHTK = self._attend_cached(q, k_GSK, v_GSK, mask_BTS)
        elif fused and seeds is None:
            y_BHTK = _fused_attention(q, k, v, self.dtype).swapaxes(1, 2)
        elif fused:
            qkv = (jnp.stack([q, k, v], 2) if qwen3 else qkv).astype(self.dtype)
            y_BHTK = _flash_attention(qkv, cfg.dropout, seeds[0], self.mesh).swapaxes(1, 2)
        else:
            y_BHTK = self._attend(q, k, v, mask_BTS, seeds)
        y_BTD = y_BHTK.swapaxes(1, 2).reshape(batch, length, -1)
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

    def _attend(self, q_BHTK, k_BHSK, v_BHSK, mask_BTS, seeds):
        """softmax(q k / sqrt(K)) v without a cache; `mask_BTS` hides later keys, nothing else."""
        half = activation_dtype(self.dtype)
        if half == jnp.float32:
            rows = query_rows(q_BHTK.shape[2])
            rate = 0.0 if seeds is None else self.cfg.dropout
            dtype = jnp.dtype(self.dtype)
            return part_attention(q_BHTK, k_BHSK, v_BHSK, seeds, rate, dtype, rows)
        heads = (x.astype(half) for x in (q_BHTK, k_BHSK, v_BHSK))
        if seeds is None:
            return half_attention(*heads, mask_BTS, None, 0.0)
        return half_attention(*heads, mask_BTS, seeds[0], self.cfg.dropout)


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
    mesh: Mesh | None

    @nn.compact
    def __call__(self, x_BTD, position_BT, mask_BTS, causal, kv, start, seeds):
        norm = RMSNorm if self.cfg.form == "qwen3" else LayerNorm
        h_BTD = norm(self.dtype, name="attention_norm")(x_BTD)
        attention = Attention(self.cfg, self.dtype, self.attention, self.mesh, name="attention")
        attention_seeds, branch = (None, (None, None)) if seeds is None else seeds
        h_BTD, kv = attention(h_BTD, position_BT, mask_BTS, causal, kv, start, attention_seeds)
        x_BTD += dropout(h_BTD, self.cfg.dropout, branch[0])
        h_BTD = MLP(self.cfg, self.dtype, name="mlp")(norm(self.dtype, name="mlp_norm")(x_BTD))
        return x_BTD + dropout(h_BTD, self.cfg.dropout, branch[1]), kv


class GPT(nn.Module):
    """Token ids -> logits.

    Attributes:
      dtype: of the operands of every matrix product; sums and all else are float32.
      attention: "xla", or "fused" where there is no cache.
      mesh: the devices over which the rows of a batch are cut; fused attention needs to know.
    """

    cfg: GPTConfig
    dtype: str = "float32"
    attention: str = "xla"
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self,
        tokens_BT: jax.Array,
        *,
        cache: KVCache | Memory | None = None,
        start: int | jax.Array = 0,
        last_B: jax.Array | None = None,
        head_DV: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache | Memory | None]:
        """Logits of the next token at every position.

        Args:
          tokens_BT: int32; ids must lie in the vocabulary (JAX does not check).
          cache: keys and values of the positions before `start`, or the memory of the tokens before
            these; None reads `tokens_BT` alone.
          start: the slot of tokens_BT[:, 0], a scalar or one for each row, [B]; start + T <=
            cache.size. What a row holds from there on is written over or not seen, so a row may
            end in padding: start behind its last real token next time. A Mogrifier LSTM needs no
            slots, and keeps padding out of its memory by `last_B` alone.
          last_B: only the logits that follow this token of each row are returned, [B, 1, V].
          head_DV: the transposed embedding, where the caller keeps one: a CPU multiplies a few rows
            by it in half the time.
          dropout_key: None evaluates without dropout, as a cache requires.

        Returns:
          (logits_BTV float32, the cache with these tokens written or None).
        """
        if cache is not None and dropout_key is not None:
            raise ValueError("dropout with a cache: pass one of cache and dropout_key")
        if cache is None and not (isinstance(start, int) and start == 0):
            raise ValueError("start without a cache: positions then count from 0")
        cfg, length = self.cfg, tokens_BT.shape[1]
        initial = nn.initializers.normal(INIT_STD)
        embedding_VD = self.param("token_embedding", initial, (cfg.vocab_size, cfg.n_embd))
        x_BTD, seeds = embedding_VD[tokens_BT], None
        if dropout_key is not None and cfg.dropout:
            starts = range(0, length, query_rows(length))
            seeds = dropout_seeds(dropout_key, cfg.n_layer, starts)
        if cfg.form == "mogrifier":
            if seeds is not None:
                x_BTD = dropout(x_BTD, cfg.dropout, seeds.embedding)
            lstm = Mogrifier(cfg, self.dtype, name="lstm")
            x_BTD, memory = lstm(x_BTD, cast(Memory | None, cache), last_B, seeds)
            cache = None if cache is None else memory
        else:
            x_BTD, cache = self._blocks(x_BTD, cache, start, seeds)
        if last_B is not None:
            x_BTD = jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)
        norm = LayerNorm if cfg.form == "gpt2" else RMSNorm
        x_BTD = norm(self.dtype, name="final_norm")(x_BTD)
        if head_DV is None:
            logits_BTV = einsum("BTD,VD->BTV", x_BTD, embedding_VD, self.dtype, jnp.float32)
        else:
            logits_BTV = einsum("BTD,DV->BTV", x_BTD, head_DV, self.dtype, jnp.float32)
        return logits_BTV, cache

    def _blocks(self, x_BTD, cache, start, seeds):
        """(what the blocks of a transformer make of embedded tokens, the cache with them)."""
        cfg, (batch, length, _) = self.cfg, x_BTD.shape
        causal = cache is None
        slot_S = jnp.arange(length if cache is None else cache.size)
        start_B1 = jnp.broadcast_to(start, (batch,))[:, None]
        position_BT = start_B1 + jnp.arange(length)
        mask_BTS = slot_S <= position_BT[:, :, None]
        if cfg.form == "gpt2":
            initial = nn.initializers.normal(INIT_STD)
            table = self.param("position_embedding", initial, (cfg.block_size, cfg.n_embd))
            x_BTD += _positions(table, position_BT, self.dtype) if causal else table[position_BT]
        if seeds is not None:
            x_BTD = dropout(x_BTD, cfg.dropout, seeds.embedding)
        keys, values = [], []
        for i in range(cfg.n_layer):
            kv = None if cache is None else (cache.keys[i], cache.values[i])
            block = Block(cfg, self.dtype, self.attention, self.mesh, name=f"block_{i}")
            own = None if seeds is None else (seeds.attention[i], seeds.branches[i])
            x_BTD, kv = block(x_BTD, position_BT, mask_BTS, causal, kv, start, own)
            if kv is not None:
                keys.append(kv[0])
                values.append(kv[1])
        return x_BTD, None if cache is None else KVCache(tuple(keys), tuple(values))
