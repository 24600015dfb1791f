"""The kernels of causal attention with dropout, as plain JAX on a CPU, and the choice of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from hlm_jax.errors import UserError
from hlm_jax.model import flash, gpt, layers
from hlm_jax.model.attention import half_attention
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import GPTConfig
from hlm_jax.training import hardware
from hlm_jax.training.hardware import resolve_attention
from hlm_jax.training.mesh import make_mesh
from hlm_jax.training.objective import loss_fn
from hlm_jax.training.step import init_state, make_step
from scripts.bench import gpu_program

CFG = GPTConfig(
    form="gpt2",
    vocab_size=61,
    block_size=32,
    n_layer=1,
    n_head=2,
    n_embd=32,
    dropout=0.2,
    rope_theta=1e4,
)


@pytest.fixture(autouse=True)
def interpret(monkeypatch):
    monkeypatch.setattr(flash, "INTERPRET", True)


def reference(qkv_BT3HK, seed, rate):
    """The same function with whole scores in float32."""
    q, k, v = qkv_BT3HK.astype(jnp.float32).transpose(2, 0, 3, 1, 4)
    length = q.shape[2]
    scores = jnp.einsum("BHTK,BHSK->BHTS", q, k, precision="highest") * q.shape[-1] ** -0.5
    weight = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((length, length))), scores, -1e30), -1)
    if rate:
        weight = layers.dropped(weight, rate, seed)
    return jnp.einsum("BHTS,BHSK->BTHK", weight, v, precision="highest")


def drawn(*shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), dtype)


SEED = jnp.array([3, 4, 0], jnp.uint32)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("length", [16, 48, 128])  # one block, three of 16, two of 64
@pytest.mark.parametrize(("dtype", "most"), [(jnp.float32, 3e-6), (jnp.bfloat16, 0.04)])
def test_the_kernels_are_attention_with_whole_scores(length, rate, dtype, most):
    qkv = drawn(2, length, 3, 3, 16, dtype=dtype)
    expected, expected_vjp = jax.vjp(lambda x: reference(x, SEED, rate), qkv)
    found, found_vjp = jax.vjp(lambda x: flash.flash_attention(x, SEED, rate), qkv)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.float32(found), np.float32(expected), atol=most)
    grad = drawn(2, length, 3, 16)
    (expected_grad,) = expected_vjp(grad)
    (found_grad,) = found_vjp(grad.astype(dtype))
    np.testing.assert_allclose(np.float32(found_grad), np.float32(expected_grad), atol=2 * most)


def test_the_mask_is_that_of_attention_in_products():
    """So that the two can be compared on a card, and a run may change from one to the other."""
    qkv = drawn(2, 32, 3, 3, 16)
    found = flash.flash_attention(qkv, SEED, 0.3)
    mask = jnp.tril(jnp.ones((2, 32, 32), bool))
    with gpu_program.gpu_branches():
        tiles = half_attention(*qkv.transpose(2, 0, 3, 1, 4), mask, SEED[:2], 0.3)
    np.testing.assert_allclose(found, tiles.swapaxes(1, 2), atol=2e-6)


def test_rows_on_eight_devices_have_the_masks_of_one():
    mesh, qkv = make_mesh(), drawn(8, 16, 3, 2, 16)
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def both(mesh):
        def loss(qkv):
            y = gpt._flash_attention(qkv, 0.3, SEED[:2], mesh)
            return (y * jnp.arange(16)).sum(), y

        return jax.jit(jax.grad(loss, has_aux=True))

    for found, expected in zip(both(mesh)(jax.device_put(qkv, rows)), both(None)(qkv), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)  # other masks differ by 1
        assert len(np.unique(np.asarray(found).reshape(8, -1), axis=0)) == 8


def test_a_row_depends_on_no_later_position():
    qkv = drawn(1, 32, 3, 1, 16)
    later = qkv.at[:, 20:].add(1.0)
    found, other = (flash.flash_attention(x, SEED, 0.2) for x in (qkv, later))
    np.testing.assert_array_equal(found[:, :20], other[:, :20])
    assert (found[:, 20:] != other[:, 20:]).any()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["gpt2", "qwen3"])
def test_a_model_learns_the_same_with_the_kernels(form):
    cfg = dataclasses.replace(CFG, form=form)
    windows = jnp.asarray(np.random.default_rng(0).integers(0, 61, (4, 33)), jnp.int32)
    params = GPT(cfg).init(jax.random.key(0), windows[:, :1])["params"]
    gradient = jax.jit(jax.grad(loss_fn), static_argnums=1)
    with gpu_program.gpu_branches():
        found, expected = (
            gradient(params, GPT(cfg, "bfloat16", name), windows, jax.random.key(1))
            for name in ("fused", "xla")
        )

    def norm(tree):
        return np.sqrt(sum(float(jnp.square(x).sum()) for x in jax.tree.leaves(tree)))

    assert norm(jax.tree.map(jnp.subtract, found, expected)) < 0.01 * norm(expected)


@pytest.mark.parametrize(
    ("length", "width", "dtype", "fits"),
    [
        (256, 64, "bfloat16", True),
        (48, 16, "float16", True),
        (40, 64, "bfloat16", False),  # blocks of 8
        (255, 64, "bfloat16", False),
        (256, 48, "bfloat16", False),  # no power of two
        (256, 64, "float32", False),
    ],
)
def test_which_shapes_the_kernels_read(length, width, dtype, fits):
    assert flash.fits(length, width, dtype) == fits


# --- the choice ---


class Card:
    platform, device_kind = "gpu", "a card"

    def __init__(self, capability):
        self.compute_capability = capability


@pytest.fixture
def card(monkeypatch):
    def use(capability):
        monkeypatch.setattr(jax, "devices", lambda: [Card(capability)])

    return use


@pytest.mark.parametrize(
    ("capability", "dtype", "keys", "refused"),
    [
        ("7.5", "float16", {}, "compute capability 7.5"),
        ("gfx90a", "bfloat16", {}, "only for NVIDIA's cards"),
        ("9.0", "float32", {}, "bfloat16 or float16"),
        ("9.0", "bfloat16", {"block_size": 40}, "a multiple of 16, not 16 and 40"),
        ("9.0", "bfloat16", {"n_embd": 96}, "heads of 16, 32, 64 or 128"),
        ("9.0", "bfloat16", {"n_embd": 40, "dropout": 0.0}, "heads of a multiple of 8"),
        ("9.0", "bfloat16", {"n_embd": 96, "dropout": 0.0}, ""),
        ("9.0", "bfloat16", {}, ""),
    ],
)
def test_fused_attention_is_checked_against_the_card(card, capability, dtype, keys, refused):
    card(capability)
    cfg = dataclasses.replace(CFG, **keys)
    if refused:
        with pytest.raises(UserError, match=refused):
            resolve_attention("fused", cfg, dtype, 8)
        assert resolve_attention("auto", cfg, dtype, 8)[0] == "xla"
    else:
        assert resolve_attention("fused", cfg, dtype, 8)[0] == "fused"


@pytest.mark.parametrize(
    ("seconds", "reason", "chosen", "why"),
    [
        ((3.0, 2.0), "", "fused", "1.50x the other"),
        ((2.0, 3.0), "", "xla", "1.50x the other"),
        ((3.0, np.inf), "it differs", "xla", "it differs"),
    ],
)
def test_auto_takes_the_faster_attention_that_is_right(
    card, monkeypatch, seconds, reason, chosen, why
):
    card("9.0")
    monkeypatch.setattr(hardware, "compare_attention", lambda *_: (np.array(seconds), reason))
    name, said = resolve_attention("auto", CFG, "bfloat16", 8)
    assert (name, why in said) == (chosen, True)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("", ""),
        ("future", "differs by"),
        ("queries", "differs by"),
        (RuntimeError("cuDNN is not detected.\nAt all."), "failed: cuDNN is not detected."),
        (NotImplementedError("10.3"), "failed: 10.3"),
    ],
)
def test_the_comparison_finds_a_wrong_kernel(monkeypatch, fault, why):
    cfg = dataclasses.replace(CFG, block_size=16)

    def broken(qkv, rate, seed, mesh):
        if isinstance(fault, Exception):
            raise fault
        q, k, v = (qkv[:, :, part] for part in range(3))
        if fault == "queries":
            q = jax.lax.stop_gradient(q)
        y = reference(jnp.stack([q, k, v], 2), seed, rate)
        return (y + 0.1 * qkv[:, ::-1, 2] if fault == "future" else y).astype(qkv.dtype)

    monkeypatch.setattr(gpt, "_flash_attention", broken)
    monkeypatch.setattr(hardware, "REPEATS", 1)
    with gpu_program.gpu_branches():
        seconds, found = hardware.compare_attention(cfg, "bfloat16", 2)
    assert seconds[0] > 0
    assert bool(why) == bool(found) == (seconds[1] == np.inf)
    assert why in found


@pytest.mark.slow
def test_a_step_with_the_kernels_does_not_depend_on_the_mesh():
    data = np.random.default_rng(0).integers(0, 61, (2, 16, 33)).astype(np.int32)
    losses = []
    for devices, fsdp in ((1, 1), (8, 1), (8, 2)):
        mesh = make_mesh(fsdp, jax.devices()[:devices])
        model, optimizer = GPT(CFG, "bfloat16", "fused", mesh), optax.adamw(1e-2)
        more = {"ema_decay": 0.0, "mesh": mesh}
        with gpu_program.gpu_branches():
            state = init_state(model, optimizer, jax.random.key(0), **more)
            step = make_step(model, optimizer, grad_accum_steps=2, **more)
            losses.append(np.asarray(step(state, data, jax.random.key(1))[1]["loss"]))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-4)
