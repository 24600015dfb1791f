import contextlib
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT, GPTConfig
from hlm_jax.model.losses import token_losses
from hlm_jax.training.hardware import resolve_attention, resolve_dtype
from hlm_jax.training.mesh import local_copy, make_mesh
from hlm_jax.training.objective import corrupt, corruption_schedule, loss_fn
from hlm_jax.training.step import LossScale, abstract_state, init_state, make_step
from hlm_jax.training.teaching import mean_probabilities
from scripts.bench import gpu_program

CFG = GPTConfig(
    "gpt2",
    vocab_size=61,
    block_size=16,
    n_layer=1,
    n_head=2,
    n_embd=16,
    dropout=0.1,
    rope_theta=1e4,
)
OPTIMIZER = optax.adamw(1e-2)


def batches(n, seed=0):
    return [
        np.random.default_rng((seed, i)).integers(0, 61, (8, 17)).astype(np.int32) for i in range(n)
    ]


@functools.cache
def compiled(
    n_devices=1, grad_accum_steps=1, ema_decay=0.0, dropout=0.1, fsdp=1, dtype="float32", gpu=False
):
    """(a function that makes a fresh state, the jitted step) of a setting, once per session.

    `gpu` only keeps a step with a GPU's branches apart; it is compiled where it is first called.
    """
    mesh, model = (
        make_mesh(fsdp, jax.devices()[:n_devices]),
        GPT(dataclasses.replace(CFG, dropout=dropout), dtype),
    )
    step = make_step(
        model, OPTIMIZER, grad_accum_steps=grad_accum_steps, ema_decay=ema_decay, mesh=mesh
    )
    return lambda: init_state(
        model, OPTIMIZER, jax.random.key(0), ema_decay=ema_decay, mesh=mesh
    ), step


def run(n_devices=1, *, n_steps=4, data=None, **setting):
    fresh, step = compiled(n_devices, **setting)
    state, losses = fresh(), []
    branches = gpu_program.gpu_branches if setting.get("gpu") else contextlib.nullcontext
    with branches():
        for batch in data or batches(n_steps):
            state, metrics = step(state, batch[None], jax.random.key(1))
            losses.append(float(metrics["loss"][0]))
    return losses, state


@pytest.fixture(scope="module")
def one():
    return run(1)


