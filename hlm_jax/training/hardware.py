"""What the machine at hand is good at: the dtype of products, the kind of attention, its speed."""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import GPTConfig
from hlm_jax.training.objective import loss_fn


def keep_compiled_programs(workdir: Path) -> None:
    """Keeps compiled programs next to the runs, unless the environment names a folder."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        cache = (workdir.parent / ".jax_cache").resolve()
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def resolve_dtype(name: str) -> tuple[str, str]:
    """The dtype of matrix products for a config's `dtype`, and why.

    Weights, norms, softmax and cross-entropy stay float32. "auto" is bfloat16 on a GPU of compute
    capability >= 8.0, float16 with dynamic loss scaling on 7.x, bfloat16 on a CPU that multiplies
    it, and float32 elsewhere.
    """
    if name != "auto":
        if name not in ("float32", "bfloat16", "float16"):
            raise UserError(f"dtype={name!r}: use auto, float32, bfloat16 or float16")
        return name, "set in the config"
    device = jax.devices()[0]
    if device.platform == "cpu":
        units = sorted(_cpu_flags() & {"avx512_bf16", "amx_bf16"})
        if units:
            return "bfloat16", f"CPU with {units[0]}"
        return "float32", "CPU without bfloat16 products"
    capability = _capability(device)
    if not capability:
        return "float32", (
            f"{device.device_kind} has no compute capability of NVIDIA; where it multiplies "
            "bfloat16, set --config.dtype=bfloat16"
        )
    chosen = "bfloat16" if capability >= 8.0 else "float16" if capability >= 7.0 else "float32"
    return chosen, f"{device.device_kind}, compute capability {capability}"


def _capability(device) -> float:
    """An NVIDIA GPU's compute capability; 0 of any other device, such as AMD's "gfx90a"."""
    try:
        return float(getattr(device, "compute_capability", 0) or 0)
    except ValueError:
        return 0.0


def resolve_attention(name: str, cfg: GPTConfig, dtype: str, batch_size: int) -> tuple[str, str]:
    """ "xla" or "fused" for a config's `attention`, and why.

    "auto" times one layer's forward and backward pass with both on a GPU that has a fused kernel
    for the case, and takes the faster. Process 0 decides for all: near a tie others could choose
    otherwise and run another program.

    Raises:
      UserError: "fused" for a case that has no fused kernel.
    """
    if name not in ("auto", "xla", "fused"):
        raise UserError(f"attention={name!r}: use auto, xla or fused")
    why_not = _no_fused_attention(cfg, dtype)
    if name == "fused" and why_not:
        raise UserError(f"attention=fused: {why_not}; set --config.attention=auto")
    if name != "auto":
        return name, "set in the config"
    if why_not:
        return "xla", why_not
    if jax.devices()[0].platform != "gpu":
        return "xla", "no fused kernel on this device"
    kinds, seconds = ("xla", "fused"), np.zeros(2)
    if jax.process_index() == 0:
        seconds = np.array([_layer_seconds(kind, cfg, dtype, batch_size) for kind in kinds])
    if jax.process_count() > 1:
        seconds = np.asarray(multihost_utils.broadcast_one_to_all(seconds))
    best = kinds[int(seconds.argmin())]
    return best, f"{seconds.max() / seconds.min():.2f}x the other, measured on one layer"


def _no_fused_attention(cfg: GPTConfig, dtype: str) -> str:
    """Why cuDNN's attention cannot be used in training; "" where it can.

    It needs compute capability >= 8.0, half precision and heads of a multiple of 8 up to 128. JAX
    gives it a fixed seed for dropout, which would repeat one mask in every step. Elsewhere than on
    a GPU the same function runs through XLA.
    """
    if cfg.dropout:
        return "the fused kernel has no dropout, and model.dropout is not 0"
    device = jax.devices()[0]
    if device.platform != "gpu":
        return ""
    capability, width = _capability(device), cfg.head_width
    if capability < 8.0:
        return f"no fused kernel for compute capability {capability}, only from 8.0 on"
    if dtype == "float32":
        return "the fused kernel needs bfloat16 or float16"
    if width % 8 or width > 128:
        return f"the fused kernel needs heads of a multiple of 8 up to 128, not {width}"
    return ""


def _layer_seconds(attention: str, cfg: GPTConfig, dtype: str, batch_size: int) -> float:
    model = GPT(dataclasses.replace(cfg, n_layer=1), dtype, attention)
    rows = max(1, batch_size // jax.device_count())
    windows_BL = jnp.zeros((rows, cfg.block_size + 1), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), windows_BL[:, :1])["params"]
    gradient = jax.jit(jax.grad(loss_fn), static_argnums=1)
    jax.block_until_ready(gradient(params, model, windows_BL, None))
    began = time.perf_counter()
    for _ in range(20):
        grads = gradient(params, model, windows_BL, None)
    jax.block_until_ready(grads)
    return time.perf_counter() - began


def step_seconds(cfg: GPTConfig, batch_size: int) -> float:
    """An estimate of one training step's seconds, at 60 % of the speed of a matrix product here."""
    size = 1024
    product = jax.jit(jnp.dot)
    x = jnp.ones((size, size), jnp.float32)
    product(x, x).block_until_ready()
    began = time.monotonic()
    for _ in range(5):
        product(x, x).block_until_ready()
    flops = 5 * 2 * size**3 / (time.monotonic() - began)
    return cfg.flops_per_token * batch_size * cfg.block_size / (0.6 * flops)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.split())
