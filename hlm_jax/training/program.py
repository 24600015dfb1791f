"""The compiled half of a run: devices, dtype, model, optimizer and the jitted step."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from hlm_jax import checkpoint
from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import GPTConfig, Params
from hlm_jax.training import optim
from hlm_jax.training.hardware import resolve_attention, resolve_dtype
from hlm_jax.training.material import Material
from hlm_jax.training.mesh import local_copy, make_mesh, process_rows, put_rows
from hlm_jax.training.objective import corruption_schedule
from hlm_jax.training.step import (
    TrainState,
    abstract_state,
    init_state,
    init_state_from,
    make_step,
)
from hlm_jax.training.teaching import Teaching


@dataclasses.dataclass(frozen=True)
class Program:
    """What a run does with its batches. Knows nothing of files, evaluations or the loop.

    Attributes:
      model: for evaluation and samples, float32 products, as every later reader has it.
      dtype: of the products of training steps.
      mesh: the devices.
      init_state: the state before step 0, with the weights given to it or, for None, random ones.
      abstract_state: shapes, dtypes and shardings of the state, without arrays.
      step: (state, what load returns) -> (state, metrics of M steps); donates the state.
      learning_rate: step -> the rate of AdamW.
      description: the model, the run's length and the devices, for the terminal.
      teaching: what teachers predict; None without teachers.
    """

    model: GPT
    dtype: str
    mesh: Mesh
    init_state: Callable[[Params | None], TrainState]
    abstract_state: TrainState
    step: Callable[[TrainState, tuple[jax.Array, ...]], tuple[TrainState, dict[str, jax.Array]]]
    learning_rate: Callable
    description: str
    teaching: Teaching | None

    def reading_params(self, state: TrainState) -> Params:
        """The weights to evaluate and sample with, whole on this process's first device.

        The average where one is kept. Every process must call it: the arrays are gathered.
        """
        params = state.params if state.ema_params is None else state.ema_params
        return local_copy(params, self.mesh)

    def load(self, material: Material, first: int, end: int) -> tuple[jax.Array, ...]:
        """What steps first..end learn from, on the devices.

        The windows, int32 [M, B, L], and with teachers what these predict, float16 [M, B, T, V].
        """
        windows, steps = material.windows, range(first, end)
        rows = process_rows(windows.batch_size)
        loaded = [np.stack([windows.batch_at(step, rows) for step in steps])]
        if self.teaching:
            starts = np.stack([windows.starts_at(step, rows) for step in steps])
            taught = self.teaching.rows_at(starts.ravel())
            loaded.append(taught.reshape(*starts.shape, *taught.shape[1:]))
        return tuple(put_rows(array, self.mesh) for array in loaded)


def build_program(config: ConfigDict, material: Material) -> Program:
    """The program that `config` describes, on the devices at hand.

    Raises:
      UserError: the batch does not divide over the devices, or a teacher does not fit.
    """
    mesh, train = make_mesh(config.mesh.fsdp), config.train
    parts = mesh.size * train.grad_accum_steps
    if train.batch_size % parts:
        by = f"{mesh.size} devices"
        if train.grad_accum_steps > 1:
            by += f" x {train.grad_accum_steps} accumulation steps"
        raise UserError(
            f"train.batch_size={train.batch_size} is not divisible by {by}: "
            f"set --config.train.batch_size to a multiple of {parts}"
        )
    cfg = GPTConfig(**config.model)
    dtype, dtype_reason = resolve_dtype(config.dtype)
    rows = train.batch_size // parts
    attention, attention_reason = resolve_attention(config.attention, cfg, dtype, rows)
    trained = GPT(cfg, dtype, attention, mesh)
    total_steps = material.total_steps
    optimizer, learning_rate = optim.make_optimizer(
        **config.optim, total_steps=total_steps, product_dtype=dtype
    )
    teachers = _teachers(config, material, dtype) if train.teacher_weight else []
    teaching, about = None, ""
    if teachers:
        teaching = Teaching(teachers, material.windows.book_tokens, cfg.block_size)
        about = (
            f"\nteachers: {len(teachers)}; a temporary file of {teaching.n_bytes / 1e9:.2g} GB in "
            f"{tempfile.gettempdir()} keeps what they predict of the book"
        )
    step = make_step(
        trained,
        optimizer,
        grad_accum_steps=train.grad_accum_steps,
        ema_decay=train.ema_decay,
        mesh=mesh,
        corruption=corruption_schedule(
            rate=train.corrupt_inputs,
            final=train.corrupt_final,
            anneal=train.corrupt_anneal,
            total_steps=total_steps,
        ),
        teacher_weight=train.teacher_weight if teachers else 0.0,
    )
    root = jax.random.key(config.seed)
    dropout_key = jax.random.fold_in(root, 1)
    common: dict[str, Any] = {"ema_decay": train.ema_decay, "mesh": mesh}

    def begin(params: Params | None) -> TrainState:
        if params is None:
            return init_state(trained, optimizer, jax.random.fold_in(root, 0), **common)
        return init_state_from(params, trained, optimizer, **common)

    kind, plural = jax.devices()[0].device_kind, "s" if mesh.size > 1 else ""
    return Program(
        model=GPT(cfg),
        dtype=dtype,
        mesh=mesh,
        init_state=begin,
        abstract_state=abstract_state(trained, optimizer, **common),
        step=lambda state, loaded: step(state, loaded[0], dropout_key, *loaded[1:]),
        learning_rate=functools.partial(_on_host, learning_rate),
        description=(
            f"model {cfg.form}: {cfg.n_parameters:,} parameters; "
            f"{material.training_tokens:,} training tokens; {total_steps:,} steps of "
            f"{train.batch_size} x {cfg.block_size} = {_epochs(material)}; "
            f"{mesh.size} {kind} device{plural}\n"
            f"products in {dtype} ({dtype_reason}), attention {attention} ({attention_reason})"
            f"{about}"
        ),
        teaching=teaching,
    )


def _epochs(material: Material) -> str:
    """How often a run reads its texts, in words."""
    book, extra = material.windows.epochs(material.total_steps)
    if not extra:
        return f"{book:.1f} epochs"
    return f"{book:.1f} epochs of the book and {extra:.1f} of the further texts"


def _on_host(schedule: Callable, step: int) -> float:
    """A schedule's value, computed by the CPU: a GPU would answer after the running dispatch."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return float(schedule(step))


def _teachers(config: ConfigDict, material: Material, dtype: str) -> list[tuple[GPT, Params]]:
    """The models whose predictions this run learns from next to the text, and their weights."""
    teachers, block = [], config.model.block_size
    for workdir in config.train.teachers:
        if not checkpoint.steps_in(workdir):
            links = checkpoint.trained_links(workdir)
            raise UserError(
                f"train.teachers: there is no checkpoint in {workdir}: name "
                + (f"a link of this chain, such as {links[-1]}" if links else "a run's workdir")
            )
        _, params, meta = checkpoint.read(workdir)
        # A teacher trained on other chapters may know the chapters that this run holds out.
        if meta["tokenizer_fingerprint"] != material.tokenizer.fingerprint:
            raise UserError(
                f"train.teachers: {workdir} was trained with another text, split or tokenizer "
                "than this run"
            )
        cfg = GPTConfig(**meta["config"]["model"])
        if cfg.block_size < block:
            raise UserError(
                f"train.teachers: {workdir} reads {cfg.block_size} tokens, "
                f"this run's windows have {block}"
            )
        teachers.append((GPT(cfg, dtype), params))
    return teachers