@pytest.mark.parametrize(("n_devices", "fsdp"), [(2, 1), (8, 1), (8, 2), (8, 8)])
def test_losses_do_not_depend_on_the_mesh(one, n_devices, fsdp):
    losses, state = run(n_devices, fsdp=fsdp)
    cut = state.params["block_0"]["mlp"]["up"]["kernel"]
    assert cut.addressable_data(0).size == cut.size // fsdp
    whole = local_copy(state.params, make_mesh(fsdp, jax.devices()[:n_devices]))
    assert whole["block_0"]["mlp"]["up"]["kernel"].shape == cut.shape
    np.testing.assert_allclose(losses, one[0], rtol=2e-5)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(one[1].params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_several_steps_in_one_dispatch_equal_as_many_dispatches(one):
    fresh, step = compiled()
    state, metrics = step(fresh(), np.stack(batches(4)), jax.random.key(1))
    np.testing.assert_allclose(metrics["loss"], one[0], rtol=1e-6)
    assert int(state.step) == 4


def smooth(losses, n=25):
    return np.convolve(losses, np.ones(n) / n, mode="valid")


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_loss_curves_of_every_dtype_follow_float32(dtype, gpu):
    """Sequences with something to learn: every token is the one before plus a fixed stride."""
    rng = np.random.default_rng(0)
    starts, strides = rng.integers(0, 61, (300, 8, 1)), rng.integers(1, 4, (300, 8, 1))
    data = list(((starts + strides * np.arange(17)) % 61).astype(np.int32))
    expected = smooth(run(data=data)[0])
    found = smooth(run(data=data, dtype=dtype, gpu=gpu)[0])
    assert expected[-1] < 0.6 * expected[0]
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_float16_overflow_is_skipped_and_recovered():
    fresh, step = compiled(dtype="float16")
    state = fresh()
    before = jax.tree.map(np.asarray, state.params)
    state = state.replace(loss_scale=LossScale.create(2.0**40))
    skipped = []
    for batch in batches(40):
        state, metrics = step(state, batch[None], jax.random.key(1))
        skipped.append(int(metrics["skipped"][0]))
        if sum(skipped) == len(skipped):  # nothing has moved yet
            np.testing.assert_array_equal(
                state.params["token_embedding"], before["token_embedding"]
            )
    assert skipped[0] == 1
    assert sum(skipped) > 5
    assert skipped[-5:] == [0] * 5
    assert np.isfinite(float(metrics["loss"][0]))
    assert (np.asarray(state.params["token_embedding"]) != before["token_embedding"]).any()
    assert int(state.step) == 40


def test_the_loss_scale_grows_after_many_good_steps():
    scale = LossScale(jnp.float32(8.0), jnp.int32(LossScale.GROWTH_STEPS - 1)).update(
        jnp.bool_(True)
    )
    assert float(scale.scale) == 16.0
    assert int(scale.good_steps) == 0
    assert float(LossScale.create(8.0).update(jnp.bool_(False)).scale) == 4.0
    assert float(LossScale.create(1.0).update(jnp.bool_(False)).scale) == 1.0


def test_fsdp_must_divide_the_devices():
    with pytest.raises(UserError, match=r"mesh\.fsdp=3"):
        make_mesh(3)


def test_training_learns_a_batch_by_heart():
    losses, state = run(data=batches(1) * 60)
    assert losses[-1] < 0.5 * losses[0]
    assert int(state.step) == 60


def test_accumulated_gradients_equal_those_of_the_whole_batch():
    whole, _ = run(dropout=0.0)
    parts, _ = run(dropout=0.0, grad_accum_steps=4)
    np.testing.assert_allclose(parts, whole, rtol=2e-5)
    spread, _ = run(2, dropout=0.0, grad_accum_steps=4)
    np.testing.assert_allclose(spread, whole, rtol=2e-5)


def test_dropout_of_a_step_depends_on_the_step_and_repeats_on_resume():
    data = batches(1) * 2
    assert run(data=data)[0][0] == run(data=data[:1])[0][0]
    params = compiled()[0]().params
    loss = jax.jit(
        lambda step: loss_fn(
            params, GPT(CFG), jnp.asarray(data[0]), jax.random.fold_in(jax.random.key(1), step)
        )
    )
    assert float(loss(0)) == float(loss(0)) != float(loss(1))


def test_corruption_replaces_a_share_of_the_inputs_evenly_and_no_target():
    ids = jnp.full((256, 128), 7, jnp.int32)
    found = np.asarray(corrupt(ids, 0.1, 61, jax.random.key(0)))
    hit = found != 7
    assert hit.mean() == pytest.approx(0.1 * 60 / 61, abs=4 * math.sqrt(0.09 / hit.size))
    counts = np.bincount(found[hit], minlength=61)[np.arange(61) != 7]
    assert (abs(counts / counts.mean() - 1) < 6 / math.sqrt(counts.mean())).all()
    np.testing.assert_array_equal(found, corrupt(ids, 0.1, 61, jax.random.key(0)))
    assert (found != np.asarray(corrupt(ids, 0.1, 61, jax.random.key(1)))).any()

    model, params, window = (
        GPT(dataclasses.replace(CFG, dropout=0.0)),
        compiled()[0]().params,
        jnp.asarray(batches(1)[0]),
    )
    loss = jax.jit(loss_fn, static_argnums=1)
    plain = float(loss(params, model, window, None))
    assert float(loss(params, model, window, None, 0.5)) == plain  # evaluation reads clean text
    noisy = float(loss(params, model, window, jax.random.key(0), 0.5))
    assert noisy != plain
    key = jax.random.fold_in(jax.random.key(0), 1 << 20)
    inputs = corrupt(window[:, :-1], 0.5, CFG.vocab_size, key)
    expected = token_losses(model.apply({"params": params}, inputs)[0], window[:, 1:]).mean()
    assert noisy == pytest.approx(float(expected), rel=1e-6)


def corrupted_losses(n_devices, corruption):
    mesh, model = make_mesh(1, jax.devices()[:n_devices]), GPT(CFG)
    step = make_step(
        model, OPTIMIZER, grad_accum_steps=1, ema_decay=0.0, mesh=mesh, corruption=corruption
    )
    state = init_state(model, OPTIMIZER, jax.random.key(0), ema_decay=0.0, mesh=mesh)
    _, metrics = step(state, np.stack(batches(2)), jax.random.key(1))
    return np.asarray(metrics["loss"])


def test_corruption_does_not_depend_on_the_mesh():
    one = corrupted_losses(1, lambda step: 0.3)
    np.testing.assert_allclose(corrupted_losses(8, lambda step: 0.3), one, rtol=2e-5)
    assert (one != run(n_steps=2)[0]).all()


def test_corruption_falls_over_the_last_share_of_the_steps():
    schedule = corruption_schedule(rate=0.3, final=0.1, anneal=0.2, total_steps=100)
    assert [float(schedule(step)) for step in (0, 79, 80, 90, 100)] == pytest.approx(
        [0.3, 0.3, 0.3, 0.2, 0.1]
    )
    assert float(
        corruption_schedule(rate=0.3, final=0.1, anneal=0.0, total_steps=100)(100)
    ) == pytest.approx(0.3)
    assert corruption_schedule(rate=0.0, final=0.1, anneal=0.2, total_steps=100) is None
    # A step reads the rate of its own number: the second step of a run of one is clean.
    found, plain = (
        corrupted_losses(1, corruption_schedule(rate=0.3, final=0.0, anneal=1.0, total_steps=1)),
        run(n_steps=2)[0],
    )
    assert found[0] != plain[0]
    constant = corrupted_losses(1, lambda step: 0.3)
    assert found[0] == constant[0]
    assert found[1] != constant[1]


def test_a_teacher_has_its_part_in_the_target_and_in_the_gradient():
    rng = np.random.default_rng(0)
    logits, taught = (jnp.asarray(rng.normal(size=(2, 5, 11)), jnp.float32) for _ in range(2))
    targets, taught = jnp.asarray(rng.integers(0, 11, (2, 5))), jax.nn.softmax(3 * taught)
    target = 0.3 * jax.nn.one_hot(targets, 11) + 0.7 * taught
    grad = jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
    expected, theirs = jax.vjp(lambda x: optax.softmax_cross_entropy(x, target), logits)
    found, ours = jax.vjp(lambda x: token_losses(x, targets, taught, 0.7), logits)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(ours(grad)[0], theirs(grad)[0], atol=1e-6)


def test_a_student_that_agrees_with_its_teachers_has_nothing_to_learn():
    model, other = (
        GPT(dataclasses.replace(CFG, dropout=0.0)),
        GPT(dataclasses.replace(CFG, dropout=0.0, n_embd=8)),
    )
    params, window = compiled()[0]().params, jnp.asarray(batches(1)[0])
    theirs = init_state(
        other, OPTIMIZER, jax.random.key(3), ema_decay=0.0, mesh=make_mesh(1, jax.devices()[:1])
    ).params

    def gradients(teachers, teacher_params, weight):
        predicted = None
        if teachers:
            predicted = jax.jit(functools.partial(mean_probabilities, teachers))(
                teacher_params, window[:, :-1]
            )
        return jax.jit(jax.grad(lambda p: loss_fn(p, model, window, None, 0.0, predicted, weight)))(
            params
        )

    itself, text = gradients((model, model), (params, params), 1.0), gradients((), (), 0.0)
    assert float(optax.global_norm(itself)) < 1e-5 * float(optax.global_norm(text))
    # A share of every target is the teachers' mean: the gradient is linear in the targets.
    both = gradients((model, other), (params, theirs), 0.6)
    second = gradients((other,), (theirs,), 1.0)
    expected = jax.tree.map(lambda a, b, c: 0.4 * a + 0.3 * b + 0.3 * c, text, itself, second)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), both, expected)


