"""Causal attention with backward passes of its own: in parts of the queries, and in half types.

Memory traffic decides its time: scores are the largest arrays of a training step.

Axis letters: hlm_jax/model/__init__.py; T and S are those of a part or a half here.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from hlm_jax.model.layers import dropped, log_sum_exp, product

_MASKED = -1e30  # finite: a row of padding that may look at nothing stays a number


# --- Results in float32: a CPU, or float32 on a GPU. ---


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def part_attention(q_BHTK, k_BHSK, v_BHSK, seeds_P2, rate, dtype, rows):
    """softmax(q k / sqrt(K)) v where no query sees a later key, float32.

    Each part of `rows` queries has one product with all keys up to its last query, so scores that
    the mask would discard are mostly not computed: a quarter of them with two parts, up to half
    with many. The exponentials are kept in `dtype` for the backward pass. They are divided by their
    sum after the product, in an array that is smaller than the scores.

    Args:
      seeds_P2: uint32, of the dropout of each part's probabilities; None where the rate is 0.
      rate: of that dropout; 0 for none.
      dtype: of the operands of products.
      rows: queries in a part.
    """
    return _part_forward(q_BHTK, k_BHSK, v_BHSK, seeds_P2, rate, dtype, rows)[0]


def _part_forward(q_BHTK, k_BHSK, v_BHSK, seeds_P2, rate, dtype, rows):
    q, k, v = (x.astype(dtype) for x in (q_BHTK, k_BHSK, v_BHSK))
    width = q.shape[-1]
    parts, kept, inverse = [], [], []
    for number, (queries, keys) in enumerate(_parts(q.shape[2], rows)):
        scores = product("BHTK,BHSK->BHTS", q[:, :, queries], k[:, :, keys], jnp.float32)
        seen = jnp.arange(keys.stop) <= jnp.arange(queries.start, queries.stop)[:, None]
        scores = jnp.where(seen, scores * width**-0.5, _MASKED)
        weight = jnp.exp(scores - scores.max(-1, keepdims=True)).astype(dtype)
        total = 1 / weight.astype(jnp.float32).sum(-1, keepdims=True)
        if rate:
            total, weight = total / (1 - rate), _marked(weight, rate, seeds_P2[number])
        part = product("BHTS,BHSK->BHTK", jax.nn.relu(weight), v[:, :, keys], jnp.float32)
        parts.append(part * total)
        kept.append(weight)
        inverse.append(total)
    y = jnp.concatenate(parts, 2)
    types = (jnp.zeros(0, x.dtype) for x in (q_BHTK, k_BHSK, v_BHSK))
    return y, (q, k, v, kept, inverse, y, tuple(types))


def _part_backward(rate, dtype, rows, saved, grad_BHTK):
    q, k, v, kept, inverse, y, types = saved
    width, length = q.shape[-1], q.shape[2]
    # The sum over keys of weight x its gradient, by way of the output (Dao et al., section 3.1).
    sums = (grad_BHTK * y).sum(-1, keepdims=True)
    grad_q, grad_k, grad_v = [], jnp.zeros(k.shape), jnp.zeros(v.shape)
    for (queries, keys), weight, total in zip(_parts(length, rows), kept, inverse, strict=True):
        grad = (grad_BHTK[:, :, queries] * total).astype(dtype)
        grad_weight = product("BHTK,BHSK->BHTS", grad, v[:, :, keys], jnp.float32)
        plain = sums[:, :, queries] * total
        if rate:
            plain = plain * (1 - rate)
            grad_weight = jnp.where(weight > 0, grad_weight, 0)
        grad_scores = jnp.abs(weight).astype(jnp.float32) * (grad_weight - plain) * width**-0.5
        grad_scores = grad_scores.astype(dtype)
        grad_q.append(product("BHTS,BHSK->BHTK", grad_scores, k[:, :, keys], jnp.float32))
        later = [(0, 0), (0, 0), (0, length - keys.stop), (0, 0)]
        grad_k += jnp.pad(_over_queries(grad_scores, q[:, :, queries]), later)
        grad_v += jnp.pad(_over_queries(jax.nn.relu(weight), grad), later)
    grads = (jnp.concatenate(grad_q, 2), grad_k, grad_v)
    return *(x.astype(of.dtype) for x, of in zip(grads, types, strict=True)), None


part_attention.defvjp(_part_forward, _part_backward)


def _parts(length, rows):
    """The queries of each part, and the keys that they have a product with."""
    for first in range(0, length, rows):
        last = min(first + rows, length)
        yield slice(first, last), slice(0, last)


def _over_queries(weight_BHTS, x_BHTK):
    """Sum over queries, [B, H, S, K] float32.

    With the queries cut in two axes XLA transposes the weights first. A CPU's fast products add
    along the last axis of their first operand; without it the product takes twice as long.
    """
    cut = 2 if weight_BHTS.shape[2] % 2 == 0 else 1
    weight, x = (a.reshape(*a.shape[:2], cut, -1, a.shape[-1]) for a in (weight_BHTS, x_BHTK))
    return product("BHaTS,BHaTK->BHSK", weight, x, jnp.float32)


def _marked(weight_BHTS, rate, seed):
    """Weights, those that dropout discards with a minus sign."""
    kept = dropped(jnp.ones(weight_BHTS.shape), rate, seed) > 0
    return jnp.where(kept, weight_BHTS, -weight_BHTS)


# --- In a half type on a GPU. ---

# (half of the queries, half of the keys), row by row.
_TILES = ((0, 0), (1, 0), (1, 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def half_attention(q_BHTK, k_BHSK, v_BHSK, mask_BTS, seed, rate):
    """softmax(q k / sqrt(K)) v where no query sees a later key, in the type of q, k and v.

    The window is cut in two halves. Early queries see early keys, and late queries see all: a
    quarter of the scores is never computed. Scores and probabilities are kept in the half type; the
    backward pass starts from them and from the logarithm of the sum over keys (Dao et al.,
    arXiv 2205.14135). Dropout's mask is computed again instead of stored.

    Args:
      mask_BTS: what a query may see.
      seed: uint32 [2], of the dropout of probabilities; None for none.
      rate: of that dropout; 0 for none.
    """
    return _forward(q_BHTK, k_BHSK, v_BHSK, mask_BTS, seed, rate)[0]


def _forward(q_BHTK, k_BHSK, v_BHSK, mask_BTS, seed, rate):
    half, (*_, length, width) = q_BHTK.dtype, q_BHTK.shape
    q, k, v = _halves(q_BHTK), _halves(k_BHSK), _halves(v_BHSK)
    masks = [_halves(row, 2) for row in _halves(mask_BTS, 1)]
    scores = {(i, j): _apart_product("BHTK,BHSK->BHTS", q[i], k[j]) for i, j in _tiles(len(q))}
    scaled = {tile: _scaled(s, masks[tile[0]][tile[1]], width) for tile, s in scores.items()}
    log_sum = [
        log_sum_exp(*(x for (row, _), x in scaled.items() if row == i)) for i in range(len(q))
    ]
    weights = {}
    for (i, j), x in scaled.items():
        weight = jnp.exp(x - log_sum[i][..., None])
        weights[i, j] = _dropped_tile(weight, rate, seed, i, j, length).astype(half)
    y = [
        _sum(
            _apart_product("BHTS,BHSK->BHTK", w, v[j])
            for (row, j), w in weights.items()
            if row == i
        )
        for i in range(len(q))
    ]
    return jnp.concatenate(y, 2), (q, k, v, masks, seed, scores, log_sum, weights, y)


def _backward(rate, saved, grad_BHTK):
    q, k, v, masks, seed, scores, log_sum, weights, y = saved
    half, width = y[0].dtype, y[0].shape[-1]
    grad = _halves(grad_BHTK.astype(half))
    # Hidden from XLA, which would keep the float32 probabilities of the forward pass instead.
    scores, log_sum = jax.lax.optimization_barrier((scores, log_sum))
    seed = None if seed is None else jax.lax.optimization_barrier(seed)
    # The sum over keys of weight x its gradient, by way of the output (Dao et al., section 3.1).
    rows = [
        (g.astype(jnp.float32) * o.astype(jnp.float32)).sum(-1)
        for g, o in zip(grad, y, strict=True)
    ]
    grad_q: list[list[jax.Array]] = [[] for _ in q]
    grad_k: list[list[jax.Array]] = [[] for _ in q]
    grad_v: list[list[jax.Array]] = [[] for _ in q]
    for (i, j), s in scores.items():
        q_i, k_j, v_j, grad_i = _apart(q[i], k[j], v[j], grad[i])
        grad_weight = product("BHTK,BHSK->BHTS", grad_i, v_j, half).astype(jnp.float32)
        grad_weight = _dropped_tile(grad_weight, rate, seed, i, j, grad_BHTK.shape[2])
        weight = jnp.exp(_scaled(s, masks[i][j], width) - log_sum[i][..., None])
        grad_scores = weight * (grad_weight - rows[i][..., None]) * width**-0.5
        grad_scores = grad_scores.astype(half)
        grad_q[i].append(product("BHTS,BHSK->BHTK", grad_scores, k_j, half))
        grad_k[j].append(product("BHTS,BHTK->BHSK", grad_scores, q_i, half))
        grad_v[j].append(product("BHTS,BHTK->BHSK", weights[i, j], grad_i, half))
    grads = [
        jnp.concatenate([_sum(part) for part in parts], 2) for parts in (grad_q, grad_k, grad_v)
    ]
    return *grads, None, None


half_attention.defvjp(_forward, _backward)


def _halves(x, axis=2):
    """The two halves of an axis; the whole where it cannot be halved."""
    return [x] if x.shape[axis] % 2 else jnp.split(x, 2, axis)


def _tiles(halves):
    return _TILES if halves == 2 else _TILES[:1]


def _apart_product(spec, x, y):
    x, y = _apart(x, y)
    return product(spec, x, y, x.dtype)


def _apart(*operands) -> Any:
    """The operands, hidden from XLA, which would join products that share one and copy the rest."""
    return jax.lax.optimization_barrier(operands)


def _sum(parts):
    return functools.reduce(jnp.add, parts)


def _scaled(scores_BHTS, mask_BTS, width):
    scores = scores_BHTS.astype(jnp.float32) * width**-0.5
    return jnp.where(mask_BTS[:, None], scores, _MASKED)


def _dropped_tile(x_BHTS, rate, seed, i, j, length):
    """Dropout of tile i, j of scores of this length, with the bits of its place in the whole."""
    if not rate:
        return x_BHTS
    batch, heads, *_ = x_BHTS.shape
    start = (0, 0, i * (length // 2), j * (length // 2))
    return dropped(x_BHTS, rate, seed, start=start, whole=(batch, heads, length, length))
