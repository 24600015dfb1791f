"""Trains a model for every fold of a book: python scripts/folds.py --folds 5 --workdir runs/folds.

Every chapter is held out by one fold and scored by it. The same command goes on where it was
stopped. Config keys are set as in training.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from hlm_jax import cli


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        description=first,
        allow_abbrev=False,
        epilog="Config keys: --config.train.steps=400, --config.corpus.path=BOOK.txt, …",
    )
    add = parser.add_argument
    add("--config", default="configs/tiny.py", metavar="FILE", help="default: configs/tiny.py")
    add("--folds", type=int, default=5, metavar="K", help="how many models (default: 5)")
    add("--workdir", type=Path, default=Path("runs/folds"), metavar="DIR", help="runs/folds")
    add("--per_chapter", action="store_true", help="one row per chapter as well")
    add("--json", action="store_true", help="print the scores as one JSON object")
    args, overrides = cli.with_overrides(parser)
    with cli.command("folds"):
        run(args, overrides)


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    from hlm_jax import folds
    from hlm_jax.training.progress import say as show

    say = cli.note if args.json else show
    folds.train_folds(args.config, overrides, folds=args.folds, workdir=args.workdir, say=say)
    rows = folds.score_folds(args.workdir, say=say)
    if args.json:
        total = folds.total(rows)
        print(json.dumps(total | {"chapters": rows}, ensure_ascii=False))
        return
    for k in range(1, args.folds + 1):
        print(line_of(f"fold {k}", [row for row in rows if row["fold"] == k]))
    print(line_of("the book", rows))
    if args.per_chapter:
        for row in rows:
            print(line_of(f"  chapter {row['number']}", [row]) + f"  {row['heading']}")


def line_of(name: str, rows: list[dict[str, Any]]) -> str:
    from hlm_jax import folds

    found = folds.total(rows)
    bits, ngram = found["bits_per_char"], found["ngram_bits_per_char"]
    return (
        f"{name}: {bits:.4f} bits/char (5-gram {ngram:.4f}, ratio {bits / ngram:.4f}), "
        f"{found['chars']:,} characters"
    )


if __name__ == "__main__":
    main()
