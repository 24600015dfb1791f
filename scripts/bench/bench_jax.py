"""This project's side of the bench, as a worker process. Run by bench.py, not by hand."""

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bench_device import normalised, processor

from hlm_jax.model.generate import SamplingParams, generate
from hlm_jax.model.gpt import GPT, GPTConfig
from hlm_jax.training import optim
from hlm_jax.training.hardware import resolve_attention, resolve_dtype
from hlm_jax.training.mesh import make_mesh
from hlm_jax.training.objective import loss_fn
from hlm_jax.training.step import init_state, make_step

sys.stdout, replies = sys.stderr, sys.stdout


def exact_float32(dtype):
    """Products of float32 without TensorFloat-32, which PyTorch's side has off as well."""
    precision = "highest" if dtype == "float32" else None
    jax.config.update("jax_default_matmul_precision", precision)


class Training:
    def __init__(self, r):
        exact_float32(r["dtype"])
        model = {k: v for k, v in r["model"].items() if k != "hidden"}
        cfg = GPTConfig(**model)
        self.attention, _ = resolve_attention(r["attention"], cfg, r["dtype"], r["batch_size"])
        mesh = make_mesh()
        self.model = GPT(cfg, r["dtype"], self.attention, mesh)
        jax.config.update("jax_compilation_cache_dir", r["folder"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        optimizer, _ = optim.make_optimizer(
            **r["optim"], total_steps=10_000, product_dtype=r["dtype"]
        )
        self.state = init_state(self.model, optimizer, jax.random.key(0), ema_decay=0.0, mesh=mesh)
        self.steps: Any = make_step(
            self.model, optimizer, grad_accum_steps=1, ema_decay=0.0, mesh=mesh
        )
        self.key = jax.random.key(1)
        if not r.get("load"):
            flat = jax.tree_util.tree_leaves_with_path(self.state.params)
            weights: dict[str, Any] = {
                "/".join(k.key for k in path): np.asarray(x) for path, x in flat
            }
            np.savez(r["weights"], **weights)
            rng = np.random.default_rng(0)
            np.save(
                r["batch"],
                rng.integers(0, model["vocab_size"], (r["batch_size"], model["block_size"] + 1)),
            )
        self.batch = np.load(r["batch"]).astype(np.int32)
        self.chunk = np.repeat(self.batch[None], r["steps_per_dispatch"], axis=0)

    def first_loss(self):
        loss = jax.jit(lambda p, b: loss_fn(p, self.model, b, None))
        return float(loss(self.state.params, self.batch))

    def compile(self):
        seconds = []
        for _ in range(2):  # the second time from the cache on disk
            jax.clear_caches()
            began = time.perf_counter()
            self.compiled = self.steps.lower(self.state, self.chunk, self.key).compile()
            seconds.append(time.perf_counter() - began)
        memory = self.compiled.memory_analysis()
        peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes if memory else None
        cold, cached = seconds
        return {
            "attention": self.attention,
            "compile_seconds_cold": cold,
            "compile_seconds_cached": cached,
            "program_bytes": peak,
        }

    def time(self, n):
        began = time.perf_counter()
        for _ in range(n // len(self.chunk)):
            self.state, metrics = self.compiled(self.state, self.chunk, self.key)
        np.asarray(metrics["loss"])
        return time.perf_counter() - began


class Decoding:
    def __init__(self, r):
        exact_float32(r["dtype"])
        model = {k: v for k, v in r["model"].items() if k != "hidden"}
        self.r = r
        self.model = GPT(GPTConfig(**model), r["dtype"])
        flat = dict(np.load(r["weights"]))
        params: dict[str, Any] = {}
        for path, value in flat.items():
            *parents, name = path.split("/")
            place = params
            for parent in parents:
                place = place.setdefault(parent, {})
            place[name] = jnp.asarray(
                value,
                jnp.dtype(r["dtype"])
                if r["dtype"] != "float32" and value.ndim > 1
                else jnp.float32,
            )
        self.params = params
        rng = np.random.default_rng(0)
        self.prompts = rng.integers(
            0, model["vocab_size"], (r["batch_size"], r["prompt_tokens"])
        ).tolist()

    def tokens(self):
        n = self.r["new_tokens"]
        return generate(
            self.model,
            self.params,
            self.prompts,
            [SamplingParams(temperature=0.0)] * len(self.prompts),
            max_new_tokens=n,
            dispatch_tokens=n,
        ).tolist()

    def time(self, n):
        began = time.perf_counter()
        for _ in range(n):
            self.tokens()
        return time.perf_counter() - began


def matmul_flops(dtype):
    """Measured speed of a matrix product in FLOP/s, float32 sums."""
    size = 4096 if jax.default_backend() == "gpu" else 1024
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32))
    product(x, x).block_until_ready()
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def device():
    d = jax.devices()[0]
    stats = d.memory_stats() or {}
    return {
        "kind": jax.default_backend(),
        "device": processor() if d.platform == "cpu" else normalised(d.device_kind),
        "devices": jax.device_count(),
        "capability": getattr(d, "compute_capability", None),
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "jax": jax.__version__,
    }


def main() -> None:
    job: Any = None
    for line in sys.stdin:
        r = json.loads(line)
        if r["do"] == "train":
            job = Training(r)
            answer = {"loss": job.first_loss()} | job.compile()
        elif r["do"] == "decode":
            job = Decoding(r)
            answer = {"tokens": job.tokens()}
        elif r["do"] == "time":
            answer = {"seconds": job.time(r["n"])}
        elif r["do"] == "matmul":
            answer = {"flops": matmul_flops(r["dtype"])}
        elif r["do"] == "dtype":
            answer = dict(zip(("dtype", "reason"), resolve_dtype(r["name"]), strict=True))
        else:
            answer = device()
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
