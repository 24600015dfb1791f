"""Learning-rate schedules, the optimizer, and which parameters decay.

Optax does the work, except for Muon's matrix products.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hlm_jax.errors import UserError
from hlm_jax.model import layers


def make_schedule(
    *,
    schedule: str,
    peak: float,
    warmup_steps: int,
    final_fraction: float,
    total_steps: int,
) -> Callable:
    """step -> learning rate: linear warm-up, then `schedule` to peak x final_fraction.

    Args:
      schedule: "constant", "cosine" or "linear".
    """
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
    return optax.join_schedules(
        [optax.linear_schedule(peak / warmup, peak, warmup), after], [warmup]
    )


def decay_mask(params: Any) -> Any:
    """True for matrices (embeddings included), False for biases and gains."""
    return jax.tree.map(lambda p: p.ndim >= 2, params)


# a, b, c of the polynomials a x + b x^3 + c x^5 of Muon's iteration, by their number. Those of five
# steps are equal (Jordan 2024). Of three and of four, each is the odd quintic that is nearest to 1
# on the interval into which those before it bring [0.01, 1] or [0.003, 1] (Amsel et al., "The Polar
# Express", arXiv 2505.16932, section 3). Three end in [0.73, 1.27] and raise smaller values 78
# times, four in [0.80, 1.20] and 297 times; five bring [0.003, 1] to [0.68, 1.20] and raise smaller
# values up to 485 times.
QUINTICS = {
    3: ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526)),
    4: (
        (8.3837, -24.7659, 18.3571),
        (4.0438, -3.0117, 0.5695),
        (3.5103, -2.6301, 0.5261),
        (2.4959, -1.8392, 0.4374),
    ),
    5: ((3.4445, -4.775, 2.0315),) * 5,
}


def orthogonalise(x: jax.Array, dtype, steps: int = 5) -> jax.Array:
    """The nearest matrix whose singular values are all about 1, by Newton-Schulz iteration.

    [in, out] -> [in, out]. Operands are rounded to `dtype` and products are summed in float32.

    Args:
      steps: which of QUINTICS.
    """
    quintics = jnp.asarray(QUINTICS[steps], jnp.float32)

    def product(spec, a, b):
        return layers.product(spec, a.astype(dtype), b.astype(dtype), jnp.float32)

    def closer(i, x):
        a, b, c = quintics[i]
        gram = product("ik,jk->ij", x, x)
        return a * x + product("ij,jk->ik", b * gram + c * product("ij,jk->ik", gram, gram), x)

    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    # A loop: XLA would fuse written-out steps with the transposition, and read across memory.
    x = jax.lax.fori_loop(0, steps, closer, x / (jnp.linalg.norm(x) + 1e-8))
    return x.T if tall else x


def orthogonalise_stacked(xs: list[jax.Array], dtype, steps: int = 5) -> list[jax.Array]:
    """`orthogonalise` of each [in, out], in one loop for all matrices of a shape, [N, in, out].

    A tall matrix joins the wide ones of its transposed shape. A GPU has few kernels to launch then,
    and large ones. A CPU takes longer than with a loop for each matrix.
    """
    xs = jax.lax.optimization_barrier(xs)  # XLA would compute the momentum again for the stack.
    tall = [x.shape[0] > x.shape[1] for x in xs]
    xs = [x.T if flip else x for x, flip in zip(xs, tall, strict=True)]
    for shape in sorted({x.shape for x in xs}):
        members = [i for i, x in enumerate(xs) if x.shape == shape]
        stack = jnp.stack([xs[i] for i in members])
        stack = jax.vmap(lambda x: orthogonalise(x, dtype, steps))(stack)
        for i, y in zip(members, stack, strict=True):
            xs[i] = y
    return [x.T if flip else x for x, flip in zip(xs, tall, strict=True)]


def scale_by_muon(momentum: float, dtype, steps: int = 5) -> optax.GradientTransformation:
    """Orthogonalised Nesterov momentum, scaled by sqrt(max(1, out / in)).

    The scale makes wide layers move as much as square ones.
    """

    def update(updates, _params):
        xs, tree = jax.tree.flatten(updates)
        ys: Iterable[jax.Array] = (orthogonalise(x, dtype, steps) for x in xs)
        if jax.default_backend() == "gpu":
            ys = orthogonalise_stacked(xs, dtype, steps)
        return jax.tree.unflatten(tree, (y * max(1.0, y.shape[1] / y.shape[0]) ** 0.5 for y in ys))

    return optax.chain(optax.trace(momentum, nesterov=True), optax.stateless(update))


def optimizer_labels(params: Any) -> Any:
    """ "muon" for every hidden matrix, "adamw" for embeddings, gains and biases."""

    def label(path, p) -> str:
        return "muon" if p.ndim == 2 and path[-1].key == "kernel" else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)


def make_optimizer(
    *,
    name: str,
    learning_rate: float,
    muon_learning_rate: float,
    muon_steps: int,
    schedule: str,
    warmup_steps: int,
    final_fraction: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    grad_clip_norm: float,
    total_steps: int,
    product_dtype: str = "float32",
) -> tuple[optax.GradientTransformation, Callable]:
    """An optax optimizer and the schedule of its AdamW.

    "adamw" (Loshchilov & Hutter 2019) moves every parameter at `learning_rate`. "muon" (Jordan
    2024) moves hidden matrices at `muon_learning_rate`, and the rest at `learning_rate` with AdamW
    and Nesterov momentum. Both follow the same schedule. Decay applies to matrices only, each at
    its own rate: in an epoch of n steps a weight forgets about n x rate x `weight_decay` of itself.

    Args:
      muon_steps: of Newton-Schulz, one of QUINTICS.
      grad_clip_norm: 0 does not clip.
      product_dtype: of the operands of Muon's matrix products.

    Returns:
      (optax.GradientTransformation, step -> learning rate).
    """

    def rate(peak: float) -> Callable:
        return make_schedule(
            schedule=schedule,
            peak=peak,
            warmup_steps=warmup_steps,
            final_fraction=final_fraction,
            total_steps=total_steps,
        )

    adamw_rate = rate(learning_rate)
    if name == "adamw":
        optimizer = optax.adamw(
            adamw_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask
        )
    elif name == "muon":
        hidden = optax.chain(
            scale_by_muon(0.95, product_dtype, muon_steps),
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(rate(muon_learning_rate)),
        )
        rest = optax.nadamw(
            adamw_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask
        )
        optimizer = optax.partition({"muon": hidden, "adamw": rest}, optimizer_labels)
    else:
        raise UserError(f"optim.name={name!r}: use adamw or muon")
    if grad_clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(grad_clip_norm), optimizer)
    return optimizer, adamw_rate
