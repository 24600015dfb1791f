import dataclasses
import functools
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax import config as configs
from hlm_jax.model import flash
from hlm_jax.model import gpt as model_module
from hlm_jax.model.gpt import GPT, init_cache
from hlm_jax.model.layers import dropout, dropout_seeds, einsum
from hlm_jax.model.losses import token_losses
from hlm_jax.model.shape import GPTConfig

SMALL = GPTConfig(
    "gpt2",
    vocab_size=97,
    block_size=24,
    n_layer=2,
    n_head=2,
    n_embd=16,
    dropout=0.1,
    rope_theta=1e4,
)
GROUPED = {"form": "qwen3", "n_kv_head": 1, "head_dim": 6, "intermediate_size": 24}
SHAPES = {"gpt2": {"form": "gpt2"}, "qwen3": {"form": "qwen3"}, "grouped": GROUPED}
FORMS = tuple(SHAPES)


def shape(form, **changes):
    return dataclasses.replace(SMALL, **(SHAPES[form] | changes))


def build(form, key=0, **changes):
    model = GPT(shape(form, **changes))
    return model, jax.jit(model.init)(jax.random.key(key), jnp.zeros((1, 1), jnp.int32))["params"]


def tokens(shape=(2, 20), seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, SMALL.vocab_size, shape), jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, ids, **more):
    return model.apply({"params": params}, ids, **more)[0]


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def shapes_of(cfg):
    init = GPT(cfg).init
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


@pytest.mark.parametrize("name", ["base", "base_heldout", "tiny"])
def test_exact_parameter_counts_of_the_configs(name):
    cfg = GPTConfig(**configs.load_config(f"configs/{name}.py").model)
    assert cfg.n_parameters == count(shapes_of(cfg))
    if name.startswith("base"):
        assert cfg.n_parameters == 89_092_608


