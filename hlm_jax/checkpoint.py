"""What a checkpoint is, and reading it as numpy, without the code or the devices that wrote it.

A step folder under `<workdir>/checkpoints` holds three items. `params` are the weights, and their
average where one is kept. `opt_state` is the optimizer's. `meta` is a JSON with the config, the
tokenizer's model, the corpus report, package versions and metrics. So a checkpoint is enough to
read a model anywhere. Only finished steps count: orbax writes to a temporary folder and renames it.
"""

import base64
import contextlib
import errno
import importlib.metadata
import json
import logging
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from hlm_jax import config as configs
from hlm_jax.book.hf_tokenizer import HFTokenizer
from hlm_jax.book.tokenizer import BaseTokenizer, Tokenizer
from hlm_jax.errors import UserError

METRIC = "val_bits_per_char"
PACKAGES = (
    "hlm-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "sentencepiece",
    "tokenizers",
    "numpy",
    "ml_collections",
)
_CHECKSUMS = "checksums.json"
# tensorstore's status codes for data that is missing, cut short or altered.
_DAMAGE = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT")
# Orbax logs dozens of lines a save, and a traceback next to the exception that it raises.
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


class CheckpointError(UserError):
    """No checkpoint, a damaged one, a workdir in use or not writable, a full disk."""


def make_meta(
    *, config: dict, tokenizer: BaseTokenizer, corpus_report: dict, metrics: dict
) -> dict:
    """The JSON that travels with the weights; `config` as config.recorded gives it."""
    versions = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "config": config,
        "tokenizer": base64.b64encode(tokenizer.model_bytes).decode(),
        "tokenizer_format": tokenizer.format,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "corpus": corpus_report,
        "versions": versions,
        "metrics": metrics,
    }


def tokenizer_of(meta: dict) -> BaseTokenizer:
    """The tokenizer inside a checkpoint, checked against its fingerprint.

    Raises:
      UserError: it was altered, is of a format of a later version, or needs an extra.
    """
    formats = {Tokenizer.format: Tokenizer, HFTokenizer.format: HFTokenizer.from_model_bytes}
    written = meta.get("tokenizer_format", Tokenizer.format)  # earlier versions knew only this one
    if written not in formats:
        raise CheckpointError(
            f"the checkpoint's tokenizer is of the format {written!r}, which this version of "
            "hlm_jax does not read: install a newer one"
        )
    tokenizer = formats[written](base64.b64decode(meta["tokenizer"]))
    if tokenizer.fingerprint != meta["tokenizer_fingerprint"]:
        raise CheckpointError(
            "the checkpoint's tokenizer does not match its fingerprint: the file was altered"
        )
    return tokenizer


def folder_of(workdir: str | Path) -> Path:
    """The folder of a run's checkpoints."""
    return Path(os.path.expanduser(workdir)).resolve() / "checkpoints"


def steps_in(workdir: str | Path) -> list[int]:
    """Finished steps, oldest first."""
    folder = folder_of(workdir)
    try:
        names = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror})") from error
    return sorted(int(name) for name in names if name.isdecimal())


def read_meta(workdir: str | Path, step: int) -> dict[str, Any]:
    """The meta item of a step; its config has today's keys, whatever version wrote it.

    Raises:
      CheckpointError: it cannot be read.
    """
    path = folder_of(workdir) / str(step) / "meta" / "metadata"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        return meta | {"config": configs.upgrade(meta["config"])}
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"checkpoint {step} in {workdir} is damaged (its metadata cannot be read)"
        ) from error


def resolve_step(workdir: str | Path, step: str | int) -> int:
    """ "latest", "best" (by validation bits per character, else the latest) or a number, as a step.

    Raises:
      CheckpointError: there is no such checkpoint.
    """
    steps = steps_in(workdir)
    if not steps and (Path(workdir) / "folds.json").is_file():
        raise CheckpointError(
            f"{workdir} holds fold models, not one run: use surprisal.py --folds {workdir}, or one "
            f"of them as --workdir {workdir}/fold-01"
        )
    if not steps and (links := trained_links(workdir)):
        raise CheckpointError(
            f"{workdir} holds a chain, not one run: use one of its links, --workdir {links[-1]}"
        )
    if not steps and not Path(workdir).is_dir():
        raise CheckpointError(f"there is no folder {workdir}: give the --workdir of a training")
    if not steps:
        raise CheckpointError(
            f"no checkpoint in {workdir}: train first, with "
            f"python -m hlm_jax.train --config … --workdir {workdir}"
        )
    if step == "latest":
        return steps[-1]
    if step == "best":
        scores: dict[int, float] = {}
        for s in steps:
            with contextlib.suppress(CheckpointError):
                score = read_meta(workdir, s)["metrics"].get(METRIC)
                if score is not None and np.isfinite(score):
                    scores[s] = score
        return min(scores, key=lambda s: scores[s]) if scores else steps[-1]
    if not str(step).isdecimal():
        raise CheckpointError(f"--step must be latest, best or a number, not {step!r}")
    if int(step) not in steps:
        there = ", ".join(map(str, steps))
        raise CheckpointError(f"no checkpoint at step {step} in {workdir}: there is {there}")
    return int(step)


