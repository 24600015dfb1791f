"""The profile of a CPU's step: it holds the products, with the operations of the model."""

import json

import pytest

TOY = {
    "model.vocab_size": 300,
    "model.block_size": 32,
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 32,
    "train.batch_size": 2,
}


def test_a_profile_has_the_operations_of_the_model(command):
    overrides = [f"--config.{key}={value}" for key, value in TOY.items()]
    done = command("scripts/bench/cpu_step.py", "--json", *overrides, "--config.dtype=bfloat16")
    out = json.loads(done.stdout)
    assert 0.5 < out["recorded"] <= 1
    rows = [row for row in out["rows"] if row["kind"] == "products"]
    assert all(row["time"] > 0 for row in rows)
    products = {row["part"]: row["gigaflops"] for row in rows}
    tokens, width, hidden, layers = 2 * 32, 32, 128, 2  # hidden: 8/3 x 32, to a multiple of 64
    # Forward, and two products backward; three matrices of an MLP, four of attention.
    assert products["MLP"] == pytest.approx(3 * 2 * tokens * 3 * width * hidden * layers / 1e9)
    projections = 3 * 2 * tokens * 4 * width * width * layers / 1e9
    assert products["attention projections"] == pytest.approx(projections)


def test_teachers_are_refused(command):
    done = command("scripts/bench/cpu_step.py", "--config.train.teachers=runs/a")
    assert done.returncode == 2
    assert "leave train.teachers empty" in done.stderr
