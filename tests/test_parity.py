"""Logits equal to those of transformers' own GPT-2 and Qwen3, given the same weights.

tests/golden/*.npz hold token ids and transformers' logits, so that the comparison needs no torch.
Weights are no part of them: they follow from a seed. Where torch is installed, a test computes the
golden logits again. To write those that are not there, with torch and transformers:
python tests/test_parity.py
"""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT
from hlm_jax.model.names import own_weights, published_weights
from hlm_jax.model.shape import GPTConfig

GOLDEN = Path(__file__).parent / "golden"
GPT2 = GPTConfig(
    "gpt2",
    vocab_size=101,
    block_size=24,
    n_layer=3,
    n_head=4,
    n_embd=48,
    dropout=0.1,
    rope_theta=0.0,
)
QWEN3 = dataclasses.replace(GPT2, form="qwen3", rope_theta=500.0)
# Two heads of queries for one of keys and values, and heads whose widths do not sum to n_embd.
GROUPED = dataclasses.replace(QWEN3, n_kv_head=2, head_dim=10, intermediate_size=40)
SHAPES = {"gpt2": GPT2, "qwen3": QWEN3, "qwen3_grouped": GROUPED}
EVERY = pytest.mark.parametrize("name", SHAPES)


def seeded_params(cfg):
    """Weights that every platform and version of numpy computes to the same bits.

    They are made of PCG64's raw integers, whose stream numpy guarantees. Nothing keeps its initial
    value, so that no bias or gain goes untested.
    """
    init = GPT(cfg).init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    bits = np.random.PCG64(0)

    def leaf(path, x):
        uniform = (bits.random_raw(x.size) >> np.uint64(40)).astype(np.float32) / 2**24
        weights = (uniform * 0.7 - 0.35).reshape(x.shape)
        return weights + 1 if path[-1].key == "scale" else weights

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def seeded_ids(cfg):
    raw = np.random.PCG64(1).random_raw(2 * cfg.block_size) % np.uint64(cfg.vocab_size)
    return raw.astype(np.int32).reshape(2, cfg.block_size)


def transformers_logits(cfg):
    """float32 [2, block_size, V] of transformers' model under seeded_params and seeded_ids."""
    import torch
    import transformers

    if cfg.form == "gpt2":
        shape = transformers.GPT2Config(
            vocab_size=cfg.vocab_size,
            n_positions=cfg.block_size,
            n_embd=cfg.n_embd,
            n_layer=cfg.n_layer,
            n_head=cfg.n_head,
        )
        theirs = transformers.GPT2LMHeadModel(shape)
    else:
        shape = transformers.Qwen3Config(
            vocab_size=cfg.vocab_size,
            max_position_embeddings=cfg.block_size,
            hidden_size=cfg.n_embd,
            intermediate_size=cfg.hidden_width,
            num_hidden_layers=cfg.n_layer,
            num_attention_heads=cfg.n_head,
            num_key_value_heads=cfg.kv_heads,
            head_dim=cfg.head_width,
            rms_norm_eps=1e-6,
            rope_theta=cfg.rope_theta,
            tie_word_embeddings=True,
            attention_bias=False,
        )
        theirs = transformers.Qwen3ForCausalLM(shape)
    weights = published_weights(seeded_params(cfg), cfg)
    tensors = {name: torch.tensor(np.ascontiguousarray(x)) for name, x in weights.items()}
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert not unexpected
    computed = ("lm_head.weight", "inv_freq", ".attn.bias")
    assert all(name.endswith(computed) for name in missing)
    theirs.tie_weights()
    with torch.no_grad():
        return theirs.eval()(torch.tensor(seeded_ids(cfg), dtype=torch.long)).logits.numpy()


def assert_equal_logits(logits, expected):
    np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())


@EVERY
def test_logits_equal_the_golden_logits_of_transformers(name):
    cfg, golden = SHAPES[name], np.load(GOLDEN / f"{name}.npz")
    np.testing.assert_array_equal(golden["ids"], seeded_ids(cfg))
    params, ids = seeded_params(cfg), jnp.asarray(golden["ids"])
    logits = jax.jit(GPT(cfg).apply)({"params": params}, ids)[0]
    assert_equal_logits(np.asarray(logits), golden["logits"])


@EVERY
def test_transformers_still_computes_the_golden_logits(name):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    golden = np.load(GOLDEN / f"{name}.npz")
    assert_equal_logits(transformers_logits(SHAPES[name]), golden["logits"])


# --- names ---


def assert_equal_trees(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@EVERY
def test_published_weights_are_read_back(name):
    cfg = SHAPES[name]
    params = seeded_params(cfg)
    weights = published_weights(params, cfg)
    back = own_weights(weights, cfg)
    assert_equal_trees(back, params)
    assert all(x.flags.c_contiguous and x.dtype == np.float32 for x in jax.tree.leaves(back))
    # Without the prefix of the whole model, with what older versions stored, and the tied output.
    prefix, table = next(iter(weights)).split(".")[0] + ".", next(iter(weights.values()))
    bare = {name.removeprefix(prefix): x for name, x in weights.items()} | {"lm_head.weight": table}
    bare |= {"h.0.attn.bias": np.ones((1, 1, 4, 4)), "h.0.attn.masked_bias": np.array(-1e4)}
    bare |= {"layers.0.self_attn.rotary_emb.inv_freq": np.ones(4)}
    assert_equal_trees(own_weights(bare, cfg), params)


@EVERY
def test_weights_that_do_not_fit_are_named(name):
    cfg = SHAPES[name]
    weights = published_weights(seeded_params(cfg), cfg)
    for weight, x in weights.items():
        lacking = {other: y for other, y in weights.items() if other != weight}
        with pytest.raises(UserError, match=f"weight {re.escape(weight)} is missing"):
            own_weights(lacking, cfg)
        with pytest.raises(UserError, match=f"{re.escape(weight)} has the shape .* needs"):
            own_weights(weights | {weight: np.zeros((*x.shape[:-1], x.shape[-1] + 1))}, cfg)
    with pytest.raises(UserError, match=r"the weight score.weight has no place in a"):
        own_weights(weights | {"score.weight": np.ones(2)}, cfg)
    with pytest.raises(UserError, match=r"\(\d+ such weights in all\)"):
        own_weights(weights, dataclasses.replace(cfg, n_layer=2))
    with pytest.raises(UserError, match=r"the weight lm_head.weight differs from the embedding"):
        own_weights(weights | {"lm_head.weight": np.ones((cfg.vocab_size, cfg.n_embd))}, cfg)


def write_golden():
    GOLDEN.mkdir(exist_ok=True)
    for name, cfg in SHAPES.items():
        path = GOLDEN / f"{name}.npz"
        if path.exists():
            continue
        np.savez_compressed(path, ids=seeded_ids(cfg), logits=transformers_logits(cfg))
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    write_golden()
