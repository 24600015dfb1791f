"""What a config needs on a card, compiled, not run: gpu_roofline.py --card rtx6000.

Compiles the training step, the decoder or the evaluator for the card, without one, and adds up what
its kernels move, compute and send. Every time is a lower bound for this compiled program: a card
may choose other kernels, and arrays that stay in its cache move less. Without dropout a card of
compute capability 8.0 may take cuDNN's attention, which cannot be compiled here.
"""

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # the compiler's plugin needs no device
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for: from scripts.bench import hlo

from hlm_jax import cli
from hlm_jax import config as configs
from hlm_jax.errors import UserError

NOTE = "compiled, not run; every time is a lower bound"
FULL = 0.9  # of a card's memory, that a step may take
BY_ITSELF = 0.75  # of it, that JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says more
# Tokens of the default book's training text, by split.held_out; a test counts them.
TRAINING_TOKENS = {False: 448_196, True: 360_755}
# Kernels that no part of the model names.
OTHERS = {"step": "loss and optimizer", "decode": "drawing and unnamed", "eval": "loss and unnamed"}


def main() -> None:
    first = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=first, allow_abbrev=False)
    add = parser.add_argument
    add("--card", default="rtx6000", help="rtx6000, t4, a100 or h100 (default: rtx6000)")
    add("--memory", type=float, metavar="GiB", help="of a card of another size, such as 12")
    add("--config", default="configs/base.py", metavar="FILE", help="default: configs/base.py")
    add("--what", choices=tuple(OTHERS), default="step", help="which program (default: step)")
    add("--steps", type=int, metavar="N", help="of the run (default: by the config)")
    add("--batch", type=int, metavar="N", help="rows of --what decode (default: 1)")
    add("--devices", type=int, default=1, metavar="N", help="cards of one machine (default: 1)")
    add("--fsdp", type=int, metavar="N", help="cards that share the weights (default: mesh.fsdp)")
    add("--json", action="store_true", help="print one JSON object")
    args, overrides = cli.with_overrides(parser)
    with cli.command("gpu_roofline"):
        args.overrides, config = overrides, configs.load_config(args.config, overrides)
        args.fsdp = config.mesh.fsdp if args.fsdp is None else args.fsdp
        card = checked(args, config)
        out: dict[str, Any] = {"note": NOTE, "what": args.what, "config": args.config}
        out |= {"card": card.name, "card_gb": card.memory / 1e9, "devices": args.devices}
        out |= (step if args.what == "step" else single)(args, config, card)
        print(json.dumps(out) if args.json else "\n".join(lines(out)))


def checked(args: argparse.Namespace, config) -> Any:
    """The card of a command line that makes sense.

    Raises:
      UserError: it does not, or the compiler is missing.
    """
    for name in ("steps", "batch", "devices", "fsdp", "memory"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} must be above 0, not {value}")
    if args.what == "step" and args.devices % args.fsdp:
        raise UserError(f"--fsdp {args.fsdp} does not divide --devices {args.devices}")
    if args.what != "step" and args.devices * args.fsdp > 1:
        raise UserError(f"--what {args.what} runs on one card: leave out --devices and --fsdp")
    if args.what != "step" and args.steps:
        raise UserError(f"--what {args.what} is no training: leave out --steps")
    if args.what != "decode" and args.batch is not None:
        raise UserError("--batch is of --what decode; a step's is --config.train.batch_size")
    if args.memory is not None and not 0.1 <= args.memory <= 10_000:
        raise UserError(f"--memory {args.memory}: give GiB between 0.1 and 10000")
    if config.train.teachers:
        raise UserError("train.teachers: their part of a step is not compiled here; leave them out")
    if config.attention == "fused" and not config.model.dropout:
        raise UserError("attention=fused without dropout is cuDNN's, which only a card compiles")
    parts = args.devices * config.train.grad_accum_steps
    if args.what == "step" and config.train.batch_size % parts:
        raise UserError(
            f"train.batch_size={config.train.batch_size} is not divisible by --devices "
            f"{args.devices} x train.grad_accum_steps={config.train.grad_accum_steps}"
        )
    from scripts.bench import gpu_program

    if args.card not in gpu_program.CARDS:
        raise UserError(f"--card {args.card}: use {', '.join(gpu_program.CARDS)}")
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        import jax

        raise UserError(
            "XLA's CUDA compiler is missing: pip install --no-deps "
            f"jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__}"
        )
    card = gpu_program.CARDS[args.card]
    memory = card.memory if args.memory is None else int(args.memory * 2**30)
    return dataclasses.replace(card, memory=memory)


