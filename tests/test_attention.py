"""Attention in parts: its value and its gradient are those of the formula."""

import functools

import jax
import jax.numpy as jnp
import pytest

from hlm_jax.model.attention import part_attention
from hlm_jax.model.layers import dropout, dropout_seeds


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_attention_in_parts_has_the_gradient_of_the_formula(dtype, tolerance, rate):
    q, k, v, grad = jax.random.normal(jax.random.key(0), (4, 2, 3, 20, 8))
    seeds = dropout_seeds(jax.random.key(1), 1, range(0, 20, 8)).attention[0]

    def formula(q, k, v):
        scores = jnp.einsum("BHTK,BHSK->BHTS", q, k) * 8**-0.5
        probability = jax.nn.softmax(jnp.where(jnp.tri(20, dtype=bool), scores, -jnp.inf))
        parts = []
        for number, first in enumerate(range(0, 20, 8)):
            part = probability[:, :, first : first + 8, : first + 8]
            part = dropout(part, rate, seeds[number])
            parts.append(jnp.einsum("BHTS,BHSK->BHTK", part, v[:, :, : first + 8]))
        return jnp.concatenate(parts, 2)

    def ours(q, k, v):
        return part_attention(q, k, v, seeds if rate else None, rate, jnp.dtype(dtype), 8)

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(function):
        y, gradients = jax.vjp(function, q, k, v)
        return y, *gradients(grad)

    for a, b in zip(with_gradients(ours), with_gradients(formula), strict=True):
        assert float(jnp.linalg.norm(a - b)) < tolerance * float(jnp.linalg.norm(b))
