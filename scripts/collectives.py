"""Bytes that a training step moves between devices, read from the compiled program: python scripts/collectives.py.

Compiles the step of a config for eight virtual devices and several meshes, without running it, and adds up the operands
of its collectives. What follows for real GPUs is a prediction, from the two figures given as arguments.
"""

import argparse
import collections
import os
import re

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

from hlm_jax import config as configs
from hlm_jax.errors import exit_on_user_error

BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "f64": 8, "s64": 8, "u64": 8}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--config", default="configs/base.py")
    parser.add_argument(
        "--tflops", type=float, default=400, help="what a GPU sustains on this model (default: 400)"
    )
    parser.add_argument(
        "--gigabytes",
        type=float,
        default=200,
        help="what its link carries a second, each way (default: 200)",
    )
    args, rest = parser.parse_known_args()
    with exit_on_user_error("collectives"):
        config = configs.load_config(args.config, [word.removeprefix("--config.") for word in rest])
        report(config, args)


def report(config, args) -> None:
    tokens = config.train.batch_size * config.model.block_size
    compute_ms = 1e3 * 6 * configs.count_parameters(config.model) * tokens / (args.tflops * 1e12)
    print(
        f"{args.config}: batch of {tokens:,} tokens, {configs.count_parameters(config.model):,} parameters"
    )
    print(
        "\n| mesh (data, fsdp) | collective | count | MB of operands | MB sent by a device |\n|---|---|---|---|---|"
    )
    moved = {}
    for fsdp in (1, 2, 4, 8):
        totals = collectives(compiled_text(config, fsdp))
        # Ring algorithms: an all-reduce passes every byte twice around, the others once.
        sent = {
            kind: size * (2 if kind == "all-reduce" else 1) * 7 / 8
            for kind, (_, size) in totals.items()
        }
        moved[fsdp] = sum(sent.values())
        for kind, (count, size) in sorted(totals.items()):
            print(
                f"| ({8 // fsdp}, {fsdp}) | {kind} | {count} | {size / 1e6:,.1f} | {sent[kind] / 1e6:,.1f} |"
            )
    print(
        f"\nPrediction at {args.tflops:g} TFLOP/s and {args.gigabytes:g} GB/s a GPU, communication not hidden behind computation:\n"
    )
    print(
        "| GPUs | mesh | computing ms/step | communicating ms/step | efficiency |\n|---|---|---|---|---|"
    )
    for n in (8, 64):
        for fsdp in (1, 8):
            sent = moved[fsdp] * (n - 1) / n / (7 / 8)
            communicate_ms = 1e3 * sent / (args.gigabytes * 1e9)
            share = compute_ms / n
            print(
                f"| {n} | ({n // fsdp}, {fsdp}) | {share:.2f} | {communicate_ms:.2f} | {share / (share + communicate_ms):.0%} |"
            )


def compiled_text(config, fsdp: int) -> str:
    """The optimised program of one training step on eight devices."""
    import jax
    import jax.numpy as jnp

    from hlm_jax.model.gpt import GPT, GPTConfig
    from hlm_jax.training import optim
    from hlm_jax.training import step as train_step

    mesh, model = train_step.make_mesh(fsdp), GPT(GPTConfig(**config.model), "bfloat16")
    optimizer, _ = optim.make_optimizer(**config.optim, total_steps=1000)
    layout = train_step.state_layout(model, optimizer, ema_decay=0.0, mesh=mesh)
    fresh = jax.eval_shape(
        lambda key: train_step.fresh_state(model, optimizer, key, ema_decay=0.0), jax.random.key(0)
    )
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), fresh, layout
    )
    steps = train_step.make_train_step(
        model, optimizer, accumulate_steps=1, ema_decay=0.0, mesh=mesh
    )
    windows = jax.ShapeDtypeStruct(
        (1, config.train.batch_size, config.model.block_size + 1), jnp.int32
    )
    return (
        steps.lower(state, windows, jax.eval_shape(lambda: jax.random.key(0))).compile().as_text()
    )


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """{kind: (how many, bytes of their results)} of a program's text; a tuple's parts are added up."""
    totals = collections.defaultdict(lambda: (0, 0))
    for line in text.splitlines():
        found = re.search(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(", line)
        if found:
            size = 0
            for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", found[1]):
                n = 1
                for part in filter(None, shape.split(",")):
                    n *= int(part)
                size += n * BYTES[kind]
            count, before = totals[found[2]]
            totals[found[2]] = count + 1, before + size
    return dict(totals)


if __name__ == "__main__":
    main()
