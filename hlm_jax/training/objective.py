"""What training minimises: cross-entropy of the next token; corrupted inputs, teachers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from hlm_jax.model.gpt import GPT
from hlm_jax.model.layers import random_bits
from hlm_jax.model.losses import token_losses
from hlm_jax.model.shape import Params

_CORRUPTION = 1 << 20  # the number folded into a step's key for corruption; layers use 0, 1, 2, …


def corruption_schedule(
    *, rate: float, final: float, anneal: float, total_steps: int
) -> Callable | None:
    """step -> fraction of the inputs to corrupt; None where nothing is corrupted.

    The fraction is `rate`, and moves linearly to `final` over the last `anneal` x total_steps.
    """
    if not rate:
        return None
    moving = round(anneal * total_steps)
    if not moving:
        return optax.constant_schedule(rate)
    return optax.linear_schedule(rate, final, moving, total_steps - moving)


def corrupt(tokens_BT: jax.Array, rate, vocab_size: int, key: jax.Array) -> jax.Array:
    """Replaces a fraction `rate` of the tokens by tokens drawn evenly from the vocabulary.

    Data noising, Xie et al., arXiv 1703.02573.
    """
    hit_BT = random_bits(tokens_BT.shape, jax.random.fold_in(key, 0)) < jnp.uint32(rate * 2.0**32)
    other_BT = random_bits(tokens_BT.shape, jax.random.fold_in(key, 1)) % jnp.uint32(vocab_size)
    return jnp.where(hit_BT, other_BT.astype(tokens_BT.dtype), tokens_BT)


def loss_fn(
    params: Params,
    model: GPT,
    windows_BL: jax.Array,
    key: jax.Array | None,
    corrupt_inputs=None,
    taught_BTV: jax.Array | None = None,
    teacher_weight: float = 0.0,
) -> jax.Array:
    """Mean nats per token of windows [B, L], L = T + 1.

    Args:
      key: decides dropout and corruption; None evaluates without either.
      corrupt_inputs: fraction of the inputs to replace; targets stay.
      taught_BTV: what teachers predict (teaching.Teaching); a fraction `teacher_weight` of every
        target is their distribution (distillation, Hinton et al., arXiv 1503.02531). A window of
        zeros has no teacher.
    """
    inputs_BT = windows_BL[:, :-1]
    if corrupt_inputs is not None and key is not None:
        noise_key = jax.random.fold_in(key, _CORRUPTION)
        inputs_BT = corrupt(inputs_BT, corrupt_inputs, model.cfg.vocab_size, noise_key)
    logits_BTV, _ = model.apply({"params": params}, inputs_BT, dropout_key=key)
    targets_BT = windows_BL[:, 1:]
    if taught_BTV is None:
        return token_losses(logits_BTV, targets_BT).mean()
    weight_B = teacher_weight * taught_BTV[:, 0].any(axis=-1)
    return token_losses(logits_BTV, targets_BT, taught_BTV.astype(jnp.float32), weight_B).mean()
