"""Models that never saw the chapters they score: one training for every fold of a book.

`train_folds` holds every chapter of a book out once; `train_on` trains on chapters that the caller
names. Every training is a process and a folder of its own, so the same call goes on where it was
stopped and repeats nothing that is finished. Everything fitted belongs to a fold: the vocabulary,
the weights, the 5-gram. No chapter validates, so no held-out one decides when to stop.
"""

import dataclasses
import json
import math
import os
import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from hlm_jax import config as configs
from hlm_jax.book.chapters import Chapter
from hlm_jax.book.corpus import Corpus, difference, load_corpus
from hlm_jax.book.splits import split_chapters
from hlm_jax.errors import UserError
from hlm_jax.measures.leakage import find_leakage, refuse
from hlm_jax.model.shape import GPTConfig
from hlm_jax.numbers import written_numbers
from hlm_jax.process import FINISHED, Job, Say, train_all, write_text
from hlm_jax.training.progress import duration, say

if TYPE_CHECKING:  # JAX loads when a run is opened
    from hlm_jax.run import Run

RECORD, SCORES = "folds.json", "scores.json"
_SCORED = {"fold", "number", "heading", "chars", "bits", "ngram_bits"}  # of a row of SCORES
# Of a Corpus report: what tells one book from another.
_BOOK = (
    *("name", "sha256", "characters", "chapters"),
    *("shortest_chapter", "longest_chapter", "lengths_sha256"),
)


def train_folds(
    config: str,
    overrides: Sequence[str],
    *,
    folds: int,
    workdir: str | Path,
    say: Say = say,
) -> list[Path]:
    """Trains `folds` models of a book; every chapter is held out by one of them.

    Fold k holds out the chapters k, k + folds, … of the book, counted from its first, which may be
    a prologue. Its folder is `workdir`/fold-01 and so on; `workdir`/folds.json tells which chapters
    each holds out. Stopped at any time, the same call goes on.

    Args:
      config: a config file; its `split.held_out` does not apply.
      overrides: "section.key=value" words.
      folds: at least 2, at most one a chapter.
      say: is given lines: what will be trained and an estimate, then the progress, with the time
        left by what was measured.

    Returns:
      The folds' folders, in their order.

    Raises:
      UserError: before anything is trained: a config that makes no sense or decides itself what is
        held out, another number of folds, config or book than `workdir` was begun with, a book
        whose held-out chapters are copies of others. Later: a training that failed.
      Stopped: a training was asked to stop.
    """
    workdir = Path(os.path.expanduser(workdir))
    plan = plan_folds(config, overrides, folds=folds)
    _begin(workdir, plan)
    jobs = [
        Job(f"fold {k} of {folds}", folder, config, words)
        for k, (folder, words) in enumerate(
            zip(_folders(workdir, folds), plan.words, strict=True), 1
        )
    ]
    for line in describe(plan, sum(not job.finished for job in jobs)):
        say(line)
    train_all(jobs, plan.book.report, say)
    return [job.folder for job in jobs]


def train_on(
    config: str,
    overrides: Sequence[str],
    *,
    workdir: str | Path,
    train: Sequence[int],
    test: Sequence[int] = (),
    vocabulary: Sequence[int] = (),
    say: Say = say,
) -> Path:
    """Trains one model on chapters that are given by their numbers.

    Nothing is done where `workdir` holds this training finished; stopped, the same call goes on.

    Args:
      config, overrides, say: as train_folds.
      train: the chapters that are trained on.
      test: chapters that are held out; load_run(workdir).reference.splits["test"] has their texts.
        Any other text can be scored too: the list is a record, and is checked for text that
        stands in training as well.
      vocabulary: the chapters that the tokenizer is fitted on; empty for those of `train`. Models
        of the same vocabulary have equal tokens, so that they can be compared token by token.

    Returns:
      `workdir`.

    Raises:
      UserError: as train_folds; a number that the book does not have, or in both lists.
    """
    folder = Path(os.path.expanduser(workdir))
    words = words_on(config, overrides, train, test, vocabulary)
    resolved = configs.load_config(config, words)
    book = load_corpus(**configs.book_arguments(resolved))
    split_chapters(book.chapters, **resolved.split)
    train_all([Job(folder.name, folder, config, words)], book.report, say)
    return folder


# --- what is to be trained ---


@dataclasses.dataclass(frozen=True)
class Plan:
    """The folds of a book, before anything is trained.

    Attributes:
      resolved: the config without what a fold holds out.
      held_out: the chapters of each fold.
      words: the overrides of each fold.
    """

    config: str
    overrides: tuple[str, ...]
    resolved: ConfigDict
    book: Corpus
    held_out: tuple[tuple[int, ...], ...]
    words: tuple[tuple[str, ...], ...]

    def command(self, workdir: Path) -> str:
        """The command line that trains these folds."""
        return _command(self.config, self.overrides, len(self.held_out), workdir)