# --- figures ---


def step(args: argparse.Namespace, config, card) -> dict[str, Any]:
    """The training step's figures: memory, time, what fits, the run's hours, several cards."""
    devices, fsdp = args.devices, args.fsdp
    dtype = card.dtype if config.dtype == "auto" else config.dtype
    out: dict[str, Any] = {"dtype": dtype, "fsdp": fsdp, "limit_gb": FULL * card.memory / 1e9}
    out |= compiled_step(config, card, devices, fsdp)
    out["fitting"] = used = None
    if out["memory_gb"] <= out["limit_gb"]:
        used = out
    else:
        for parts in larger_parts(config, devices):
            words = [*args.overrides, f"train.grad_accum_steps={parts}"]
            config = configs.load_config(args.config, words)
            tried = compiled_step(config, card, devices, fsdp) | {"grad_accum_steps": parts}
            if tried["memory_gb"] <= out["limit_gb"]:
                out["fitting"] = used = tried
                break
    out["steps"] = args.steps or config_steps(config)
    if used and devices > 1:
        out["one_card_ms_at_least"] = compiled_step(config, card, 1, 1)["ms_at_least"]
        out["links"] = links(used, card, devices, out["one_card_ms_at_least"], out["steps"])
    elif used and out["steps"]:
        out["hours_at_least"] = out["steps"] * used["ms_at_least"] / 3.6e6
    return out


def larger_parts(config, devices: int) -> list[int]:
    """The powers of two above train.grad_accum_steps that divide what a device has of a batch."""
    rows, now = config.train.batch_size // devices, config.train.grad_accum_steps
    powers = (1 << power for power in range(rows.bit_length()))
    return [parts for parts in powers if parts > now and rows % parts == 0]


def config_steps(config) -> int | None:
    """The steps of the run that a config describes; None for epochs of a text not counted here."""
    if config.train.steps:
        return config.train.steps
    own, default = configs.flatten(config), configs.flatten(configs.default_config())
    text = [name for name in own if name.startswith(("corpus.", "split.", "tokenizer."))]
    for name in (*text, "model.vocab_size"):
        if name not in ("corpus.cache_dir", "split.held_out") and own[name] != default[name]:
            return None
    block = config.model.block_size
    windows = (TRAINING_TOKENS[config.split.held_out] - block) // block  # as book.windows counts
    return max(1, math.ceil(config.train.epochs * windows / config.train.batch_size))


def links(out, card, devices: int, alone: float, steps: int | None) -> dict[str, dict[str, Any]]:
    """What a step takes over each link of the cards, all of its sending overlapped or none.

    Args:
      alone: ms of a step on one card.
    """
    from scripts.bench import hlo

    rows = {}
    for name, speed in card.links(devices).items():
        sending = sum(row["gb_sent"] for row in out["collectives"].values()) / speed * 1e12
        rows[name] = row = {"gb_per_second": speed / 1e9, "sending_ms": sending}
        both = hlo.step_bounds(out["ms_at_least"], sending)
        for how, ms in zip(("overlapped", "not_overlapped"), both, strict=True):
            hours = {f"hours_{how}": steps * ms / 3.6e6} if steps else {}
            row |= {f"ms_{how}": ms, f"speedup_{how}": alone / ms} | hours
    return rows


