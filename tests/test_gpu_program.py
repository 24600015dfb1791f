"""The programs that a GPU would run: traced for CUDA here, and compiled where XLA's compiler is.

The cheap part lowers to StableHLO and needs no package. The rest needs jax-cuda12-plugin and
jax-cuda12-pjrt, installed without their dependencies.
"""

import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax import config as configs
from hlm_jax.model import attention, layers
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import GPTConfig
from hlm_jax.training import optim
from hlm_jax.training.mesh import make_mesh
from hlm_jax.training.objective import loss_fn
from hlm_jax.training.step import abstract_state, make_step
from scripts.bench import gpu_program, hlo

COMPILER = importlib.util.find_spec("jax_cuda12_plugin") is not None
needs_compiler = pytest.mark.skipif(not COMPILER, reason="needs jax-cuda12-plugin and -pjrt")
HALF = {"float16": "f16", "bfloat16": "bf16"}


def small(layers, **keys):
    """configs/base.py with this many layers and other keys changed."""
    words = [f"model.n_layer={layers}", *(f"{name}={value}" for name, value in keys.items())]
    return configs.load_config("configs/base.py", words)


# --- arithmetic, on the CPU with the branches of a GPU ---


@pytest.fixture
def on_gpu():
    with gpu_program.gpu_branches():
        yield


def reference_attention(q, k, v, mask_BTS, seed, rate):
    """The same function with whole float32 scores."""
    scores = jnp.einsum("BHTK,BHSK->BHTS", q, k, precision="highest") * q.shape[-1] ** -0.5
    weight = jax.nn.softmax(jnp.where(mask_BTS[:, None], scores, -1e30), axis=-1)
    if rate:
        weight = layers.dropped(weight, rate, seed)
    return jnp.einsum("BHTS,BHSK->BHTK", weight, v, precision="highest")


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("length", [16, 15])
def test_attention_and_its_gradient_are_those_of_whole_scores(on_gpu, rate, length):
    draw = np.random.default_rng(0)
    q, k, v, grad = (jnp.asarray(draw.normal(size=(2, 3, length, 8)), jnp.float32) for _ in "qkvg")
    mask = jnp.tril(jnp.ones((2, length, length), bool)).at[1, :, :3].set(False)  # some padding
    seed = jnp.array([3, 4], jnp.uint32)

    def both(function):
        return jax.vjp(lambda q, k, v: function(q, k, v, mask, seed, rate), q, k, v)

    (expected, expected_vjp), (found, found_vjp) = map(
        both, (reference_attention, attention.half_attention)
    )
    rows = slice(3, None)  # a row of padding sees nothing, and its value means nothing
    np.testing.assert_allclose(found[:, :, rows], expected[:, :, rows], atol=2e-6)
    grad = grad.at[:, :, :3].set(0)
    for a, b in zip(found_vjp(grad), expected_vjp(grad), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_log_sum_exp_reads_parts_side_by_side(shape):
    draw = np.random.default_rng(1)
    parts = [jnp.asarray(draw.normal(size=shape) * 30, jnp.float32) for _ in range(2)]
    expected = jax.nn.logsumexp(jnp.concatenate(parts, -1), axis=-1)
    np.testing.assert_allclose(layers.log_sum_exp(*parts), expected, rtol=1e-6)


def test_a_half_norm_has_the_gradient_of_the_norm(on_gpu):
    draw = np.random.default_rng(2)
    x = jnp.asarray(draw.normal(size=(4, 6, 32)) + 3, jnp.float32)
    scale, bias = (jnp.asarray(draw.normal(size=32), jnp.float32) for _ in range(2))
    grad = jnp.asarray(draw.normal(size=x.shape), jnp.float32)

    def plain(x, scale, bias):
        y = x - x.mean(-1, keepdims=True)
        return y / jnp.sqrt(jnp.square(y).mean(-1, keepdims=True) + 1e-5) * scale + bias

    found, found_vjp = jax.vjp(
        lambda *a: layers._half_layer_norm(*a, jnp.dtype("float32")), x, scale, bias
    )
    expected, expected_vjp = jax.vjp(plain, x, scale, bias)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for a, b in zip(found_vjp(grad), expected_vjp(grad), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)


def gradients(cfg, dtype, params, windows_BL, key, scale=2.0**12):
    def scaled(params):
        return loss_fn(params, GPT(cfg, dtype), windows_BL, key) * scale

    grads = jax.jit(jax.grad(scaled))(params)
    return jax.tree.map(lambda x: np.asarray(x, np.float64) / scale, grads)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "dtype", "error"),
    [("gpt2", "float16", 1e-3), ("qwen3", "float16", 1.3e-3), ("gpt2", "bfloat16", 8e-3)],
)
def test_half_gradients_are_close_to_those_in_float32(form, dtype, error):
    keys = {"model.form": form, "model.vocab_size": 300, "model.dropout": 0}
    keys |= {"model.block_size": 64, "model.n_head": 4, "model.n_embd": 128}
    cfg = GPTConfig(**small(2, **keys).model)
    windows = jnp.asarray(np.random.default_rng(0).integers(0, 300, (8, 65)), jnp.int32)
    params = GPT(cfg).init(jax.random.key(0), windows[:, :1])["params"]
    exact = gradients(cfg, "float32", params, windows, None)
    with gpu_program.gpu_branches():
        half = gradients(cfg, dtype, params, windows, None)

    def norm(tree):
        return np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(tree)))

    assert norm(jax.tree.map(np.subtract, exact, half)) / norm(exact) < error


