"""Compiles the project's programs for a GPU that is not at hand. Nothing is run.

XLA's CUDA compiler needs only a description of the card: no GPU, no driver, no NVIDIA library. It
needs the packages jax-cuda12-plugin and jax-cuda12-pjrt of jax's version, installed without their
dependencies, and JAX_PLATFORMS=cpu. Without a card it cannot time the algorithms that it chooses
among, so it takes its defaults.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from hlm_jax.measures.score import Evaluator
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import GPTConfig
from hlm_jax.training import optim
from hlm_jax.training.mesh import make_mesh
from hlm_jax.training.objective import corruption_schedule
from hlm_jax.training.step import abstract_state, make_step

STEPS = 10_000  # of the schedules, which only need some length


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU by its data sheet.

    Attributes:
      capability: compute capability, such as (7, 5).
      cores: streaming multiprocessors.
      bandwidth: of its memory, bytes/s.
      peak: operations/s of half products summed in float32, without sparsity.
      memory: bytes.
      dtype: of the products of training on it.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    bandwidth: float
    peak: float
    memory: int
    dtype: str
    clock: float  # GHz
    l2: int  # bytes
    shared: int  # bytes of shared memory of a multiprocessor

    def description(self) -> str:
        """The card as XLA's GpuTargetConfigProto, in text form."""
        major, minor = self.capability
        threads = 1024 if self.capability == (7, 5) else 2048
        values = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 49152,
            "shared_memory_per_core": self.shared,
            "shared_memory_per_block_optin": self.shared - (0 if minor == 5 else 1024),
            "threads_per_core_limit": threads,
            "core_count": self.cores,
            "fpus_per_core": 64 if major < 9 else 128,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 65535,
            "block_dim_limit_z": 65535,
            "memory_bandwidth": int(self.bandwidth),
            "l2_cache_size": self.l2,
            "clock_rate_ghz": self.clock,
            "device_memory_size": self.memory,
            "registers_per_core_limit": 65536,
            "registers_per_block_limit": 65536,
        }
        fields = " ".join(f"{name}: {value}" for name, value in values.items())
        return (
            f"gpu_device_info {{ {fields} "
            f"cuda_compute_capability {{ major: {major} minor: {minor} }} }} "
            'platform_name: "CUDA" runtime_version { major: 12 minor: 9 } '
            f'dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "{self.name}"'
        )


CARDS = {
    "rtx6000": Card(
        "Quadro RTX 6000", (7, 5), 72, 672e9, 130e12, 24 << 30, "float16", 1.77, 6 << 20, 65536
    ),
    "t4": Card("Tesla T4", (7, 5), 40, 320e9, 65e12, 16 << 30, "float16", 1.59, 4 << 20, 65536),
    "a100": Card(
        "A100-SXM4-40GB", (8, 0), 108, 1555e9, 312e12, 40 << 30, "bfloat16", 1.41, 40 << 20, 167936
    ),
    "h100": Card(
        "H100 SXM", (9, 0), 132, 3350e9, 989e12, 80 << 30, "bfloat16", 1.98, 50 << 20, 233472
    ),
}


@contextmanager
def gpu_branches() -> Iterator[None]:
    """The model takes the branches of a GPU while it is traced."""
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        yield


def devices(card: Card, count: int = 1) -> list[Any]:
    """Devices that programs are compiled for and that cannot run them."""
    from jax.experimental import topologies

    # XLA has a compiler for CUDA once its plugin is registered, which happens with the first use.
    return topologies.get_topology_desc(
        "card", "cuda", target_config=card.description(), topology=f"1x1x{count}"
    ).devices


def compile_step(
    config: ConfigDict,
    card: Card,
    *,
    count: int = 1,
    fsdp: int = 1,
    dtype: str = "",
    steps: int = 1,
) -> Any:
    """The compiled training step of a config.

    Args:
      count, fsdp: devices, and how many of them share the weights.
      dtype: of products; "" for the card's own.
      steps: of one dispatch.
    """
    dtype = dtype or card.dtype
    mesh, model = make_mesh(fsdp, devices(card, count)), GPT(GPTConfig(**config.model), dtype)
    optimizer, _ = optim.make_optimizer(**config.optim, total_steps=STEPS, product_dtype=dtype)
    train = config.train
    state = abstract_state(model, optimizer, ema_decay=train.ema_decay, mesh=mesh)
    step: Any = make_step(
        model,
        optimizer,
        grad_accum_steps=train.grad_accum_steps,
        ema_decay=train.ema_decay,
        mesh=mesh,
        corruption=corruption_schedule(
            rate=train.corrupt_inputs,
            final=train.corrupt_final,
            anneal=train.corrupt_anneal,
            total_steps=STEPS,
        ),
    )
    shape = (steps, train.batch_size, config.model.block_size + 1)
    windows = jax.ShapeDtypeStruct(shape, jnp.int32)
    with gpu_branches():
        traced = step.trace(state, windows, jax.eval_shape(lambda: jax.random.key(0)))
        return traced.lower(lowering_platforms=("cuda",)).compile()


def compile_evaluator(config: ConfigDict, card: Card) -> Any:
    """The compiled program that scores windows, with float32 products."""
    model = GPT(GPTConfig(**config.model))
    place = jax.sharding.SingleDeviceSharding(devices(card)[0])

    def put(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    params = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 1), jnp.int32))["params"],
                            jax.random.key(0))  # fmt: skip
    tokens = put(jax.ShapeDtypeStruct((16, config.model.block_size), jnp.int32))
    program = jax.jit(Evaluator(model)._window_losses)
    with gpu_branches():
        traced = program.trace(jax.tree.map(put, params), tokens, tokens)
        return traced.lower(lowering_platforms=("cuda",)).compile()


def memory(compiled: Any) -> int:
    """Bytes that a program needs on a device: arguments, results and work space."""
    use = compiled.memory_analysis()
    return (
        use.argument_size_in_bytes
        + use.output_size_in_bytes
        - use.alias_size_in_bytes
        + use.temp_size_in_bytes
    )
