"""Runs a list of configs one after another and compares them on the validation chapters.

A sweep file names a CONFIG, overrides COMMON to all runs, and RUNS, {name: overrides}, of which the
first is the baseline. Every run is a training in a process and a folder of its own, so the same
command goes on where it was stopped. Next to the runs it keeps rows.jsonl, table.md and table.png.
"""

import concurrent.futures
import dataclasses
import json
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hlm_jax import config as configs
from hlm_jax import process
from hlm_jax.errors import Stopped, UserError

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One training of a sweep."""

    name: str
    seed: int
    folder: Path
    config: str
    overrides: tuple[str, ...]
    resolved: dict[str, Any]  # the config as config.recorded returns it
    parameters: int


def plan(sweep: str, *, seeds: int, runs: Iterable[str] | None, workdir: Path) -> list[Job]:
    """The trainings of a sweep file, a whole round of every run before the next seed.

    Raises:
      UserError: a mistake in any run, before anything is trained.
    """
    from hlm_jax.model.shape import GPTConfig

    module = configs.load_module(sweep, needs=("CONFIG", "COMMON", "RUNS"))
    if seeds < 1:
        raise UserError(f"--seeds must be at least 1, not {seeds}")
    names = list(module.RUNS)
    if runs:
        if unknown := [name for name in runs if name not in names]:
            raise UserError(f"{sweep} has no run {unknown[0]!r}: there is {'; '.join(names)}")
        names = [name for name in names if name == names[0] or name in runs]
    jobs = []
    for seed in range(seeds):
        for name in names:
            overrides = (*module.COMMON, *module.RUNS[name], f"seed={seed}")
            config = configs.load_config(module.CONFIG, overrides)
            if not config.split.held_out or config.split.train or config.split.test:
                raise UserError(
                    f"run {name!r} has no validation chapters, nothing could be compared: "
                    "add split.held_out=true to COMMON, and no split.train or split.test"
                )
            folder = workdir / (re.sub(r"[^\w.-]+", "_", name) + f"-seed{seed}")
            parameters = GPTConfig(**config.model).n_parameters
            jobs.append(
                Job(
                    name,
                    seed,
                    folder,
                    module.CONFIG,
                    overrides,
                    configs.recorded(config),
                    parameters,
                )
            )
    return jobs


def run(jobs: list[Job], workdir: Path, *, at_once: int, report: Callable[[Row], None]) -> None:
    """Runs all jobs, `at_once` of them at a time on as many parts of the CPU cores.

    `report` is called with the row of every job in their order; results are written after each.
    """
    if at_once < 1:
        raise UserError(f"--jobs must be at least 1, not {at_once}")
    cores = process.cores()
    free = [set(cores[i::at_once]) or set(cores) for i in range(at_once)]
    rows: list[Row] = []
    with process.passing_on() as passed, concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        try:
            for row in pool.map(lambda job: run_one(job, free), jobs):
                rows.append(row)
                report(row)
                write_results(workdir, rows)
                if passed and len(rows) < len(jobs):
                    raise Stopped("the sweep was asked to stop; the same command goes on with it")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run_one(job: Job, free: list[set[int]]) -> Row:
    """Trains and scores one run, or reads what an earlier call wrote; its row.

    Args:
      free: sets of CPU cores; one is taken for the training and given back.
    """
    kept = job.folder / "row.json"
    if not kept.exists():
        _refuse_other(job, job.folder / "config.json")
        cores = free.pop()
        try:
            process.train(job.config, job.overrides, job.folder, name=repr(job.name), on=cores)
        finally:
            free.append(cores)
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps(_row(job), ensure_ascii=False), encoding="utf-8")
        partial.replace(kept)
    row = json.loads(kept.read_text(encoding="utf-8"))
    _refuse_changed(job, row["config"])
    return row


def _refuse_other(job: Job, path: Path) -> None:
    """Refuses to go on with a training that was begun with another config."""
    if path.exists():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{path} is not JSON: delete {path.parent}") from None
        _refuse_changed(job, saved)


def _refuse_changed(job: Job, saved: dict[str, Any]) -> None:
    if changed := configs.differences(saved, job.resolved):
        raise UserError(
            f"{job.folder} holds run {job.name!r} with another config ({'; '.join(changed)}): "
            "use another --workdir"
        )


def _row(job: Job) -> Row:
    """What the comparison needs of a finished training: scores by chapter, times, steps."""
    from hlm_jax.measures.score import total
    from hlm_jax.run import load_run

    trained = load_run(job.folder)
    chapters = trained.read_chapters(split="val")
    scores = trained.score([chapter.text for chapter in chapters])
    lines = (job.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return {
        "name": job.name,
        "seed": job.seed,
        "parameters": trained.model.cfg.n_parameters,
        "steps": records[-1]["step"],
        "epochs": max(r["epoch"] for r in records if "epoch" in r),
        "seconds": process.seconds(job.folder),
        "best": total(scores).bits_per_char,
        "best_step": trained.step,
        "last": [r["val_bits_per_char"] for r in records if "val_bits_per_char" in r][-1],
        "ngram": trained.reference.baseline_bits_per_char([c.text for c in chapters]),
        "chapters": [
            [chapter.number, score.chars, score.bits_per_char * score.chars]
            for chapter, score in zip(chapters, scores, strict=True)
        ],
        "config": job.resolved,
    }


def compare(rows: list[Row]) -> list[Row]:
    """One line per run: means over its seeds, and its difference from the first run.

    The difference is on the same chapters and seeds, with its bootstrap interval.
    """
    from hlm_jax.measures.bootstrap import paired_difference

    by_name: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["seed"]] = row
    baseline = next(iter(by_name.values()))
    lines = []
    for name, seeds in by_name.items():
        averaged = ("best", "best_step", "last", "steps", "epochs", "seconds")
        line: Row = {"name": name, "seeds": len(seeds)}
        line["parameters"] = next(iter(seeds.values()))["parameters"]
        line |= {key: statistics.fmean(row[key] for row in seeds.values()) for key in averaged}
        line["ratio"] = statistics.fmean(row["best"] / row["ngram"] for row in seeds.values())
        both = sorted(seeds.keys() & baseline.keys())
        if seeds is not baseline and both:
            ours, theirs = (
                [[bits for *_, bits in of[seed]["chapters"]] for seed in both]
                for of in (seeds, baseline)
            )
            chars = [chars for _, chars, _ in baseline[both[0]]["chapters"]]
            line["difference"] = paired_difference(ours, theirs, chars)
        lines.append(line)
    return lines


def write_results(workdir: Path, rows: list[Row]) -> None:
    """Writes rows.jsonl, table.md and table.png into the sweep's folder."""
    lines = compare(rows)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (workdir / "rows.jsonl").write_text(text, encoding="utf-8")
    (workdir / "table.md").write_text(_table(lines), encoding="utf-8")
    _plot(workdir / "table.png", lines)


