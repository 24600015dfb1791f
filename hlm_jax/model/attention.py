"""Causal attention in a half type on a GPU, with a backward pass of its own.

Memory traffic decides its time: scores are the largest arrays of a training step. The window is cut
in two halves. Early queries see early keys, and late queries see all: a quarter of the scores is
never computed. Scores and probabilities are kept in the half type; the backward pass starts from
them and from the logarithm of the sum over keys (Dao et al., arXiv 2205.14135). Dropout's mask is
computed again instead of stored.

Axis letters: hlm_jax/model/__init__.py; T and S are those of a half here.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from hlm_jax.model.layers import dropped, log_sum_exp, product

_MASKED = -1e30  # finite: a row of padding that may look at nothing stays a number
# (half of the queries, half of the keys), row by row.
_TILES = ((0, 0), (1, 0), (1, 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def half_attention(q_BHTK, k_BHSK, v_BHSK, mask_BTS, seed, rate):
    """softmax(q k / sqrt(K)) v where no query sees a later key, in the type of q, k and v.

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