def plan_folds(config: str, overrides: Sequence[str], *, folds: int) -> Plan:
    """Which chapters each fold holds out; trains and writes nothing.

    Raises:
      UserError: as train_folds.
    """
    resolved = _checked(config, overrides)
    book = load_corpus(**configs.book_arguments(resolved))
    numbers = [chapter.number for chapter in book.chapters]
    if not 2 <= folds <= len(numbers):
        raise UserError(f"{folds} folds: give 2 to {len(numbers)}, the book's number of chapters")
    held_out = tuple(tuple(numbers[k::folds]) for k in range(folds))
    words = []
    for chapters in held_out:
        words.append(words_on(config, overrides, (), chapters))
        split = configs.load_config(config, words[-1]).split
        refuse(find_leakage(split_chapters(book.chapters, **split)))
    return Plan(config, tuple(overrides), resolved, book, held_out, tuple(words))


def describe(plan: Plan, waiting: int) -> list[str]:
    """What will be trained, in lines, and how long it may take.

    The time is that of the products of matrices at 60 % of this CPU's speed. Without
    `train.steps`, steps are counted as if a character had 0.75 tokens.

    Args:
      waiting: folds that are not finished.
    """
    shape, train = GPTConfig(**plan.resolved.model), plan.resolved.train
    folds, report = len(plan.held_out), plan.book.report
    windows = 0.75 * report["characters"] * (1 - 1 / folds) / shape.block_size
    steps = train.steps or math.ceil(train.epochs * windows / train.batch_size)
    flops = shape.flops_per_token * train.batch_size * shape.block_size * steps * waiting
    lines = [
        f"{folds} folds of {report['name']}: {report['characters']:,} characters in "
        f"{report['chapters']} chapters; each fold trains {shape.n_parameters:,} parameters for "
        f"{'' if train.steps else 'about '}{steps:,} steps",
        *(
            f"  fold {k} holds out {len(numbers)} chapters: {written_numbers(numbers)}"
            for k, numbers in enumerate(plan.held_out, 1)
        ),
    ]
    if waiting:
        lines.append(
            f"{waiting} to train: about {duration(flops / (0.6 * _product_speed()))} on this CPU "
            "(an estimate from the speed of a matrix product; what is measured follows)"
        )
    return lines


def _product_speed() -> float:
    """Floating-point operations in a second of a product of float32 matrices."""
    x, times = np.ones((1024, 1024), np.float32), 5
    x @ x
    began = time.perf_counter()
    for _ in range(times):
        x @ x
    return times * 2 * 1024**3 / (time.perf_counter() - began)


def _checked(config: str, overrides: Sequence[str]) -> ConfigDict:
    """The config; refuses one that decides itself what is held out, or that has teachers."""
    resolved = configs.load_config(config, overrides)
    if resolved.split.train or resolved.split.test or resolved.tokenizer.chapters:
        raise UserError(
            "folds decide which chapters are held out: leave split.train, split.test and "
            "tokenizer.chapters empty"
        )
    if resolved.train.teachers:
        raise UserError("train.teachers may have read the chapters of a fold: leave it empty")
    if resolved.train.init_from:
        raise UserError(
            "train.init_from names a model that has read the chapters of a fold: leave it empty"
        )
    return resolved


def words_on(
    config: str,
    overrides: Sequence[str],
    train: Iterable[int],
    test: Iterable[int],
    vocabulary: Iterable[int] = (),
) -> tuple[str, ...]:
    """The overrides of a training on some chapters, checked together with the config.

    Args:
      train, test, vocabulary: as train_on.

    Raises:
      UserError: as train_on. Whether the book has the chapters is not checked here.
    """
    _checked(config, overrides)
    words = (
        *overrides,
        f"split.train={written_numbers(train)}",
        f"split.test={written_numbers(test)}",
        f"tokenizer.chapters={written_numbers(vocabulary)}",
    )
    configs.load_config(config, words)
    return words


def _folders(workdir: Path, folds: int) -> list[Path]:
    return [workdir / f"fold-{k:02d}" for k in range(1, folds + 1)]


def _command(config: str, overrides: Iterable[str], folds: int, workdir: Path) -> str:
    words = ["python", "scripts/folds.py", "--config", config, "--folds", str(folds)]
    words += ["--workdir", str(workdir), *(f"--config.{word}" for word in overrides)]
    return shlex.join(words)


# --- the record ---


