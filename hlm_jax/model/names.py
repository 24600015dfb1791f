"""Weights under the names that transformers gives them in its GPT-2 and Qwen3. Imports no JAX.

GPT-2 stores its linear layers [in, out] as this project does; Qwen3 stores them [out, in]. The tied
output has no name of its own.
"""

import numpy as np

from hlm_jax.model.shape import GPTConfig, Params

Weights = dict[str, np.ndarray]


def published_weights(params: Params, cfg: GPTConfig) -> Weights:
    """The parameters of a model (numpy, nested) by transformers' names, in transformers' shapes."""
    return _gpt2(params, cfg) if cfg.form == "gpt2" else _qwen3(params, cfg)


def _gpt2(params: Params, cfg: GPTConfig) -> Weights:
    out = {
        "transformer.wte.weight": params["token_embedding"],
        "transformer.wpe.weight": params["position_embedding"],
        "transformer.ln_f.weight": params["final_norm"]["scale"],
        "transformer.ln_f.bias": params["final_norm"]["bias"],
    }
    for i in range(cfg.n_layer):
        block, to = params[f"block_{i}"], f"transformer.h.{i}"
        for ours, theirs in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            out[f"{to}.{theirs}.weight"] = block[ours]["scale"]
            out[f"{to}.{theirs}.bias"] = block[ours]["bias"]
        for part, ours, theirs in (
            ("attention", "qkv", "attn.c_attn"),
            ("attention", "out", "attn.c_proj"),
            ("mlp", "up", "mlp.c_fc"),
            ("mlp", "down", "mlp.c_proj"),
        ):
            out[f"{to}.{theirs}.weight"] = block[part][ours]["kernel"]
            out[f"{to}.{theirs}.bias"] = block[part][ours]["bias"]
    return out


def _qwen3(params: Params, cfg: GPTConfig) -> Weights:
    out = {
        "model.embed_tokens.weight": params["token_embedding"],
        "model.norm.weight": params["final_norm"]["scale"],
    }
    for i in range(cfg.n_layer):
        block, to = params[f"block_{i}"], f"model.layers.{i}"
        attention, mlp = block["attention"], block["mlp"]
        qkv = np.split(attention["qkv"]["kernel"], 3, axis=1)
        for name, kernel in zip("qkv", qkv, strict=True):
            out[f"{to}.self_attn.{name}_proj.weight"] = kernel.T
        out[f"{to}.self_attn.o_proj.weight"] = attention["out"]["kernel"].T
        for name in ("q_norm", "k_norm"):
            out[f"{to}.self_attn.{name}.weight"] = attention[name]["scale"]
        for name in ("up", "gate", "down"):
            out[f"{to}.mlp.{name}_proj.weight"] = mlp[name]["kernel"].T
        out[f"{to}.input_layernorm.weight"] = block["attention_norm"]["scale"]
        out[f"{to}.post_attention_layernorm.weight"] = block["mlp_norm"]["scale"]
    return out
