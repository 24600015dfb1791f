"""Checkpoints: orbax in one place, and everything that travels with the weights.

A step folder under `<workdir>/checkpoints` holds three items: `params` (the weights, and their average where one is
kept), `opt_state`, and `meta`, a JSON with the config, the tokenizer's model, the corpus report, package versions and
metrics. So a checkpoint can be read on any machine with nothing beside it. Only finished steps count: orbax writes to a
temporary folder and renames it.
"""

import base64
import contextlib
import errno
import fcntl
import functools
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint import checkpoint_managers as managers

from hlm_jax.book.tokenizer import Tokenizer
from hlm_jax.errors import UserError
from hlm_jax.training.step import LossScale, TrainState

_CHECKSUMS = "checksums.json"
METRIC = "val_bits_per_char"
PACKAGES = (
    "hlm-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "sentencepiece",
    "numpy",
    "ml_collections",
)
# Orbax logs dozens of lines a save, and a traceback for a failed write beside the exception that it raises here.
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


class CheckpointError(UserError):
    """No checkpoint, a damaged one, a workdir in use or not writable, a full disk."""


def make_meta(*, config: dict, tokenizer: Tokenizer, corpus_report: dict, metrics: dict) -> dict:
    """The JSON that travels with the weights."""
    versions = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "config": config,
        "tokenizer": base64.b64encode(tokenizer.model_bytes).decode(),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "corpus": corpus_report,
        "versions": versions,
        "metrics": metrics,
    }


def tokenizer_of(meta: dict) -> Tokenizer:
    """The tokenizer inside a checkpoint, checked against its fingerprint."""
    tokenizer = Tokenizer(base64.b64decode(meta["tokenizer"]))
    if tokenizer.fingerprint != meta["tokenizer_fingerprint"]:
        raise CheckpointError(
            "the checkpoint's tokenizer does not match its fingerprint: the file was altered"
        )
    return tokenizer


@contextlib.contextmanager
def locked(workdir: Path):
    """Holds the workdir for this process; the lock dies with the process, however it ends.

    Raises:
      CheckpointError: another trainer holds it, or the folder cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / ".lock", "w")  # noqa: SIM115 - held open for as long as the lock is
    except OSError as error:
        raise CheckpointError(
            f"cannot write to the workdir {workdir} ({error.strerror}): choose another with --workdir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise CheckpointError(
                f"another trainer is running in {workdir}: wait for it, stop it, or choose another --workdir"
            ) from None
        yield


def folder_of(workdir) -> Path:
    return Path(workdir).resolve() / "checkpoints"


def steps_in(workdir) -> list[int]:
    """Finished steps, oldest first."""
    folder = folder_of(workdir)
    names = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def read_meta(workdir, step: int) -> dict:
    """The meta item of a step, read as plain JSON."""
    path = folder_of(workdir) / str(step) / "meta" / "metadata"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {step} in {workdir} is damaged (its metadata cannot be read)"
        ) from error


def resolve_step(workdir, step: str | int) -> int:
    """ "latest", "best" (by validation bits per character, else the latest) or a number, as a step that exists.

    Raises:
      CheckpointError: there is no such checkpoint.
    """
    steps = steps_in(workdir)
    if not steps:
        raise CheckpointError(
            f"no checkpoint in {workdir}: train first, with python -m hlm_jax.train --config … --workdir {workdir}"
        )
    if step == "latest":
        return steps[-1]
    if step == "best":
        scores = {}
        for s in steps:
            with contextlib.suppress(CheckpointError):
                score = read_meta(workdir, s)["metrics"].get(METRIC)
                if score is not None:
                    scores[s] = score
        return min(scores, key=scores.get) if scores else steps[-1]
    if not str(step).isdecimal():
        raise CheckpointError(f"--step must be latest, best or a number, not {step!r}")
    if int(step) not in steps:
        raise CheckpointError(
            f"no checkpoint at step {step} in {workdir}: there is {', '.join(map(str, steps))}"
        )
    return int(step)


# Status codes of tensorstore for data that is missing, cut short, altered or fails its checksum; others name the machine.
_DAMAGE = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT")


def write_checksums(folder: Path) -> None:
    """Records the CRC-32 of every file of a finished step: the array format itself has no checksum over the numbers."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _CHECKSUMS)
    sums = {path.relative_to(folder).as_posix(): zlib.crc32(path.read_bytes()) for path in files}
    partial = folder / f"{_CHECKSUMS}.partial"
    partial.write_text(json.dumps(sums, indent=0), encoding="utf-8")
    partial.replace(folder / _CHECKSUMS)


def altered(folder: Path, items: tuple[str, ...] = ("meta", "params", "opt_state")) -> str | None:
    """Names a file of these items that is missing or differs from its recorded checksum; None where there is none.

    A step saved by version 0.1.0 has no checksums and passes.
    """
    if not (folder / _CHECKSUMS).exists():
        return None
    for name, recorded in json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8")).items():
        if name.split("/")[0] in items:
            if not (folder / name).exists():
                return f"{name} is missing"
            if zlib.crc32((folder / name).read_bytes()) != recorded:
                return f"{name} differs from its checksum"
    return None


