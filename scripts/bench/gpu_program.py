"""Compiles the project's programs for a GPU that is not at hand. Nothing is run.

XLA's CUDA compiler needs only a description of the card: no GPU, no driver, no NVIDIA library. It
needs the packages jax-cuda12-plugin and jax-cuda12-pjrt of jax's version, installed without their
dependencies, and JAX_PLATFORMS=cpu. Without a card it cannot time the algorithms that it chooses
among, so it takes its defaults.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from hlm_jax.measures.score import Evaluator
from hlm_jax.model import flash, generate
from hlm_jax.model.gpt import GPT
from hlm_jax.model.sampling import SamplingArrays, SamplingParams
from hlm_jax.model.shape import GPTConfig
from hlm_jax.training import optim
from hlm_jax.training.mesh import make_mesh
from hlm_jax.training.objective import corruption_schedule
from hlm_jax.training.step import abstract_state, make_step
from scripts.bench import hlo

STEPS = 10_000  # of the schedules, which only need some length
WINDOWS = 16  # that the evaluator scores at a time
DISPATCH_TOKENS = 64  # that the decoder makes at a time


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
      pcie: bytes/s in one direction over 16 lanes.
      nvlink, nvlink_cards: bytes/s of a card in one direction, and how many cards it joins.
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
    pcie: float
    nvlink: float = 0.0
    nvlink_cards: int = 1

    @property
    def units(self) -> int:
        """Multiply-adds in float32 of a multiprocessor in one cycle."""
        return 64 if self.capability[0] < 9 else 128

    def seconds(self, kernel: hlo.Kernel) -> float:
        """A lower bound of a kernel's time; float32 products have no matrix units."""
        full = self.cores * self.units * 2 * self.clock * 1e9
        return kernel.seconds(
            self.bandwidth, full if kernel.types.startswith("f32x") else self.peak
        )

    def links(self, count: int) -> dict[str, float]:
        """What can join `count` of these cards in one machine: name -> bytes/s one way."""
        fast = {"NVLink": self.nvlink} if count <= self.nvlink_cards else {}
        return fast | {"PCIe": self.pcie}

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
            "fpus_per_core": self.units,
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
        "Quadro RTX 6000", (7, 5), 72, 672e9, 130e12, 24 << 30, "float16", 1.77, 6 << 20, 65536,
        pcie=16e9, nvlink=50e9, nvlink_cards=2,
    ),
    "t4": Card(
        "Tesla T4", (7, 5), 40, 320e9, 65e12, 16 << 30, "float16", 1.59, 4 << 20, 65536,
        pcie=16e9,
    ),
    "a100": Card(
        "A100-SXM4-40GB", (8, 0), 108, 1555e9, 312e12, 40 << 30, "bfloat16", 1.41, 40 << 20, 167936,
        pcie=32e9, nvlink=300e9, nvlink_cards=8,
    ),
    "h100": Card(
        "H100 SXM", (9, 0), 132, 3350e9, 989e12, 80 << 30, "bfloat16", 1.98, 50 << 20, 233472,
        pcie=64e9, nvlink=450e9, nvlink_cards=8,
    ),
}  # fmt: skip


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
    attention: str = "",
    steps: int = 1,
) -> Any:
    """The compiled training step of a config.

    Args:
      count, fsdp: devices, and how many of them share the weights.
      dtype: of products; "" for the card's own.
      attention: "xla" or "fused"; "" for the project's kernel where the card has it. cuDNN's cannot
        be compiled without a card.
      steps: of one dispatch.
    """
    dtype = dtype or card.dtype
    cfg, train = GPTConfig(**config.model), config.train
    kernel = card.capability >= (8, 0) and flash.fits(cfg.block_size, cfg.head_width, dtype)
    attention = attention or ("fused" if cfg.dropout and kernel else "xla")
    mesh = make_mesh(fsdp, devices(card, count))
    model = GPT(cfg, dtype, attention, mesh)
    optimizer, _ = optim.make_optimizer(**config.optim, total_steps=STEPS, product_dtype=dtype)
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
    """The compiled program that scores WINDOWS windows, with float32 products."""
    model = GPT(GPTConfig(**config.model))

    def arguments():
        tokens_BT = jnp.zeros((WINDOWS, config.model.block_size), jnp.int32)
        return _params(model), tokens_BT, tokens_BT

    return _compiled(Evaluator(model)._window_losses, arguments, card)


def compile_decode(
    config: ConfigDict, card: Card, *, batch: int = 1, tokens: int = DISPATCH_TOKENS
) -> Any:
    """The compiled program that draws `tokens` tokens for `batch` rows, with float32 products.

    Their number is part of the program, as it is when the decoder runs on a GPU.
    """
    model, vocabulary = GPT(GPTConfig(**config.model)), config.model.vocab_size
    program = generate.Program(model, config.model.block_size, tokens, 0)

    def arguments():
        params, of_rows = _params(model), jnp.zeros(batch, jnp.int32)
        tokens_BT, seen_BV = jnp.zeros((batch, 1), jnp.int32), jnp.zeros((batch, vocabulary), bool)
        state = program._prefill(params, tokens_BT, of_rows, seen_BV, of_rows)
        rows = SamplingArrays.of([SamplingParams()] * batch)
        automaton = generate.anything(vocabulary)
        return params, None, state, rows, automaton, of_rows + 1, of_rows, jnp.bool_(False)

    def decode(params, head, state, rows, automaton, slot, number, tops):
        return program._decode(params, head, state, rows, automaton, slot, number, tops, tokens)

    return _compiled(decode, arguments, card, donate_argnums=2)


def _params(model: GPT) -> Any:
    return model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


def _compiled(function: Callable, arguments: Callable, card: Card, **options: Any) -> Any:
    """`function` compiled for one card and for arrays like those that `arguments` would return."""
    place = jax.sharding.SingleDeviceSharding(devices(card)[0])

    def put(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    with gpu_branches():
        shapes = jax.tree.map(put, jax.eval_shape(arguments))
        traced = jax.jit(function, **options).trace(*shapes)
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
