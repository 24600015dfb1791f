import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import linprog

from hlm_jax.errors import UserError
from hlm_jax.training.optim import (
    QUINTICS,
    decay_mask,
    make_optimizer,
    make_schedule,
    optimizer_labels,
    orthogonalise,
    scale_by_muon,
)
from scripts.bench.gpu_program import gpu_branches

OPTIONS = {
    "name": "adamw",
    "learning_rate": 0.1,
    "muon_learning_rate": 0.02,
    "muon_steps": 3,
    "schedule": "constant",
    "warmup_steps": 0,
    "final_fraction": 0.0,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "grad_clip_norm": 0.0,
    "total_steps": 100,
}
PARAMS = {
    "token_embedding": jnp.ones((6, 4)),
    "block_0": {
        "qkv": {"kernel": jnp.ones((4, 12)), "bias": jnp.ones(12)},
        "norm": {"scale": jnp.ones(4)},
    },
}


def schedule(**changes):
    options = {
        "schedule": "constant",
        "peak": 1.0,
        "warmup_steps": 0,
        "final_fraction": 0.1,
        "total_steps": 100,
    } | changes
    return [float(make_schedule(**options)(step)) for step in range(101)]


def test_schedules():
    assert set(schedule()) == {1.0}
    warm = schedule(schedule="cosine", warmup_steps=10)
    assert warm[0] == pytest.approx(0.1)
    assert warm[10] == pytest.approx(1.0)
    assert warm[55] == pytest.approx(0.55)
    assert warm[100] == pytest.approx(0.1)
    linear = schedule(schedule="linear", final_fraction=0.0)
    assert linear[50] == pytest.approx(0.5)
    assert linear[100] == 0.0
    assert all(np.diff(linear) < 0)
    with pytest.raises(UserError, match="constant, cosine or linear"):
        schedule(schedule="step")


def updates(grads=PARAMS, **changes):
    optimizer, _ = make_optimizer(**OPTIONS | changes)
    return optimizer.update(grads, optimizer.init(PARAMS), PARAMS)[0]


def test_decay_reaches_matrices_only():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    moved = updates(zero, weight_decay=0.5)
    np.testing.assert_allclose(moved["token_embedding"], -0.05, rtol=1e-6)
    np.testing.assert_allclose(moved["block_0"]["qkv"]["kernel"], -0.05, rtol=1e-6)
    assert not np.asarray(moved["block_0"]["qkv"]["bias"]).any()
    assert not np.asarray(moved["block_0"]["norm"]["scale"]).any()
    assert decay_mask(PARAMS)["block_0"]["norm"]["scale"] is False
    moved = updates(
        zero, weight_decay=0.5, name="muon"
    )  # every matrix at the rate that it moves at
    np.testing.assert_allclose(moved["token_embedding"], -0.05, rtol=1e-6)
    np.testing.assert_allclose(moved["block_0"]["qkv"]["kernel"], -0.01, rtol=1e-6)
    assert not np.asarray(moved["block_0"]["norm"]["scale"]).any()


def test_adamw_follows_the_papers_equations():
    """Two steps written out in numpy (Loshchilov & Hutter 2019, algorithm 2)."""
    options = OPTIONS | {"weight_decay": 0.3, "eps": 1e-3}
    optimizer, _ = make_optimizer(**options)
    x = np.asarray(random_grads(3)["token_embedding"], np.float64)
    params, state = {"kernel": jnp.asarray(x, jnp.float32)}, None
    state = optimizer.init(params)
    m = v = np.zeros_like(x)
    for t in (1, 2):
        grad = np.asarray(random_grads(t)["token_embedding"], np.float64)
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        corrected = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-3)
        x = x - 0.1 * (corrected + 0.3 * x)
        moved, state = optimizer.update({"kernel": jnp.asarray(grad, jnp.float32)}, state, params)
        params = optax.apply_updates(params, moved)
    np.testing.assert_allclose(params["kernel"], x, rtol=2e-5, atol=1e-6)


