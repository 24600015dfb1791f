"""Learning-rate schedules, the optimizer, and which parameters decay. Optax does the work."""

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from hlm_jax.errors import UserError


def make_schedule(*, schedule: str, peak: float, warmup_steps: int, final_fraction: float, total_steps: int):
    """step -> learning rate: linear warm-up from 0, then "constant", "cosine" or "linear" to peak x final_fraction."""
    warmup = min(warmup_steps, total_steps)
    rest = max(1, total_steps - warmup)
    if schedule == "constant":
        after = optax.constant_schedule(peak)
    elif schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=final_fraction)
    elif schedule == "linear":
        after = optax.linear_schedule(peak, peak * final_fraction, rest)
    else:
        raise UserError(f"optim.schedule={schedule!r}: use constant, cosine or linear")
    if not warmup:
        return after
    # Step 0 already moves: a warm-up that begins at exactly 0 would waste it.
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), after], [warmup])


def decay_mask(params):
    """True for matrices (embeddings included), False for biases and gains."""
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def muon_axes(params):
    """The axes that Muon orthogonalises: every hidden matrix [in, out]; embeddings, gains and biases go to AdamW."""

    def axes(path, p):
        hidden = p.ndim == 2 and path[-1].key == "kernel"
        return MuonDimensionNumbers(reduction_axis=0, output_axis=1) if hidden else None

    return jax.tree_util.tree_map_with_path(axes, params)


def make_optimizer(
    *,
    name: str,
    learning_rate: float,
    muon_learning_rate: float,
    schedule: str,
    warmup_steps: int,
    final_fraction: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    grad_clip_norm: float,
    total_steps: int,
):
    """An optax optimizer and its schedule.

    "adamw" (Loshchilov & Hutter 2019) moves every parameter at `learning_rate`. "muon" (Jordan 2024) moves hidden matrices
    at `muon_learning_rate` and the rest with AdamW (with Nesterov momentum, and without decay) at `learning_rate`; both
    follow the same schedule. `grad_clip_norm` 0 does not clip; decay applies to matrices only.

    Returns:
      (optax.GradientTransformation, step -> AdamW's learning rate).
    """

    def rate(peak):
        return make_schedule(
            schedule=schedule, peak=peak, warmup_steps=warmup_steps, final_fraction=final_fraction, total_steps=total_steps
        )

    adamw_rate = rate(learning_rate)
    if name == "adamw":
        optimizer = optax.adamw(adamw_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask)
    elif name == "muon":
        optimizer = muon(
            rate(muon_learning_rate),
            adam_learning_rate=adamw_rate,
            adam_b1=b1,
            adam_b2=b2,
            eps=eps,
            weight_decay=weight_decay,
            muon_weight_dimension_numbers=muon_axes,
        )
    else:
        raise UserError(f"optim.name={name!r}: use adamw or muon")
    if grad_clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(grad_clip_norm), optimizer)
    return optimizer, adamw_rate
