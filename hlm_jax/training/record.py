"""What a workdir remembers of its run, and how the run goes on from it."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hlm_jax import checkpoint
from hlm_jax import config as configs
from hlm_jax.book.corpus import difference
from hlm_jax.errors import UserError
from hlm_jax.training.checkpointer import Checkpointer
from hlm_jax.training.history import History
from hlm_jax.training.journal import Diverged
from hlm_jax.training.material import Material
from hlm_jax.training.program import Program
from hlm_jax.training.start import Start, changes_in
from hlm_jax.training.step import TrainState


def record(workdir: Path, config: ConfigDict, material: Material) -> None:
    """Writes config.json, corpus.json and the tokenizer's files.

    Called when training starts, so that a run that failed earlier does not lock the workdir to its
    config.
    """
    try:
        material.tokenizer.save(workdir / "tokenizer")
        for name, content in (
            ("config.json", configs.recorded(config)),
            ("corpus.json", material.report),
        ):
            text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
            partial = workdir / f"{name}.partial"
            partial.write_text(text, encoding="utf-8")
            partial.replace(workdir / name)  # a full disk leaves the old file whole
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error.strerror}): make room") from error


def restore(
    workdir: Path,
    start: Start,
    checkpointer: Checkpointer,
    program: Program,
    material: Material,
) -> tuple[TrainState, History]:
    """The newest saved state and its history, or those before step 0.

    Raises:
      UserError: the checkpoint belongs to another text, or another one than `start` was undamaged.
    """
    restored = checkpointer.restore_latest(program.abstract_state)
    if restored is None:
        return program.init_state(start.params), History()
    state, meta = restored
    if why := difference(material.report, meta["corpus"]):
        raise UserError(
            f"the run in {workdir} was begun with another text than {material.report['name']} "
            f"({why}): give the same text with --config.corpus.path, or use another --workdir"
        )
    step = int(state.step)
    if step != start.step and (start.changes or changes_in(meta)):
        # Which windows were read before depends on the changes of the checkpoint in use.
        raise UserError(
            f"checkpoint {start.step} in {workdir} is damaged and was set aside: start the same "
            f"command again, the run goes on from step {step}"
        )
    history = History.from_metrics(step, meta["metrics"])
    return state, history.resumed(start.config.train.patience)


def meta_of(start: Start, material: Material) -> Callable[[History], dict[str, Any]]:
    """history -> what travels with the weights of its step."""
    baseline: dict[str, Any] = {}
    if material.baseline is not None:
        baseline["ngram_bits_per_char"] = material.baseline
    if material.mixed_baseline is not None:
        baseline["ngram_with_extra_bits_per_char"] = material.mixed_baseline
    recorded = configs.recorded(start.config)
    more: dict[str, Any] = {"changes": [dataclasses.asdict(change) for change in start.changes]}
    if material.init:
        more |= {"init": material.init, "asked": dict(start.asked)}

    def of(history: History) -> dict[str, Any]:
        meta = checkpoint.make_meta(
            config=recorded,
            tokenizer=material.tokenizer,
            corpus_report=material.report,
            metrics=history.as_metrics() | baseline,
        )
        return meta | more

    return of


@contextlib.contextmanager
def naming_the_last_good(material: Material, checkpointer: Checkpointer) -> Iterator[None]:
    """Adds to the error of a diverged run where it can go on, and what to try."""
    try:
        yield
    except Diverged as error:
        with contextlib.suppress(checkpoint.CheckpointError):  # the divergence is the news
            checkpointer.wait()
        saved = checkpoint.steps_in(checkpointer.folder.parent)
        raise UserError(
            f"{error} (batch {error.step - 1}: {material.windows.describe(error.step - 1)}); the "
            "last good checkpoint is "
            f"{f'step {saved[-1]}' if saved else 'none'}. Try a lower "
            "--config.optim.learning_rate, more --config.optim.warmup_steps or a smaller "
            "--config.optim.grad_clip_norm, in another --workdir"
        ) from error
