"""Runs a list of configs one after another and compares them: python scripts/sweep.py configs/sweeps/recipe.py --seeds 3.

A sweep file names a CONFIG, overrides COMMON to all runs and RUNS, {name: overrides}, of which the first is the baseline.
Every run is a training of its own in a folder of its own, so that the same command goes on where it was stopped. Kept
beside the runs: rows.jsonl, table.md and table.png.
"""

import argparse
import concurrent.futures
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from hlm_jax import config as configs
from hlm_jax.errors import UserError, exit_on_user_error

REPO = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument(
        "sweep", metavar="SWEEP.py", help="a sweep file, such as configs/sweeps/recipe.py"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="seeds 0 to N-1 of every run (default: 1)"
    )
    parser.add_argument(
        "--runs", nargs="+", metavar="NAME", help="only these runs, and the baseline"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs at once, each on its share of the CPU cores (default: 1)",
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="where the sweep is kept (default: runs/sweeps/<file name>)",
    )
    args = parser.parse_args()
    with exit_on_user_error("sweep"):
        sweep(args)


def sweep(args) -> None:
    module = configs.load_module(args.sweep, needs=("CONFIG", "COMMON", "RUNS"))
    if args.seeds < 1 or args.jobs < 1:
        raise UserError("--seeds and --jobs must be at least 1")
    names = list(module.RUNS)
    if args.runs:
        if unknown := [name for name in args.runs if name not in names]:
            raise UserError(f"{args.sweep} has no run {unknown[0]!r}: there is {'; '.join(names)}")
        names = [name for name in names if name == names[0] or name in args.runs]
    workdir = Path(args.workdir or Path("runs/sweeps") / Path(args.sweep).stem)
    jobs = []
    for seed in range(args.seeds):  # a whole round of every run before the next seed
        for name in names:
            overrides = [*module.COMMON, *module.RUNS[name], f"seed={seed}"]
            config = configs.load_config(
                module.CONFIG, overrides
            )  # a mistake in the last run is found before the first
            if not config.split.held_out:
                raise UserError(
                    f"run {name!r} holds no chapters out, nothing could be compared: add split.held_out=true to COMMON"
                )
            folder = workdir / (re.sub(r"[^\w.-]+", "_", name) + f"-seed{seed}")
            jobs.append(
                (
                    name,
                    seed,
                    folder,
                    module.CONFIG,
                    overrides,
                    configs.count_parameters(config.model),
                )
            )
    rows = []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        cores = sorted(os.sched_getaffinity(0))
        shares = [set(cores[i :: args.jobs]) or set(cores) for i in range(args.jobs)]
        try:
            for row in pool.map(lambda job: run_one(*job, shares), jobs):
                rows.append(row)
                print(
                    f"{row['name']}, seed {row['seed']}: {row['best']:.4f} bits/char at step {row['best_step']}",
                    flush=True,
                )
                write_results(workdir, rows)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    print("\n" + (workdir / "table.md").read_text(encoding="utf-8"))


