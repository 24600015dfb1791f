"""Speed against PyTorch on identical work: python scripts/bench/bench.py [train|decode|startup].

Both frameworks run in worker processes that take turns, and the order is reversed each round. What
counts is the ratio within a round. PyTorch competes with the best of its variants: eager or
compiled, transformers' generate or a hand-written loop. With dropout off both must compute the same
loss, and greedy decoding must give the same tokens, or nothing is reported. Needs the extra
[bench]: pip install -e .[bench].
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hlm_jax import config as configs
from hlm_jax.errors import UserError, exit_on_user_error
from hlm_jax.model.shape import GPTConfig
from hlm_jax.train import TUNABLES

HERE = Path(__file__).resolve().parent
REFERENCE_TOKENS = 2000 * 440_000  # of the reference run: epochs x training tokens, roughly
REFERENCE_PARAMETERS = 89_092_608
DATASHEET_TFLOPS: dict[
    str, dict[str, float]
] = {  # dense, by a part of the device's name: {dtype: TFLOP/s}
    "H200": {"bfloat16": 990, "float16": 990, "float32": 67},
    "H100": {"bfloat16": 990, "float16": 990, "float32": 67},
    "A100": {"bfloat16": 312, "float16": 312, "float32": 19.5},
    "RTX 6000": {"float16": 130, "float32": 16.3},
}


class Worker:
    """A worker process that answers one JSON line per request."""

    def __init__(self, name: str, cores: int, variant: str | None = None):
        env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
        env.setdefault("GLIBC_TUNABLES", TUNABLES)  # of hlm_jax.train, for both
        if cores:
            env["OMP_NUM_THREADS"] = str(cores)
        self.name = variant or name
        pin = (
            (lambda: os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores])))
            if cores
            else None
        )
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - as long as the worker
        self._process = subprocess.Popen(
            [sys.executable, HERE / f"bench_{name}.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=env,
            preexec_fn=pin,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, **request):
        print(json.dumps(request), file=self._requests, flush=True)
        line = self._answers.readline()
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise UserError(f"the {self.name} worker died: {last[:300]}")
        return json.loads(line)

    def close(self) -> None:
        self._requests.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument(
        "what", nargs="?", choices=("train", "decode", "startup", "all"), default="all"
    )
    parser.add_argument(
        "--config",
        default="configs/tiny.py",
        help="the model, optimizer and batch to time (default: configs/tiny.py)",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds in which both take a turn (default: 7)"
    )
    parser.add_argument(
        "--steps", type=int, default=0, help="training steps a turn (default: about two seconds)"
    )
    parser.add_argument("--cores", type=int, default=0, help="CPU cores for both (default: all)")
    parser.add_argument(
        "--batch_size", type=int, default=1, help="decode: prompts at once (default: 1)"
    )
    parser.add_argument(
        "--new_tokens", type=int, default=64, help="decode: tokens to write (default: 64)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args, rest = parser.parse_known_args()
    overrides = [word.removeprefix("--config.") for word in rest if word.startswith("--config.")]
    if len(overrides) != len(rest):
        unknown = " ".join(word for word in rest if not word.startswith("--config."))
        parser.error(f"unrecognized arguments: {unknown}")
    with exit_on_user_error("bench"):
        config = configs.load_config(args.config, overrides)
        out = {"config": args.config, "overrides": overrides, "cores": args.cores or os.cpu_count()}
        if args.what in ("train", "decode", "all"):
            missing = [
                name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None
            ]
            if missing:
                raise UserError(
                    f"{' and '.join(missing)} not installed, there is nothing to compare with: "
                    "pip install -e .[bench]"
                )
        if args.what in ("train", "all"):
            out["train"] = bench_train(config, args)
        if args.what in ("decode", "all"):
            out["decode"] = bench_decode(config, args)
        if args.what in ("startup", "all"):
            out["startup"] = bench_startup(args)
        print(json.dumps(out) if args.json else report(out))


def request(config, folder: str) -> dict:
    """What both workers are told about the work."""
    model = config.model.to_dict()
    hidden = GPTConfig(**config.model).hidden_width
    return {
        "model": model | {"hidden": hidden},
        "optim": config.optim.to_dict(),
        "attention": config.attention,
        "folder": folder,
        "batch_size": config.train.batch_size,
        "steps_per_dispatch": config.train.steps_per_dispatch,
        "weights": f"{folder}/weights.npz",
        "batch": f"{folder}/batch.npy",
    }


def take_turns(workers, rounds: int, n: int) -> dict[str, list[float]]:
    """Seconds of every round by worker; the order is reversed each round."""
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for worker in workers:
        worker.ask(do="time", n=n)  # warm-up
    for i in range(rounds):
        for worker in workers if i % 2 == 0 else reversed(workers):
            seconds[worker.name].append(worker.ask(do="time", n=n)["seconds"])
    return seconds


def against_best(seconds: dict[str, list[float]]) -> tuple[str, dict]:
    """PyTorch's fastest variant, and how many times faster than it this project was, by round."""
    best = min(
        (name for name in seconds if name != "jax"),
        key=lambda name: statistics.median(seconds[name]),
    )
    by_round = [theirs / ours for ours, theirs in zip(seconds["jax"], seconds[best], strict=True)]
    return best, {"min": min(by_round), "median": statistics.median(by_round), "rounds": by_round}


