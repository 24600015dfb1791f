"""What a workdir remembers of its run, so that no other run goes on in it."""

import contextlib
import filecmp
import json
import os
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
from hlm_jax.training.step import TrainState


def refuse_other_config(workdir: Path, config: ConfigDict) -> None:
    """Raises UserError where the workdir holds a run whose config differs; it names the keys."""
    path = workdir / "config.json"
    if path.exists():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError:
            raise UserError(
                f"{path} is not JSON: delete it, the checkpoints hold the config as well"
            ) from None
        _refuse(workdir, saved, config)


def _refuse(workdir: Path, saved: dict[str, Any], config: ConfigDict) -> None:
    if changed := configs.differences(saved, configs.recorded(config)):
        raise UserError(
            f"{workdir} holds a run {_other_book(saved, config)}with another config "
            f"({'; '.join(changed)}): use another --workdir{_older_text(changed)}"
        )


def _other_book(saved: dict[str, Any], config: ConfigDict) -> str:
    """ "of another book (old, not new), " where the recorded book is another file; else ""."""
    paths = configs.upgrade(saved)["corpus"]["path"], config.corpus.path
    before, now = (os.path.realpath(path) if path else "" for path in paths)
    both_files = os.path.isfile(before) and os.path.isfile(now)
    if before == now or (both_files and filecmp.cmp(before, now, shallow=False)):
        return ""
    default = "the default edition"
    return f"of another book ({before or default}, not {now or default}), "


def _older_text(changed: list[str]) -> str:
    """How to go on with a run that was trained on an earlier revision of the edition."""
    earlier = [line for line in changed if line.startswith("corpus.revision: ")]
    if not earlier:
        return ""
    return f", or go on with --config.corpus.revision={earlier[0].split()[1]}"


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
    config: ConfigDict,
    checkpointer: Checkpointer,
    program: Program,
    material: Material,
) -> tuple[TrainState, History]:
    """The newest saved state and its history, or those before step 0.

    Raises:
      UserError: the checkpoint belongs to another config, text or tokenizer.
    """
    restored = checkpointer.restore_latest(program.abstract_state)
    if restored is None:
        return program.init_state(), History()
    state, meta = restored
    _refuse(workdir, meta["config"], config)
    if why := difference(material.report, meta["corpus"]):
        raise UserError(
            f"the run in {workdir} was begun with another text than {material.report['name']} "
            f"({why}): give the same text with --config.corpus.path, or use another --workdir"
        )
    ours, theirs = material.tokenizer.fingerprint, meta["tokenizer_fingerprint"]
    if ours != theirs:
        raise UserError(
            f"the checkpoint in {workdir} was made with tokenizer {theirs[:12]}, this corpus and "
            f"config give {ours[:12]}: the SentencePiece version changed; use another --workdir"
        )
    return state, History.from_metrics(int(state.step), meta["metrics"])


def meta_of(config: ConfigDict, material: Material) -> Callable[[History], dict[str, Any]]:
    """history -> what travels with the weights of its step."""
    baseline = {} if material.baseline is None else {"ngram_bits_per_char": material.baseline}
    recorded = configs.recorded(config)

    def of(history: History) -> dict[str, Any]:
        return checkpoint.make_meta(
            config=recorded,
            tokenizer=material.tokenizer,
            corpus_report=material.report,
            metrics=history.as_metrics() | baseline,
        )

    return of


@contextlib.contextmanager
def naming_the_last_good(config: ConfigDict, checkpointer: Checkpointer) -> Iterator[None]:
    """Adds to the error of a diverged run where it can go on, and what to try."""
    try:
        yield
    except Diverged as error:
        with contextlib.suppress(checkpoint.CheckpointError):  # the divergence is the news
            checkpointer.wait()
        saved = checkpoint.steps_in(checkpointer.folder.parent)
        first = (error.step - 1) * config.train.batch_size
        raise UserError(
            f"{error} (batch {error.step - 1}: windows {first} to "
            f"{first + config.train.batch_size - 1}); the last good checkpoint is "
            f"{f'step {saved[-1]}' if saved else 'none'}. Try a lower "
            "--config.optim.learning_rate, more --config.optim.warmup_steps or a smaller "
            "--config.optim.grad_clip_norm, in another --workdir"
        ) from error