def _begin(workdir: Path, plan: Plan) -> None:
    """Writes folds.json, or compares it with the plan.

    Raises:
      UserError: the folder holds other folds, or cannot be written.
    """
    path = workdir / RECORD
    if not path.exists():
        content = {
            "config": plan.config,
            "overrides": list(plan.overrides),
            "folds": len(plan.held_out),
            "book": {name: plan.book.report[name] for name in _BOOK},
            "held_out": [list(chapters) for chapters in plan.held_out],
            "resolved": configs.recorded(plan.resolved),
        }
        _write_json(path, content)
        return
    record = read_record(workdir)
    changed = configs.differences(record["resolved"], configs.recorded(plan.resolved))
    if record["folds"] != len(plan.held_out):
        changed.insert(0, f"folds: {record['folds']} -> {len(plan.held_out)}")
    if why := difference(plan.book.report, record["book"]):
        changed.append(f"the book: {why}")
    if changed:
        raise UserError(
            f"{workdir} holds folds of another kind ({'; '.join(changed)}): use another --workdir"
        )


def read_record(workdir: str | Path) -> dict[str, Any]:
    """What folds.json tells: config, overrides, folds, book, held_out (numbers, a list a fold).

    Raises:
      UserError: there is none, or it is no such record.
    """
    path = Path(os.path.expanduser(workdir)) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (path.parent / "checkpoints").is_dir():
            raise UserError(
                f"{workdir} is one run, not a folder of fold models: use --workdir {workdir}"
            ) from None
        raise UserError(
            f"no folds in {workdir}: train them first, with python scripts/folds.py "
            f"--config configs/tiny.py --folds 5 --workdir {workdir}"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError:
        raise UserError(f"{path} is not JSON: delete it, and give the command again") from None
    kinds = {"config": str, "overrides": list, "folds": int, "book": dict, "held_out": list}
    kinds["resolved"] = dict
    if (
        not isinstance(record, dict)
        or not all(isinstance(record.get(name), kind) for name, kind in kinds.items())
        or not record["book"].keys() >= set(_BOOK)
    ):
        raise UserError(f"{path} is no record of folds: delete it, and give the command again")
    return record


def _read_scores(path: Path) -> list[dict[str, Any]]:
    """The rows of a scores.json.

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and row.keys() >= _SCORED for row in rows
    ):
        raise UserError(f"{path} holds no scores: delete it, and give the command again")
    return rows


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1))


# --- reading ---


def open_folds(workdir: str | Path, *, corpus: str | Path | None = None) -> "list[Run]":
    """The folds of a folder, for reading; all of them.

    Every run's reference.splits["test"] are the chapters that it did not see; together they are
    the book.

    Args:
      corpus: the book, where it is no longer in the place that the training recorded.

    Raises:
      UserError: a fold is not finished; names the command that finishes it.
    """
    from hlm_jax.run import load_run

    workdir = Path(os.path.expanduser(workdir))
    record = read_record(workdir)
    folders = _folders(workdir, record["folds"])
    if missing := [folder.name for folder in folders if not (folder / FINISHED).exists()]:
        command = _command(record["config"], record["overrides"], record["folds"], workdir)
        raise UserError(
            f"{workdir}: {', '.join(missing)} not finished; this command goes on: {command}"
        )
    return [load_run(folder, corpus=corpus) for folder in folders]


def score_folds(workdir: str | Path, *, say: Say = say) -> list[dict[str, Any]]:
    """Every chapter's cost under the fold that did not see it, in the book's order.

    A fold is scored once; its scores.json keeps the rows.

    Returns:
      Rows: fold (from 1), number, heading, chars, bits (of the whole chapter), ngram_bits (the same
      by the Kneser-Ney 5-gram of the fold's training chapters).

    Raises:
      UserError: as open_folds.
    """
    rows: list[dict[str, Any]] = []
    for k, run in enumerate(open_folds(workdir), 1):
        path = run.workdir / SCORES
        if not path.exists():
            say(f"fold {k}: scores its chapters")
            _write_json(path, [{"fold": k} | row for row in _rows(run)])
        rows += _read_scores(path)
    return sorted(rows, key=lambda row: row["number"])


def total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Characters of some rows of score_folds, and their bits per character by model and 5-gram."""
    chars = sum(row["chars"] for row in rows)
    return {
        "chars": chars,
        "bits_per_char": sum(row["bits"] for row in rows) / chars,
        "ngram_bits_per_char": sum(row["ngram_bits"] for row in rows) / chars,
    }


def _rows(run: "Run") -> list[dict[str, Any]]:
    chapters: list[Chapter] = run.reference.splits["test"]
    scores = run.score([chapter.text for chapter in chapters])
    return [
        {
            "number": chapter.number,
            "heading": chapter.heading,
            "chars": score.chars,
            "bits": score.bits_per_char * score.chars,
            "ngram_bits": run.reference.baseline_bits_per_char(chapter.text) * len(chapter.text),
        }
        for chapter, score in zip(chapters, scores, strict=True)
    ]