def trained_links(workdir: str | Path) -> list[Path]:
    """The links of a chain (distillation.py) that have a checkpoint, in their order."""
    workdir = Path(workdir)
    numbers = (path.name.removeprefix("link-") for path in workdir.glob("link-*"))
    links = [workdir / f"link-{k}" for k in sorted(int(n) for n in numbers if n.isdecimal())]
    return [link for link in links if steps_in(link)]


def read(workdir: str | Path, step: str | int = "best") -> tuple[int, dict[str, Any], dict]:
    """(step, weights, meta): weights are nested dicts of numpy arrays.

    Where an average of the weights was kept, it is what is read. A damaged "latest" falls back to
    the one before and prints so. Writes nothing.

    Raises:
      CheckpointError: no readable checkpoint.
    """
    chosen = resolve_step(workdir, step)
    candidates = [chosen]
    if step == "latest":
        candidates = [s for s in reversed(steps_in(workdir)) if s <= chosen]
    for candidate in candidates:
        folder = folder_of(workdir) / str(candidate)
        reason = None
        try:
            reason = altered(folder, ("meta", "params"))
            if reason is None:
                meta = read_meta(workdir, candidate)
                tree = ocp.PyTreeCheckpointer().metadata(folder / "params").item_metadata.tree
                name = "ema_params" if "ema_params" in tree else "params"
                as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
                weights = ocp.PyTreeCheckpointer().restore(folder / "params", restore_args=as_numpy)
                return candidate, weights[name], meta
        except Exception as error:  # of many types; `damage` decides what the error means
            reason = reason or damage(folder)
            if reason is None:
                raise CheckpointError(
                    f"checkpoint {candidate} in {workdir} could not be read "
                    f"({first_line(error)}); no damage was found in its files"
                ) from error
        if candidate == candidates[-1]:
            raise CheckpointError(f"checkpoint {candidate} in {workdir} is damaged: {reason}")
        print(
            f"checkpoint {candidate} is damaged ({reason}); reading the one before", file=sys.stderr
        )
    raise AssertionError("unreachable")


def write_checksums(folder: Path) -> None:
    """Records the CRC-32 of every file of a finished step in the step's folder.

    The array format has no checksum over the numbers.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _CHECKSUMS)
    sums = {p.relative_to(folder).as_posix(): zlib.crc32(p.read_bytes()) for p in files}
    partial = folder / f"{_CHECKSUMS}.partial"
    partial.write_text(json.dumps(sums, indent=0), encoding="utf-8")
    partial.replace(folder / _CHECKSUMS)


def has_checksums(folder: Path) -> bool:
    """Whether the checksums of a step are recorded."""
    return (folder / _CHECKSUMS).exists()


def altered(folder: Path, items: tuple[str, ...] = ("meta", "params", "opt_state")) -> str | None:
    """Names a file of these items that is missing or differs from its checksum, else None.

    A step saved by version 0.1.0 has no checksums and passes.
    """
    if not has_checksums(folder):
        return None
    try:
        sums = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
    except ValueError:
        return f"{_CHECKSUMS} is not JSON"
    for name, recorded in sums.items():
        if name.split("/")[0] in items:
            if not (folder / name).exists():
                return f"{name} is missing"
            if zlib.crc32((folder / name).read_bytes()) != recorded:
                return f"{name} differs from its checksum"
    return None


def damage(folder: Path) -> str | None:
    """Why nobody can read the step in `folder`, or None where its files are sound.

    Every array is read on the host, one at a time, without a device. Damage is a missing file, a
    wrong checksum, metadata that is not JSON, and data that tensorstore reports as cut or absent.
    Lack of memory, permissions and a model that does not fit are no damage.
    """
    try:
        if reason := altered(folder):
            return reason
        json.loads((folder / "meta" / "metadata").read_text(encoding="utf-8"))
        for item in ("params", "opt_state"):
            for name in array_names(folder / item):
                store = {"driver": "ocdbt", "base": f"file://{folder / item}/", "path": f"{name}/"}
                array = tensorstore.open({"driver": "zarr", "kvstore": store}, open=True).result()
                array.read().result()
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except UnicodeDecodeError:
        return "its metadata is not text"
    except json.JSONDecodeError:
        return "its metadata is not JSON"
    except (KeyError, TypeError):
        return "its metadata is incomplete"
    except ValueError as error:  # tensorstore puts its status first
        return first_line(error) if str(error).startswith(_DAMAGE) else None
    except (OSError, MemoryError):
        return None
    return None


def array_names(item: Path) -> list[str]:
    """The arrays of an orbax item, as keys joined by dots."""
    tree = json.loads((item / "_METADATA").read_text(encoding="utf-8"))["tree_metadata"]
    leaves = [x for x in tree.values() if not x["value_metadata"].get("skip_deserialize")]
    return [".".join(key["key"] for key in leaf["key_metadata"]) for leaf in leaves]


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, or the system's words for a full disk or a large file."""
    text = str(error).strip() or type(error).__name__
    for number in (errno.ENOSPC, errno.EFBIG):
        if os.strerror(number) in text:
            return os.strerror(number)
    return text.splitlines()[0][:120]