def compiled_step(config, card, devices: int, fsdp: int) -> dict[str, Any]:
    from scripts.bench import gpu_program, hlo

    given = {name: config[name] for name in ("dtype", "attention") if config[name] != "auto"}
    compiled = gpu_program.compile_step(config, card, count=devices, fsdp=fsdp, **given)
    kernels = hlo.kernels(compiled.as_text())
    sends = [each for each in kernels if each.kind in hlo.COLLECTIVES]
    collectives: dict[str, dict[str, float]] = {}
    for each in sends:
        row = collectives.setdefault(
            f"{each.kind} of {each.group}", {"count": 0, "gb": 0.0, "gb_sent": 0.0}
        )
        row["count"] += each.count
        row["gb"] += each.count * each.array / 1e9
        row["gb_sent"] += each.count * each.sent / 1e9
    computing = [each for each in kernels if each.kind not in hlo.COLLECTIVES]
    return figures(compiled, computing, card, "step") | {"collectives": collectives}


def single(args: argparse.Namespace, config, card) -> dict[str, Any]:
    """The figures of the decoder or the evaluator."""
    from scripts.bench import gpu_program, hlo

    if args.what == "eval":
        compiled = gpu_program.compile_evaluator(config, card)
        out = figures(compiled, hlo.kernels(compiled.as_text()), card, "eval")
        tokens = gpu_program.WINDOWS * config.model.block_size
        out["tokens_per_second_at_most"] = tokens / out["ms_at_least"] * 1e3
        return {"dtype": "float32", "windows": gpu_program.WINDOWS, "tokens": tokens} | out
    tokens = gpu_program.DISPATCH_TOKENS
    compiled = gpu_program.compile_decode(config, card, batch=args.batch or 1, tokens=tokens)
    text = compiled.as_text()
    out = {"dtype": "float32", "batch": args.batch or 1, "tokens": tokens}
    out |= figures(compiled, hlo.kernels(text), card, "decode")
    out |= {"trip_counts": hlo.trip_counts(text), "drawing": {}}
    out["static_trip_count"] = tokens in out["trip_counts"]
    # XLA turns the products of one row into reductions, whose operations are not counted.
    for row in (out, *out["parts"].values()):
        del row["tflop"]
    for name, branch in (("greedy", min), ("sampling", max)):
        one = figures(compiled, hlo.kernels(text, branch), card, "decode")
        names = {"kernels": "kernels", "gb": "gb_moved", "ms_at_least": "ms_at_least"}
        out["drawing"][name] = {key: one[value] / tokens for key, value in names.items()}
    return out


def figures(compiled, kernels, card, what: str) -> dict[str, Any]:
    """Memory, kernels, bytes, operations and the least time of a program, and of its parts."""
    from scripts.bench import gpu_program

    parts: dict[str, dict[str, float]] = {}
    for kernel in kernels:
        where = OTHERS[what] if kernel.where == OTHERS["step"] else kernel.where
        row = parts.setdefault(where, {"ms": 0.0, "gb": 0.0, "tflop": 0.0})
        row["ms"] += 1e3 * card.seconds(kernel)
        row["gb"] += kernel.count * kernel.bytes / 1e9
        row["tflop"] += kernel.count * kernel.flops / 1e12
    return {
        "memory_gb": gpu_program.memory(compiled) / 1e9,
        "kernels": sum(kernel.count for kernel in kernels),
        "gb_moved": sum(row["gb"] for row in parts.values()),
        "tflop": sum(row["tflop"] for row in parts.values()),
        "ms_at_least": sum(row["ms"] for row in parts.values()),
        "parts": parts,
    }


# --- printing ---