def peers(r: dict, do: str, variants, cores: int, same_work) -> tuple[list[Worker], dict]:
    """A PyTorch worker for every variant that runs here, and what each answered.

    `same_work(variant, answer)` raises where a variant did other work.
    """
    workers: list[Worker] = []
    answers: dict[str, dict] = {}
    for variant in variants:
        worker = Worker("torch", cores, variant)
        answers[variant] = worker.ask(do=do, variant=variant, **r)
        if "error" not in answers[variant]:
            same_work(variant, answers[variant])
            warm = worker.ask(do="time", n=1)  # compiles; a variant that cannot is out
            if "error" not in warm:
                workers.append(worker)
                continue
            answers[variant] = warm
        worker.close()
    if not workers:
        raise UserError(f"PyTorch ran in no variant: {answers}")
    return workers, answers


def bench_train(config, args) -> dict:
    """Training steps per second of both, with the config's dropout."""
    if config.train.corrupt_inputs or config.train.ema_decay:
        raise UserError(
            "the PyTorch peer corrupts no inputs and keeps no average of the weights: set "
            "--config.train.corrupt_inputs=0 --config.train.ema_decay=0 to compare the rest"
        )
    cfg = GPTConfig(**config.model)
    with tempfile.TemporaryDirectory() as folder:
        ours = Worker("jax", args.cores)
        r = request(config, folder)
        r |= {"dtype": ours.ask(do="dtype", name=config.dtype)["dtype"]}
        started = ours.ask(do="train", **r)

        def same_work(variant, answer):
            tolerance = 1e-4 if r["dtype"] == "float32" else 5e-3
            if abs(answer["loss"] - started["loss"]) > tolerance * abs(started["loss"]):
                losses = f"{started['loss']} here, {answer['loss']} in PyTorch ({variant})"
                raise UserError(
                    f"not the same work: with dropout off the losses at step 1 are {losses}"
                )

        theirs, answers = peers(r, "train", ("eager", "compiled"), args.cores, same_work)
        size = r["steps_per_dispatch"]
        once = min(ours.ask(do="time", n=size)["seconds"] for _ in range(3)) / size
        n = args.steps or max(1, round(2 / once))
        n = -(-n // size) * size
        seconds = take_turns([ours, *theirs], args.rounds, n)
        best, speed = against_best(seconds)
        tokens = n * r["batch_size"] * r["model"]["block_size"]
        device, peak = ours.ask(do="device"), ours.ask(do="matmul", dtype=r["dtype"])["flops"]
        rate = tokens / statistics.median(seconds["jax"])
        sheets = [v.get(r["dtype"]) for k, v in DATASHEET_TFLOPS.items() if k in device["device"]]
        sheet = sheets[0] if sheets else None
        flops = cfg.flops_per_token * rate
        is_reference = cfg.n_parameters == REFERENCE_PARAMETERS
        out = device | {
            "dtype": r["dtype"],
            "attention": started["attention"],
            "dropout": r["model"]["dropout"],
            "loss_at_step_1": {"jax": started["loss"]}
            | {name: answer.get("loss") for name, answer in answers.items()},
            "torch": theirs[0].ask(do="device")["version"],
            "torch_variant": best,
            "torch_errors": {
                name: answer["error"] for name, answer in answers.items() if "error" in answer
            },
            "steps_per_turn": n,
            "seconds": seconds,
            "speed_against_torch": speed,
            "tokens_per_second": rate,
            "mfu_of_measured_matmul": flops / peak,
            "mfu_of_datasheet": flops / (sheet * 1e12) if sheet else None,
            "compile_seconds_cold": started["compile_seconds_cold"],
            "compile_seconds_cached": started["compile_seconds_cached"],
            "program_bytes": started["program_bytes"],
            "reference_run_hours": REFERENCE_TOKENS / rate / 3600 if is_reference else None,
        }
        for worker in (ours, *theirs):
            worker.close()
        return out


def bench_decode(config, args) -> dict:
    """Tokens per second of greedy decoding in float32, all of it in one dispatch here."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Worker("jax", args.cores)
        r = request(config, folder)
        r |= {
            "dtype": "float32",
            "prompt_tokens": 16,
            "new_tokens": args.new_tokens,
            "steps_per_dispatch": 1,
        }
        ours.ask(do="train", **(r | {"batch_size": 8}))  # writes the weights
        r |= {"batch_size": args.batch_size}
        expected = ours.ask(do="decode", **r)["tokens"]
        made = args.new_tokens * args.batch_size

        def same_work(variant, answer):
            same = sum(
                a == b
                for x, y in zip(answer["tokens"], expected, strict=True)
                for a, b in zip(x, y, strict=True)
            )
            if (
                same < 0.9 * made
            ):  # a tie may break differently; other work would share almost nothing
                raise UserError(f"not the same work: {variant} agrees in {same} of {made} tokens")

        variants = ("loop", "transformers") if config.model.form == "gpt2" else ("loop",)
        theirs, answers = peers(r, "decode", variants, args.cores, same_work)
        seconds = take_turns([ours, *theirs], args.rounds, 1)
        best, speed = against_best(seconds)
        out = ours.ask(do="device") | {
            "dtype": r["dtype"],
            "batch_size": args.batch_size,
            "new_tokens": args.new_tokens,
            "torch_variant": best,
            "torch_errors": {
                name: answer["error"] for name, answer in answers.items() if "error" in answer
            },
            "seconds": seconds,
            "speed_against_torch": speed,
            "tokens_per_second": made / statistics.median(seconds["jax"]),
        }
        for worker in (ours, *theirs):
            worker.close()
        return out


def bench_startup(args) -> dict:
    """Seconds from the command to help, to a config and to the first step of configs/tiny.py."""

    def seconds(*words):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "hlm_jax.train", *words],
            cwd=HERE.parent.parent,
            capture_output=True,
            check=True,
        )
        return time.perf_counter() - began

    out = {
        "help": seconds("--help"),
        "print_config": seconds("--config", "configs/tiny.py", "--print_config"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first_step_cold", "first_step_warm"):
            words = [
                "--config",
                "configs/tiny.py",
                "--workdir",
                f"{folder}/{name}",
                "--config.train.log_every_steps=1",
            ]
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "hlm_jax.train", *words],
                cwd=HERE.parent.parent,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for line in process.stdout or ():
                if line.startswith("step 1/"):
                    break
            out[name] = time.perf_counter() - began
            process.kill()
            process.wait()
    return out


def report(out) -> str:
    lines = [f"{out['config']} {' '.join(out['overrides'])}, {out['cores']} cores"]
    if train := out.get("train"):
        r = train["speed_against_torch"]
        lines += [
            f"{train['device']} (capability {train['capability']}), {train['dtype']}, "
            f"attention {train['attention']}, dropout {train['dropout']}",
            f"train    {r['median']:.2f}x PyTorch {train['torch']} {train['torch_variant']} "
            f"(median; worst round {r['min']:.2f}x)",
            f"         {train['tokens_per_second']:,.0f} tokens/s, "
            f"{train['mfu_of_measured_matmul']:.1%} of a matrix product measured here"
            + (
                f", {train['mfu_of_datasheet']:.1%} of the datasheet"
                if train["mfu_of_datasheet"]
                else ""
            ),
            f"         compiled in {train['compile_seconds_cold']:.1f} s, from the cache in "
            f"{train['compile_seconds_cached']:.1f} s; "
            f"program {train['program_bytes'] / 1e6:,.0f} MB"
            + (f", device peak {train['peak_bytes'] / 1e6:,.0f} MB" if train["peak_bytes"] else ""),
        ]
        if train["reference_run_hours"]:
            hours = train["reference_run_hours"]
            lines.append(f"         the reference run would take {hours:.1f} h (a projection)")
    if decode := out.get("decode"):
        r = decode["speed_against_torch"]
        lines.append(
            f"decode   {r['median']:.2f}x PyTorch {decode['torch_variant']} "
            f"(worst {r['min']:.2f}x), batch {decode['batch_size']}, "
            f"{decode['tokens_per_second']:,.0f} tokens/s"
        )
    if startup := out.get("startup"):
        lines.append(
            "startup  " + ", ".join(f"{name} {value:.2f} s" for name, value in startup.items())
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
