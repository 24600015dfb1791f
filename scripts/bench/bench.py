"""Speed against PyTorch on identical work: python scripts/bench/bench.py [train|decode|startup].

Both frameworks run in worker processes on the same device and take turns; the order is reversed
each round. What counts is the ratio within a round. PyTorch competes with the best of its variants:
eager or compiled, transformers' generate or a hand-written loop. One variant is alive at a time, so
that its memory is free before the next begins. With dropout off both must compute the same loss,
and greedy decoding must give the same tokens, or nothing is reported.

PyTorch lives in an environment of its own; bash scripts/bench/bench.sh makes it and runs this.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
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
ROOT = HERE.parent.parent
REFERENCE_TOKENS = 2000 * 440_000  # of the reference run: epochs x training tokens, roughly
REFERENCE_PARAMETERS = 89_092_608
PROMPT_TOKENS = 16  # of the bench's greedy decoding
# Dense TFLOP/s by dtype. The first name that a device's name contains counts: the PCIe and NVL
# cards are slower than the H100 of an SXM board, and "RTX 6000" alone would match the Ada card.
DATASHEET_TFLOPS: dict[str, dict[str, float]] = {
    "h200": {"bfloat16": 990, "float16": 990, "float32": 67},
    "h100 pcie": {"bfloat16": 756, "float16": 756, "float32": 51},
    "h100 nvl": {"bfloat16": 835, "float16": 835, "float32": 60},
    "h100": {"bfloat16": 990, "float16": 990, "float32": 67},
    "a100": {"bfloat16": 312, "float16": 312, "float32": 19.5},
    "quadro rtx 6000": {"float16": 130, "float32": 16.3},
}


class WorkerFailed(UserError):
    """A worker died or answered with an error."""


class Worker:
    """A worker process that answers one JSON line per request; as a context, it ends with it."""

    def __init__(self, python: str, name: str, cores: int = 0):
        pin = (
            (lambda: os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores])))
            if cores
            else None
        )
        self.name = name
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - as long as the worker
        self._process = subprocess.Popen(
            [python, HERE / f"bench_{name}.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(cores),
            preexec_fn=pin,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, **request):
        """The answer to a request.

        Raises:
          WorkerFailed: the worker died, or answered with an error.
        """
        line = ""
        try:
            print(json.dumps(request), file=self._requests, flush=True)
            line = self._answers.readline()
        except BrokenPipeError:
            pass
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise WorkerFailed(f"the {self.name} worker died: {last[:300]}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        try:
            self._requests.close()
        except BrokenPipeError:
            pass
        self._process.wait()  # only now is its memory on the card free


def environment(cores: int = 0) -> dict[str, str]:
    """The environment of both workers."""
    env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    env.setdefault("GLIBC_TUNABLES", TUNABLES)  # of hlm_jax.train, for both
    # JAX would take three quarters of the card at once and leave PyTorch the rest.
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    # PyTorch uses one card, so JAX may have no more; the first is the same for both.
    env["CUDA_VISIBLE_DEVICES"] = env.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    # The interpreter of PyTorch's worker need not have this project installed.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    if cores:
        env["OMP_NUM_THREADS"] = str(cores)
    return env


def find_torch(given: str | None) -> str:
    """The Python that has PyTorch: the given one, .venv-bench's or this one.

    Raises:
      UserError: there is none.
    """
    own = ROOT / ".venv-bench" / "bin" / "python"
    if given:
        if shutil.which(given) is None:
            raise UserError(f"--torch_python {given}: no such program")
        return given
    if own.exists():
        return str(own)
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        return sys.executable
    raise UserError(
        "there is no PyTorch to compare with: bash scripts/bench/bench.sh sets it up and runs the "
        "bench; --torch_python names a Python that has torch and transformers"
    )


def refuse_other_device(ours: dict, python: str) -> dict:
    """PyTorch's version, where it names the device that JAX computes on.

    Raises:
      UserError: the two devices differ, or PyTorch has none of that kind.
    """
    here = f"JAX computes on the {ours['kind']} {ours['device']}"
    if ours["devices"] > 1:
        raise UserError(f"{here} and {ours['devices'] - 1} more, PyTorch on one: show JAX only one")
    with Worker(python, "torch") as worker:
        try:
            theirs = worker.ask(do="device", kind=ours["kind"])
        except WorkerFailed as error:
            raise UserError(f"not the same device: {here}, but {error}") from None
    if (theirs["kind"], theirs["device"]) != (ours["kind"], ours["device"]):
        raise UserError(
            f"not the same device: {here}, PyTorch {theirs['torch']} on the {theirs['kind']} "
            f"{theirs['device']}"
        )
    return {"torch": theirs["torch"]}


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
        "--new_tokens",
        type=int,
        default=64,
        help="decode: tokens to write (default: 64, or what the block holds)",
    )
    parser.add_argument(
        "--torch_python",
        metavar="PATH",
        help="a Python with torch and transformers (default: .venv-bench's, else this one)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args, rest = parser.parse_known_args()
    overrides = [word.removeprefix("--config.") for word in rest if word.startswith("--config.")]
    if len(overrides) != len(rest):
        unknown = " ".join(word for word in rest if not word.startswith("--config."))
        parser.error(f"unrecognized arguments: {unknown}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no worker behind
    with exit_on_user_error("bench"):
        config = configs.load_config(args.config, overrides)
        out = {"config": args.config, "overrides": overrides, "cores": args.cores or os.cpu_count()}
        if args.what != "startup":
            args.torch_python = find_torch(args.torch_python)
        if args.what in ("train", "all"):
            out["train"] = bench_train(config, args)
        if args.what in ("decode", "all"):
            out["decode"] = bench_decode(config, args)
        if args.what in ("startup", "all"):
            out["startup"] = bench_startup(args)
        print(json.dumps(out) if args.json else report(out))


def request(config, folder: str, kind: str) -> dict:
    """What both workers are told about the work, on a device of this kind."""
    model = config.model.to_dict()
    if model["form"] == "mogrifier":
        raise UserError("the PyTorch side has no Mogrifier LSTM: time a config of another form")
    for name in ("n_kv_head", "head_dim", "intermediate_size"):
        if model[name]:
            raise UserError(f"the PyTorch side has no model.{name}: leave it at 0")
    from hlm_jax.training.optim import QUINTICS  # imports JAX, and asks for no device

    hidden = GPTConfig(**config.model).hidden_width
    return {
        "model": model | {"hidden": hidden},
        "optim": config.optim.to_dict(),
        "quintics": QUINTICS[config.optim.muon_steps],
        "attention": config.attention,
        "kind": kind,
        "folder": folder,
        "batch_size": config.train.batch_size,
        "steps_per_dispatch": config.train.steps_per_dispatch,
        "weights": f"{folder}/weights.npz",
        "batch": f"{folder}/batch.npy",
    }


def take_turns(workers: list[Worker], rounds: int, n: int) -> dict[str, list[float]]:
    """Seconds of every round by worker; the order is reversed each round."""
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for worker in workers:
        worker.ask(do="time", n=n)  # warm-up
    for i in range(rounds):
        for worker in workers if i % 2 == 0 else reversed(workers):
            seconds[worker.name].append(worker.ask(do="time", n=n)["seconds"])
    return seconds


def against_torch(ours: Worker, r: dict, do: str, variants, args, same_work, n: int = 1) -> dict:
    """This project's turns with every PyTorch variant, which is alive only while it competes.

    The peer is the variant against which this project is slowest. `same_work(variant, answer)`
    raises where a variant did other work.
    """
    seconds, answers, errors, peaks = {}, {}, {}, {}
    for variant in variants:
        try:
            with Worker(args.torch_python, "torch", args.cores) as theirs:
                answers[variant] = theirs.ask(do=do, variant=variant, **r)
                same_work(variant, answers[variant])
                theirs.ask(do="time", n=1)  # compiles; a variant that cannot is out
                seconds[variant] = take_turns([ours, theirs], args.rounds, n)
                peaks[variant] = theirs.ask(do="device", kind=r["kind"])["peak_bytes"]
        except WorkerFailed as error:
            errors[variant] = str(error)
    if not peaks:
        raise UserError(f"PyTorch ran in no variant: {errors}")
    ratios = {
        variant: [b / a for a, b in zip(by["jax"], by["torch"], strict=True)]
        for variant, by in seconds.items()
        if variant in peaks  # those that got to the end
    }
    best = min(ratios, key=lambda variant: statistics.median(ratios[variant]))
    rounds = ratios[best]
    speed = {"min": min(rounds), "median": statistics.median(rounds), "rounds": rounds}
    return {
        "answers": answers,
        "torch_variant": best,
        "torch_errors": errors,
        "torch_peak_bytes": peaks,
        "seconds": seconds,
        "speed_against_torch": speed,
    }


def bench_train(config, args) -> dict:
    """Training steps per second of both, with the config's dropout."""
    if config.train.corrupt_inputs or config.train.ema_decay:
        raise UserError(
            "the PyTorch peer corrupts no inputs and keeps no average of the weights: set "
            "--config.train.corrupt_inputs=0 --config.train.ema_decay=0 to compare the rest"
        )
    cfg = GPTConfig(**config.model)
    with tempfile.TemporaryDirectory() as folder, Worker(sys.executable, "jax", args.cores) as ours:
        device = ours.ask(do="device")
        torch = refuse_other_device(device, args.torch_python)
        r = request(config, folder, device["kind"])
        r |= {"dtype": ours.ask(do="dtype", name=config.dtype)["dtype"]}
        started = ours.ask(do="train", **r)

        def same_work(variant, answer):
            tolerance = 1e-4 if r["dtype"] == "float32" else 5e-3
            if abs(answer["loss"] - started["loss"]) > tolerance * abs(started["loss"]):
                losses = f"{started['loss']} here, {answer['loss']} in PyTorch ({variant})"
                raise UserError(
                    f"not the same work: with dropout off the losses at step 1 are {losses}"
                )

        size = r["steps_per_dispatch"]
        once = min(ours.ask(do="time", n=size)["seconds"] for _ in range(3)) / size
        n = args.steps or max(1, round(2 / once))
        n = -(-n // size) * size
        compared = against_torch(ours, r, "train", ("eager", "compiled"), args, same_work, n)
        answers = compared.pop("answers")
        tokens = n * r["batch_size"] * r["model"]["block_size"]
        device, peak = ours.ask(do="device"), ours.ask(do="matmul", dtype=r["dtype"])["flops"]
        rate = tokens / statistics.median(compared["seconds"][compared["torch_variant"]]["jax"])
        sheets = (v.get(r["dtype"]) for k, v in DATASHEET_TFLOPS.items() if k in device["device"])
        sheet = next(sheets, None)
        flops = cfg.flops_per_token * rate
        is_reference = cfg.n_parameters == REFERENCE_PARAMETERS
        return (
            device
            | torch
            | compared
            | {
                "dtype": r["dtype"],
                "attention": started["attention"],
                "dropout": r["model"]["dropout"],
                "loss_at_step_1": {"jax": started["loss"]}
                | {name: answer["loss"] for name, answer in answers.items()},
                "steps_per_turn": n,
                "tokens_per_second": rate,
                "mfu_of_measured_matmul": flops / peak,
                "mfu_of_datasheet": flops / (sheet * 1e12) if sheet else None,
                "compile_seconds_cold": started["compile_seconds_cold"],
                "compile_seconds_cached": started["compile_seconds_cached"],
                "program_bytes": started["program_bytes"],
                "reference_run_hours": REFERENCE_TOKENS / rate / 3600 if is_reference else None,
            }
        )


def bench_decode(config, args) -> dict:
    """Tokens per second of greedy decoding in float32, all of it in one dispatch here."""
    # PyTorch's side has a cache of one block and no way to go on after it.
    new_tokens = min(args.new_tokens, config.model.block_size - PROMPT_TOKENS)
    if new_tokens < 1:
        raise UserError(f"decode needs --config.model.block_size above {PROMPT_TOKENS}")
    with tempfile.TemporaryDirectory() as folder, Worker(sys.executable, "jax", args.cores) as ours:
        device = ours.ask(do="device")
        torch = refuse_other_device(device, args.torch_python)
        r = request(config, folder, device["kind"])
        r |= {
            "dtype": "float32",
            "prompt_tokens": PROMPT_TOKENS,
            "new_tokens": new_tokens,
            "steps_per_dispatch": 1,
        }
        ours.ask(do="train", **(r | {"batch_size": 8}))  # writes the weights
        r |= {"batch_size": args.batch_size}
        expected = ours.ask(do="decode", **r)["tokens"]
        made = new_tokens * args.batch_size

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
        compared = against_torch(ours, r, "decode", variants, args, same_work)
        del compared["answers"]
        ours_seconds = compared["seconds"][compared["torch_variant"]]["jax"]
        return (
            ours.ask(do="device")
            | torch
            | compared
            | {
                "dtype": r["dtype"],
                "batch_size": args.batch_size,
                "new_tokens": new_tokens,
                "tokens_per_second": made / statistics.median(ours_seconds),
            }
        )


def bench_startup(args) -> dict:
    """Seconds from the command to help, to a config and to the first step of configs/tiny.py."""
    env = environment()
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # the cold start must find nothing compiled

    def seconds(*words):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "hlm_jax.train", *words],
            cwd=ROOT,
            env=env,
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
                cwd=ROOT,
                env=env,
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
