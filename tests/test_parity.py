"""Logits equal to transformers' own GPT-2 and Qwen3 given the same weights; skipped without torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.model.gpt import GPT, GPTConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CFG = GPTConfig(
    "gpt2",
    vocab_size=211,
    block_size=40,
    n_layer=3,
    n_head=4,
    n_embd=48,
    dropout=0.1,
    rope_theta=1e4,
)


def random_params(model, seed=0):
    """Parameters with nothing at its initial value, so that no bias or gain goes untested."""
    params = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: np.asarray(x) + rng.normal(scale=0.1, size=x.shape).astype(np.float32), params
    )


def tensor(x):
    return torch.tensor(np.ascontiguousarray(x))


def gpt2_weights(params):
    out = {
        "transformer.wte.weight": params["token_embedding"],
        "transformer.wpe.weight": params["position_embedding"],
    }
    for i in range(CFG.n_layer):
        block, to = params[f"block_{i}"], f"transformer.h.{i}"
        for ours, theirs in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            out[f"{to}.{theirs}.weight"], out[f"{to}.{theirs}.bias"] = (
                block[ours]["scale"],
                block[ours]["bias"],
            )
        for part, ours, theirs in (
            ("attention", "qkv", "attn.c_attn"),
            ("attention", "out", "attn.c_proj"),
            ("mlp", "up", "mlp.c_fc"),
            ("mlp", "down", "mlp.c_proj"),
        ):
            out[f"{to}.{theirs}.weight"], out[f"{to}.{theirs}.bias"] = (
                block[part][ours]["kernel"],
                block[part][ours]["bias"],
            )
    out["transformer.ln_f.weight"], out["transformer.ln_f.bias"] = (
        params["final_norm"]["scale"],
        params["final_norm"]["bias"],
    )
    return {name: tensor(x) for name, x in out.items()}


def qwen3_weights(params):
    out = {
        "model.embed_tokens.weight": params["token_embedding"],
        "model.norm.weight": params["final_norm"]["scale"],
    }
    for i in range(CFG.n_layer):
        block, to = params[f"block_{i}"], f"model.layers.{i}"
        for name, kernel in zip(
            "qkv", np.split(block["attention"]["qkv"]["kernel"], 3, axis=1), strict=True
        ):
            out[f"{to}.self_attn.{name}_proj.weight"] = kernel.T
        out[f"{to}.self_attn.o_proj.weight"] = block["attention"]["out"]["kernel"].T
        for name in ("q_norm", "k_norm"):
            out[f"{to}.self_attn.{name}.weight"] = block["attention"][name]["scale"]
        for name in ("up", "gate", "down"):
            out[f"{to}.mlp.{name}_proj.weight"] = block["mlp"][name]["kernel"].T
        out[f"{to}.input_layernorm.weight"] = block["attention_norm"]["scale"]
        out[f"{to}.post_attention_layernorm.weight"] = block["mlp_norm"]["scale"]
    return {name: tensor(x) for name, x in out.items()}


def reference(form, params, cfg):
    if form == "gpt2":
        theirs = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=cfg.vocab_size,
                n_positions=cfg.block_size,
                n_embd=cfg.n_embd,
                n_layer=cfg.n_layer,
                n_head=cfg.n_head,
            )
        )
        weights = gpt2_weights(params)
    else:
        config = transformers.Qwen3Config(
            vocab_size=cfg.vocab_size,
            max_position_embeddings=cfg.block_size,
            hidden_size=cfg.n_embd,
            intermediate_size=cfg.hidden_width,
            num_hidden_layers=cfg.n_layer,
            num_attention_heads=cfg.n_head,
            num_key_value_heads=cfg.n_head,
            head_dim=cfg.head_width,
            rms_norm_eps=1e-6,
            rope_theta=cfg.rope_theta,
            tie_word_embeddings=True,
            attention_bias=False,
        )
        theirs = transformers.Qwen3ForCausalLM(config)
        weights = qwen3_weights(params)
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(
        "lm_head" in name or "inv_freq" in name or name.endswith(".attn.bias") for name in missing
    )
    theirs.tie_weights()
    return theirs.eval()


@pytest.mark.parametrize("form", ["gpt2", "qwen3"])
def test_logits_equal_transformers(form):
    cfg = dataclasses.replace(CFG, form=form)
    model = GPT(cfg)
    params = random_params(model)
    ids = np.random.default_rng(1).integers(0, cfg.vocab_size, (3, cfg.block_size))
    found = np.asarray(model.apply({"params": params}, jnp.asarray(ids, jnp.int32))[0])
    with torch.no_grad():
        expected = reference(form, params, cfg)(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
