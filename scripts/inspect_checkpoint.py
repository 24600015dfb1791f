"""What a checkpoint holds: python scripts/inspect_checkpoint.py --workdir runs/tiny [--step N]."""

import json

from hlm_jax import cli


def main() -> None:
    args = cli.run_parser(__doc__).parse_args()
    with cli.command("inspect_checkpoint"):
        inspect(args)


def inspect(args) -> None:
    import jax
    import numpy as np

    from hlm_jax import checkpoint
    from hlm_jax.rules import written

    step, params, meta = checkpoint.read(args.workdir, args.step)
    steps = ", ".join(map(str, checkpoint.steps_in(args.workdir)))
    print(f"step {step} (kept: {steps}) in {args.workdir}")
    print("\nmetrics")
    for name, value in meta["metrics"].items():
        print(f"  {name:28s} {value}")
    print("\nparameters" + " " * 38 + "shape            dtype      norm")
    total = 0
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(key.key for key in path)
        shape, norm = " x ".join(map(str, value.shape)), np.linalg.norm(value.astype(np.float64))
        print(f"  {name:46s} {shape:16s} {value.dtype!s:8s} {norm:8.3f}")
        total += value.size
    print(f"  {total:,} in all")
    if init := meta.get("init"):
        of_step = "" if init["step"] is None else f", step {init['step']}"
        print(f"\nbegun from {init['path']}{of_step}")
    for change in meta.get("changes", ()):
        key, before, after = (change[name] for name in ("key", "before", "after"))
        print(f"from step {change['step']} on: {key} {written(before)} -> {written(after)}")
    print(f"\ntokenizer {meta['tokenizer_fingerprint']}")
    print(f"corpus    {meta['corpus']['name']} {meta['corpus']['sha256']}")
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    print(f"\nversions  {versions}")
    print("\nconfig\n" + json.dumps(meta["config"], ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
