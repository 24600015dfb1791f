"""Cross-entropy of the next token, with a derivative written out."""

import jax
import jax.numpy as jnp

from hlm_jax.model.layers import log_sum_exp


def token_losses(
    logits_BTV: jax.Array,
    targets_BT: jax.Array,
    taught_BTV: jax.Array | None = None,
    teacher_weight: jax.Array | float = 0.0,
) -> jax.Array:
    """Negative log-likelihood of every target in nats, [B, T], computed in float32.

    Its derivative, softmax minus target, is written out as one pass over the logits. Autodiff would
    scatter one-hot targets into an array of zeros as large as the logits.

    Args:
      taught_BTV: probabilities that have a part `teacher_weight` in every target; the result is
        then the cross-entropy of the mixed target.
      teacher_weight: one for all, or one for each row, [B].
    """
    weight_B1 = jnp.atleast_1d(jnp.asarray(teacher_weight, jnp.float32))[:, None]
    return _token_losses(logits_BTV, targets_BT, taught_BTV, weight_B1)


@jax.custom_vjp
def _token_losses(logits_BTV, targets_BT, taught_BTV, weight_B1):
    return _forward(logits_BTV, targets_BT, taught_BTV, weight_B1)[0]


def _forward(logits_BTV, targets_BT, taught_BTV, weight_B1):
    logits_BTV = logits_BTV.astype(jnp.float32)
    on_gpu = jax.default_backend() == "gpu"
    log_total_BT = log_sum_exp(logits_BTV) if on_gpu else jax.nn.logsumexp(logits_BTV, axis=-1)
    picked_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    if taught_BTV is not None:
        expected_BT = (taught_BTV * logits_BTV).sum(axis=-1)
        picked_BT = (1 - weight_B1) * picked_BT + weight_B1 * expected_BT
    saved = logits_BTV, log_total_BT, targets_BT, taught_BTV, weight_B1
    return log_total_BT - picked_BT, saved


def _backward(saved, grad_BT):
    logits_BTV, log_total_BT, targets_BT, taught_BTV, weight_B1 = saved
    target_BTV = jnp.arange(logits_BTV.shape[-1]) == targets_BT[..., None]
    if taught_BTV is not None:
        weight_B11 = weight_B1[..., None]
        target_BTV = (1 - weight_B11) * target_BTV + weight_B11 * taught_BTV
    probability_BTV = jnp.exp(logits_BTV - log_total_BT[..., None])
    return grad_BT[..., None] * (probability_BTV - target_BTV), None, None, None


_token_losses.defvjp(_forward, _backward)
