"""The training state and its step, as pure functions of arrays. No I/O, no loop, no config."""

import dataclasses
import functools
import time
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT, GPTConfig, random_bits

_CORRUPTION = 1 << 20  # folds into a step's key beside the model's layers
BATCH_AXES = (
    "data",
    "fsdp",
)  # every device holds rows of its own, whichever way the weights are cut


@flax.struct.dataclass
class LossScale:
    """Dynamic loss scaling for float16 gradients (Micikevicius et al., arXiv 1710.03740, section 3.2).

    A step whose gradients overflow is skipped and halves the scale; `GROWTH_STEPS` good ones in a row double it.
    """

    scale: jax.Array
    good_steps: jax.Array

    GROWTH_STEPS = 500

    @classmethod
    def create(cls, scale: float = 2.0**15) -> "LossScale":
        return cls(jnp.float32(scale), jnp.int32(0))

    def update(self, finite) -> "LossScale":
        good = jnp.where(finite, self.good_steps + 1, 0)
        grow = good >= self.GROWTH_STEPS
        grown = jnp.where(grow, jnp.minimum(self.scale * 2, 2.0**24), self.scale)
        return LossScale(
            jnp.where(finite, grown, jnp.maximum(self.scale / 2, 1.0)), jnp.where(grow, 0, good)
        )


@flax.struct.dataclass
class TrainState:
    """Everything a resume needs beside the config: randomness and data are functions of `step`."""

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    ema_params: dict | None  # None where no average is kept
    loss_scale: LossScale | None  # None but for float16


def make_mesh(fsdp: int = 1, devices=None) -> Mesh:
    """All devices of all processes as (data, fsdp): batches over both axes, weights and optimizer state over the second.

    Raises:
      UserError: `fsdp` does not divide the number of devices.
    """
    devices = np.asarray(jax.devices() if devices is None else devices)
    if devices.size % fsdp:
        raise UserError(f"mesh.fsdp={fsdp} does not divide the number of devices, {devices.size}")
    return Mesh(devices.reshape(-1, fsdp), BATCH_AXES)


def shardings(tree, mesh: Mesh):
    """A sharding per array: its longest axis that `fsdp` divides is cut, the rest of the tree is replicated."""
    parts = mesh.shape["fsdp"]

    def rule(x):
        axes = [axis for axis in range(x.ndim) if x.shape[axis] % parts == 0]
        if parts == 1 or not axes:
            return NamedSharding(mesh, PartitionSpec())
        cut = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(
            mesh, PartitionSpec(*("fsdp" if axis == cut else None for axis in range(x.ndim)))
        )

    return jax.tree.map(rule, tree)


def resolve_dtype(name: str) -> tuple[str, str]:
    """The dtype of matrix products for a config's `dtype`, and why. Weights, norms, softmax and cross-entropy stay float32.

    "auto": bfloat16 on a GPU of compute capability >= 8.0, float16 with dynamic loss scaling on 7.x; on a CPU bfloat16
    where the processor multiplies it, else float32.
    """
    if name != "auto":
        if name not in ("float32", "bfloat16", "float16"):
            raise UserError(f"dtype={name!r}: use auto, float32, bfloat16 or float16")
        return name, "set in the config"
    device = jax.devices()[0]
    if device.platform == "cpu":
        found = sorted(_cpu_flags() & {"avx512_bf16", "amx_bf16"})
        return (
            ("bfloat16", f"CPU with {found[0]}")
            if found
            else ("float32", "CPU without bfloat16 products")
        )
    capability = float(getattr(device, "compute_capability", 0) or 0)
    chosen = "bfloat16" if capability >= 8.0 else "float16" if capability >= 7.0 else "float32"
    return chosen, f"{device.device_kind}, compute capability {capability}"


