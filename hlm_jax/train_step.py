"""The training state and its step, as pure functions of arrays. No I/O, no loop, no config."""

import functools
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from hlm_jax.errors import UserError
from hlm_jax.model import GPT


@flax.struct.dataclass
class TrainState:
    """Everything a resume needs beside the config: randomness and data are functions of `step`."""

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    ema_params: dict | None  # None where no average is kept


def make_mesh(devices=None) -> jax.sharding.Mesh:
    """All devices of all processes along one axis, "data"."""
    import numpy as np

    devices = jax.devices() if devices is None else devices
    return jax.sharding.Mesh(np.asarray(devices), ("data",))


def resolve_dtype(name: str) -> tuple[str, str]:
    """The dtype of matrix products for a config's `dtype`, and why. Weights, sums and everything else stay float32.

    "auto": bfloat16 on a GPU of compute capability >= 8.0 and on a CPU with bfloat16 products, else float32.
    """
    if name != "auto":
        if name not in ("float32", "bfloat16"):
            raise UserError(f"dtype={name!r}: use auto, float32 or bfloat16")
        return name, "set in the config"
    device = jax.devices()[0]
    if device.platform == "cpu":
        flags = _cpu_flags()
        found = sorted(flags & {"avx512_bf16", "amx_bf16"})
        return ("bfloat16", f"CPU with {found[0]}") if found else ("float32", "CPU without bfloat16 products")
    capability = float(getattr(device, "compute_capability", 0) or 0)
    return ("bfloat16" if capability >= 8.0 else "float32"), f"{device.device_kind}, compute capability {capability}"


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.split())


def init_state(model: GPT, optimizer, key, *, ema_decay: float, mesh) -> TrainState:
    """A fresh state, replicated over the mesh; the same key gives the same parameters on any number of devices."""

    def init(key):
        params = model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]
        ema = jax.tree.map(jnp.copy, params) if ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)

    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(init, out_shardings=replicated)(key)


def token_losses(logits_BTV, targets_BT):
    """Negative log-likelihood of every target in nats, [B, T], computed in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTV.astype(jnp.float32), targets_BT)


def loss_fn(params, model: GPT, window_BU, key):
    """Mean nats/token of windows [B, T + 1] under dropout with `key`."""
    logits_BTV, _ = model.apply({"params": params}, window_BU[:, :-1], dropout_key=key)
    return token_losses(logits_BTV, window_BU[:, 1:]).mean()


def make_train_step(model: GPT, optimizer, *, accumulate_steps: int, ema_decay: float, mesh):
    """A jitted step: (state, windows [B, T + 1], key) -> (state, {"loss", "grad_norm"}). The given state is donated.

    The batch is sharded over "data" and the loss is a mean over all of it, so XLA averages the gradients across devices.
    Dropout's key is fold_in(key, step): a resumed run repeats the masks. With `accumulate_steps` A the batch is cut into
    A parts whose gradients are averaged before the one update.
    """
    batch = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())

    def gradients(params, window_BU, key):
        if accumulate_steps == 1:
            return jax.value_and_grad(loss_fn)(params, model, window_BU, key)
        # Strided, so that every part holds rows of every device and no row moves.
        parts = window_BU.reshape(-1, accumulate_steps, window_BU.shape[-1]).swapaxes(0, 1)

        def add(total, part_and_number):
            part, number = part_and_number
            found = jax.value_and_grad(loss_fn)(params, model, part, jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, total, found), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        total, _ = jax.lax.scan(add, zero, (parts, jnp.arange(accumulate_steps)))
        return jax.tree.map(lambda x: x / accumulate_steps, total)

    @functools.partial(jax.jit, donate_argnums=0, in_shardings=(replicated, batch, replicated), out_shardings=(replicated, replicated))
    def train_step(state: TrainState, window_BU, key):
        loss, grads = gradients(state.params, window_BU, jax.random.fold_in(key, state.step))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema_params
        if ema_decay:
            # Adam's warm-up of an average: early on it follows the weights.
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(grads)}
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return train_step
