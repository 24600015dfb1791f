"""What a checkpoint holds: python scripts/inspect_checkpoint.py --workdir runs/tiny [--step best|latest|N]."""

import argparse
import json

from hlm_jax.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--step", default="best", help="best, latest or a number (default: best)")
    args = parser.parse_args()
    with exit_on_user_error("inspect_checkpoint"):
        inspect(args)


def inspect(args) -> None:
    import jax
    import numpy as np

    from hlm_jax import checkpoint

    step, params, meta = checkpoint.read(args.workdir, args.step)
    print(
        f"step {step} of {', '.join(map(str, checkpoint.steps_in(args.workdir)))} in {args.workdir}"
    )
    print("\nmetrics")
    for name, value in meta["metrics"].items():
        print(f"  {name:28s} {value}")
    print("\nparameters" + " " * 38 + "shape            dtype      norm")
    total = 0
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(key.key for key in path)
        shape = " x ".join(map(str, value.shape))
        print(
            f"  {name:46s} {shape:16s} {value.dtype!s:8s} {np.linalg.norm(value.astype(np.float64)):8.3f}"
        )
        total += value.size
    print(f"  {total:,} in all")
    print(
        f"\ntokenizer {meta['tokenizer_fingerprint']}\ncorpus    {meta['corpus']['name']} {meta['corpus']['sha256']}"
    )
    print(
        "\nversions  "
        + ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    )
    print("\nconfig\n" + json.dumps(meta["config"], ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