def lines(out: dict[str, Any]) -> Iterator[str]:
    """The figures as text and tables."""
    what, rest = out["what"], f"memory {out['memory_gb']:.2f} GB of {out['card_gb']:.1f} GB"
    titles = {
        "step": lambda: f"{out['devices']} device(s)",
        "decode": lambda: f"decoding, batch {out['batch']}, a dispatch of {out['tokens']} tokens",
        "eval": lambda: f"scoring {out['windows']} windows, {out['tokens']:,} tokens",
    }
    shared = f", mesh.fsdp={out['fsdp']}" if out["devices"] > 1 else ""
    yield f"{out['card']}, {out['dtype']}, compiled, not run: {titles[what]()}{shared}"
    yield rest + (" of each" if shared else "")
    counted = f"{out['kernels']:,} kernels, {out['gb_moved']:.1f} GB moved"
    time = f"at least {out['ms_at_least']:.1f} ms"
    if what == "step":
        work = " of computing" if shared else ""
        yield f"{counted}, {out['tflop']:.2f} TFLOP, {time}{work} a step (lower bound)"
        yield from run_lines(out)
    elif what == "eval":
        yield (
            f"{counted}, {out['tflop']:.2f} TFLOP, {time} (lower bound), "
            f"at most {out['tokens_per_second_at_most']:,.0f} tokens/s"
        )
    else:
        yield f"{counted}, {time} a dispatch (lower bound), when every token is sampled"
        static = "static" if out["static_trip_count"] else "not static"
        yield f"the loop's trip count is {static}"
        yield from table(
            ("a token", "kernels", "GB moved", "at least, ms (lower bound)"),
            [(name, f"{row['kernels']:.1f}", f"{row['gb']:.3f}", f"{row['ms_at_least']:.3f}")
             for name, row in out["drawing"].items()],
        )  # fmt: skip
    forms = {"ms": ".1f", "gb": ".1f", "tflop": ".2f"}
    rows = sorted(out["parts"].items(), key=lambda item: -item[1]["ms"])
    yield from table(
        ("part", "at least, ms", "GB moved", *(["TFLOP"] if "tflop" in out else [])),
        [(name, *(f"{row[key]:{forms[key]}}" for key in row)) for name, row in rows],
    )
    if "links" in out:
        yield from link_lines(out)


def run_lines(out: dict[str, Any]) -> Iterator[str]:
    """How long the run takes, and what fits the card."""
    used, key = out["fitting"] or out, "--config.train.grad_accum_steps"
    over = f"the step takes over {FULL:.0%} of the card: "
    if out["fitting"]:
        yield (
            f"{over}{key}={used['grad_accum_steps']} fits: {used['memory_gb']:.2f} GB, "
            f"at least {used['ms_at_least']:.1f} ms a step (compiled, not run; lower bound)"
        )
    elif out["memory_gb"] > out["limit_gb"]:
        yield f"{over}no {key} that is a power of two fits"
    if BY_ITSELF * out["card_gb"] < used["memory_gb"] <= out["limit_gb"]:
        yield f"JAX takes {BY_ITSELF:.0%} by itself: set XLA_PYTHON_CLIENT_MEM_FRACTION={FULL}"
    if not out["steps"]:
        yield "no hours: the config counts epochs of another text than the default; give --steps N"
    elif "hours_at_least" in out:
        yield (
            f"{out['steps']:,} steps: at least {out['hours_at_least']:.2f} hours (compiled, not "
            "run; lower bound without evaluations, samples and checkpoints)"
        )


def link_lines(out: dict[str, Any]) -> Iterator[str]:
    """What the cards send each other, and what the step takes over each link."""
    used, alone = out["fitting"] or out, out["one_card_ms_at_least"]
    yield from table(
        ("collective", "a step", "whole arrays, GB", "a card sends, GB (ring)"),
        [(f"{kind}", f"{row['count']}", f"{row['gb']:.3f}", f"{row['gb_sent']:.3f}")
         for kind, row in used["collectives"].items()],
    )  # fmt: skip
    yield f"\nOne card alone takes at least {alone:.1f} ms for the same batch (lower bound)."
    yield "Compiled, not run: of every pair the first has all sending overlapped, the second none."
    yield "A speed-up is a ratio of lower bounds, and itself no bound."
    hours = (f"{out['steps']:,} steps, hours",) if out["steps"] else ()
    rows = []
    for name, row in out["links"].items():
        pairs = [("ms", ".1f"), ("speedup", ".1f"), ("hours", ".2f")][: 2 + len(hours)]
        cells = (f"{name}, {row['gb_per_second']:.0f} GB/s", f"{row['sending_ms']:.1f}")
        rows.append(cells + tuple(
            f"{row[f'{key}_overlapped']:{form}}, {row[f'{key}_not_overlapped']:{form}}"
            for key, form in pairs
        ))  # fmt: skip
    yield from table(
        ("link, one way", "sending, ms", "step, ms (lower bounds)", "speed-up", *hours), rows
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"\n| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
