"""Models that learn from one another in turn: python scripts/chain.py --workdir runs/chain.

Link 1 trains on the text, every later link on the text and on the link before it. Each is a run of
its own in runs/chain/link-1, …; the last one is the model. The first link takes as long as the
config's own run, each later one a little longer, because its teacher reads the book first. The
same command goes on where it was stopped, a larger --links goes on with more. Config keys are set
as in training; --config.train.teacher_weight is the weight of the link before.
"""

import argparse
from pathlib import Path

from hlm_jax import cli


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        description=first,
        allow_abbrev=False,
        epilog="Every link takes as long as the config's own run, or a little longer. "
        "Config keys: --config.train.teacher_weight=0.7, --config.corpus.path=BOOK.txt, …",
    )
    add = parser.add_argument
    add(
        "--config",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="configs that take turns, no more than links (default: configs/small.py)",
    )
    add("--links", type=int, default=6, metavar="N", help="how many models (default: 6)")
    add(
        "--workdir",
        type=Path,
        default=Path("runs/chain"),
        metavar="DIR",
        help="the chain's folder (default: runs/chain)",
    )
    args, overrides = cli.with_overrides(parser)
    with cli.command("chain"):
        run(args, overrides)


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    import jax

    from hlm_jax import distillation

    # The device is the trainings' alone: this process scores their links on the CPU.
    jax.config.update("jax_platforms", "cpu")
    links = distillation.train_chain(
        args.config or ["configs/small.py"], overrides, links=args.links, workdir=args.workdir
    )
    print("\n" + distillation.table(links))
    print(f"the model is {links[-1].folder}; on the validation chapters, and what it writes:")
    for line in distillation.commands(links):
        print(f"  {line}")


if __name__ == "__main__":
    main()