@pytest.mark.parametrize("form", FORMS)
def test_flops_count_every_matrix_and_the_tied_output_once(form):
    cfg = shape(form)
    shapes = shapes_of(cfg)
    assert cfg.n_parameters == count(shapes)
    kernels = [
        x.size
        for path, x in jax.tree_util.tree_leaves_with_path(shapes)
        if path[-1].key == "kernel" or path[-1].key == "token_embedding"
    ]
    heads = cfg.n_head * (6 if form == "grouped" else cfg.n_embd // cfg.n_head)
    scores = 2 * cfg.block_size * heads  # q k and weights v, a multiplication and an addition
    assert cfg.flops_per_token == 6 * sum(kernels) + 3 * 2 * cfg.n_layer * scores


def test_widths_that_are_not_given_follow_from_the_others():
    for form, hidden in (("gpt2", 64), ("qwen3", 64)):
        cfg = shape(form)
        assert (cfg.kv_heads, cfg.head_width, cfg.hidden_width) == (2, 8, hidden)
        assert (cfg.qkv_cuts, cfg.qkv_width) == ((16, 32), 48)
        given = dataclasses.replace(cfg, intermediate_size=hidden)
        assert given.n_parameters == cfg.n_parameters
    cfg = shape("grouped")
    assert (cfg.kv_heads, cfg.head_width, cfg.hidden_width) == (1, 6, 24)
    assert (cfg.qkv_cuts, cfg.qkv_width) == ((12, 18), 24)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["n_kv_head=4"], r"model.n_kv_head is of model.form=qwen3 only"),
        (["head_dim=64"], r"model.head_dim is of model.form=qwen3 only"),
        (["form=qwen3", "n_kv_head=5"], r"model.n_kv_head=5 does not divide model.n_head=12"),
        (["form=qwen3", "head_dim=63"], r"model.head_dim = 63 must be even"),
        (["form=qwen3", "n_embd=36"], r"model.n_embd / model.n_head = 3 must be even"),
        (["form=qwen3", "n_embd=100"], r"model.n_head=12 does not divide model.n_embd=100"),
    ],
)
def test_heads_that_do_not_fit_together_are_refused(overrides, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.load_config("configs/base.py", [f"model.{words}" for words in overrides])


def test_heads_of_any_width_are_accepted():
    words = ["form=qwen3", "n_embd=100", "head_dim=32", "n_kv_head=3", "intermediate_size=200"]
    config = configs.load_config("configs/base.py", [f"model.{word}" for word in words])
    cfg = GPTConfig(**config.model)
    assert (cfg.kv_heads, cfg.head_width, cfg.hidden_width) == (3, 32, 200)
    assert cfg.n_parameters == count(shapes_of(cfg))


def test_a_shared_head_is_the_same_as_equal_heads():
    grouped, params = build("grouped", n_head=6, n_kv_head=2)
    equal = GPT(dataclasses.replace(grouped.cfg, n_kv_head=0))
    width = grouped.cfg.head_width

    def repeated(name, x):
        if not name.startswith("block"):
            return x
        q, k, v = jnp.split(x["attention"]["qkv"]["kernel"], grouped.cfg.qkv_cuts, axis=1)
        # Three heads of queries one after the other share one head.
        k, v = (jnp.repeat(y.reshape(-1, 2, width), 3, axis=1).reshape(len(y), -1) for y in (k, v))
        qkv = {"kernel": jnp.concatenate([q, k, v], axis=1)}
        return x | {"attention": x["attention"] | {"qkv": qkv}}

    twin = {name: repeated(name, x) for name, x in params.items()}
    assert count(twin) == equal.cfg.n_parameters > grouped.cfg.n_parameters
    np.testing.assert_allclose(
        logits(grouped, params, tokens()), logits(equal, twin, tokens()), atol=2e-6
    )


def test_a_shape_needs_no_jax():
    code = "import sys, hlm_jax.model.shape; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_logit_depends_on_no_later_token(form):
    model, params = build(form)
    table = params["token_embedding"]

    def picked(table_extra):
        return logits(model, {**params, "token_embedding": table + table_extra}, ids)[0]

    # Every position holds another token, so that a row of the table stands for a position. The
    # logit is that of a token that does not occur, which cuts off the output side.
    ids = jnp.arange(12)[None]
    jacobian = jax.jit(jax.jacrev(lambda extra: picked(extra)[:, 50]))(jnp.zeros_like(table))
    # [position of the logit, position of the token]
    influence = np.abs(np.asarray(jacobian))[:, :12].sum(-1)
    assert (influence[np.triu_indices(12, 1)] == 0).all()
    assert (np.diag(influence) > 0).all()
    assert (influence[-1] > 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_cached_steps_equal_the_full_forward(form):
    model, params = build(form)
    ids = tokens((3, 20))
    full = logits(model, params, ids)
    cache = init_cache(model.cfg, 3, 24)
    prefix, cache = model.apply({"params": params}, ids[:, :9], cache=cache)
    step = jax.jit(
        lambda cache, token, at: model.apply({"params": params}, token, cache=cache, start=at)
    )
    parts = [prefix]
    for at in range(9, 20):
        out, cache = step(cache, ids[:, at : at + 1], at)
        parts.append(out)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), full, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_fused_attention_is_the_same_function(form):
    model, params = build(form)
    fused = GPT(model.cfg, "float32", "fused")
    ids = tokens()
    np.testing.assert_allclose(logits(fused, params, ids), logits(model, params, ids), atol=2e-6)


def test_the_kernel_with_dropout_reads_shared_heads(monkeypatch):
    monkeypatch.setattr(flash, "INTERPRET", True)
    model, params = build("grouped", head_dim=16, block_size=16)
    ids, key = tokens((2, 16)), jax.random.key(3)

    def loss(params, attention):
        out, _ = GPT(model.cfg, "bfloat16", attention).apply(
            {"params": params}, ids, dropout_key=key
        )
        return (out * jnp.sin(jnp.arange(out.size)).reshape(out.shape)).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    for ours, theirs in zip(
        jax.tree.leaves(gradient(params, "fused")),
        jax.tree.leaves(gradient(params, "xla")),
        strict=True,
    ):
        assert float(jnp.linalg.norm(ours - theirs)) < 0.03 * float(jnp.linalg.norm(theirs))


@pytest.mark.parametrize("form", FORMS)
def test_attention_in_parts_is_the_same_function_for_fewer_operations(form, monkeypatch):
    model, params = build(form)
    ids = tokens((2, 21))

    def plain(params, ids):  # not `logits`, which keeps the program of the first QUERY_ROWS
        return model.apply({"params": params}, ids)[0]

    def run(rows):
        monkeypatch.setattr(model_module, "QUERY_ROWS", rows)
        step = jax.jit(
            jax.value_and_grad(
                lambda params: token_losses(plain(params, ids[:, :-1]), ids[:, 1:]).mean()
            )
        )
        return step(params), step.lower(params).cost_analysis()["flops"]

    (loss, grads), flops = run(24)
    (loss_in_parts, grads_in_parts), flops_in_parts = run(8)  # 8 + 8 + 4 queries
    assert float(loss_in_parts) == pytest.approx(float(loss), rel=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(grads_in_parts), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert flops_in_parts < flops


def test_the_gradient_without_dropout_is_that_of_a_model_without_dropout():
    model, params = build("qwen3", dropout=0.5)
    plain = GPT(dataclasses.replace(model.cfg, dropout=0.0))
    ids = tokens((2, 16))
    grads, expected = (
        jax.jit(jax.grad(lambda params, of=of: of.apply({"params": params}, ids)[0].std()))(params)
        for of in (model, plain)
    )
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_one_cache_stand_at_places_of_their_own(form):
    model, params = build(form)
    ids = tokens((3, 20))
    full = logits(model, params, ids)
    lengths = jnp.array([9, 4, 12])
    padded = jnp.where(jnp.arange(12) < lengths[:, None], ids[:, :12], 7)
    cache = init_cache(model.cfg, 3, 24)
    out, cache = model.apply({"params": params}, padded, cache=cache, last_B=lengths - 1)
    rows = jnp.arange(3)
    np.testing.assert_allclose(out[:, 0], full[rows, lengths - 1], atol=2e-6)
    step = jax.jit(
        lambda cache, token, at: model.apply({"params": params}, token, cache=cache, start=at)
    )
    for more in range(6):
        out, cache = step(cache, ids[rows, lengths + more][:, None], lengths + more)
        np.testing.assert_allclose(out[:, 0], full[rows, lengths + more], atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_begins_near_chance(form):
    model, params = build(form, vocab_size=5000, n_embd=64, n_head=4)
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 5000, (8, 25)), jnp.int32)
    loss = token_losses(logits(model, params, ids[:, :-1]), ids[:, 1:]).mean()
    assert float(loss) == pytest.approx(math.log(5000), abs=0.1)


def test_initial_scales():
    _, params = build("gpt2", n_embd=128, n_head=4, n_layer=3)
    block = params["block_1"]
    assert float(block["attention"]["qkv"]["kernel"].std()) == pytest.approx(0.02, rel=0.05)
    for kernel in (block["attention"]["out"]["kernel"], block["mlp"]["down"]["kernel"]):
        assert float(kernel.std()) == pytest.approx(0.02 / math.sqrt(6), rel=0.05)
    assert not np.asarray(block["attention"]["qkv"]["bias"]).any()


@pytest.mark.parametrize("form", FORMS)
def test_dropout_acts_in_training_only_and_is_a_function_of_its_key(form):
    model, params = build(form)
    ids = tokens()
    plain = logits(model, params, ids)
    one, again, other = (
        logits(model, params, ids, dropout_key=jax.random.key(k)) for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(np.asarray(one - plain)).max() > 1e-3
    assert np.abs(np.asarray(one - other)).max() > 1e-3
    model = GPT(dataclasses.replace(model.cfg, dropout=0.0))
    np.testing.assert_array_equal(logits(model, params, ids, dropout_key=jax.random.key(1)), plain)


def masks(seed, shape=(64, 4096)):
    return np.asarray(dropout(jnp.ones(shape), 0.1, seed)) == 0


def test_dropout_masks_are_as_random_as_they_should_be():
    mask = masks(jax.random.bits(jax.random.key(0), 2))
    n = mask.size
    sigma = math.sqrt(0.1 * 0.9 / n)
    assert abs(mask.mean() - 0.1) < 4 * sigma
    assert abs(mask.mean(0) - 0.1).max() < 6 * math.sqrt(0.09 / 64)
    assert abs(mask.mean(1) - 0.1).max() < 5 * math.sqrt(0.09 / 4096)

    def correlation(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    for shift in (1, 2, 64, 127, 4095):  # neighbours in a row, the same column of the next row
        assert abs(correlation(mask.ravel()[shift:], mask.ravel()[:-shift])) < 5 / math.sqrt(n)
    for other in (
        jax.random.bits(jax.random.key(1), 2),
        jnp.array([0, 1], jnp.uint32),
        jnp.array([1, 0], jnp.uint32),
    ):
        assert abs(correlation(mask, masks(other))) < 5 / math.sqrt(n)
    kept = np.asarray(dropout(jnp.ones((4, 4)), 0.1, jnp.array([5, 6], jnp.uint32)))
    assert set(np.unique(kept)) <= {0.0, np.float32(1 / 0.9)}


def test_the_seeds_of_a_step_are_those_of_one_fold_for_each_place():
    key, fold = jax.random.key(7), jax.random.fold_in
    seeds = dropout_seeds(key, 3, [0, 128])

    def words(key):
        return np.asarray(jax.random.bits(key, (2,), jnp.uint32))

    np.testing.assert_array_equal(seeds.embedding, words(fold(key, 3)))
    for layer in range(3):
        own = fold(key, layer)
        for part, first in enumerate((0, 128)):
            np.testing.assert_array_equal(
                seeds.attention[layer, part], words(fold(fold(own, 0), first))
            )
        for branch in (0, 1):
            np.testing.assert_array_equal(
                seeds.branches[layer, branch], words(fold(own, branch + 1))
            )
    everything = np.concatenate([np.asarray(x).reshape(-1, 2) for x in seeds])
    assert len(np.unique(everything, axis=0)) == 1 + 3 * (2 + 2)


def test_dropout_does_not_depend_on_sharding():
    from jax.sharding import NamedSharding, PartitionSpec

    from hlm_jax.training.mesh import make_mesh

    x = jnp.ones((8, 32))
    sharded = jax.device_put(x, NamedSharding(make_mesh(), PartitionSpec(("data", "fsdp"))))
    drop = jax.jit(lambda x: dropout(x, 0.5, jnp.array([3, 4], jnp.uint32)))
    np.testing.assert_array_equal(drop(sharded), drop(x))


@pytest.mark.parametrize(
    "spec", ["BTD,DF->BTF", "BTD,VD->BTV", "BHTK,BHSK->BHTS", "BHTS,BHSK->BHTK"]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_written_derivatives_equal_autodiff(spec, dtype, tolerance):
    sizes = dict(zip("BTDFVHKS", (2, 5, 4, 6, 7, 3, 8, 5), strict=True))
    rng = np.random.default_rng(0)
    left, right, out = (
        jnp.asarray(rng.normal(size=[sizes[c] for c in axes]), jnp.float32)
        for axes in spec.replace("->", ",").split(",")
    )
    written = jax.grad(lambda a, b: (einsum(spec, a, b, dtype) * out).sum(), (0, 1))(left, right)
    expected = jax.grad(lambda a, b: (jnp.einsum(spec, a, b) * out).sum(), (0, 1))(left, right)
    for ours, theirs in zip(written, expected, strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, atol=tolerance * float(jnp.abs(theirs).max()))