# --- lowered for CUDA: needs no package ---


def lowered(config, dtype):
    mesh, model = make_mesh(1, jax.devices()[:1]), GPT(GPTConfig(**config.model), dtype)
    optimizer, _ = optim.make_optimizer(**config.optim, total_steps=100, product_dtype=dtype)
    state = abstract_state(model, optimizer, ema_decay=0.0, mesh=mesh)
    step = make_step(model, optimizer, grad_accum_steps=1, ema_decay=0.0, mesh=mesh)
    windows = jax.ShapeDtypeStruct((1, 8, config.model.block_size + 1), jnp.int32)
    with gpu_program.gpu_branches():
        traced = step.trace(state, windows, jax.eval_shape(lambda: jax.random.key(0)))
        return traced.lower(lowering_platforms=("cuda",)).as_text()


def dots(text):
    """(left, right, result) types of every product of a StableHLO text."""
    kind = r"tensor<[^>]*x(\w+)>"
    return re.findall(rf"stablehlo\.dot_general .*?: \({kind}, {kind}\) -> {kind}", text)


@pytest.mark.parametrize(("form", "dtype"), [("gpt2", "float16"), ("qwen3", "bfloat16")])
def test_products_of_a_step_have_half_operands(form, dtype):
    found = dots(lowered(small(2, **{"model.form": form}), dtype))
    half = HALF[dtype]
    assert {pair[:2] for pair in found} == {(half, half)}
    # float32 results: the gradients of the weights, and the logits.
    weights = 4 * 2 + 2 if form == "gpt2" else 5 * 2 + 1
    assert sum(result == "f32" for *_, result in found) == weights + 1
    assert {result for *_, result in found} == {half, "f32"}


# --- compiled for CUDA ---


