import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hlm_jax.errors import UserError
from hlm_jax.model import GPT, GPTConfig
from hlm_jax.train_step import init_state, loss_fn, make_mesh, make_train_step, resolve_dtype, token_losses

CFG = GPTConfig("gpt2", vocab_size=61, block_size=16, n_layer=2, n_head=2, n_embd=16, dropout=0.1, rope_theta=1e4)
OPTIMIZER = optax.adamw(1e-2)


def batches(n, seed=0):
    return [np.random.default_rng((seed, i)).integers(0, 61, (8, 17)).astype(np.int32) for i in range(n)]


@functools.cache
def compiled(n_devices=1, accumulate_steps=1, ema_decay=0.0, dropout=0.1):
    """(a function that makes a fresh state, the jitted step) of a setting, once per session."""
    mesh, model = make_mesh(jax.devices()[:n_devices]), GPT(dataclasses.replace(CFG, dropout=dropout))
    step = make_train_step(model, OPTIMIZER, accumulate_steps=accumulate_steps, ema_decay=ema_decay, mesh=mesh)
    return lambda: init_state(model, OPTIMIZER, jax.random.key(0), ema_decay=ema_decay, mesh=mesh), step


def run(n_devices=1, *, n_steps=4, data=None, **setting):
    fresh, step = compiled(n_devices, **setting)
    state, losses = fresh(), []
    for batch in data or batches(n_steps):
        state, metrics = step(state, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return losses, state


@pytest.fixture(scope="module")
def one():
    return run(1)


@pytest.mark.parametrize("n_devices", [2, 8])
def test_losses_do_not_depend_on_the_number_of_devices(one, n_devices):
    losses, state = run(n_devices)
    np.testing.assert_allclose(losses, one[0], rtol=2e-5)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(one[1].params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_training_learns_a_batch_by_heart():
    losses, state = run(data=batches(1) * 60)
    assert losses[-1] < 0.5 * losses[0]
    assert int(state.step) == 60


def test_accumulated_gradients_equal_those_of_the_whole_batch():
    whole, _ = run(dropout=0.0)
    parts, _ = run(dropout=0.0, accumulate_steps=4)
    np.testing.assert_allclose(parts, whole, rtol=2e-5)
    spread, _ = run(2, dropout=0.0, accumulate_steps=4)
    np.testing.assert_allclose(spread, whole, rtol=2e-5)


def test_dropout_of_a_step_depends_on_the_step_and_repeats_on_resume():
    data = batches(1) * 2
    assert run(data=data)[0][0] == run(data=data[:1])[0][0]
    params = compiled()[0]().params
    loss = jax.jit(lambda step: loss_fn(params, GPT(CFG), jnp.asarray(data[0]), jax.random.fold_in(jax.random.key(1), step)))
    assert float(loss(0)) == float(loss(0)) != float(loss(1))


def test_the_average_of_the_weights_follows_them():
    fresh, step = compiled(ema_decay=0.9)
    state = fresh()
    expected = np.asarray(state.params["token_embedding"])
    for i, batch in enumerate(batches(4)):
        state, _ = step(state, batch, jax.random.key(1))
        decay = min(0.9, (1 + i) / (10 + i))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["token_embedding"])
    np.testing.assert_allclose(state.ema_params["token_embedding"], expected, atol=1e-6)
    assert run(n_steps=1)[1].ema_params is None


def test_the_state_is_donated():
    fresh, step = compiled()
    state = fresh()
    step(state, batches(1)[0], jax.random.key(1))
    assert state.params["token_embedding"].is_deleted()


def test_token_losses_are_float32_negative_log_likelihoods():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.bfloat16)
    targets = jnp.array([[0, 1, 2], [3, 4, 0]])
    expected = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32))), np.asarray(targets)[..., None], -1)[..., 0]
    found = token_losses(logits, targets)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_dtype_policy():
    assert resolve_dtype("float32") == ("float32", "set in the config")
    assert resolve_dtype("auto")[0] in ("float32", "bfloat16")
    with pytest.raises(UserError, match="auto, float32 or bfloat16"):
        resolve_dtype("int8")
