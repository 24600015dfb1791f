"""Trains a list of configs and compares them: python scripts/sweep.py configs/sweeps/recipe.py.

The same command goes on where it was stopped. What a sweep file holds: hlm_jax/sweep.py.
"""

import argparse
import os
from pathlib import Path

from hlm_jax import sweep
from hlm_jax.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("sweep", metavar="SWEEP.py", help="a sweep file, such as configs/sweeps/recipe.py")
    add("--seeds", type=int, default=1, help="seeds 0 to N-1 of every run (default: 1)")
    add("--runs", nargs="+", metavar="NAME", help="only these runs, and the baseline")
    add("--jobs", type=int, default=1, help="runs at once, the CPU cores divided (default: 1)")
    add("--workdir", metavar="DIR", help="the sweep's folder (default: runs/sweeps/<file name>)")
    args = parser.parse_args()
    with exit_on_user_error("sweep"):
        workdir = args.workdir or f"runs/sweeps/{Path(args.sweep).stem}"
        workdir = Path(os.path.expanduser(workdir))
        jobs = sweep.plan(args.sweep, seeds=args.seeds, runs=args.runs, workdir=workdir)
        sweep.run(jobs, workdir, at_once=args.jobs, report=report)
        print("\n" + (workdir / "table.md").read_text(encoding="utf-8"))


def report(row: sweep.Row) -> None:
    print(
        f"{row['name']}, seed {row['seed']}: {row['best']:.4f} bits/char at step "
        f"{row['best_step']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