def resolve_attention(name: str, cfg: GPTConfig, dtype: str, batch_size: int) -> tuple[str, str]:
    """ "xla" or "fused" for a config's `attention`, and why.

    "auto" times a layer's forward and backward pass of both on a GPU that has a fused kernel for the case (compute
    capability >= 8.0, half precision, head width a multiple of 8 up to 128, no dropout), and takes the faster.
    """
    if name not in ("auto", "xla", "fused"):
        raise UserError(f"attention={name!r}: use auto, xla or fused")
    if name != "auto":
        return name, "set in the config"
    device = jax.devices()[0]
    if cfg.dropout:
        return "xla", "no fused kernel has dropout"
    width = cfg.head_width
    if (
        device.platform != "gpu"
        or float(device.compute_capability) < 8.0
        or dtype == "float32"
        or width % 8
        or width > 128
    ):
        return "xla", "no fused kernel for this device, dtype or width"
    seconds = {}
    for kind in ("xla", "fused"):
        model = GPT(dataclasses.replace(cfg, n_layer=1), dtype, kind)
        window_BU = jnp.zeros(
            (max(1, batch_size // jax.device_count()), cfg.block_size + 1), jnp.int32
        )
        params = jax.jit(model.init)(jax.random.key(0), window_BU[:, :1])["params"]
        step = jax.jit(jax.grad(loss_fn), static_argnums=1)
        jax.block_until_ready(step(params, model, window_BU, None))
        began = time.perf_counter()
        for _ in range(20):
            found = step(params, model, window_BU, None)
        jax.block_until_ready(found)
        seconds[kind] = time.perf_counter() - began
    best = min(seconds, key=seconds.get)
    return best, f"{max(seconds.values()) / seconds[best]:.2f}x the other, measured on one layer"


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.split())


def fresh_state(model: GPT, optimizer, key, *, ema_decay: float) -> TrainState:
    """The state before step 0, as a function of the key alone."""
    params = model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]
    ema = jax.tree.map(jnp.copy, params) if ema_decay else None
    scale = LossScale.create() if model.dtype == "float16" else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema, scale)


def state_layout(model: GPT, optimizer, *, ema_decay: float, mesh: Mesh):
    """The sharding of every array of the state."""
    fresh = functools.partial(fresh_state, model, optimizer, ema_decay=ema_decay)
    return shardings(jax.eval_shape(fresh, jax.random.key(0)), mesh)


def init_state(model: GPT, optimizer, key, *, ema_decay: float, mesh: Mesh) -> TrainState:
    """A fresh state, laid out over the mesh; the same key gives the same parameters on any mesh."""
    fresh = functools.partial(fresh_state, model, optimizer, ema_decay=ema_decay)
    return jax.jit(
        fresh, out_shardings=state_layout(model, optimizer, ema_decay=ema_decay, mesh=mesh)
    )(key)


def local_copy(tree, mesh: Mesh):
    """The whole of every array on this process's first device, whatever the mesh cut."""
    whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)


@jax.custom_vjp
def token_losses(logits_BTV, targets_BT):
    """Negative log-likelihood of every target in nats, [B, T], computed in float32.

    Its derivative, softmax minus one-hot, is written out as one pass over the logits: autodiff would scatter the one-hot
    part into an array of zeros as large as the logits.
    """
    return _token_losses(logits_BTV, targets_BT)[0]


def _token_losses(logits_BTV, targets_BT):
    logits_BTV = logits_BTV.astype(jnp.float32)
    log_total_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    picked_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return log_total_BT - picked_BT, (logits_BTV, log_total_BT, targets_BT)


def _token_losses_backward(saved, grad_BT):
    logits_BTV, log_total_BT, targets_BT = saved
    one_hot_BTV = jnp.arange(logits_BTV.shape[-1]) == targets_BT[..., None]
    return grad_BT[..., None] * (jnp.exp(logits_BTV - log_total_BT[..., None]) - one_hot_BTV), None


token_losses.defvjp(_token_losses, _token_losses_backward)


def corruption_schedule(*, rate: float, final: float, anneal: float, total_steps: int):
    """step -> share of the inputs to corrupt: `rate`, then linearly to `final` over the last share `anneal` of the steps; None for 0."""
    if not rate:
        return None
    moving = round(anneal * total_steps)
    return (
        optax.linear_schedule(rate, final, moving, total_steps - moving)
        if moving
        else optax.constant_schedule(rate)
    )


def corrupt(tokens_BT, rate, vocab_size: int, key):
    """Replaces a share `rate` of the tokens by ones drawn evenly from the vocabulary (data noising, Xie et al., arXiv 1703.02573)."""
    hit_BT = random_bits(tokens_BT.shape, jax.random.fold_in(key, 0)) < jnp.uint32(rate * 2.0**32)
    other_BT = random_bits(tokens_BT.shape, jax.random.fold_in(key, 1)) % jnp.uint32(vocab_size)
    return jnp.where(hit_BT, other_BT.astype(tokens_BT.dtype), tokens_BT)


