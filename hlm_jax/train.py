"""Pretraining: python -m hlm_jax.train --config configs/base.py [--workdir runs/base] [--config.section.key=value …].

The writing face's command line. Started again on the same workdir, a run resumes by itself. JAX is imported only once the
command is known to make sense, so that help and errors are quick.
"""

import argparse
import os
import sys
from pathlib import Path

from hlm_jax import config as configs
from hlm_jax.errors import UserError, exit_on_user_error

# No array in a mapping of its own, which would end with it; one heap for all threads, never trimmed.
TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=1099511627776"


def parse_args(argv):
    """(arguments, config overrides) of a command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m hlm_jax.train",
        description="Pretrain a GPT on one book. Started again on the same workdir, it resumes.",
        epilog="Any key of the config can be set: --config.train.steps=100 --config.corpus.path=BOOK.txt",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="a config file, such as configs/tiny.py"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="where the run is kept (default: runs/<config name>)"
    )
    parser.add_argument(
        "--print_config",
        action="store_true",
        help="print the resolved config and the parameter count, and exit",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="several processes: ask the cluster (SLURM, Kubernetes, …) who we are",
    )
    parser.add_argument(
        "--coordinator_address",
        metavar="HOST:PORT",
        help="several processes: where process 0 listens",
    )
    parser.add_argument(
        "--num_processes", type=int, metavar="N", help="several processes: how many"
    )
    parser.add_argument(
        "--process_id", type=int, metavar="I", help="several processes: this one's number, from 0"
    )
    args, rest = parser.parse_known_args(argv)
    overrides = []
    for word in rest:
        if not word.startswith("--config."):
            parser.error(
                f"unrecognized argument {word!r}; config keys are set as --config.section.key=value"
            )
        overrides.append(word.removeprefix("--config."))
    args.workdir = Path(args.workdir or Path("runs") / Path(args.config).stem)
    return args, overrides


def main(argv=None) -> None:
    args, overrides = parse_args(argv)
    with exit_on_user_error("hlm_jax.train"):
        config = configs.load_config(args.config, overrides)
        if args.print_config:
            print(config)
            print(f"parameters: {configs.count_parameters(config.model):,}")
            return
        _init_processes(args)
        from hlm_jax.training.loop import train

        train(config, args.workdir)


def _init_processes(args) -> None:
    if not (args.distributed or args.coordinator_address or args.num_processes):
        return
    import jax

    jax.config.update(
        "jax_cpu_collectives_implementation", "gloo"
    )  # lets CPU processes reduce; no effect on GPUs
    try:
        jax.distributed.initialize(args.coordinator_address, args.num_processes, args.process_id)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"several processes: {str(error).splitlines()[0]}") from error


def keep_memory() -> None:
    """Starts this command anew with glibc told to keep freed memory and to ask for huge pages, unless GLIBC_TUNABLES is set already.

    On a CPU every step allocates its intermediate arrays anew, a gigabyte of them, which by default the kernel takes back, clears
    and hands out again in pages of 4 KB: a fifth of the time (docs/performance.md). glibc reads the variable only when a
    process starts; where it is not the C library, nothing comes of it.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = TUNABLES
        os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
    keep_memory()
    main()
