"""Where the time of a training step on a CPU goes: cpu_step.py --config configs/small.py.

For each part of the model: its share of the processor's busy time, the bytes that it moves, its
operations, and the share of the step that these would take alone: the longer of bytes / bandwidth
and operations / peak. Both limits are measured in the same run: an array larger than the caches,
read and written, and a square product. An array that stays in a cache moves faster than that, and
one that is read twice slower.
"""

import argparse
import collections
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for: from scripts.bench import hlo

from hlm_jax import cli
from hlm_jax import config as configs
from hlm_jax.errors import UserError
from hlm_jax.train import TUNABLES

WARM, STEPS, ROUNDS = 3, 8, 5
SIDE, NUMBERS = 2048, 2**26  # of a square product; of an array of 256 MiB


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=first, allow_abbrev=False)
    add = parser.add_argument
    add("--config", default="configs/small.py", metavar="FILE", help="default: configs/small.py")
    add("--json", action="store_true", help="print one JSON object")
    args, overrides = cli.with_overrides(parser)
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:  # as training has it
        os.environ["GLIBC_TUNABLES"] = TUNABLES
        os.execv(sys.executable, sys.orig_argv)
    with cli.command("cpu_step"):
        out = measure(configs.load_config(args.config, overrides))
        print(json.dumps(out) if args.json else "\n".join(lines(out)))


def measure(config) -> dict[str, Any]:
    """What a step of a config takes by its parts, and what these would take at the limits."""
    import jax
    import numpy as np

    from hlm_jax.model.gpt import GPT, GPTConfig
    from hlm_jax.training import optim
    from hlm_jax.training.hardware import resolve_dtype
    from hlm_jax.training.mesh import make_mesh
    from hlm_jax.training.objective import corruption_schedule
    from hlm_jax.training.step import init_state, make_step
    from scripts.bench import hlo

    if config.train.teachers:
        raise UserError("the step is profiled without teachers: leave train.teachers empty")
    cfg, train, mesh = GPTConfig(**config.model), config.train, make_mesh()
    dtype, _ = resolve_dtype(config.dtype)
    model, total = GPT(cfg, dtype, "xla", mesh), 10_000
    optimizer, _ = optim.make_optimizer(**config.optim, total_steps=total, product_dtype=dtype)
    noise = corruption_schedule(
        rate=train.corrupt_inputs,
        final=train.corrupt_final,
        anneal=train.corrupt_anneal,
        total_steps=total,
    )
    common: dict[str, Any] = {"ema_decay": train.ema_decay, "mesh": mesh}
    parts = train.grad_accum_steps
    step: Any = make_step(
        model,
        optimizer,
        grad_accum_steps=parts,
        corruption=noise,
        **common,
    )
    state, key = init_state(model, optimizer, jax.random.key(0), **common), jax.random.key(1)
    shape = (1, train.batch_size, cfg.block_size + 1)
    windows = np.random.default_rng(0).integers(0, cfg.vocab_size, shape, np.int32)
    compiled = step.lower(state, windows, key).compile()
    kernels = {kernel.name: kernel for kernel in hlo.kernels(compiled.as_text())}
    for _ in range(WARM):
        state, _ = compiled(state, windows, key)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for traced in (False, True):
            if traced:
                jax.profiler.start_trace(folder)
            for _ in range(STEPS):
                began = time.perf_counter()
                state = jax.block_until_ready(compiled(state, windows, key))[0]
                seconds += [] if traced else [time.perf_counter() - began]
        jax.profiler.stop_trace()
        busy = times(folder)
    bandwidth, peak = limits(dtype)
    wall = statistics.median(seconds)
    rows: dict[tuple[str, str], list[float]] = collections.defaultdict(lambda: [0.0] * 4)
    for name, kernel in kernels.items():
        row = rows[kernel.where, "products" if kernel.kind == "product" else "other passes"]
        row[0] += busy.get(name, 0.0)
        row[1] += kernel.count * kernel.bytes
        row[2] += kernel.count * kernel.flops
        row[3] += kernel.seconds(bandwidth, peak)
    whole = sum(row[0] for row in rows.values())
    if not whole:
        raise UserError("the profiler recorded none of the step's kernels: is this JAX on a CPU?")
    return {
        "dtype": dtype,
        "bandwidth": bandwidth,
        "peak": peak,
        "floor": sum(row[3] for row in rows.values()) / wall,
        "recorded": sum(name in busy for name in kernels) / len(kernels),
        "rows": [
            {
                "part": part,
                "kind": kind,
                "time": spent / whole,
                "gigabytes": moved / 1e9,
                "gigaflops": operations / 1e9,
                "floor": least / wall,
            }
            for (part, kind), (spent, moved, operations, least) in sorted(
                rows.items(), key=lambda item: -item[1][0]
            )
        ],
    }


def times(folder: str) -> dict[str, float]:
    """Microseconds of every instruction in a profile, over all threads of XLA."""
    path = next(Path(folder).glob("plugins/profile/*/*.trace.json.gz"))
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"]["name"].startswith("tf_XLA")
    }
    spent: dict[str, float] = collections.defaultdict(float)
    for event in events:
        if event.get("ph") == "X" and (event["pid"], event["tid"]) in threads:
            spent[event["name"]] += event["dur"]
    return dict(spent)


def limits(dtype: str) -> tuple[float, float]:
    """Bytes and operations a second: the best of ROUNDS."""
    import jax
    import jax.numpy as jnp

    def best(function, x):
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            x = jax.block_until_ready(function(x))
            seconds.append(time.perf_counter() - began)
        return min(seconds[1:])  # the first compiles

    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    square = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32).astype(x.dtype))
    matrix = jnp.full((SIDE, SIDE), 1 / SIDE, dtype)
    return 8 * NUMBERS / best(add, jnp.zeros(NUMBERS)), 2 * SIDE**3 / best(square, matrix)


def lines(out: dict[str, Any]) -> Iterator[str]:
    """The figures for a terminal."""
    yield (
        f"measured here: {out['bandwidth'] / 1e9:.0f} GB/s, {out['peak'] / 1e9:.0f} GFLOP/s of "
        f"products in {out['dtype']}"
    )
    yield f"at these limits a step's kernels take {out['floor']:.0%} of its time"
    yield f"the profiler recorded {out['recorded']:.0%} of the kernels, the others count as no time"
    yield f"{'part':32}{'kind':14}{'time':>7}{'GB':>8}{'GFLOP':>8}{'at limits':>11}"
    for row in out["rows"]:
        yield (
            f"{row['part']:32}{row['kind']:14}{row['time']:7.1%}{row['gigabytes']:8.2f}"
            f"{row['gigaflops']:8.1f}{row['floor']:11.1%}"
        )


if __name__ == "__main__":
    main()
