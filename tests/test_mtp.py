"""Predicting the token after the next: its loss, and that it leaves no trace in what is read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hlm_jax import checkpoint
from hlm_jax.checkpoint import folder_of
from hlm_jax.model.gpt import GPT, GPTConfig
from hlm_jax.model.shape import MTP, without_mtp
from hlm_jax.training.checkpointer import array_names
from hlm_jax.training.journal import read_metrics
from hlm_jax.training.mesh import make_mesh
from hlm_jax.training.objective import ahead_schedule, loss_fn
from hlm_jax.training.step import init_state, init_state_from, make_step

CFG = GPTConfig(
    "qwen3",
    vocab_size=61,
    block_size=16,
    n_layer=1,
    n_head=2,
    n_embd=16,
    dropout=0.0,
    rope_theta=1e4,
)
WINDOWS = np.random.default_rng(0).integers(0, 61, (8, 17)).astype(np.int32)
SGD = optax.sgd(1.0)  # a step subtracts the gradient


def fresh(mtp=True):
    mesh, model = make_mesh(1, jax.devices()[:1]), GPT(CFG, mtp=mtp)
    state = init_state(model, SGD, jax.random.key(0), ema_decay=0.0, mesh=mesh)
    return model, mesh, state


def gradient(weight, mtp=True, parts=1):
    """(the gradient that a step takes, the loss that it reports)."""
    model, mesh, state = fresh(mtp)
    step = make_step(
        model,
        SGD,
        grad_accum_steps=parts,
        ema_decay=0.0,
        mesh=mesh,
        ahead=(lambda _: jnp.float32(weight)) if mtp else None,
    )
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = step(state, WINDOWS[None], jax.random.key(1))
    after = jax.tree.map(np.asarray, state.params)
    return jax.tree.map(np.subtract, before, after), float(metrics["loss"][0])


def minimised(params, weight):
    """The two parts written out with optax, from what the model gives."""
    apply = GPT(CFG, mtp=True).apply
    (logits, _), between = apply({"params": params}, WINDOWS[:, :-1], mutable="intermediates")
    loss = optax.softmax_cross_entropy_with_integer_labels
    (state,) = between["intermediates"]["ahead"]
    ahead = state @ params["token_embedding"].T
    next_one = loss(logits, WINDOWS[:, 1:]).mean()
    return next_one + weight * loss(ahead[:, :-1], WINDOWS[:, 2:]).mean()


@pytest.mark.parametrize("parts", [1, 2])
def test_the_gradient_is_that_of_both_parts_and_the_loss_reported_of_the_next_token(parts):
    params = fresh()[2].params
    expected = jax.jit(jax.grad(minimised), static_argnums=1)(params, 0.7)
    found, loss = gradient(0.7, parts=parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    assert float(optax.global_norm(found[MTP])) > 1e-3
    assert loss == pytest.approx(float(loss_fn(without_mtp(params), GPT(CFG), WINDOWS, None)))


def test_without_weight_nothing_changes():
    found, loss = gradient(0.0)
    expected, plain = gradient(0.0, mtp=False)
    assert loss == pytest.approx(plain)
    assert not np.any(jax.flatten_util.ravel_pytree(found[MTP])[0])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), without_mtp(found), expected
    )


def test_the_weight_falls_to_nothing_over_two_thirds_of_the_steps():
    assert ahead_schedule(0.0, 90) is None
    weight = ahead_schedule(0.3, 90)
    assert [float(weight(step)) for step in (0, 30, 60, 89)] == pytest.approx([0.3, 0.15, 0, 0])


def test_a_run_that_starts_from_other_weights_draws_what_they_lack():
    model, mesh, state = fresh()
    params = jax.tree.map(lambda x: np.asarray(x) + 1, without_mtp(state.params))
    begun = init_state_from(params, model, SGD, jax.random.key(0), ema_decay=0.0, mesh=mesh)
    expected = params | {MTP: state.params[MTP]}
    assert jax.tree.structure(begun.params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, begun.params, expected)


def test_a_run_keeps_it_for_training_and_readers_never_see_it(train, tmp_path):
    words = "train.mtp_weight=0.3", "model.form=qwen3", "train.ema_decay=0.5"
    assert train(tmp_path / "run", *words).returncode == 0
    step, params, _ = checkpoint.read(tmp_path / "run", "latest")
    names = array_names(folder_of(tmp_path / "run") / str(step) / "params")
    kept = {name.split(".")[0] for name in names if f".{MTP}." in name}
    assert kept == {"params", "ema_params"}
    assert MTP not in params
    plain = "model.form=qwen3", "train.ema_decay=0.5"
    assert train(tmp_path / "plain", *plain).returncode == 0
    theirs = checkpoint.read(tmp_path / "plain", "latest")[1]
    assert jax.tree.structure(params) == jax.tree.structure(theirs)
    first, other = (
        next(row["loss"] for row in read_metrics(tmp_path / name) if "loss" in row)
        for name in ("run", "plain")
    )
    assert first == pytest.approx(other, rel=0.02)  # not that of two tokens
    out = train(tmp_path / "run", *words, "train.steps=24")
    assert out.returncode == 0, out.stderr
    assert "resuming from step 12" in out.stdout
    line = "weight of the token after the next: 0.0% at this step by the schedule of before, 7.5% "
    assert line in out.stdout
    refused = train(tmp_path / "run", *plain, "train.steps=24")
    assert refused.returncode == 2
    assert "train.mtp_weight" in refused.stderr


def test_a_student_has_it_and_its_teacher_need_not(train, tmp_path):
    assert train(tmp_path / "first", "train.mtp_weight=0.3").returncode == 0
    words = "train.mtp_weight=0.2", f"train.teachers={tmp_path / 'first'}"
    done = train(tmp_path / "second", *words)
    assert done.returncode == 0, done.stderr


def test_gpt2_has_it_too():
    model = GPT(dataclasses.replace(CFG, form="gpt2"), mtp=True)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    assert set(params[MTP]["norm"]) == {"scale", "bias"}
