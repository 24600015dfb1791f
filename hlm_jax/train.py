"""Pretraining: python -m hlm_jax.train --config configs/base.py [--config.section.key=value …].

The command line of training. Started again on the same workdir, a run resumes by itself. JAX is
imported only once the command is known to make sense, so that help and errors are quick.
"""

import argparse
import os
import sys
from pathlib import Path

from hlm_jax import config as configs
from hlm_jax.cli import command, with_overrides
from hlm_jax.errors import UserError

# No array gets a mapping of its own, which would end with it. One heap serves all threads and is
# never trimmed.
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:"
    "glibc.malloc.trim_threshold=1099511627776"
)


def parse_args(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """(arguments, config overrides) of a command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m hlm_jax.train",
        description="Pretrain a GPT on one book. Started again on the same workdir, it resumes.",
        epilog="Any key of the config can be set: --config.train.steps=100 "
        "--config.corpus.path=BOOK.txt; --help_config lists them all",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="a config file, such as configs/tiny.py")
    add("--workdir", metavar="DIR", help="where the run is kept (default: runs/<config name>)")
    add(
        "--print_config",
        action="store_true",
        help="print the resolved config and the parameter count, and exit",
    )
    add(
        "--help_config",
        action="store_true",
        help="list every key of the config with its default, its rule and one line, and exit",
    )
    add(
        "--distributed",
        action="store_true",
        help="several processes: ask the cluster (SLURM, Kubernetes, …) which one this is",
    )
    add(
        "--coordinator_address",
        metavar="HOST:PORT",
        help="several processes: where process 0 listens",
    )
    add("--num_processes", type=int, metavar="N", help="several processes: how many")
    add("--process_id", type=int, metavar="I", help="several processes: this one's number, from 0")
    args, overrides = with_overrides(parser, argv)
    if args.process_id is not None and not (args.num_processes or args.distributed):
        parser.error("--process_id needs --num_processes and --coordinator_address")
    args.workdir = Path(os.path.expanduser(args.workdir or Path("runs") / Path(args.config).stem))
    return args, overrides


def main(argv: list[str] | None = None) -> None:
    args, overrides = parse_args(argv)
    with command("hlm_jax.train"):
        config = configs.load_config(args.config, overrides)
        if args.help_config:
            print("Defaults are those of configs/base.py; --print_config prints a config's own.\n")
            print(configs.describe_keys())
            return
        if args.print_config:
            from hlm_jax.model.shape import GPTConfig

            print(configs.as_text(config))
            if base := config.train.init_from:
                print(f"shape and vocabulary: those of {base}, not of the section model")
            else:
                print(f"parameters: {GPTConfig(**config.model).n_parameters:,}")
            return
        _init_processes(args)
        from hlm_jax.training.loop import train

        train(config, args.workdir)


def _init_processes(args: argparse.Namespace) -> None:
    if not (args.distributed or args.coordinator_address or args.num_processes):
        return
    import jax

    # Lets CPU processes reduce; it has no effect on GPUs.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(args.coordinator_address, args.num_processes, args.process_id)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"several processes: {str(error).splitlines()[0]}") from error


def keep_memory() -> None:
    """Starts this command anew with glibc told to keep freed memory and to use huge pages.

    On a CPU every step allocates a gigabyte of intermediate arrays, which by default the kernel
    takes back, clears and hands out again in pages of 4 KB: a fifth of the time
    (docs/performance.md). glibc reads the variable only when a process starts. Nothing happens
    where GLIBC_TUNABLES is set already, and where this process was not started as
    `python -m hlm_jax.train`: a notebook's kernel must live on.
    """
    words = sys.orig_argv
    as_module = "-m" in words and words[words.index("-m") + 1] == "hlm_jax.train"
    if as_module and sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = TUNABLES
        os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
    keep_memory()
    main()
