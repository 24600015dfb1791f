"""What the reference step needs on a card: python scripts/bench/gpu_roofline.py --card rtx6000.

Compiles the training step for the card, without one, and adds up what its kernels move and compute.
Nothing is run: times are lower bounds, and a real card takes longer.
"""

import argparse
import importlib.util
import json
import os
from collections import Counter

os.environ["JAX_PLATFORMS"] = "cpu"  # the compiler's plugin needs no device
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from hlm_jax import cli


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=first, allow_abbrev=False)
    add = parser.add_argument
    add("--card", default="rtx6000", help="rtx6000, t4, a100 or h100 (default: rtx6000)")
    add("--config", default="configs/base.py", metavar="FILE", help="default: configs/base.py")
    add("--devices", type=int, default=1, metavar="N", help="cards of one machine (default: 1)")
    add("--fsdp", type=int, default=1, metavar="N", help="cards that share the weights")
    add("--json", action="store_true", help="print one JSON object")
    args, overrides = cli.with_overrides(parser)
    with cli.command("gpu_roofline"):
        roofline(args, overrides)


def roofline(args: argparse.Namespace, overrides: list[str]) -> None:
    from hlm_jax import config as configs
    from hlm_jax.errors import UserError

    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        import jax

        raise UserError(
            "XLA's CUDA compiler is missing: pip install --no-deps "
            f"jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__}"
        )
    from scripts.bench import gpu_program, hlo

    if args.card not in gpu_program.CARDS:
        raise UserError(f"--card {args.card}: use {', '.join(gpu_program.CARDS)}")
    card = gpu_program.CARDS[args.card]
    config = configs.load_config(args.config, overrides)
    compiled = gpu_program.compile_step(config, card, count=args.devices, fsdp=args.fsdp)
    kernels = hlo.kernels(compiled.as_text())
    parts: dict[str, list[float]] = {}
    for kernel in kernels:
        row = parts.setdefault(kernel.where, [0.0, 0.0, 0.0])
        row[0] += 1e3 * kernel.seconds(card.bandwidth, card.peak)
        row[1] += kernel.count * kernel.bytes / 1e9
        row[2] += kernel.count * kernel.flops / 1e12
    total = [sum(row[i] for row in parts.values()) for i in range(3)]
    collectives: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for kernel in kernels:
        if kernel.kind in hlo.COLLECTIVES:
            collectives[kernel.kind] += kernel.count
            moved[kernel.kind] += kernel.count * kernel.bytes // 2  # the result alone
    out = {
        "card": card.name,
        "dtype": card.dtype,
        "devices": args.devices,
        "memory_gb": gpu_program.memory(compiled) / 1e9,
        "card_gb": card.memory / 1e9,
        "kernels": sum(kernel.count for kernel in kernels),
        "gb_moved": total[1],
        "tflop": total[2],
        "ms_at_least": total[0],
        "parts": {
            name: dict(zip(("ms", "gb", "tflop"), row, strict=True)) for name, row in parts.items()
        },
        "collectives": {k: {"count": n, "gb": moved[k] / 1e9} for k, n in collectives.items()},
    }
    if args.json:
        print(json.dumps(out))
        return
    print(f"{card.name}, {card.dtype}, compiled, not run: {args.devices} device(s)")
    print(f"memory {out['memory_gb']:.2f} GB of {out['card_gb']:.1f} GB")
    print(f"{out['kernels']:,} kernels, {total[1]:.1f} GB moved, {total[2]:.2f} TFLOP, ", end="")
    print(f"at least {total[0]:.1f} ms a step")
    print("\n| part | at least, ms | GB moved | TFLOP |\n|---|---|---|---|")
    for name, row in sorted(parts.items(), key=lambda item: -item[1][0]):
        print(f"| {name} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.2f} |")
    for kind, count in collectives.items():
        size = moved[kind] / 1e9
        # NVLink of an H100 and PCIe 4.0 x16, one direction, by their data sheets.
        print(f"{kind}: {count} of {size:.2f} GB, at least {size / 450 * 1e3:.1f} ms over NVLink, "
              f"{size / 32 * 1e3:.0f} ms over PCIe")  # fmt: skip


if __name__ == "__main__":
    main()