def loss_fn(
    params,
    model: GPT,
    window_BU,
    key,
    corrupt_inputs=None,
    taught_BTV=None,
    teacher_weight: float = 0.0,
):
    """Mean nats/token of windows [B, T + 1] under dropout with `key`, a share `corrupt_inputs` of the inputs replaced; targets stay.

    With `taught_BTV`, what teachers predict, a share `teacher_weight` of every target is their distribution (distillation,
    Hinton et al., arXiv 1503.02531).
    """
    inputs_BT = window_BU[:, :-1]
    if corrupt_inputs is not None and key is not None:
        inputs_BT = corrupt(
            inputs_BT, corrupt_inputs, model.cfg.vocab_size, jax.random.fold_in(key, _CORRUPTION)
        )
    logits_BTV, _ = model.apply({"params": params}, inputs_BT, dropout_key=key)
    loss = token_losses(logits_BTV, window_BU[:, 1:]).mean()
    if taught_BTV is None:
        return loss
    soft = optax.softmax_cross_entropy(logits_BTV.astype(jnp.float32), taught_BTV).mean()
    return (1 - teacher_weight) * loss + teacher_weight * soft


def taught(teachers, teacher_params, window_BU):
    """The mean of what the teachers predict from the clean inputs of windows [B, T + 1], probabilities [B, T, V]; None of none."""
    if not teachers:
        return None
    found = [
        jax.nn.softmax(teacher.apply({"params": params}, window_BU[:, :-1])[0].astype(jnp.float32))
        for teacher, params in zip(teachers, teacher_params, strict=True)
    ]
    return sum(found) / len(found)


def make_train_step(
    model: GPT,
    optimizer,
    *,
    accumulate_steps: int,
    ema_decay: float,
    mesh: Mesh,
    corruption=None,
    teachers: tuple[GPT, ...] = (),
    teacher_weight: float = 0.0,
):
    """Jitted training steps: (state, windows [K, B, T + 1], key, *parameters of the teachers) -> (state, metrics), K steps in one dispatch.

    Metrics are arrays [K]: "loss", "grad_norm", "skipped" (1 where float16 gradients overflowed and nothing moved) and
    "loss_scale". The given state is donated. The batch is cut over all devices and the loss is a mean over all of it, so
    XLA sums the gradients across devices. Dropout's key is fold_in(key, step): a resumed run repeats the masks. With
    `accumulate_steps` A a batch is cut into A parts whose gradients are averaged before the one update. `corruption` is a
    schedule of the share of inputs to replace, or None.
    """

    def gradients(params, window_BU, key, scale, rate, teacher_params):
        def scaled(params, window_BU, key):
            taught_BTV = taught(teachers, teacher_params, window_BU)
            return loss_fn(params, model, window_BU, key, rate, taught_BTV, teacher_weight) * scale

        if accumulate_steps == 1:
            loss, grads = jax.value_and_grad(scaled)(params, window_BU, key)
        else:
            # Strided, so that every part holds rows of every device and no row moves.
            parts = window_BU.reshape(-1, accumulate_steps, window_BU.shape[-1]).swapaxes(0, 1)

            def add(total, part_and_number):
                part, number = part_and_number
                found = jax.value_and_grad(scaled)(params, part, jax.random.fold_in(key, number))
                return jax.tree.map(jnp.add, total, found), None

            zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
            (loss, grads), _ = jax.lax.scan(add, zero, (parts, jnp.arange(accumulate_steps)))
        factor = 1.0 / (accumulate_steps * scale)
        return loss * factor, jax.tree.map(lambda g: g * factor, grads)

    def one_step(state: TrainState, window_BU, key, teacher_params):
        scale = 1.0 if state.loss_scale is None else state.loss_scale.scale
        rate = corruption and corruption(state.step)
        loss, grads = gradients(
            state.params,
            window_BU,
            jax.random.fold_in(key, state.step),
            scale,
            rate,
            teacher_params,
        )
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
            # Early on the average follows the weights, so that it does not remember their random beginning.
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "skipped": skipped,
            "loss_scale": jnp.float32(scale),
        }
        return TrainState(state.step + 1, params, opt_state, ema, loss_scale), metrics

    def steps(state, windows_KBU, key, *teacher_params):
        if (
            windows_KBU.shape[0] == 1
        ):  # a loop of one would only keep XLA from fusing across its border
            state, metrics = one_step(state, windows_KBU[0], key, teacher_params)
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(
            lambda state, window_BU: one_step(state, window_BU, key, teacher_params),
            state,
            windows_KBU,
        )

    layout = state_layout(model, optimizer, ema_decay=ema_decay, mesh=mesh)
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        steps,
        donate_argnums=0,
        in_shardings=(
            layout,
            NamedSharding(mesh, PartitionSpec(None, BATCH_AXES)),
            replicated,
            *(replicated for _ in teachers),
        ),
        out_shardings=(layout, replicated),
    )
