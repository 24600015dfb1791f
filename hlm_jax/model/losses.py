"""Cross-entropy of the next token, with a derivative written out, and entropy of a prediction."""

import functools

import jax
import jax.numpy as jnp

from hlm_jax.model.layers import log_sum_exp


def token_losses(
    logits_BTV: jax.Array,
    targets_BT: jax.Array,
    taught_BTV: jax.Array | None = None,
    teacher_weight: float = 0.0,
) -> jax.Array:
    """Negative log-likelihood of every target in nats, [B, T], computed in float32.

    Its derivative, softmax minus target, is written out as one pass over the logits. Autodiff would
    scatter one-hot targets into an array of zeros as large as the logits.

    Args:
      taught_BTV: probabilities that have a part `teacher_weight` in every target; the result is
        then the cross-entropy of the mixed target.
    """
    return _token_losses(logits_BTV, targets_BT, taught_BTV, teacher_weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _token_losses(logits_BTV, targets_BT, taught_BTV, teacher_weight):
    return _forward(logits_BTV, targets_BT, taught_BTV, teacher_weight)[0]


def _forward(logits_BTV, targets_BT, taught_BTV, teacher_weight):
    logits_BTV = logits_BTV.astype(jnp.float32)
    on_gpu = jax.default_backend() == "gpu"
    log_total_BT = log_sum_exp(logits_BTV) if on_gpu else jax.nn.logsumexp(logits_BTV, axis=-1)
    picked_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    if taught_BTV is not None:
        expected_BT = (taught_BTV * logits_BTV).sum(axis=-1)
        picked_BT = (1 - teacher_weight) * picked_BT + teacher_weight * expected_BT
    return log_total_BT - picked_BT, (logits_BTV, log_total_BT, targets_BT, taught_BTV)


def _backward(teacher_weight, saved, grad_BT):
    logits_BTV, log_total_BT, targets_BT, taught_BTV = saved
    target_BTV = jnp.arange(logits_BTV.shape[-1]) == targets_BT[..., None]
    if taught_BTV is not None:
        target_BTV = (1 - teacher_weight) * target_BTV + teacher_weight * taught_BTV
    probability_BTV = jnp.exp(logits_BTV - log_total_BT[..., None])
    return grad_BT[..., None] * (probability_BTV - target_BTV), None, None


_token_losses.defvjp(_forward, _backward)


def entropies(logits_BTV: jax.Array) -> jax.Array:
    """Of the distributions over the vocabulary, in nats, float32 [B, T].

    Two sums over the vocabulary, and no further array of the logits' size is kept.
    """
    logits_BTV = logits_BTV.astype(jnp.float32)
    log_sum_BT = log_sum_exp(logits_BTV)
    mean_BT = (jnp.exp(logits_BTV - log_sum_BT[..., None]) * logits_BTV).sum(axis=-1)
    return log_sum_BT - mean_BT
