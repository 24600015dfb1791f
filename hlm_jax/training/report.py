"""What a run says of itself in words: how long it would take before it starts, and what came of it when it ends."""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from hlm_jax import config as configs
from hlm_jax.measures.overlap import describe, mark
from hlm_jax.run import Run, describe_extraction
from hlm_jax.training.journal import duration

LONG_RUN_SECONDS = 3600


def long_run_warning(config, steps: int) -> str | None:
    """One line where `steps` training steps would keep a CPU busy for more than an hour; None otherwise."""
    seconds = steps * _estimate_step_seconds(config) if jax.default_backend() == "cpu" else 0.0
    if seconds <= LONG_RUN_SECONDS:
        return None
    return (
        f"WARNING: no GPU in use. On this CPU the run will take about {duration(seconds)} (an estimate from the speed of a "
        "matrix product); configs/tiny.py takes minutes"
    )


def _estimate_step_seconds(config) -> float:
    """From 6 FLOP per weight and token, at 60 % of the speed of a matrix product measured here."""
    size = 1024
    product = jax.jit(jnp.dot)
    x = jnp.ones((size, size), jnp.float32)
    product(x, x).block_until_ready()
    began = time.monotonic()
    for _ in range(5):
        product(x, x).block_until_ready()
    flops = 5 * 2 * size**3 / (time.monotonic() - began)
    return (
        6
        * configs.count_parameters(config.model)
        * config.train.batch_size
        * config.model.block_size
        / (0.6 * flops)
    )


def final_report(run: Run, metrics: dict, floor: float | None) -> Iterator[str]:
    """The lines that end a training.

    Args:
      run: the run at the checkpoint that a reader would load.
      metrics: the training's newest, with its best validation score and that score's step.
      floor: bits per character of the n-gram model on the validation chapters; None where none are held out.
    """
    if floor is None:
        yield "\nno chapters are held out in this config: its loss says nothing about new text (see configs/base_heldout.py)"
    else:
        best = metrics["best_val_bits_per_char"]
        yield (
            f"\nvalidation chapters: {best:.4f} bits per character (step {metrics['best_step']}); "
            f"Kneser-Ney 5-gram {floor:.4f}; ratio {best / floor:.4f}"
        )
    sample = run.config.sample
    (text,) = run.generate(
        [sample.prompt],
        max_new_tokens=sample.max_new_tokens,
        seed=run.config.seed,
        temperature=sample.temperature,
        top_p=sample.top_p,
    )
    yield f"\n{sample.prompt}{mark(text, run.training_text)}\n"
    yield describe(run.training_text.measure(text), run.human_row)
    for split in ("train", "val"):
        if run.chapters[split]:
            yield describe_extraction(split, run.extraction(split))