def damage(folder: Path) -> str | None:
    """Why the step in `folder` cannot be read by anybody, or None where its files are sound.

    Every array is read on the host, one at a time, without a device. Only missing files, a wrong checksum, metadata that is
    not JSON, and data that tensorstore finds cut or absent count as damage. Memory, permissions and mismatched models do not.
    """
    try:
        if reason := altered(folder):
            return reason
        json.loads((folder / "meta" / "metadata").read_text(encoding="utf-8"))
        for item in ("params", "opt_state"):
            for name in _array_names(folder / item):
                store = {"driver": "ocdbt", "base": f"file://{folder / item}/", "path": f"{name}/"}
                tensorstore.open(
                    {"driver": "zarr", "kvstore": store}, open=True
                ).result().read().result()
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except UnicodeDecodeError:
        return "its metadata is not text"
    except json.JSONDecodeError:
        return "its metadata is not JSON"
    except (KeyError, TypeError):
        return "its metadata is incomplete"
    except ValueError as error:  # tensorstore names its status first
        return _first_line(error) if str(error).startswith(_DAMAGE) else None
    except (OSError, MemoryError):
        return None
    return None


def _array_names(item: Path) -> list[str]:
    """The arrays of an orbax item, as keys joined by dots."""
    tree = json.loads((item / "_METADATA").read_text(encoding="utf-8"))["tree_metadata"]
    arrays = [leaf for leaf in tree.values() if not leaf["value_metadata"].get("skip_deserialize")]
    return [".".join(key["key"] for key in leaf["key_metadata"]) for leaf in arrays]


def read(workdir, step: str | int = "best") -> tuple[int, dict, dict]:
    """(step, weights, meta) without model code or the devices that trained it; weights are nested dicts of numpy arrays.

    Where an average of the weights was kept, it is what is read. A damaged "latest" falls back to the one before, saying so.

    Raises:
      CheckpointError: no readable checkpoint.
    """
    chosen = resolve_step(workdir, step)
    candidates = (
        [s for s in reversed(steps_in(workdir)) if s <= chosen] if step == "latest" else [chosen]
    )
    for candidate in candidates:
        try:
            if reason := altered(folder_of(workdir) / str(candidate), ("meta", "params")):
                raise CheckpointError(reason)
            meta = read_meta(workdir, candidate)
            path = folder_of(workdir) / str(candidate) / "params"
            tree = ocp.PyTreeCheckpointer().metadata(path).item_metadata.tree
            name = "ema_params" if "ema_params" in tree else "params"
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            return (
                candidate,
                ocp.PyTreeCheckpointer().restore(path, restore_args=as_numpy)[name],
                meta,
            )
        except (
            Exception
        ) as error:  # orbax and tensorstore raise many types; `damage` decides what the error means
            reason = damage(folder_of(workdir) / str(candidate))
            if reason is None:
                raise CheckpointError(
                    f"checkpoint {candidate} in {workdir} could not be read ({_first_line(error)}); no damage was found in its files"
                ) from error
            if candidate == candidates[-1]:
                raise CheckpointError(
                    f"checkpoint {candidate} in {workdir} is damaged: {reason}"
                ) from error
            print(
                f"checkpoint {candidate} is damaged ({reason}); reading the one before",
                file=sys.stderr,
            )
    raise AssertionError("unreachable")