def run_one(name, seed, folder: Path, config: str, overrides, parameters: int, shares) -> dict:
    """Trains and scores one run, or reads what an earlier call found; its row."""
    kept = folder / "row.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        share = shares.pop() if len(shares) > 1 else shares[0]
        try:
            words = [
                "-m",
                "hlm_jax.train",
                "--config",
                config,
                "--workdir",
                folder,
                *(f"--config.{word}" for word in overrides),
            ]
            began = time.monotonic()
            try:
                if "stopped at step" in run_command(words, folder / "log.txt", share):
                    raise UserError(
                        f"the training of {name!r} was asked to stop; the same command goes on with it"
                    )
            finally:  # also of an interrupted attempt: the times add up
                with (folder / "seconds.txt").open("a") as file:
                    file.write(f"{time.monotonic() - began:.1f}\n")
            score = json.loads(
                run_command(
                    [REPO / "scripts/evaluate.py", "--workdir", folder, "--per_chapter", "--json"],
                    None,
                    share,
                )
            )
        finally:
            if share not in shares:
                shares.append(share)
        records = [
            json.loads(line)
            for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        row = {
            "name": name,
            "seed": seed,
            "parameters": parameters,
            "steps": records[-1]["step"],
            "epochs": max(r["epoch"] for r in records if "epoch" in r),
            "seconds": sum(map(float, (folder / "seconds.txt").read_text().split())),
            "best": score["bits_per_char"],
            "best_step": score["step"],
            "last": [r["val_bits_per_char"] for r in records if "val_bits_per_char" in r][-1],
            "ngram": score["ngram_bits_per_char"],
            "chapters": [
                [c["number"], c["chars"], c["bits_per_char"] * c["chars"]]
                for c in score["chapters"]
            ],
            "overrides": overrides,
        }
        kept.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    row = json.loads(kept.read_text(encoding="utf-8"))
    if row["overrides"] != overrides:
        raise UserError(
            f"{folder} holds run {name!r} with other overrides ({' '.join(row['overrides'])}): use another --workdir"
        )
    return row


def run_command(words, log: Path | None, cores: set[int]) -> str:
    """The output of a Python command on these cores; also written to `log`."""
    limit = {"OMP_NUM_THREADS": str(len(cores))} if len(cores) < os.cpu_count() else {}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(
        command,
        cwd=Path.cwd(),
        capture_output=True,
        text=True,
        env=os.environ | limit,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if log:
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{' '.join(command[1:5])} … ended with code {done.returncode}: {last}")
    return done.stdout


def compare(rows) -> list[dict]:
    """One line per run: means over its seeds, and the difference from the first run on the same chapters and seeds."""
    from hlm_jax.measures.score import paired_difference

    by_name = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["seed"]] = row
    baseline = next(iter(by_name.values()))
    lines = []
    for name, seeds in by_name.items():
        averaged = ("best", "best_step", "last", "steps", "epochs", "seconds")
        mean = {key: statistics.fmean(row[key] for row in seeds.values()) for key in averaged}
        line = {
            "name": name,
            "seeds": len(seeds),
            "parameters": next(iter(seeds.values()))["parameters"],
        } | mean
        line["ratio"] = statistics.fmean(row["best"] / row["ngram"] for row in seeds.values())
        both = sorted(seeds.keys() & baseline.keys())
        if seeds is not baseline and both:
            bits = [
                [[bits for *_, bits in of[seed]["chapters"]] for seed in both]
                for of in (seeds, baseline)
            ]
            chars = [chars for _, chars, _ in baseline[both[0]]["chapters"]]
            line["difference"] = paired_difference(*bits, chars)
        lines.append(line)
    return lines


def write_results(workdir: Path, rows) -> None:
    lines = compare(rows)
    (workdir / "rows.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    head = (
        "run",
        "seeds",
        "parameters",
        "epochs",
        "seconds",
        "best bits/char",
        "at step",
        "last",
        "of the 5-gram",
        "difference [95 %]",
    )
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for line in lines:
        found = line.get("difference")
        cells = [
            line["name"],
            line["seeds"],
            f"{line['parameters']:,}",
            f"{line['epochs']:.1f}",
            f"{line['seconds']:.0f}",
        ]
        cells += [
            f"{line['best']:.4f}",
            f"{line['best_step']:.0f} of {line['steps']:.0f}",
            f"{line['last']:.4f}",
            f"{line['ratio']:.4f}",
        ]
        cells.append(
            "baseline" if found is None else f"{found[0]:+.4f} [{found[1]:+.4f}, {found[2]:+.4f}]"
        )
        table.append("| " + " | ".join(map(str, cells)) + " |")
    (workdir / "table.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    plot(workdir / "table.png", lines)


def plot(path: Path, lines) -> None:
    """Every run's difference from the baseline with its interval; blue where all of it is better, red where worse."""
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
        axes.errorbar(
            middle, place, xerr=[[middle - low], [high - middle]], fmt="o", color=color, capsize=3
        )
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


if __name__ == "__main__":
    main()
