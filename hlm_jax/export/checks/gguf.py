"""A GGUF file read back by `gguf` and by transformers: tensors, shape, tokenizer, logits."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax.export.checks.huggingface import logits_result
from hlm_jax.export.checks.material import Material, Result
from hlm_jax.export.gguf import tensors
from hlm_jax.export.huggingface import config_of
from hlm_jax.export.packages import installed, needed, version
from hlm_jax.export.pieces import Kind, pieces
from hlm_jax.run import Run

_READERS = ("torch", "transformers", "accelerate")  # transformers reads GGUF files with all three


def check(material: Material, path: Path, dtype: str) -> list[Result]:
    """Checks a file that `export.gguf` wrote."""
    reader = needed("gguf").GGUFReader(path)
    run, who = material.run, f"gguf {version('gguf')}"
    results = [
        tensors_result(run, reader, dtype, who),
        metadata_result(run, reader, who),
        tokenizer_result(run, reader, who),
    ]
    return [*results, _transformers(material, path, dtype)]


def tensors_result(run: Run, reader: Any, dtype: str, who: str) -> Result:
    """Whether the file holds the run's weights, each as exactly as its type can."""
    dequantize = needed("gguf").quants.dequantize
    there = {tensor.name: tensor for tensor in reader.tensors}
    expected = tensors(run.params, run.model.cfg, dtype)
    if there.keys() != expected.keys():
        odd = sorted(there.keys() ^ expected.keys())
        return Result(False, f"{who}: tensors that only one side has: {', '.join(odd)}")
    wrong, types = [], []
    for name, (values, kind) in expected.items():
        tensor = there[name]
        types.append(tensor.tensor_type.name)
        read = dequantize(tensor.data, tensor.tensor_type)
        if tensor.tensor_type != kind or read.shape != values.shape:
            wrong.append(f"{name} is {tensor.tensor_type.name} {list(read.shape)}")
        elif difference(values, read, kind.name) > 1:
            wrong.append(f"{name} holds other numbers")
    counts = ", ".join(f"{types.count(name)} {name}" for name in sorted(set(types)))
    return Result(not wrong, f"{who}: {', '.join(wrong) or 'the tensors are ours'}; {counts}")


def difference(values: np.ndarray, read: np.ndarray, kind: str) -> float:
    """The largest error of a tensor as a multiple of what its type allows; 1 or less is right.

    Allowed are nothing for F32, half a unit in the last place for F16, and for Q8_0 half a step of
    the block of 32 numbers, whose scale is itself an F16.

    Args:
      values, read: float32, of equal shape; for Q8_0 its rows are multiples of 32.
    """
    error = np.abs(values - read)
    if kind == "F32":
        return float("inf") if error.any() else 0.0
    if kind == "F16":
        return float((error / np.maximum(np.abs(values) * 2.0**-11, 2.0**-25)).max())
    most = np.abs(values).reshape(-1, 32).max(axis=1, keepdims=True)
    step = most / 127
    # 127 steps, each wrong by the rounding of the scale to an F16, 2**-25 or a 2**-11th of it.
    allowed = 0.5 * step + 127 * np.maximum(step * 2.0**-11, 2.0**-25)
    return float((error.reshape(-1, 32) / allowed).max())


def metadata_result(run: Run, reader: Any, who: str) -> Result:
    """Whether the file states the run's shape."""
    cfg = run.model.cfg
    shape: dict[str, float] = {
        "context_length": cfg.block_size,
        "embedding_length": cfg.n_embd,
        "block_count": cfg.n_layer,
        "feed_forward_length": cfg.hidden_width,
        "attention.head_count": cfg.n_head,
        "vocab_size": cfg.vocab_size,
    }
    if cfg.form == "qwen3":
        shape |= {
            "attention.head_count_kv": cfg.kv_heads,
            "attention.key_length": cfg.head_width,
            "attention.value_length": cfg.head_width,
            "rope.freq_base": float(np.float32(cfg.rope_theta)),
        }
    expected = {f"{cfg.form}.{name}": value for name, value in shape.items()}
    return _fields_result(reader, {"general.architecture": cfg.form, **expected}, who, "shape")


def tokenizer_result(run: Run, reader: Any, who: str) -> Result:
    """Whether the file holds the run's tokens with their scores and kinds."""
    own, separator = pieces(run.tokenizer.model_bytes), run.tokenizer.separator_id
    expected = {
        "model": "llama",
        "tokens": [piece.text for piece in own],
        "scores": [np.float32(piece.score) for piece in own],
        "token_type": [int(piece.kind) for piece in own],
        "bos_token_id": separator,
        "eos_token_id": separator,
        "padding_token_id": separator,
        "unknown_token_id": [piece.kind for piece in own].index(Kind.UNKNOWN),
        "add_bos_token": False,
        "add_eos_token": False,
        "add_space_prefix": False,
    }
    named = {f"tokenizer.ggml.{name}": value for name, value in expected.items()}
    return _fields_result(reader, named, who, f"tokenizer of {len(own):,} tokens")


def _fields_result(reader: Any, expected: dict[str, Any], who: str, what: str) -> Result:
    wrong = []
    for name, value in expected.items():
        field = reader.get_field(name)
        if field is None:
            wrong.append(f"{name} is missing")
        elif field.contents() != value:
            wrong.append(f"{name} is not ours")
    return Result(not wrong, f"{who}: {', '.join(wrong) or f'the {what} is ours'}")


def _transformers(material: Material, path: Path, dtype: str) -> Result:
    """The logits of the file as transformers reads it: another program's reading of every name."""
    if missing := [name for name in _READERS if not installed(name)]:
        return Result(None, f"transformers on the GGUF file: {', '.join(missing)} not installed")
    if dtype != "f32":
        return Result(None, "transformers on the GGUF file: its logits are compared for f32 alone")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is first imported
    import torch
    import transformers

    who = f"transformers {transformers.__version__} on the GGUF file"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # Its reader takes the shape of the file, but not Qwen3's width of a head and GPT-2's positions.
    shape = config_of(material.run.model.cfg, material.run.tokenizer.separator_id, dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        config=transformers.AutoConfig.for_model(**shape),
        gguf_file=path.name,
        local_files_only=True,
        dtype=torch.float32,
    )
    return logits_result(material, material.run.device_params, model, who)
