"""A folder that transformers opens offline: AutoModelForCausalLM and AutoTokenizer, 4.57 and 5.

Written without torch or transformers: weights by `safetensors`, everything else as JSON.
"""

import json
from pathlib import Path
from typing import Any

from hlm_jax.export import tokenizer as tokenizers
from hlm_jax.export.packages import needed
from hlm_jax.export.weights import rounded
from hlm_jax.language_model import LanguageModel
from hlm_jax.model.layers import INIT_STD, LAYER_NORM_EPS, RMS_NORM_EPS
from hlm_jax.model.names import published_weights
from hlm_jax.model.shape import GPTConfig

DTYPES = ("f32", "bf16")
_WHOLE_NAMES = {"f32": "float32", "bf16": "bfloat16"}


def write(model: LanguageModel, folder: str | Path, *, dtype: str = "f32") -> None:
    """Writes the model and its tokenizer into an existing folder.

    Args:
      dtype: of the weights, one of DTYPES.

    Raises:
      UserError: the package safetensors is missing.
    """
    save_file = needed("safetensors.numpy").save_file
    folder, cfg, tokenizer = Path(folder), model.model.cfg, model.tokenizer
    weights = rounded(published_weights(model.params, cfg), dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    separator = tokenizer.separator_id
    _write_json(folder / "config.json", config_of(cfg, separator, dtype))
    _write_json(folder / "generation_config.json", generation_config(model))
    _write_json(
        folder / "tokenizer_config.json", tokenizers.tokenizer_config(tokenizer, cfg.block_size)
    )
    _write_json(folder / "special_tokens_map.json", tokenizers.special_tokens(tokenizer))
    (folder / "tokenizer.json").write_bytes(tokenizers.tokenizer_json(tokenizer))
    if tokenizer.format == "sentencepiece":
        (folder / "tokenizer.model").write_bytes(tokenizer.model_bytes)


def config_of(cfg: GPTConfig, separator_id: int, dtype: str) -> dict[str, Any]:
    """config.json."""
    shared = {
        "vocab_size": cfg.vocab_size,
        "initializer_range": INIT_STD,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": separator_id,
        "eos_token_id": separator_id,
        "pad_token_id": separator_id,
        "dtype": _WHOLE_NAMES[dtype],
    }
    if cfg.form == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_positions": cfg.block_size,
            "n_embd": cfg.n_embd,
            "n_layer": cfg.n_layer,
            "n_head": cfg.n_head,
            "n_inner": cfg.hidden_width,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": LAYER_NORM_EPS,
            "embd_pdrop": cfg.dropout,
            "attn_pdrop": cfg.dropout,
            "resid_pdrop": cfg.dropout,
            **shared,
        }
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "max_position_embeddings": cfg.block_size,
        "hidden_size": cfg.n_embd,
        "intermediate_size": cfg.hidden_width,
        "num_hidden_layers": cfg.n_layer,
        "num_attention_heads": cfg.n_head,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": RMS_NORM_EPS,
        # Under this name by transformers 4; 5 reads it too and moves it into rope_parameters.
        "rope_theta": cfg.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": cfg.dropout,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": cfg.n_layer,
        **shared,
    }


def generation_config(model: LanguageModel) -> dict[str, Any]:
    """generation_config.json: draws as the run does, ends with the chapter or the block.

    The model knows no positions beyond its block, so that the block bounds the length.
    """
    separator, sampling = model.tokenizer.separator_id, model.sampling
    ends = {
        "bos_token_id": separator,
        "eos_token_id": separator,
        "pad_token_id": separator,
        "max_length": model.model.cfg.block_size,
        "repetition_penalty": float(sampling.repetition_penalty),
    }
    if not sampling.temperature:
        return ends | {"do_sample": False}
    draws: dict[str, Any] = {
        "do_sample": True,
        "temperature": float(sampling.temperature),
        "top_k": sampling.top_k,
        "top_p": float(sampling.top_p),
    }
    return ends | draws | ({"min_p": float(sampling.min_p)} if sampling.min_p else {})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
