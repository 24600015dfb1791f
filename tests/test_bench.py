"""The bench against PyTorch at toy size: its figures mean nothing, its refusals do."""

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent.parent / "scripts" / "bench"
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
    def run(what, *words, overrides=()):
        overrides = [f"--config.{word}" for word in (*TOY, "dtype=float32", *overrides)]
        # Without Dynamo torch.compile returns the module as it is: compiling takes a minute.
        env = {"TORCHDYNAMO_DISABLE": "1"}
        return command(
            "scripts/bench/bench.py", what, "--rounds", 2, "--json", *words, *overrides, env=env
        )

    return run


def test_both_compute_the_same_loss_and_the_faster_variant_is_the_peer(bench):
    done = bench("train", "--steps", 2)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)["train"]
    first, *others = out["loss_at_step_1"].values()
    assert others == pytest.approx([first] * len(others), rel=1e-4)
    ours, peer = out["seconds"]["jax"], out["seconds"][out["torch_variant"]]
    assert len(ours) == 2
    assert out["speed_against_torch"]["rounds"] == pytest.approx(
        [b / a for a, b in zip(ours, peer, strict=True)]
    )
    assert out["dtype"] == "float32"


def test_both_write_the_same_tokens(bench):
    done = bench("decode", "--new_tokens", 8, "--batch_size", 2)
    assert done.returncode == 0, done.stderr  # the bench refuses to report where tokens differ
    assert json.loads(done.stdout)["decode"]["tokens_per_second"] > 0


def test_work_that_the_peer_cannot_do_is_refused(bench):
    done = bench("train", overrides=["train.corrupt_inputs=0.1"])
    assert done.returncode == 2
    assert "set --config.train.corrupt_inputs=0" in done.stderr


def test_the_peers_muon_in_float32_is_torchs(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(
        sys, "stdout", sys.stdout
    )  # the worker takes standard output for its answers
    import bench_torch

    torch.manual_seed(0)
    for shape in ((48, 16), (16, 48), (32, 32)):
        grad, options = torch.randn(*shape), ((3.4445, -4.775, 2.0315), 5, 1e-7)
        theirs = torch.optim._muon._zeropower_via_newtonschulz(
            grad, *options
        ).float()  # in bfloat16
        torch.testing.assert_close(
            bench_torch.orthogonalise(grad, *options), theirs, atol=0.02, rtol=0
        )
