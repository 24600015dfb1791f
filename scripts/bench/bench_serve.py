"""Times scripts/serve.py over HTTP, and lets it answer many mixed requests.

python scripts/bench/bench_serve.py --workdir runs/tiny [--soak 1000] [--against transformers]

It starts the server on a free port and measures: milliseconds to the first character of an idle
server, tokens per second of one stream and of 8 at once, what the server still does for a client
that went away, and a soak. Exit code 1: the soak had an error, compiled a program or left a row.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bench
import httpx
from bench_device import processor
from bench_serve_load import STREAMS, Client, WrongAnswer, compare, freed, turn
from bench_serve_soak import plan, soak

from hlm_jax.errors import UserError, exit_on_user_error

APP = "plain app"
SERVE = "transformers serve"
BATCHING = "transformers serve --continuous-batching"
OURS = "serve.py"
OWN = {"add_special_tokens": False}  # the exported tokenizer adds no separator either
CANCELLED = 4000  # tokens that a client which goes away has asked for
FIRST_MS, MANY_OVER_ONE, DISPATCHES = 100, 3, 1  # the targets on two cores with tiny.py


class Server:
    """A server in a process of its own; as a context, it ends with it.

    Args:
      name: in reports.
      words: the command, where {port} stands for the port.
      extra: fields that every request for a completion has.
      seconds: until it must be ready.

    Raises:
      UserError: it ended, or is not ready in time.
    """

    def __init__(
        self, name: str, words: list[str], extra: Mapping[str, Any] | None = None, seconds=300.0
    ):
        self.name, self.extra, self.seconds = name, extra, seconds
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.words = [word.replace("{port}", str(port)) for word in words]

    def __enter__(self) -> "Server":
        self._log = tempfile.TemporaryFile(mode="w+")
        self._process = subprocess.Popen(
            self.words,
            cwd=bench.ROOT,
            env=environment(),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        began = time.perf_counter()
        while time.perf_counter() - began < self.seconds:
            if self._process.poll() is not None:
                raise UserError(f"{self.name} ended: {self.last_line()}")
            with contextlib.suppress(httpx.TransportError):  # it does not listen yet
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise UserError(f"{self.name} is not ready after {self.seconds:.0f} s: {self.last_line()}")

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(self._process.pid, number)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """The server runs inside the block; after it the process is stopped and takes no time."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def client(self) -> Client:
        return Client(self.url, self.extra)

    def turn(self, **how: int) -> dict[str, Any]:
        """bench_serve_load.turn of this server alone.

        Raises:
          UserError: an answer is wrong, or there is none.
        """

        async def timed() -> dict[str, Any]:
            async with self.client() as client:
                return await turn(client, **how)

        try:
            with self.awake():
                return asyncio.run(timed())
        except (WrongAnswer, httpx.HTTPError) as error:
            raise UserError(f"{self.name}: {type(error).__name__}: {error}") from error

    def last_line(self) -> str:
        self._log.seek(0)
        return (self._log.read().strip().splitlines() or ["no message"])[-1][:300]

    def memory(self) -> float:
        """Bytes of the process that are in memory; NaN where the system does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        except OSError:  # not Linux
            return float("nan")
        found = re.search(r"^VmRSS:\s*(\d+) kB", status, re.MULTILINE)
        return 1024.0 * int(found[1]) if found else float("nan")


def environment() -> dict[str, str]:
    """The environment of every server: that of bench.py's workers on a CPU, without TUNABLES."""
    env = bench.environment() | {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    if "GLIBC_TUNABLES" not in os.environ:  # those are of training, not of a server
        del env["GLIBC_TUNABLES"]
    env.pop("HLM_API_KEY", None)  # every client here comes without one
    return env


def machine() -> str:
    """The processor, its cores for this process, and what it multiplies fast."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux
        flags = set()
    has = {"amx_bf16": "matrix units", "avx512_bf16": "bfloat16 products", "avx512f": "AVX-512"}
    kinds = [text for flag, text in has.items() if flag in flags]
    return ", ".join([processor(), f"{cores()} cores", *kinds])


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peers(args, folder: str) -> list[Server]:
    """The servers to compare with, over the run exported to `folder`."""
    out = f"{folder}/hf"
    words = [sys.executable, "scripts/export.py", "--workdir", args.workdir]
    done = subprocess.run(
        [*words, "--format", "hf", "--out", out], cwd=bench.ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["export.py failed"])[-1])
    no_end_token(Path(out))
    python = bench.find_torch(args.torch_python)
    plain = [python, "scripts/bench/serve_transformers.py", out, "--port", "{port}"]
    serve = [python, "-m", "transformers.cli.transformers", "serve", out, "--port", "{port}"]
    serve += ["--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    return [
        Server(APP, [*plain, "--threads", str(cores())]),
        Server(SERVE, serve),
        Server(BATCHING, [*serve, "--continuous-batching"]),
    ]


def no_end_token(folder: Path) -> None:
    """Takes the end token out of an exported folder's settings: every text has the same length.

    Sampling is that of the requests: no limit of tokens, no top-k, no top-p beside theirs.
    """
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        settings = json.loads(path.read_text(encoding="utf-8")) | {"eos_token_id": None}
        if name == "generation_config.json":
            del settings["max_length"]
            settings |= {"temperature": 0.8, "top_p": 1.0, "top_k": 0}
        path.write_text(json.dumps(settings), encoding="utf-8")


def take_turns(ours: Server, others: list[Server], args) -> tuple[dict[str, Any], dict[str, str]]:
    """Every server's rounds by name, and why others are out; the order is reversed each round."""
    out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        running = [ours]
        for server in others:
            try:
                stack.enter_context(server)
                server.turn(tokens=args.new_tokens, waves=1, firsts=1)
            except UserError as error:
                out[server.name] = str(error)
            else:
                running.append(server)
        rounds: dict[str, Any] = {server.name: [] for server in running}
        for i in range(args.rounds):
            for server in running if i % 2 == 0 else reversed(running):
                note(f"round {i + 1} of {args.rounds}: {server.name}")
                done = server.turn(tokens=args.new_tokens, waves=args.waves, firsts=args.firsts)
                rounds[server.name].append(done)
    return rounds, out


def measure(args) -> dict[str, Any]:
    """Everything that the command measures."""
    words = [sys.executable, "scripts/serve.py", "--workdir", args.workdir, "--port", "{port}"]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Server(OURS, words, OWN) as ours:
        out: dict[str, Any] = {
            "machine": machine(),
            "new_tokens": args.new_tokens,
            "ready_seconds": time.perf_counter() - began,
        }

        async def alone() -> None:
            async with ours.client() as client:
                out["compilations_at_start"] = (await client.metrics())["hlm_compilations_total"]

        async def rest() -> None:
            async with ours.client() as client:
                if args.cancels:
                    note(f"{args.cancels} clients that go away")
                    out["freed"] = [
                        await freed(client, tokens=CANCELLED) for _ in range(args.cancels)
                    ]
                if args.soak:
                    note(f"{args.soak} mixed requests")
                    how = {"at_once": args.at_once, "seconds": args.soak_seconds}
                    cases = plan(args.soak, args.seed)
                    out["soak"] = await soak(client, cases, memory=ours.memory, **how)
                now = (await client.metrics())["hlm_compilations_total"]
                out["compilations"] = now - out["compilations_at_start"]

        try:
            asyncio.run(alone())
            others = peers(args, folder) if args.against else []
            out["rounds"], out["out"] = take_turns(ours, others, args)
            with ours.awake():
                asyncio.run(rest())
        except (WrongAnswer, httpx.HTTPError) as error:
            raise UserError(f"{ours.name}: {type(error).__name__}: {error}") from error
        out["ratios"] = compare(out["rounds"], OURS)
        return out


def report(out: Mapping[str, Any]) -> str:
    """The figures as Markdown tables."""
    turns = out["rounds"][OURS]
    firsts = [ms for one in turns for ms in one["first_ms"]]
    ratios = [one["many"] / one["one"] for one in turns]
    lines = [f"Machine: {out['machine']}. Ready in {out['ready_seconds']:.1f} s.", ""]
    lines += ["| measure | median | worst | target |", "|---|---|---|---|"]
    lines += [
        f"| first token of an idle server, {len(firsts)} streams | "
        f"{statistics.median(firsts):.0f} ms | {max(firsts):.0f} ms | <= {FIRST_MS} ms |",
        f"| tokens/s of {STREAMS} streams over one, {len(ratios)} rounds | "
        f"{statistics.median(ratios):.2f}x | {min(ratios):.2f}x | >= {MANY_OVER_ONE}x |",
    ]
    if gone := out.get("freed"):
        seen = [one["dispatches"] for one in gone]
        lines.append(
            f"| dispatches until the row of a client that left is free, {len(seen)} clients | "
            f"{statistics.median(seen):g} | {max(seen):g} | <= {DISPATCHES} |"
        )
    if soaked := out.get("soak"):
        lines += ["", *report_soak(soaked, out["compilations"])]
    if out["ratios"]:
        lines += ["", *report_ratios(out)]
    return "\n".join(lines)


def report_soak(soaked: Mapping[str, Any], compilations: float) -> list[str]:
    memory = {part: value / 2**20 for part, value in soaked["bytes"].items()}
    growth = memory["100%"] / memory["20%"] - 1
    lines = [
        f"| soak of {soaked['asked']} mixed requests | |",
        "|---|---|",
        f"| sent | {soaked['sent']} in {soaked['seconds']:.0f} s |",
        f"| errors | {soaked['errors']} |",
        f"| compilations since the server was ready | {compilations:g} |",
        f"| rows in work at the end | {soaked['rows_left']:g} |",
        "| memory at 20 %, 60 % and the end | "
        + ", ".join(f"{value:.0f}" for value in memory.values())
        + f" MiB ({growth:+.1%} since 20 %) |",
    ]
    for error in soaked["first_errors"]:
        lines.append(f"\n{error['kind']} {error['path']} {error['body']}: {error['error']}")
    lines += [f"\ncompiled with {json.dumps(kinds)}" for kinds in soaked["compiled_with"]]
    return lines


def report_ratios(out: Mapping[str, Any]) -> list[str]:
    names = {
        "first_ms": "time to the first token, idle",
        "one": "tokens/s, one stream",
        "many": f"tokens/s, {STREAMS} streams at once",
    }
    others = [name for name in out["rounds"] if name != OURS]
    lines = [
        f"Above 1 serve.py is faster: median of {len(out['rounds'][OURS])} rounds, the worst round "
        f"in brackets. float32, {out['new_tokens']} new tokens.",
        "",
        "| measure | " + " | ".join(others) + " | the faster of them |",
        "|---" * (len(others) + 2) + "|",
    ]
    for measure, ratio in out["ratios"].items():
        cells = [
            f"{statistics.median(ratio['rounds'][name]):.2f}x ({min(ratio['rounds'][name]):.2f}x)"
            for name in others
        ]
        lines.append(f"| {names[measure]} | {' | '.join(cells)} | {ratio['peer']} |")
    return lines + [f"\n{name} is out: {why}" for name, why in out["out"].items()]


def failed(out: Mapping[str, Any]) -> bool:
    """Whether the soak had an error, was cut, compiled something or left a row in work."""
    if not (soaked := out.get("soak")):
        return False
    short = soaked["sent"] < soaked["asked"]
    return bool(soaked["errors"] or short or out["compilations"] or soaked["rows_left"])


def note(text: str) -> None:
    print(f"bench_serve: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--workdir", required=True, help="of the run to serve")
    add("--against", choices=("transformers",), help="the same measures of its servers, in turns")
    add("--torch_python", metavar="PATH", help="a Python with transformers[serving] and torch")
    add("--rounds", type=int, default=5, help="turns of each server (default: 5)")
    add("--new_tokens", type=int, default=96, help="of every timed text (default: 96)")
    add("--waves", type=int, default=3, help="texts of one stream in a turn (default: 3)")
    add("--firsts", type=int, default=20, help="first tokens timed in a turn (default: 20)")
    add("--cancels", type=int, default=20, help="clients that go away (default: 20)")
    add("--soak", type=int, default=1000, metavar="N", help="mixed requests (default: 1000)")
    add("--soak_seconds", type=float, default=600, help="bound of the soak (default: 600)")
    add("--at_once", type=int, default=6, help="requests of the soak at once (default: 6)")
    add("--seed", type=int, default=0, help="of the soak's requests (default: 0)")
    add("--json", action="store_true", help="print one JSON object with all rounds")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no server behind
    with exit_on_user_error("bench_serve"):
        args.workdir = str(Path(args.workdir).resolve())
        out = measure(args)
        print(json.dumps(out) if args.json else report(out))
        if failed(out):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