def _table(lines: list[Row]) -> str:
    head = ["run", "seeds", "parameters", "epochs", "seconds", "best bits/char", "at step", "last"]
    head += ["of the 5-gram", "difference [95 %]"]
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for line in lines:
        difference = "baseline"
        if interval := line.get("difference"):
            middle, low, high = interval
            difference = f"{middle:+.4f} [{low:+.4f}, {high:+.4f}]"
        cells = [
            line["name"],
            str(line["seeds"]),
            f"{line['parameters']:,}",
            f"{line['epochs']:.1f}",
            f"{line['seconds']:.0f}",
            f"{line['best']:.4f}",
            f"{line['best_step']:.0f} of {line['steps']:.0f}",
            f"{line['last']:.4f}",
            f"{line['ratio']:.4f}",
            difference,
        ]
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table) + "\n"


def _plot(path: Path, lines: list[Row]) -> None:
    """Every run's difference from the baseline with its interval.

    Blue where the whole interval is better, red where it is worse.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [line for line in lines if "difference" in line]
    if not lines:
        return
    figure = Figure(figsize=(7.5, 1.3 + 0.3 * len(lines)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, line in enumerate(reversed(lines)):
        middle, low, high = line["difference"]
        color = "#4878a8" if high < 0 else "#c44e52" if low > 0 else "#777777"
        away = [[middle - low], [high - middle]]
        axes.errorbar(middle, place, xerr=away, fmt="o", color=color, capsize=3)
    axes.axvline(0, color="#555555", linewidth=1)
    axes.set_yticks(range(len(lines)), [line["name"] for line in reversed(lines)])
    axes.set(
        xlabel="bits per character against the baseline (95 %, paired by chapter); left is better"
    )
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial)
    partial.replace(path)
