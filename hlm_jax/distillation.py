"""A chain of models: each learns from the text and from the model before it; the last is kept.

Furlanello et al., "Born-Again Neural Networks", arXiv 1805.04770. Link 1 trains on the text alone.
Link k trains on the text and on what link k - 1 predicts (`train.teachers`), from other random
weights and with windows in another order. Models of several kinds may take turns. With
`train.init_from` all links start from the weights of that model instead. Every link is an ordinary
run in a folder of its own, so the same call goes on where it was stopped, and a longer chain goes
on from a shorter one.
"""

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hlm_jax import config as configs
from hlm_jax.book.corpus import load_corpus
from hlm_jax.book.splits import split_chapters
from hlm_jax.errors import Stopped, UserError
from hlm_jax.process import FINISHED, Job, Say, make_folder, seconds, train_all, write_text
from hlm_jax.training.progress import say

TABLE, NATS = "table.md", "nats.json"  # in the chain's folder, and in that of each link
_DECIMALS = 5  # of the kept nats: far below what a figure shows


@dataclasses.dataclass(frozen=True)
class Link:
    """What a finished link costs on the validation chapters.

    Attributes:
      number: from 1.
      folder: its workdir.
      step: of its best checkpoint.
      bits_per_char: of this link alone.
      mean_bits_per_char: of the mean of the probabilities by the links up to this one.
      ngram_bits_per_char: of the Kneser-Ney 5-gram.
      seconds: that its training took.
    """

    number: int
    folder: Path
    step: int
    bits_per_char: float
    mean_bits_per_char: float
    ngram_bits_per_char: float
    seconds: float

    def __str__(self) -> str:
        line = f"link {self.number}: {self.bits_per_char:.4f} bits/char at step {self.step}"
        if self.number > 1:
            line += f"; mean of links 1-{self.number}: {self.mean_bits_per_char:.4f}"
        return f"{line} (5-gram {self.ngram_bits_per_char:.4f})"


def train_chain(
    files: Sequence[str],
    overrides: Sequence[str],
    *,
    links: int,
    workdir: str | Path,
    say: Say = say,
) -> list[Link]:
    """Trains a chain of `links` models in `workdir`/link-1, link-2, … and scores each.

    Link k has the seed of the config + k - 1. Its teacher is link k - 1 as a reader opens it: its
    best checkpoint, without dropout and noise. The scores are computed in this process, on its JAX
    device; scripts/chain.py leaves that to the CPU, so that the trainings have the device.

    Args:
      files: config files that take turns, one or more. With several, models of different kinds
        teach one another; all must read the same book with the same tokenizer.
      overrides: "section.key=value" words. `train.teacher_weight` weighs the teacher.
      links: how many models, at least 1.
      workdir: the chain's folder, which may be moved between calls. Its table.md is written after
        every link, and keeps the rows of finished links beyond `links`.
      say: is given lines: progress, and the scores of every link.

    Returns:
      The links, in their order.

    Raises:
      UserError: before anything is trained: a config that makes no sense, names teachers or holds
        no validation chapters out; more configs than links; a `workdir` that is a file, holds a run
        or was begun with another config or book; damaged scores of a finished link. Later: a
        training that failed.
      Stopped: a training was asked to stop, or Ctrl-C came while a link was scored.
    """
    workdir = Path(os.path.expanduser(workdir))
    jobs = plan(files, overrides, links=links, workdir=workdir)
    a_run = all((workdir / name).exists() for name in ("config.json", "corpus.json"))
    if a_run and not jobs[0].folder.exists():
        raise UserError(f"{workdir} holds one run, not a chain: use another --workdir")
    resolved = configs.load_config(jobs[0].config, jobs[0].words)
    book = load_corpus(**configs.book_arguments(resolved))
    split_chapters(book.chapters, **resolved.split)
    make_folder(workdir)
    kept = {folder: _read(folder / NATS) for folder in _scored_before(workdir, jobs)}
    finished = 0  # links from the first on, which table.md may have already
    while _is_finished(folder := _folder(workdir, finished + 1)) and (
        finished < links or folder in kept
    ):
        finished += 1
    rows: list[Link] = []
    nats: list[list[np.ndarray]] = []

    def before(job: Job) -> None:
        # Scores of a training before this one, whose checkpoints are gone.
        (job.folder / NATS).unlink(missing_ok=True)

    def after(job: Job) -> None:
        if job.folder not in kept:
            say(f"{job.folder.name}: scores the validation chapters")
            write_text(job.folder / NATS, json.dumps(_scores(job.folder, resolved.corpus.path)))
            kept[job.folder] = _read(job.folder / NATS)
        while (folder := _folder(workdir, len(rows) + 1)) in kept:
            nats.append([np.array(of) for of in kept[folder]["nats"]])
            rows.append(_link(folder, kept[folder], nats))
        if len(rows) >= finished:
            write_text(workdir / TABLE, table(rows))
        say(str(rows[jobs.index(job)]))

    try:
        train_all(jobs, book.report, say, after, before)
    except KeyboardInterrupt:  # between two trainings: one that runs is asked to save
        raise Stopped("the chain was interrupted; the same command goes on with it") from None
    return rows[:links]


