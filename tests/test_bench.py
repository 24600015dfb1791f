"""The bench against PyTorch at toy size: its figures mean nothing, its refusals do."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parent.parent
SCRIPTS = REPO / "scripts" / "bench"
TOY = (
    "model.vocab_size=300",
    "model.block_size=32",
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=16",
    "train.batch_size=2",
)


@pytest.fixture
def bench(command):
    def run(what, *words, overrides=(), torch_python=sys.executable):
        words = ("--torch_python", torch_python, *words)
        overrides = [f"--config.{word}" for word in (*TOY, "dtype=float32", *overrides)]
        # Without Dynamo torch.compile returns the module as it is: compiling takes a minute.
        env = {"TORCHDYNAMO_DISABLE": "1"}
        return command(
            "scripts/bench/bench.py", what, "--rounds", 2, "--json", *words, *overrides, env=env
        )

    return run


@pytest.fixture
def modules(monkeypatch):
    """The modules bench and bench_torch."""
    monkeypatch.syspath_prepend(SCRIPTS)
    # The worker takes standard output for its answers.
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    return importlib.import_module("bench"), importlib.import_module("bench_torch")


def program(folder, text):
    """A stand-in for the Python that has PyTorch."""
    path = folder / "torch_python"
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)
    return path


def test_both_compute_the_same_loss_and_the_faster_variant_is_the_peer(bench, tmp_path):
    log = tmp_path / "log"
    python = program(tmp_path, f'echo + >>{log}; {sys.executable} "$@"; echo - >>{log}')
    done = bench("train", "--steps", 2, torch_python=python)
    assert done.returncode == 0, done.stderr
    # The look at the device and two variants: each has ended before the next begins.
    assert log.read_text().split() == ["+", "-"] * 3
    out = json.loads(done.stdout)["train"]
    first, *others = out["loss_at_step_1"].values()
    assert others == pytest.approx([first] * len(others), rel=1e-4)
    ours, peer = (out["seconds"][out["torch_variant"]][name] for name in ("jax", "torch"))
    assert len(ours) == 2
    assert out["speed_against_torch"]["rounds"] == pytest.approx(
        [b / a for a, b in zip(ours, peer, strict=True)]
    )
    assert out["dtype"] == "float32"


def test_both_write_the_same_tokens(bench):
    done = bench("decode", "--new_tokens", 8, "--batch_size", 2)
    assert done.returncode == 0, done.stderr  # the bench refuses to report where tokens differ
    assert json.loads(done.stdout)["decode"]["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ('{"kind": "gpu", "device": "h100 pcie", "torch": "2.9"}', "PyTorch 2.9 on the gpu h100"),
        ('{"kind": "cpu", "device": "z80", "torch": "2.9"}', "PyTorch 2.9 on the cpu z80"),
        ('{"error": "PyTorch 2.9 finds no gpu"}', "but PyTorch 2.9 finds no gpu"),
    ],
)
@pytest.mark.parametrize("what", ["train", "decode"])
def test_another_device_than_jaxs_is_refused(bench, tmp_path, what, answer, message):
    done = bench(what, torch_python=program(tmp_path, f"read line; echo '{answer}'"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench: error: not the same device: JAX computes on the cpu ")
    assert message in line


def test_a_python_without_torch_is_one_line(bench, tmp_path):
    done = bench("train", torch_python=program(tmp_path, "echo no module torch >&2; exit 1"))
    assert done.returncode == 2
    assert "the torch worker died: no module torch" in done.stderr
    done = bench("train", torch_python=tmp_path / "absent")
    assert done.returncode == 2
    assert done.stderr.endswith("absent: no such program\n")


def test_the_peer_computes_only_on_the_kind_of_device_that_it_is_told(modules):
    _, bench_torch = modules
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(bench_torch.NoSuchDevice, match="finds no gpu"):
            bench_torch.device_of("gpu")
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 PCIe")
        patch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
        assert bench_torch.device_of("cpu") == "cpu"
        assert bench_torch.describe("gpu")["device"] == "h100 pcie"
        for kind in ("tpu", "mps"):
            with pytest.raises(bench_torch.NoSuchDevice, match=f"finds no {kind}"):
                bench_torch.device_of(kind)


def test_the_peer_needs_no_jax(environment):
    code = "import sys; sys.modules['jax'] = None; import bench_torch, transformers.models.gpt2"
    env = environment | {"PYTHONPATH": f"{SCRIPTS}:{REPO}"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_float32_products_are_exact_on_both_sides(modules):
    import jax
    import jax.numpy as jnp

    bench_jax = importlib.import_module("bench_jax")
    x = jnp.ones((4, 4))
    found = {}
    for dtype in ("float32", "bfloat16"):
        bench_jax.exact_float32(dtype)
        found[dtype] = jax.jit(lambda x: x @ x).lower(x).as_text()
    assert "HIGHEST" in found["float32"]
    assert "HIGHEST" not in found["bfloat16"]
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_workers_leave_memory_to_each_other_and_see_one_card(modules, monkeypatch):
    bench, _ = modules
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    env = bench.environment(cores=1)
    assert env["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert (env["CUDA_VISIBLE_DEVICES"], env["OMP_NUM_THREADS"]) == ("3", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert bench.environment()["CUDA_VISIBLE_DEVICES"] == "0"


def test_work_that_the_peer_cannot_do_is_refused(bench):
    done = bench("train", overrides=["train.corrupt_inputs=0.1"])
    assert done.returncode == 2
    assert "set --config.train.corrupt_inputs=0" in done.stderr


def test_the_peers_iteration_is_torchs_where_all_steps_are_equal(modules):
    _, bench_torch = modules
    torch.manual_seed(0)
    jordan = (3.4445, -4.775, 2.0315)
    for shape in ((48, 16), (16, 48), (32, 32)):
        grad = torch.randn(*shape)
        theirs = torch.optim._muon._zeropower_via_newtonschulz(grad, jordan, 5, 1e-7)  # bfloat16
        ours = bench_torch.orthogonalise(grad, [jordan] * 5, torch.float32, 1e-7)
        torch.testing.assert_close(ours, theirs.float(), atol=0.02, rtol=0)
        ours = bench_torch.orthogonalise(grad, [jordan] * 5, torch.bfloat16, 1e-7)
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