def taught_steps(n_devices, taught, accumulated=1, cfg=CFG):
    """The losses of two steps whose windows have predictions of teachers, [2, B, T, V]."""
    mesh, model = make_mesh(1, jax.devices()[:n_devices]), GPT(cfg)
    step = make_step(
        model,
        OPTIMIZER,
        grad_accum_steps=accumulated,
        ema_decay=0.0,
        mesh=mesh,
        teacher_weight=0.5,
    )
    state = init_state(model, OPTIMIZER, jax.random.key(0), ema_decay=0.0, mesh=mesh)
    _, metrics = step(state, np.stack(batches(2)), jax.random.key(1), taught)
    return np.asarray(metrics["loss"])


def predictions():
    rows = np.stack(batches(2))[..., :-1]
    some = np.random.default_rng(5).normal(size=(*rows.shape, CFG.vocab_size))
    return np.asarray(jax.nn.softmax(some), np.float16)


def test_distillation_does_not_depend_on_the_mesh():
    one = taught_steps(1, predictions())
    np.testing.assert_allclose(taught_steps(8, predictions()), one, rtol=2e-5)
    assert (one != run(n_steps=2)[0]).all()


def test_parts_of_a_batch_have_their_own_predictions():
    cfg = dataclasses.replace(CFG, dropout=0.0)
    whole = taught_steps(1, predictions(), cfg=cfg)
    np.testing.assert_allclose(taught_steps(1, predictions(), 2, cfg), whole, rtol=2e-5)