def plan(files: Sequence[str], overrides: Sequence[str], *, links: int, workdir: Path) -> list[Job]:
    """The trainings of a chain; trains and writes nothing.

    Raises:
      UserError: as train_chain; the book and the folders are not looked at.
    """
    if links < 1:
        raise UserError(f"--links must be at least 1, not {links}")
    if links < len(files):
        raise UserError(
            f"--links {links} leaves some of the {len(files)} configs out: give more links or "
            "fewer configs"
        )
    resolved = [configs.load_config(file, overrides) for file in files]
    for config in resolved:
        if config.train.teachers:
            raise UserError(
                "the teacher of a link is the link before it: leave train.teachers empty"
            )
        split = config.split
        if not split.held_out or split.train or split.test:
            raise UserError(
                "links are compared on validation chapters: set --config.split.held_out=true, and "
                "no split.train or split.test"
            )
    for file, config in zip(files[1:], resolved[1:], strict=True):
        first, now = _in_common(resolved[0]), _in_common(config)
        if changed := [key for key in first if first[key] != now[key]]:
            raise UserError(
                f"{files[0]} and {file} differ in {', '.join(changed)}, which all links have in "
                f"common: set {' and '.join(f'--config.{key}' for key in changed)}"
            )
    if "," in str(workdir):
        raise UserError(f"{workdir} has a comma, which separates teachers: use another --workdir")
    jobs: list[Job] = []
    for k in range(1, links + 1):
        turn = (k - 1) % len(files)
        words = [*overrides, f"seed={resolved[turn].seed + k - 1}"]
        words += [f"train.teachers={jobs[-1].folder}"] if jobs else []
        folder = _folder(workdir, k)
        name = f"link {k} of {links}"
        jobs.append(Job(name, folder, files[turn], tuple(words), moves=("train.teachers",)))
    return jobs


def table(links: Sequence[Link]) -> str:
    """The links as a table in Markdown."""
    head = ["link", "at step", "seconds", "bits/char", "of the 5-gram", "mean of the links so far"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for link in links:
        cells = [
            str(link.number),
            str(link.step),
            f"{link.seconds:.0f}",
            f"{link.bits_per_char:.4f}",
            f"{link.bits_per_char / link.ngram_bits_per_char:.4f}",
            f"{link.mean_bits_per_char:.4f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def commands(links: Sequence[Link]) -> list[str]:
    """Command lines to go on with: scores of the last link and of the mean, and samples."""
    last = ["--workdir", str(links[-1].folder)]
    lines = [["scripts/evaluate.py", *last], ["scripts/sample.py", *last]]
    if len(links) > 1:
        several = [str(link.folder) for link in links]
        lines.insert(1, ["scripts/evaluate.py", "--ensemble", *several])
    return [shlex.join(["python", *line]) for line in lines]


def _link(folder: Path, kept: dict[str, Any], nats: Sequence[list[np.ndarray]]) -> Link:
    """The newest link; `nats` are those of all links up to it."""
    from hlm_jax.measures.mixture import mix

    def bits(of: list[np.ndarray]) -> float:
        return float(sum(text.sum() for text in of) / np.log(2) / kept["chars"])

    number = len(nats)
    return Link(
        number,
        folder,
        kept["step"],
        bits(nats[-1]),
        bits(mix(nats, [1 / number] * number)),
        kept["ngram_bits_per_char"],
        seconds(folder),
    )


def _in_common(config: ConfigDict) -> dict[str, Any]:
    """What a student and its teacher must agree in: book, split, tokenizer, length of windows."""
    of = "corpus.", "split.", "tokenizer.", "train.init", "model.vocab_size", "model.block_size"
    free = "corpus.extra", "corpus.cache_dir"
    return {
        key: value
        for key, value in configs.flatten(configs.recorded(config)).items()
        if key.startswith(of) and not key.startswith(free)
    }


def _folder(workdir: Path, number: int) -> Path:
    return workdir / f"link-{number}"


def _is_finished(folder: Path) -> bool:
    return (folder / FINISHED).exists()


def _scored_before(workdir: Path, jobs: Sequence[Job]) -> list[Path]:
    """Finished links that have scores: of those to train, and of those that follow them."""
    folders = [job.folder for job in jobs]
    while _is_finished(beyond := _folder(workdir, len(folders) + 1)):
        folders.append(beyond)
    return [folder for folder in folders if _is_finished(folder) and (folder / NATS).exists()]


def _read(path: Path) -> dict[str, Any]:
    """What a finished link costs, as `_scores` gave it."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError:
        kept = None
    names = {"step", "chars", "ngram_bits_per_char", "nats"}
    if not isinstance(kept, dict) or not kept.keys() >= names:
        raise UserError(f"{path} holds no scores: delete it, and give the command again")
    return kept


def _scores(folder: Path, book: str) -> dict[str, Any]:
    """What a finished link costs on the validation chapters.

    `nats` of every token, a list a chapter; `chars` of them all; `step`; `ngram_bits_per_char`.
    """
    from hlm_jax.measures.mixture import ensemble_nats
    from hlm_jax.run import load_run

    run = load_run(folder, corpus=book or None)
    texts = [chapter.text for chapter in run.read_chapters(split="val")]
    return {
        "step": run.step,
        "chars": sum(map(len, texts)),
        "ngram_bits_per_char": run.reference.baseline_bits_per_char(texts),
        "nats": [np.round(of, _DECIMALS).tolist() for of in ensemble_nats([run], texts)],
    }