class Checkpointer:
    """Saves asynchronously; keeps the latest steps and the best one.

    Args:
      workdir: the run's folder.
      keep_latest: how many latest steps are kept beside the best.
    """

    def __init__(self, workdir: Path, *, keep_latest: int):
        self.folder = folder_of(workdir)
        policy = managers.AnyPreservationPolicy(
            [
                managers.LatestN(keep_latest),
                # The legacy max_to_keep + best_fn deletes the newest step when validation worsens.
                managers.BestN(
                    get_metric_fn=lambda metrics: metrics[METRIC],
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy, cleanup_tmp_directories=True, create=True
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoints to {self.folder} ({error.strerror})"
            ) from error
        self._bytes = None
        self._unsealed: set[int] = (
            set()
        )  # steps saved by this process whose checksums are not written yet

    def save(self, state: TrainState, meta: dict, *, wait: bool = False) -> None:
        """Saves the state under its step; a step already saved is left alone.

        Raises:
          CheckpointError: the disk is full or the folder not writable; earlier checkpoints are untouched.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            self._manager.wait_until_finished()
            return
        weights = _weights(state)
        self._check_space(weights, state.opt_state)
        score = meta["metrics"].get(METRIC)
        metrics = {METRIC: score} if score is not None and np.isfinite(score) else None
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(weights),
            opt_state=ocp.args.StandardSave(_moving(state)),
            meta=ocp.args.JsonSave(meta),
        )
        with self._writing(step):
            self._manager.wait_until_finished()
            self._seal()
            self._manager.save(step, args=args, metrics=metrics, force=True)
            self._unsealed.add(step)
            if wait:
                self._manager.wait_until_finished()
                self._seal()

    def wait(self) -> None:
        """Until the save in progress is on disk."""
        with self._writing("in progress"):
            self._manager.wait_until_finished()
            self._seal()

    def close(self) -> None:
        with self._writing("in progress"):
            self._manager.wait_until_finished()
            self._seal()
            self._manager.close()

    def _seal(self) -> None:
        """Writes the checksums of finished steps; those that were deleted meanwhile have none to write."""
        for step in sorted(self._unsealed):
            if jax.process_index() == 0 and (self.folder / str(step)).is_dir():
                write_checksums(self.folder / str(step))
            self._unsealed.discard(step)

    def restore_latest(self, abstract: TrainState) -> tuple[TrainState, dict] | None:
        """The newest undamaged state with the shardings of `abstract`, and its meta; None where nothing was ever saved.

        A step that `damage` proves damaged is set aside as `<step>.damaged` once an older one has been restored.

        Raises:
          CheckpointError: every step is damaged, or a step failed to restore for another reason; nothing is renamed then.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                if reason := altered(self.folder / str(step)):
                    damaged[step] = reason
                    continue
                state, meta = self._restore(step, abstract)
            except Exception as error:  # orbax and tensorstore raise many types; `damage` decides what the error means
                reason = damage(self.folder / str(step))
                if reason is None:
                    raise CheckpointError(
                        f"checkpoint {step} in {self.folder} could not be restored ({_first_line(error)}). Its files are not "
                        "damaged and nothing was changed: make room on the device, or use the machine and config that saved it"
                    ) from error
                damaged[step] = reason
                continue
            for other, reason in damaged.items():
                print(
                    f"checkpoint {other} is damaged ({reason}); falling back to {step}",
                    file=sys.stderr,
                    flush=True,
                )
                self._set_aside(other)
            return state, meta
        aside = sorted(path.name for path in self.folder.glob("*.damaged"))
        if damaged or aside:
            found = ", ".join([*(f"{step} ({reason})" for step, reason in damaged.items()), *aside])
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be read: {found}. Nothing was changed. Restore one from a copy, or start anew in "
                "another --workdir"
            )
        return None

    def _restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict]:
        """The state of a step. A loss scale that only the checkpoint has is dropped; one that only `abstract` has begins anew."""
        scalar = functools.partial(jax.ShapeDtypeStruct, (), sharding=abstract.step.sharding)
        moving = {"optimizer": abstract.opt_state}
        if any(
            name.startswith("loss_scale.")
            for name in _array_names(self.folder / str(step) / "opt_state")
        ):
            moving["loss_scale"] = LossScale(scalar(np.float32), scalar(np.int32))
        args = ocp.args.Composite(
            params=ocp.args.StandardRestore(_weights(abstract)),
            opt_state=ocp.args.StandardRestore(moving),
            meta=ocp.args.JsonRestore(),
        )
        found = self._manager.restore(step, args=args)
        weights, moving, scale = found.params, found.opt_state, None
        if abstract.loss_scale is not None:
            scale = moving.get("loss_scale") or jax.device_put(
                LossScale.create(), abstract.step.sharding
            )
        counter = jax.device_put(np.int32(step), abstract.step.sharding)
        return TrainState(
            counter, weights["params"], moving["optimizer"], weights.get("ema_params"), scale
        ), found.meta

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            source = self.folder / str(step)
            target = self.folder / f"{step}.damaged"
            shutil.rmtree(target, ignore_errors=True)
            source.rename(target)
        self._manager.reload()

    def _check_space(self, weights, opt_state) -> None:
        if self._bytes is None:
            self._bytes = sum(
                x.size * x.dtype.itemsize for x in jax.tree.leaves((weights, opt_state))
            )
        free = shutil.disk_usage(self.folder).free
        if free < self._bytes:
            raise CheckpointError(
                f"disk full: a checkpoint takes {self._bytes / 1e6:,.0f} MB and {self.folder} has {free / 1e6:,.0f} MB free; "
                "make room and start again, the run resumes from its last checkpoint"
            )

    @contextlib.contextmanager
    def _writing(self, step):
        try:
            yield
        except (
            Exception
        ) as error:  # asynchronous saves raise what the writing thread raised, of any type
            raise CheckpointError(
                f"checkpoint {step} could not be written to {self.folder} ({_first_line(error)}): is the disk full? "
                "Make room and start again, the run resumes from its last checkpoint"
            ) from error


def _weights(state: TrainState) -> dict:
    return {"params": state.params} | (
        {} if state.ema_params is None else {"ema_params": state.ema_params}
    )


def _moving(state: TrainState) -> dict:
    return {"optimizer": state.opt_state} | (
        {} if state.loss_scale is None else {"loss_scale": state.loss_scale}
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if os.strerror(errno.ENOSPC) in text:
        return os.strerror(errno.ENOSPC)
    if os.strerror(errno.EFBIG) in text:
        return os.strerror(errno.EFBIG)
    return text.splitlines()[0][:120]
