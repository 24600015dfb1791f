"""A GGUF file that llama.cpp opens, written with the `gguf` package alone.

llama.cpp's own converter refuses tokenizers that it does not know. Its tokenizer "llama" is
SentencePiece's BPE: it needs the tokens, their scores and their kinds.
"""

from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.export.packages import needed
from hlm_jax.export.pieces import Kind, pieces
from hlm_jax.language_model import LanguageModel
from hlm_jax.model.layers import LAYER_NORM_EPS, RMS_NORM_EPS
from hlm_jax.model.names import published_weights
from hlm_jax.model.shape import GPTConfig, Params

DTYPES = ("f32", "f16", "q8_0")
_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
# GPT-2's linear layers, which it stores [in, out]; llama.cpp reads [out, in].
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def check_tokenizer(model: LanguageModel) -> None:
    """Refuses a model with a tokenizer of others, which llama.cpp knows under a name of its own.

    Raises:
      UserError: such a tokenizer.
    """
    if model.tokenizer.format != "sentencepiece":
        raise UserError(
            "a run with a tokenizer.json of another model has no GGUF file from here: export it "
            "with --format hf and run llama.cpp's convert_hf_to_gguf.py on that folder"
        )


def write(
    model: LanguageModel, path: str | Path, *, dtype: str = "f32", name: str, licence: str = ""
) -> None:
    """Writes the model and its tokenizer into one file.

    Args:
      dtype: of the matrices, one of DTYPES; vectors and learned positions stay float32. A matrix
        whose rows are no multiple of 32 numbers stays float16 under q8_0.
      name, licence: as the file tells them.

    Raises:
      UserError: the package gguf is missing, or the tokenizer is not this project's.
    """
    check_tokenizer(model)
    gguf = needed("gguf")
    cfg = model.model.cfg
    writer = gguf.GGUFWriter(Path(path), cfg.form)
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[dtype]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, cfg)
    _add_tokenizer(writer, model)
    _add_sampling(writer, model)
    for tensor, (values, kind) in tensors(model.params, cfg, dtype).items():
        writer.add_tensor(tensor, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(params: Params, cfg: GPTConfig, dtype: str) -> dict[str, tuple[np.ndarray, Any]]:
    """{name in llama.cpp: (float32 values as it stores them, gguf.GGMLQuantizationType)}."""
    gguf = needed("gguf")
    arch = {"gpt2": gguf.MODEL_ARCH.GPT2, "qwen3": gguf.MODEL_ARCH.QWEN3}[cfg.form]
    names = gguf.get_tensor_name_map(arch, cfg.n_layer)
    kinds = gguf.GGMLQuantizationType
    block = gguf.GGML_QUANT_SIZES[kinds.Q8_0][0]
    found = {}
    for published, weight in published_weights(params, cfg).items():
        values = np.asarray(weight, np.float32)
        if cfg.form == "gpt2" and published.endswith(_TRANSPOSED):
            values = values.T
        kind = kinds[dtype.upper()]
        if values.ndim < 2 or published == "transformer.wpe.weight":
            kind = kinds.F32
        elif kind == kinds.Q8_0 and values.shape[-1] % block:
            kind = kinds.F16
        name = names.get_name(published, try_suffixes=(".weight", ".bias"))
        found[name] = np.ascontiguousarray(values), kind
    return found


def _add_shape(writer: Any, cfg: GPTConfig) -> None:
    writer.add_context_length(cfg.block_size)
    writer.add_embedding_length(cfg.n_embd)
    writer.add_block_count(cfg.n_layer)
    writer.add_feed_forward_length(cfg.hidden_width)
    writer.add_head_count(cfg.n_head)
    writer.add_vocab_size(cfg.vocab_size)
    if cfg.form == "gpt2":
        writer.add_layer_norm_eps(LAYER_NORM_EPS)
        return
    writer.add_head_count_kv(cfg.kv_heads)
    writer.add_key_length(cfg.head_width)
    writer.add_value_length(cfg.head_width)
    writer.add_rope_dimension_count(cfg.head_width)
    writer.add_rope_freq_base(cfg.rope_theta)
    writer.add_layer_norm_rms_eps(RMS_NORM_EPS)


def _add_tokenizer(writer: Any, model: LanguageModel) -> None:
    """The tokenizer; what is not said here, llama.cpp would take from Llama's."""
    own = pieces(model.tokenizer.model_bytes)
    separator = model.tokenizer.separator_id
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece.text for piece in own])
    writer.add_token_scores([piece.score for piece in own])
    writer.add_token_types([int(piece.kind) for piece in own])
    writer.add_bos_token_id(separator)
    writer.add_eos_token_id(separator)
    writer.add_pad_token_id(separator)
    writer.add_unk_token_id([piece.kind for piece in own].index(Kind.UNKNOWN))
    # A prompt is what stands in the middle of a chapter: no separator before it, as in training.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)


def _add_sampling(writer: Any, model: LanguageModel) -> None:
    """How the run draws; llama.cpp's own defaults are those of chat models."""
    sampling = model.sampling
    writer.add_sampling_temp(sampling.temperature)
    writer.add_sampling_top_k(sampling.top_k)
    writer.add_sampling_top_p(sampling.top_p)
    writer.add_sampling_min_p(sampling.min_p)
    writer.add_sampling_penalty_repeat(sampling.repetition_penalty)
