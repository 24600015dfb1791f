"""The writer's half of checkpoints: the lock on a workdir, saving, and restoring a training state.

What a checkpoint is, and how everybody else reads it, is in hlm_jax/checkpoint.py.
"""

import contextlib
import errno
import functools
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as managers

from hlm_jax.checkpoint import (
    METRIC,
    CheckpointError,
    altered,
    array_names,
    damage,
    first_line,
    folder_of,
    has_checksums,
    read_meta,
    write_checksums,
)
from hlm_jax.training.step import LossScale, TrainState

Meta = dict[str, Any]


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the workdir for process 0 of a run; the lock dies with the process, however it ends.

    Where the system or the file system has no locks, it prints a warning and goes on.

    Raises:
      CheckpointError: another trainer holds it, or the folder cannot be written.
    """
    if jax.process_index() != 0:
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / ".lock", "w")  # noqa: SIM115 - held open for as long as the lock is
    except OSError as error:
        raise CheckpointError(
            f"cannot write to the workdir {workdir} ({error.strerror}): "
            "choose another with --workdir"
        ) from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ModuleNotFoundError:
            _warn_of_no_lock(workdir, "this system has no file locks")
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise CheckpointError(
                    f"another trainer is running in {workdir}: wait for it, stop it, "
                    "or choose another --workdir"
                ) from None
            _warn_of_no_lock(workdir, f"its file system has no locks ({error.strerror})")
        yield


def _warn_of_no_lock(workdir: Path, why: str) -> None:
    print(
        f"WARNING: {workdir} is not locked: {why}. Do not start a second training in it",
        file=sys.stderr,
        flush=True,
    )


class Checkpointer:
    """Saves asynchronously; keeps the latest steps and the best one.

    Args:
      workdir: the run's folder.
      keep_latest: how many latest steps are kept next to the best.

    Raises:
      CheckpointError: the folder cannot be written.
    """

    def __init__(self, workdir: Path, *, keep_latest: int):
        self.folder = folder_of(workdir)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(
                [managers.LatestN(keep_latest), _Best(workdir)]
            ),
            cleanup_tmp_directories=True,
            create=True,
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoints to {self.folder} ({error.strerror})"
            ) from error
        self._bytes: int | None = None
        self._unsealed: set[int] = set()  # saved by this process, without checksums so far

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(CheckpointError):  # the first error is the one to report
            self.close()

    def save(self, state: TrainState, meta: Meta) -> None:
        """Saves the state under its step, in the background; a step already saved is left alone.

        Args:
          meta: of checkpoint.make_meta; `meta["metrics"]` may hold the score to rank it by.

        Raises:
          CheckpointError: the disk is full or the folder not writable. Earlier checkpoints stay.
        """
        step = int(state.step)
        weights = _weights(state)
        with self._writing(step):
            self._manager.wait_until_finished()
            self._seal()
        if step in self._manager.all_steps():
            return
        self._check_space(weights, state.opt_state)
        score = meta["metrics"].get(METRIC)
        metrics = {METRIC: score} if score is not None and np.isfinite(score) else None
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(weights),
            opt_state=ocp.args.StandardSave(_moving(state)),
            meta=ocp.args.JsonSave(meta),
        )
        with self._writing(step):
            self._manager.save(step, args=args, metrics=metrics, force=True)
            self._unsealed.add(step)

    def wait(self) -> None:
        """Returns once the save in progress is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        with self._writing("in progress"):
            self._manager.wait_until_finished()
            self._seal()

    def close(self) -> None:
        """Waits, and ends the writing threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def restore_latest(self, abstract: TrainState) -> tuple[TrainState, Meta] | None:
        """The newest undamaged state, laid out as `abstract`, and its meta; None without any.

        A step that is proved damaged is set aside as `<step>.damaged` once an older one has been
        restored.

        Raises:
          CheckpointError: every step is damaged, or a step failed to restore for another reason.
            Nothing is renamed then.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            folder, reason = self.folder / str(step), None
            try:
                reason = altered(folder)
                if reason is None:
                    restored = self._restore(step, abstract)
            except Exception as error:  # of many types; `damage` decides what the error means
                if reason is None:
                    reason = damage(folder)
                    if reason is None:
                        raise CheckpointError(
                            f"checkpoint {step} in {self.folder} could not be restored "
                            f"({first_line(error)}). Its files are not damaged and nothing was "
                            "changed: make room on the device, or use the machine and config "
                            "that saved it"
                        ) from error
            if reason is not None:
                damaged[step] = reason
                continue
            for other, why in damaged.items():
                print(
                    f"checkpoint {other} is damaged ({why}); falling back to {step}",
                    file=sys.stderr,
                    flush=True,
                )
                self._set_aside(other)
            self._unsealed.add(step)  # a kill may have come before its checksums were written
            return restored
        aside = sorted(path.name for path in self.folder.glob("*.damaged"))
        if damaged or aside:
            bad = ", ".join([*(f"{step} ({why})" for step, why in damaged.items()), *aside])
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be read: {bad}. Nothing was changed. "
                "Restore one from a copy, or start anew in another --workdir"
            )
        return None

    def _restore(self, step: int, abstract: TrainState) -> tuple[TrainState, Meta]:
        """The state of a step.

        A loss scale that only the checkpoint has is dropped; one that only `abstract` has starts
        afresh. So a run goes on where its dtype "auto" means something else. In the same way an
        average of the weights is dropped, or starts from the weights.
        """
        averaged = any(
            name.startswith("ema_params.")
            for name in array_names(self.folder / str(step) / "params")
        )
        wanted = {"params": abstract.params} | ({"ema_params": abstract.params} if averaged else {})
        scalar = functools.partial(jax.ShapeDtypeStruct, (), sharding=abstract.step.sharding)
        moving: dict[str, Any] = {"optimizer": abstract.opt_state}
        names = array_names(self.folder / str(step) / "opt_state")
        if any(name.startswith("loss_scale.") for name in names):
            shapes: Any = scalar(np.float32), scalar(np.int32)
            moving["loss_scale"] = LossScale(*shapes)
        args = ocp.args.Composite(
            params=ocp.args.StandardRestore(wanted),
            opt_state=ocp.args.StandardRestore(moving),
            meta=ocp.args.JsonRestore(),
        )
        saved = self._manager.restore(step, args=args)
        weights, moving = saved.params, saved.opt_state
        scale = None
        if abstract.loss_scale is not None:
            fresh = jax.device_put(LossScale.create(), abstract.step.sharding)
            scale = moving.get("loss_scale", fresh)
        counter = jax.device_put(np.int32(step), abstract.step.sharding)
        ema = None
        if abstract.ema_params is not None:
            ema = weights.get("ema_params") or jax.tree.map(jnp.copy, weights["params"])
        return TrainState(counter, weights["params"], moving["optimizer"], ema, scale), saved.meta

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            source, target = self.folder / str(step), self.folder / f"{step}.damaged"
            number = 2
            while target.exists():  # an earlier damaged copy of the same step stays too
                target = self.folder / f"{step}.{number}.damaged"
                number += 1
            source.rename(target)
        if jax.process_count() > 1:  # no process may still list the step that was renamed
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()

    def _seal(self) -> None:
        """Writes the checksums of finished steps; a step deleted meanwhile needs none."""
        for step in sorted(self._unsealed):
            folder = self.folder / str(step)
            if jax.process_index() == 0 and folder.is_dir() and not has_checksums(folder):
                write_checksums(folder)
            self._unsealed.discard(step)

    def _check_space(self, weights: Any, opt_state: Any) -> None:
        if self._bytes is None:
            arrays = jax.tree.leaves((weights, opt_state))
            self._bytes = sum(x.size * x.dtype.itemsize for x in arrays)
        free = shutil.disk_usage(self.folder).free
        if free < self._bytes:
            raise CheckpointError(
                f"disk full: a checkpoint takes {self._bytes / 1e6:,.0f} MB and {self.folder} has "
                f"{free / 1e6:,.0f} MB free; make room and start again, the run resumes from its "
                "last checkpoint"
            )

    @contextlib.contextmanager
    def _writing(self, step: int | str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # asynchronous saves raise what the writing thread raised
            if isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
                raise  # another process is gone: stop.leaving_a_broken_group
            raise CheckpointError(
                f"checkpoint {step} could not be written to {self.folder} ({first_line(error)}): "
                "is the disk full? Make room and start again, the run resumes from its last "
                "checkpoint"
            ) from error


class _Best(managers.PreservationPolicy):
    """Preserves the step with the best score, also where an earlier process saved it.

    Orbax forgets the scores of steps when the process ends. Its legacy max_to_keep + best_fn would
    delete the newest step when validation worsens.
    """

    def __init__(self, workdir: Path):
        self._workdir = workdir

    def should_preserve(self, checkpoints: Sequence, *, context: object) -> Sequence[bool]:
        scores = [self._score(info) for info in checkpoints]
        known = [score for score in scores if score is not None]
        best = scores.index(min(known)) if known else -1
        return [number == best for number in range(len(scores))]

    def _score(self, info: Any) -> float | None:
        """What was given to the save, or else what the step's meta on disk says; finite or None."""
        if info.metrics:
            return info.metrics[METRIC]
        try:
            score = read_meta(self._workdir, info.step)["metrics"].get(METRIC)
        except CheckpointError:  # the step is being written just now, or its meta is damaged
            return None
        return score if score is not None and np.isfinite(score) else None


def _weights(state: TrainState) -> dict[str, Any]:
    ema = {} if state.ema_params is None else {"ema_params": state.ema_params}
    return {"params": state.params} | ema


def _moving(state: TrainState) -> dict[str, Any]:
    scale = {} if state.loss_scale is None else {"loss_scale": state.loss_scale}
    return {"optimizer": state.opt_state} | scale
