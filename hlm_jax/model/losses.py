"""Cross-entropy of the next token, with a derivative written out, and entropy of a prediction."""

import jax
import jax.numpy as jnp

from hlm_jax.model.layers import log_sum_exp


@jax.custom_vjp
def token_losses(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Negative log-likelihood of every target in nats, [B, T], computed in float32.

    Its derivative, softmax minus one-hot, is written out as one pass over the logits. Autodiff
    would scatter the one-hot part into an array of zeros as large as the logits.
    """
    return _token_losses(logits_BTV, targets_BT)[0]


def _token_losses(logits_BTV, targets_BT):
    logits_BTV = logits_BTV.astype(jnp.float32)
    on_gpu = jax.default_backend() == "gpu"
    log_total_BT = log_sum_exp(logits_BTV) if on_gpu else jax.nn.logsumexp(logits_BTV, axis=-1)
    picked_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return log_total_BT - picked_BT, (logits_BTV, log_total_BT, targets_BT)


def _token_losses_backward(saved, grad_BT):
    logits_BTV, log_total_BT, targets_BT = saved
    one_hot_BTV = jnp.arange(logits_BTV.shape[-1]) == targets_BT[..., None]
    return grad_BT[..., None] * (jnp.exp(logits_BTV - log_total_BT[..., None]) - one_hot_BTV), None


token_losses.defvjp(_token_losses, _token_losses_backward)


def entropies(logits_BTV: jax.Array) -> jax.Array:
    """Of the distributions over the vocabulary, in nats, float32 [B, T].

    Two sums over the vocabulary, and no further array of the logits' size is kept.
    """
    logits_BTV = logits_BTV.astype(jnp.float32)
    log_sum_BT = log_sum_exp(logits_BTV)
    mean_BT = (jnp.exp(logits_BTV - log_sum_BT[..., None]) * logits_BTV).sum(axis=-1)
    return log_sum_BT - mean_BT
