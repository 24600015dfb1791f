"""The training state and its jitted step, as pure functions of arrays. No I/O, no config."""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import Params
from hlm_jax.training.mesh import BATCH_AXES, replicated, shardings
from hlm_jax.training.objective import loss_fn


@flax.struct.dataclass
class LossScale:
    """Dynamic loss scaling for float16 gradients (Micikevicius et al., arXiv 1710.03740, 3.2).

    A step whose gradients overflow is skipped and halves the scale. `GROWTH_STEPS` good steps in a
    row double it.
    """

    scale: jax.Array
    good_steps: jax.Array

    GROWTH_STEPS = 500

    @classmethod
    def create(cls, scale: float = 2.0**15) -> "LossScale":
        return cls(jnp.float32(scale), jnp.int32(0))

    def update(self, finite: jax.Array) -> "LossScale":
        """The scale after a step whose gradients were all finite, or not."""
        good = jnp.where(finite, self.good_steps + 1, 0)
        grow = good >= self.GROWTH_STEPS
        grown = jnp.where(grow, jnp.minimum(self.scale * 2, 2.0**24), self.scale)
        halved = jnp.maximum(self.scale / 2, 1.0)
        return LossScale(jnp.where(finite, grown, halved), jnp.where(grow, 0, good))


@flax.struct.dataclass
class TrainState:
    """Everything a resume needs next to the config: randomness and data are functions of `step`."""

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    ema_params: Params | None  # a moving average of the weights; None where none is kept
    loss_scale: LossScale | None  # None except in float16


def fresh_state(model: GPT, optimizer, key: jax.Array, *, ema_decay: float) -> TrainState:
    """The state before step 0, as a function of the key alone."""
    # The parameters are those of any attention, and a fused one may ask for a card.
    plain = model.clone(attention="xla")
    params = plain.init(key, jnp.zeros((1, 1), jnp.int32))["params"]
    return state_of(params, model, optimizer, ema_decay=ema_decay)


def state_of(params: Params, model: GPT, optimizer, *, ema_decay: float) -> TrainState:
    """The state before step 0 that has these weights."""
    ema = jax.tree.map(jnp.copy, params) if ema_decay else None
    scale = LossScale.create() if model.dtype == "float16" else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema, scale)


