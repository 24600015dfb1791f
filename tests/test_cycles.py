"""Cycles of the rate in a whole run: the weights at their ends are what is read."""

import jax
import numpy as np
import orbax.checkpoint as ocp

from hlm_jax import checkpoint
from hlm_jax.checkpoint import folder_of
from hlm_jax.training.journal import read_metrics

CYCLES = (
    "optim.cycles=2",
    "optim.schedule=linear",
    "train.ema_decay=0.9",
    "train.steps=40",
    "train.eval_every_steps=4",
    "checkpoint.every_steps=4",
    "checkpoint.keep_latest=9",
    "train.log_every_steps=1",
)


def test_what_is_read_is_the_mean_of_the_weights_at_the_ends(train, tmp_path):
    done = train(tmp_path, *CYCLES)
    assert done.returncode == 0, done.stderr
    whole = ocp.PyTreeCheckpointer()
    at = {step: whole.restore(folder_of(tmp_path) / str(step) / "params") for step in (32, 36, 40)}
    jax.tree.map(np.testing.assert_array_equal, at[36]["ema_params"], at[36]["params"])
    expected = jax.tree.map(lambda a, b: (a + 2 * b) / 3, at[36]["params"], at[40]["params"])
    read = checkpoint.read(tmp_path, 40)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), read, expected)
    assert np.abs(at[32]["ema_params"]["token_embedding"] - read["token_embedding"]).max() > 1e-5
    rates = [row["learning_rate"] for row in read_metrics(tmp_path) if "loss" in row]
    peak = rates[0]
    assert len(rates) == 40
    np.testing.assert_allclose(rates[32:36], np.linspace(0.3, 0.03, 4) * peak, rtol=1e-5)
    np.testing.assert_allclose(rates[36:], rates[32:36], rtol=1e-5)


def test_too_many_are_refused_in_a_line(train, tmp_path):
    done = train(tmp_path / "run", "optim.cycles=5", *CYCLES[1:])
    assert done.returncode == 2
    assert "set --config.optim.cycles to 4 or less" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_keeps_the_cycles_that_it_began_with(train, tmp_path):
    words = *CYCLES[1:3], "train.steps=4"
    assert train(tmp_path, *words).returncode == 0
    done = train(tmp_path, "optim.cycles=2", *CYCLES[1:4])
    assert done.returncode == 2
    assert "optim.cycles: 0 -> 2" in done.stderr