@pytest.fixture(scope="module", autouse=True)
def all_optimisations():
    """The suite compiles without most of them; a bound on a program needs them."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def programs():
    """Compiled steps of base.py, each made once."""
    made = {}

    def program(card, layers=12, **more):
        key = (card, layers, *sorted(more.items()))
        if key not in made:
            made[key] = gpu_program.compile_step(small(layers), gpu_program.CARDS[card], **more)
        return made[key]

    return program


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("card", ["rtx6000", "h100"])
def test_the_reference_step_fits_its_bounds(programs, card):
    """Bounds are what the compiler gives, rounded up: a change that moves more bytes fails."""
    limits = {"rtx6000": (9.5e9, 61.5e9, 0.134), "h100": (7.6e9, 55.0e9, 0.021)}
    most_memory, most_bytes, most_seconds = limits[card]
    data, compiled = gpu_program.CARDS[card], programs(card)
    kernels = hlo.kernels(compiled.as_text())
    products = [kernel for kernel in kernels if kernel.kind == "product"]
    half = HALF[data.dtype]
    # XLA converts the half operands of one: the sum of the gradients of positions over the batch.
    (positions,) = [kernel for kernel in products if kernel.types == "f32xf32->f32"]
    assert positions.flops == 2 * 64 * 256 * 768
    products.remove(positions)
    assert {kernel.types.split("->")[0] for kernel in products} == {f"{half}x{half}"}
    # float32 results: the gradient of 4 matrices a layer and of the embedding, and the logits.
    assert sum(kernel.types.endswith("f32") for kernel in products) == 4 * 12 + 2
    assert gpu_program.memory(compiled) < most_memory
    assert sum(kernel.count * kernel.bytes for kernel in kernels) < most_bytes
    assert sum(map(data.seconds, kernels)) < most_seconds
    state = 12 * GPTConfig(**small(12).model).n_parameters  # weights and two moments, float32
    assert compiled.memory_analysis().alias_size_in_bytes > 0.99 * state  # updated in place


@needs_compiler
@pytest.mark.slow
def test_scores_stay_on_the_chip_where_the_card_has_the_kernel(programs):
    text = programs("h100").as_text()
    for name in ("flash_attention", "flash_attention_gradient"):
        assert len(re.findall(rf"custom-call.*triton.*op_name=\"[^\"]*/{name}/", text)) == 12
    assert not re.search(r"\w\[(64,12|768),(256|128),(256|128)\]", text)
    assert re.search(r"f16\[64,12,128,128\]", programs("rtx6000").as_text())  # what it replaces


@needs_compiler
@pytest.mark.slow
def test_muon_has_a_loop_for_each_shape():
    """Not one for each matrix: 60 loops of small kernels took longer to start than to run."""
    config = configs.load_config("configs/best.py", ["model.n_layer=2", "train.batch_size=8"])
    compiled = gpu_program.compile_step(config, gpu_program.CARDS["h100"])
    # qkv, out, and the three of the MLP as one shape.
    assert len(re.findall(r" while\(", compiled.as_text())) == 3


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("card", ["rtx6000", "h100"])
def test_decoding_does_not_ask_the_host_for_each_token(card):
    compiled = gpu_program.compile_decode(small(1), gpu_program.CARDS[card], tokens=8)
    text = compiled.as_text()
    loops = re.findall(r" while\(.*", text)
    assert loops
    assert all('"known_trip_count":{"n":"8"}' in loop for loop in loops)
    products = [kernel for kernel in hlo.kernels(text) if kernel.kind == "product"]
    assert {kernel.types for kernel in products} <= {"f32xf32->f32"}


@needs_compiler
@pytest.mark.slow
def test_gelu_is_part_of_its_product_on_turing(programs):
    """Otherwise it is computed in half precision."""
    assert programs("rtx6000").as_text().count('"epilogue":"BIAS_GELU_AUX"') == 12


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("card", ["rtx6000", "h100"])
def test_evaluation_has_no_tf32(card):
    """TF32 rounds operands to ten bits of mantissa; Ampere and later use it unless told not to."""
    compiled = gpu_program.compile_evaluator(small(1), gpu_program.CARDS[card])
    text = compiled.as_text()
    products = [k for k in hlo.kernels(text) if k.kind == "product"]
    assert products
    assert {kernel.types for kernel in products} == {"f32xf32->f32"}
    precisions = re.findall(r'"?operand_precision"?[=:]\[?\{?"?(\w+)"?', text)
    assert precisions
    assert set(map(str.upper, precisions)) == {"HIGHEST"}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fsdp", "expected"),
    [
        (1, {"all-reduce"}),
        # One all-to-all: each device looks up its columns of the embeddings for all rows.
        (8, {"all-gather", "reduce-scatter", "all-reduce", "all-to-all"}),
    ],
)
def test_eight_devices_have_the_collectives_they_should(programs, fsdp, expected):
    compiled = programs("h100", layers=1, count=8, fsdp=fsdp)
    kernels = hlo.kernels(compiled.as_text())
    found = {kernel.kind for kernel in kernels if kernel.kind in hlo.COLLECTIVES}
    assert found == expected
    sent = sum(kernel.count * kernel.sent for kernel in kernels if kernel.kind in hlo.COLLECTIVES)
    cfg = GPTConfig(**small(1).model)
    # Gradients go round twice, or once beside the weights. The embedding has two gradients, as an
    # input and as the output. With fsdp the looked-up embeddings come on top.
    whole = 4 * (cfg.n_parameters + cfg.vocab_size * cfg.n_embd)
    assert sent < 1.02 * 2 * 7 / 8 * whole
    rows = [k for k in kernels if k.kind == "all-to-all"]
    looked_up = 64 * 256 * 768 * 4 // 8  # bytes of a device's embeddings of a step, float32
    assert sum(kernel.count for kernel in rows) == (fsdp == 8)
    assert sum(kernel.bytes for kernel in rows) <= 3 * looked_up  # operand, and a result of two