def abstract_state(model: GPT, optimizer, *, ema_decay: float, mesh: Mesh) -> TrainState:
    """Shape, dtype and sharding of every array of the state; allocates nothing."""
    fresh = functools.partial(fresh_state, model, optimizer, ema_decay=ema_decay)
    shapes = jax.eval_shape(fresh, jax.random.key(0))

    def with_layout(x, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(with_layout, shapes, shardings(shapes, mesh))


def init_state(model: GPT, optimizer, key: jax.Array, *, ema_decay: float, mesh: Mesh):
    """A fresh TrainState over the mesh; the same key gives the same parameters on any mesh."""
    fresh = functools.partial(fresh_state, model, optimizer, ema_decay=ema_decay)
    layout = _layout(model, optimizer, ema_decay=ema_decay, mesh=mesh)
    return jax.jit(fresh, out_shardings=layout)(key)


def init_state_from(params: Params, model: GPT, optimizer, *, ema_decay: float, mesh: Mesh):
    """A TrainState over the mesh with these weights (numpy) and a new optimizer."""
    fresh = functools.partial(state_of, model=model, optimizer=optimizer, ema_decay=ema_decay)
    layout = _layout(model, optimizer, ema_decay=ema_decay, mesh=mesh)
    return jax.jit(fresh, out_shardings=layout)(params)


def _layout(model: GPT, optimizer, *, ema_decay: float, mesh: Mesh) -> TrainState:
    abstract = abstract_state(model, optimizer, ema_decay=ema_decay, mesh=mesh)
    return jax.tree.map(lambda x: x.sharding, abstract)


def make_step(
    model: GPT,
    optimizer,
    *,
    grad_accum_steps: int,
    ema_decay: float,
    mesh: Mesh,
    corruption: Callable | None = None,
    teacher_weight: float = 0.0,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Jitted `step(state, windows_MBL, key[, taught]) -> (state, metrics)` of M steps.

    The given state is donated. The batch is cut over all devices and the loss is a mean over all of
    it, so XLA sums the gradients across devices. Dropout's key is fold_in(key, state.step), so a
    resumed run repeats the masks. Metrics are arrays [M]: "loss", what is minimised, in nats per
    token, "grad_norm", "skipped" (1 where float16 gradients overflowed and nothing moved) and
    "loss_scale".

    Args:
      grad_accum_steps: into how many parts a batch is cut; their gradients are averaged.
      ema_decay: decay of the average of the weights in a step; 0 keeps none.
      corruption: step -> fraction of the inputs to replace, or None.
      teacher_weight: as in objective.loss_fn. With one, the step has a fourth argument, what
        teachers predict, [M, B, T, V].
    """

    def gradients(params, batch, key, scale, rate):
        def scaled(params, windows_BL, taught_BTV, key):
            of = windows_BL, key, rate, taught_BTV, teacher_weight
            return loss_fn(params, model, *of) * scale

        if grad_accum_steps == 1:
            loss, grads = jax.value_and_grad(scaled)(params, *batch, key)
        else:
            # Strided, so that every part holds rows of every device and no row moves.
            def cut(x):
                return x.reshape(-1, grad_accum_steps, *x.shape[1:]).swapaxes(0, 1)

            parts = jax.tree.map(cut, batch)

            def add(total, part_and_number):
                part, number = part_and_number
                part_key = jax.random.fold_in(key, number)
                one = jax.value_and_grad(scaled)(params, *part, part_key)
                return jax.tree.map(jnp.add, total, one), None

            zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
            (loss, grads), _ = jax.lax.scan(add, zero, (parts, jnp.arange(grad_accum_steps)))
        factor = 1.0 / (grad_accum_steps * scale)
        return loss * factor, jax.tree.map(lambda g: g * factor, grads)

    def one_step(state: TrainState, batch, key):
        scale = 1.0 if state.loss_scale is None else state.loss_scale.scale
        rate = corruption and corruption(state.step)
        step_key = jax.random.fold_in(key, state.step)
        loss, grads = gradients(state.params, batch, step_key, scale, rate)
        grad_norm = optax.global_norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        loss_scale, skipped = None, jnp.zeros((), jnp.int32)
        if state.loss_scale is not None:
            finite = jnp.isfinite(grad_norm)  # an overflow anywhere makes the norm inf or nan
            keep = functools.partial(jax.tree.map, lambda new, old: jnp.where(finite, new, old))
            params, opt_state = keep(params, state.params), keep(opt_state, state.opt_state)
            loss_scale, skipped = state.loss_scale.update(finite), 1 - finite.astype(jnp.int32)
        ema = state.ema_params
        if ema_decay:
            # Early on the average follows the weights closely, to forget their random beginning.
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
        scale = jnp.float32(scale)
        metrics = {"loss": loss, "grad_norm": grad_norm, "skipped": skipped, "loss_scale": scale}
        return TrainState(state.step + 1, params, opt_state, ema, loss_scale), metrics

    def step(state: TrainState, windows_MBL, key, taught_MBTV=None):
        batches = windows_MBL, taught_MBTV
        # A loop of one step would only keep XLA from fusing across its border.
        if windows_MBL.shape[0] == 1:
            state, metrics = one_step(state, jax.tree.map(lambda x: x[0], batches), key)
            return state, jax.tree.map(lambda x: x[None], metrics)

        def body(state, batch):
            return one_step(state, batch, key)

        return jax.lax.scan(body, state, batches)

    layout, whole = _layout(model, optimizer, ema_decay=ema_decay, mesh=mesh), replicated(mesh)
    rows = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(layout, rows, whole, *([rows] if teacher_weight else [])),
        out_shardings=(layout, whole),
    )