def test_gradients_are_clipped_to_the_norm():
    huge = jax.tree.map(lambda x: 1e6 * x, PARAMS)
    optimizer, _ = make_optimizer(**OPTIONS | {"grad_clip_norm": 1.0})
    state = optimizer.update(huge, optimizer.init(PARAMS), PARAMS)[1]
    moments = [x for x in jax.tree.leaves(state) if x.ndim]
    first = jnp.sqrt(sum(jnp.square(x).sum() for x in moments[: len(moments) // 2]))
    assert float(first) == pytest.approx(0.1, rel=1e-4)  # (1 - b1) x a gradient of norm 1


def test_muon_orthogonalises_hidden_matrices_and_leaves_the_rest_to_adamw():
    labels = optimizer_labels(PARAMS)
    assert (
        labels["token_embedding"]
        == labels["block_0"]["qkv"]["bias"]
        == labels["block_0"]["norm"]["scale"]
        == "adamw"
    )
    assert labels["block_0"]["qkv"]["kernel"] == "muon"
    moved = updates(random_grads(), name="muon")
    singular = np.linalg.svd(np.asarray(moved["block_0"]["qkv"]["kernel"]))[1]
    assert (
        singular.max() / singular.min() < 2.5
    )  # Newton-Schulz gives singular values of roughly one size
    rest = optax.nadamw(0.1, weight_decay=0.0)
    expected = rest.update(random_grads(), rest.init(PARAMS), PARAMS)[0]
    np.testing.assert_allclose(moved["token_embedding"], expected["token_embedding"], rtol=1e-5)
    np.testing.assert_allclose(
        moved["block_0"]["norm"]["scale"], expected["block_0"]["norm"]["scale"], rtol=1e-5
    )
    with pytest.raises(UserError, match="adamw or muon"):
        make_optimizer(**OPTIONS | {"name": "sgd"})


def random_grads(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), PARAMS)


@pytest.mark.parametrize("steps", [3, 4, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_muon_orthogonalises_as_optax_does_and_carries_nesterov_momentum(dtype, tolerance, steps):
    """Optax corrects the momentum's bias and Jordan does not: only the first steps are equal."""
    params = {"wide": {"kernel": jnp.ones((16, 48))}, "tall": {"kernel": jnp.ones((48, 16))}}
    axes = jax.tree.map(
        lambda _: optax.contrib.MuonDimensionNumbers(reduction_axis=0, output_axis=1), params
    )
    theirs = optax.contrib.scale_by_muon(QUINTICS[steps], steps, weight_dimension_numbers=axes)
    ours = scale_by_muon(0.95, dtype, steps)
    rng = np.random.default_rng(0)
    one, two = (
        jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
        for _ in range(2)
    )
    found, state = ours.update(one, ours.init(params), params)
    expected, _ = theirs.update(one, theirs.init(params), params)
    np.testing.assert_allclose(
        found["wide"]["kernel"] / 3**0.5, expected["wide"]["kernel"], atol=tolerance
    )
    np.testing.assert_allclose(found["tall"]["kernel"], expected["tall"]["kernel"], atol=tolerance)
    found, _ = ours.update(two, state, params)
    mixed = two["tall"]["kernel"] + 0.95 * (two["tall"]["kernel"] + 0.95 * one["tall"]["kernel"])
    np.testing.assert_allclose(
        found["tall"]["kernel"], orthogonalise(mixed, dtype, steps), atol=1e-6
    )


@pytest.mark.parametrize(
    ("steps", "low", "reached"), [(3, 0.01, (0.725, 1.275)), (4, 0.003, (0.799, 1.201))]
)
def test_quintics_bring_singular_values_nearest_to_one(steps, low, reached):
    """Of each step, any other quintic is further from 1 somewhere on its interval."""
    high = 1.0
    for a, b, c in QUINTICS[steps]:
        x = np.geomspace(low, high, 4000)
        powers = np.stack([x, x**3, x**5], 1)
        farthest = np.abs(1 - powers @ (a, b, c)).max()
        bounds = np.concatenate([np.ones(4000), -np.ones(4000)])
        rows = np.hstack([np.concatenate([powers, -powers]), -np.ones((8000, 1))])
        best = linprog([0, 0, 0, 1], rows, bounds, bounds=[(None, None)] * 3 + [(0, None)])
        assert farthest < best.fun + 1e-3
        low, high = 1 - farthest, 1 + farthest
    assert reached[0] < low < high < reached[1]


# Two layers of a square, a wide, another wide and a tall matrix: three shapes, of 8 matrices.
SHAPES = {"out": (8, 8), "qkv": (8, 24), "up": (8, 20), "down": (20, 8)}


def hidden_grads():
    rng = np.random.default_rng(0)
    return [
        {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}
        for _ in range(2)
    ]


def jitted(muon):
    """gradients -> (updates, state) of a first step, and the same with the branches of a GPU."""
    grads = hidden_grads()
    traced = jax.jit(lambda grads: muon.update(grads, muon.init(grads))).trace(grads)
    with gpu_branches():
        gpu = jax.jit(lambda grads: muon.update(grads, muon.init(grads))).trace(grads)
    return traced.lower(), gpu.lower()


# Sums in another order round some operands of the next half product the other way, and ten such
# products follow one another. float32 has no such rounding.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 10 * 2**-8), ("float16", 10 * 2**-11)]
)
def test_a_gpu_stacks_matrices_of_a_shape_and_moves_each_as_alone(dtype, tolerance):
    alone, stacked = (x.compile()(hidden_grads()) for x in jitted(scale_by_muon(0.95, dtype)))
    for found, expected in zip(jax.tree.leaves(stacked[0]), jax.tree.leaves(alone[0]), strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)
    jax.tree.map(np.testing.assert_array_equal, stacked[1], alone[1])


def test_a_gpu_runs_one_loop_for_each_shape_and_a_cpu_one_for_each_matrix():
    alone, stacked = (x.as_text() for x in jitted(scale_by_muon(0.95, "bfloat16")))
    assert alone.count("stablehlo.while") == 8
    assert stacked.count("stablehlo.while") == 3
    assert stacked.count("stablehlo.dot_general") == 3 * 3
    for shape in ("2x8x8", "2x8x24", "4x8x20"):  # half operands, float32 sums
        types = f"(tensor<{shape}xbf16>, tensor<{shape}xbf16>) -> tensor<{shape[0]}x8x8xf32>"
        assert types in stacked


def test_a_gpu_does_not_round_float32_operands_of_muon_to_tf32():
    stacked = jitted(scale_by_muon(0.95, "float32"))[1].as_text()
    assert stacked.count("precision = [HIGHEST, HIGHEST]") == 3 * 3


def test_a_cpu_runs_muon_matrix_by_matrix():
    """The same program, so the same bits."""

    def moved(x):
        return orthogonalise(x, "bfloat16") * max(1.0, x.shape[1] / x.shape[0]) ** 0.5

    by_matrix = optax.chain(
        optax.trace(0.95, nesterov=True),
        optax.stateless(lambda updates, _: jax.tree.map(moved, updates)),
    )
    ours, expected = (
        jitted(muon)[0].as_text() for muon in (scale_by_muon(0.95, "bfloat16"), by_matrix)
    )
    assert ours == expected
