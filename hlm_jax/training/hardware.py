"""What the machine at hand is good at: the dtype of products, the kind of attention, its speed."""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from hlm_jax.errors import UserError
from hlm_jax.model import flash
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import GPTConfig
from hlm_jax.training.objective import loss_fn

REPEATS = 20
MOST_DIFFERENCE = 0.03  # of two gradients in a half type, as a fraction of their norm


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


def resolve_attention(name: str, cfg: GPTConfig, dtype: str, rows: int) -> tuple[str, str]:
    """ "xla" or "fused" for a config's `attention`, and why.

    "auto" runs one layer's forward and backward pass with both on a GPU that has a fused kernel for
    the case. It takes the faster one, and "xla" where the fused kernel does not compile or its
    gradient differs. Process 0 decides for all: near a tie others could choose otherwise and run
    another program.

    Args:
      rows: of a batch that one device works on at once.

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
    seconds, reason = np.zeros(2), ""
    if jax.process_index() == 0:
        seconds, reason = compare_attention(cfg, dtype, rows)
    if jax.process_count() > 1:
        seconds = np.asarray(multihost_utils.broadcast_one_to_all(seconds))
    best = ("xla", "fused")[int(seconds.argmin())]
    ratio = f"{seconds.max() / seconds.min():.2f}x the other, measured on one layer"
    # Other processes know no reason, and print nothing.
    return best, reason or ratio


def _no_fused_attention(cfg: GPTConfig, dtype: str) -> str:
    """Why no fused attention can be used in training; "" where one can.

    Without dropout it is cuDNN's, which needs heads of a multiple of 8 up to 128. JAX gives that
    one a fixed seed for dropout, which would repeat one mask in every step, so that with dropout it
    is hlm_jax.model.flash. Both need compute capability >= 8.0 and half precision. Elsewhere than
    on a GPU the function without dropout runs through XLA.
    """
    device, width = jax.devices()[0], cfg.head_width
    if cfg.form == "mogrifier":
        return "a Mogrifier LSTM has no attention"
    if device.platform != "gpu":
        return "the fused kernel with dropout needs a GPU" if cfg.dropout else ""
    capability = _capability(device)
    if not capability:
        return f"no fused kernel for {device.device_kind}, only for NVIDIA's cards"
    if capability < 8.0:
        return f"no fused kernel for compute capability {capability}, only from 8.0 on"
    if dtype == "float32":
        return "the fused kernel needs bfloat16 or float16"
    if cfg.dropout and not flash.fits(cfg.block_size, width, dtype):
        return (
            "the fused kernel with dropout needs heads of 16, 32, 64 or 128 and windows of a "
            f"multiple of 16, not {width} and {cfg.block_size}"
        )
    if width % 8 or width > 128:
        return f"the fused kernel needs heads of a multiple of 8 up to 128, not {width}"
    return ""


def compare_attention(cfg: GPTConfig, dtype: str, rows: int) -> tuple[np.ndarray, str]:
    """Times REPEATS passes through one layer with attention "xla" and with "fused".

    Returns:
      (seconds, float [2]; why not to use the fused kernel, in which case its seconds are infinite).
    """
    cfg = dataclasses.replace(cfg, n_layer=1)
    draw = np.random.default_rng(0).integers(0, cfg.vocab_size, (rows, cfg.block_size + 1))
    windows_BL = jnp.asarray(draw, jnp.int32)
    params = jax.jit(GPT(cfg).init)(jax.random.key(0), windows_BL[:, :1])["params"]
    gradient = jax.jit(jax.grad(loss_fn), static_argnums=1)

    def run(attention: str):
        model, key = GPT(cfg, dtype, attention), jax.random.key(1)
        first = jax.block_until_ready(gradient(params, model, windows_BL, key))
        began = time.perf_counter()
        for _ in range(REPEATS):
            grads = gradient(params, model, windows_BL, key)
        jax.block_until_ready(grads)
        return time.perf_counter() - began, first

    xla_seconds, expected = run("xla")
    useless = np.array([xla_seconds, np.inf])
    try:
        fused_seconds, found = run("fused")
    except Exception as error:  # what a kernel's compiler raises has no common type
        first = (str(error).strip() or repr(error)).splitlines()[0]
        return useless, f"the fused kernel failed: {first}"
    # Queries, keys and values apart: in a fresh model the first two are a small part of the norm.
    kernels = (grads["block_0"]["attention"]["qkv"]["kernel"] for grads in (expected, found))
    pairs = zip(*(jnp.split(kernel, cfg.qkv_cuts, axis=1) for kernel in kernels), strict=True)
    difference = max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)) for a, b in pairs)
    if not difference < MOST_DIFFERENCE:
        return useless, f"the gradient of the fused kernel differs by {difference:.1%}"
    return np.array([xla_seconds, fused_seconds]), ""


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