def test_a_window_of_zeros_has_no_teacher():
    taught = predictions()
    taught[:, ::2] = 0
    some, none = taught_steps(1, taught), taught_steps(1, np.zeros_like(taught))
    np.testing.assert_allclose(none, run(n_steps=2)[0], rtol=1e-6)
    # The first step's loss is linear in the rows that are taught.
    whole = taught_steps(1, predictions())
    taught = predictions()
    taught[:, 1::2] = 0
    other = taught_steps(1, taught)
    assert some[0] + other[0] == pytest.approx(whole[0] + none[0], rel=1e-6)
    assert abs(some[0] - none[0]) > 1e-4


def test_the_average_of_the_weights_follows_them():
    fresh, step = compiled(ema_decay=0.9)
    state = fresh()
    expected = np.asarray(state.params["token_embedding"])
    for i, batch in enumerate(batches(4)):
        state, _ = step(state, batch[None], jax.random.key(1))
        decay = min(0.9, (1 + i) / (10 + i))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["token_embedding"])
    np.testing.assert_allclose(state.ema_params["token_embedding"], expected, atol=1e-6)
    assert run(n_steps=1)[1].ema_params is None


def test_the_abstract_state_is_the_states_shapes_and_layout():
    mesh, model = make_mesh(2), GPT(CFG, "float16")
    words = {"ema_decay": 0.9, "mesh": mesh}
    real = init_state(model, OPTIMIZER, jax.random.key(0), **words)
    abstract = abstract_state(model, OPTIMIZER, **words)
    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    for a, b in zip(jax.tree.leaves(real), jax.tree.leaves(abstract), strict=True):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)


def test_the_state_is_donated():
    fresh, step = compiled()
    state = fresh()
    step(state, batches(1)[0][None], jax.random.key(1))
    assert state.params["token_embedding"].is_deleted()


def test_token_losses_are_float32_negative_log_likelihoods():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.bfloat16)
    targets = jnp.array([[0, 1, 2], [3, 4, 0]])
    expected = -np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32))),
        np.asarray(targets)[..., None],
        -1,
    )[..., 0]
    found = token_losses(logits, targets)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_attention_policy():
    name, why = resolve_attention("auto", CFG, "bfloat16", 8)
    assert (name, "dropout needs a GPU" in why) == ("xla", True)
    with pytest.raises(UserError, match=r"attention=fused: .*dropout needs a GPU.*attention=auto"):
        resolve_attention("fused", CFG, "bfloat16", 8)
    plain = dataclasses.replace(CFG, dropout=0.0)
    assert resolve_attention("auto", plain, "bfloat16", 8)[0] == "xla"  # this is a CPU
    assert resolve_attention("fused", plain, "bfloat16", 8)[0] == "fused"
    with pytest.raises(UserError, match="auto, xla or fused"):
        resolve_attention("flash", plain, "bfloat16", 8)


class Card:
    platform, device_kind = "gpu", "a card"

    def __init__(self, capability):
        self.compute_capability = capability


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [("9.0", "bfloat16"), ("7.5", "float16"), ("6.1", "float32"), ("gfx90a", "float32")],
)
def test_dtype_follows_the_card(monkeypatch, capability, dtype):
    monkeypatch.setattr(jax, "devices", lambda: [Card(capability)])
    assert resolve_dtype("auto")[0] == dtype


def test_dtype_policy():
    assert resolve_dtype("float32") == ("float32", "set in the config")
    assert resolve_dtype("auto")[0] in ("float32", "bfloat16")
    with pytest.raises(UserError, match="auto, float32, bfloat16 or float16"):
        resolve_dtype("int8")
