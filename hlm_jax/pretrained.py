"""A model to start from: a run of this project, or a folder in Hugging Face's layout.

Of such a folder GPT-2 and Qwen3 are read, with their own tokenizer.json. What this project's models
cannot compute exactly as transformers does is refused by its name.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax import checkpoint
from hlm_jax.book.extra import extra_rows
from hlm_jax.book.hf_tokenizer import HFTokenizer
from hlm_jax.book.tokenizer import BaseTokenizer
from hlm_jax.errors import UserError
from hlm_jax.model.layers import LAYER_NORM_EPS, RMS_NORM_EPS
from hlm_jax.model.names import Weights, own_weights
from hlm_jax.model.shape import GPTConfig, Params
from hlm_jax.numbers import written_numbers

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Settings that change what a model computes: those values that mean what this project's forms do.
# The first one is that of a config without the key.
_COMMON = {"quantization_config": (None,), "is_encoder_decoder": (False,)}
_GPT2 = {
    "tie_word_embeddings": (True,),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (LAYER_NORM_EPS,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
}
_QWEN3 = {
    "tie_word_embeddings": (False, True),
    "hidden_act": ("silu",),
    "rms_norm_eps": (RMS_NORM_EPS,),
    "attention_bias": (False,),
    "use_sliding_window": (False,),
}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights, shape and tokenizer of a model to start from.

    Attributes:
      cfg: its shape; dropout is 0 for a folder of transformers, where it is no part of the model.
      params: nested dicts of numpy arrays, float32.
      about: where it is from, JSON-able: `kind` ("run" or "huggingface"), `path`, `step` (None
        for a folder of transformers) and `name`. Of a run also `corpus` (name and sha256 of its
        book), `extra` (rows of the further texts that it has read) and `init` (what this run itself
        began from, or None).
    """

    cfg: GPTConfig
    params: Params
    tokenizer: BaseTokenizer
    about: dict[str, Any]

    def shortened(self, block_size: int) -> "Pretrained":
        """The same model for windows of at most `block_size` tokens.

        Raises:
          UserError: it has not so many positions.
        """
        if not 1 <= block_size <= self.cfg.block_size:
            raise UserError(
                f"{self.about['path']} reads at most {self.cfg.block_size} tokens at once: "
                f"set --config.model.block_size to that or less, not {block_size}"
            )
        params = self.params
        if "position_embedding" in params:
            table = np.ascontiguousarray(params["position_embedding"][:block_size])
            params = {**params, "position_embedding": table}
        cfg = dataclasses.replace(self.cfg, block_size=block_size)
        return dataclasses.replace(self, cfg=cfg, params=params)


def describe_base(init: Mapping[str, Any], *, held_out: bool) -> str:
    """One line: what a run starts from, and whether its held-out figures prove anything.

    Args:
      init: what a checkpoint's meta records under `init`.
      held_out: whether the run holds chapters out.
    """
    step = "" if init["step"] is None else f", step {init['step']}"
    began = f"starts from {init['path']}{step}"
    if not held_out:
        return began
    if init["seen"]:
        which = "chapter" if len(init["seen"]) == 1 else "chapters"
        known = f"that model has read {which} {written_numbers(init['seen'])}, held out here"
        return f"{began}: {known}; figures on them prove nothing"
    if init["unknown"]:
        then = "where it has read chapters held out here, figures on them prove nothing"
        return f"{began}: {init['unknown']}; {then}"
    return f"{began}: no chapter held out here occurs in the texts that it was trained on"


def load_pretrained(path: str, step: str = "best") -> Pretrained:
    """Reads a run, or a folder in Hugging Face's layout.

    Args:
      path: a run's workdir, or a folder with config.json, model.safetensors and tokenizer.json.
      step: the checkpoint of a run: best, latest or a number.

    Raises:
      UserError: there is no such model, or it has something that this project's models have not.
    """
    folder = Path(os.path.expanduser(path))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{path} is a file: name the folder of a run or of a model of transformers")
    if not folder.is_dir():
        raise UserError(
            f"{path}: no such folder; a public model must be fetched first: "
            "hf download NAME --local-dir FOLDER"
        )
    if (folder / "folds.json").is_file():
        raise UserError(f"{path} holds fold models: name one of them, such as {path}/fold-01")
    if checkpoint.folder_of(folder).is_dir():
        return _from_run(folder, step)
    for run in (folder.parent, folder.parent.parent):
        if checkpoint.folder_of(run) in (folder.resolve(), folder.resolve().parent):
            raise UserError(f"{path} lies in the run {run}: name that, and its step alone")
    config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if "model_type" not in config:
        raise UserError(
            f"{path} is neither a run (it has no folder checkpoints) nor a model of transformers "
            f"(it has no {CONFIG} with a model_type)"
        )
    if step not in ("best", "latest"):
        raise UserError(f"{path} is a model of transformers, which has no steps: leave step {step}")
    try:
        return _from_transformers(folder, config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _from_run(folder: Path, step: str) -> Pretrained:
    number, params, meta = checkpoint.read(folder, step)
    corpus = meta["corpus"]
    about = {
        "kind": "run",
        "path": os.path.abspath(folder),
        "step": number,
        "name": folder.resolve().name,
        "corpus": {"name": corpus["name"], "sha256": corpus["sha256"]},
        "extra": extra_rows(corpus),
        "init": meta.get("init"),
    }
    return Pretrained(
        GPTConfig(**meta["config"]["model"]), params, checkpoint.tokenizer_of(meta), about
    )


# --- a folder in Hugging Face's layout ---


def _from_transformers(folder: Path, config: dict[str, Any]) -> Pretrained:
    cfg = _shape(config)
    tokenizer = HFTokenizer.load(folder, vocab_size=cfg.vocab_size)
    params = own_weights(_read_weights(folder), cfg)
    name = config.get("_name_or_path") or folder.resolve().name
    about = {
        "kind": "huggingface",
        "path": os.path.abspath(folder),
        "step": None,
        "name": str(name),
        "model_type": config["model_type"],
    }
    return Pretrained(cfg, params, tokenizer, about)


def _shape(config: Mapping[str, Any]) -> GPTConfig:
    """The shape that a config.json describes.

    Raises:
      UserError: another architecture, or a setting that changes what the model computes.
    """
    form = config["model_type"]
    if form not in ("gpt2", "qwen3"):
        raise UserError(f"{CONFIG} has model_type={form}: gpt2 and qwen3 are read")
    for name, values in (_COMMON | (_GPT2 if form == "gpt2" else _QWEN3)).items():
        if config.get(name, values[0]) not in values:
            raise UserError(
                f"{CONFIG} has {name}={_written(config[name])}: only models with "
                f"{' or '.join(map(_written, values))} are read"
            )
    return _gpt2_shape(config) if form == "gpt2" else _qwen3_shape(config)


def _gpt2_shape(config: Mapping[str, Any]) -> GPTConfig:
    width, heads = _count(config, "n_embd"), _count(config, "n_head")
    if width % heads:
        raise UserError(f"{CONFIG} has n_head={heads}, which does not divide n_embd={width}")
    inner = _count(config, "n_inner") if config.get("n_inner") else 0
    return _normal(
        GPTConfig(
            "gpt2",
            vocab_size=_count(config, "vocab_size"),
            block_size=_count(config, "n_positions"),
            n_layer=_count(config, "n_layer"),
            n_head=heads,
            n_embd=width,
            dropout=0.0,
            rope_theta=10000.0,
            intermediate_size=inner,
        )
    )


def _qwen3_shape(config: Mapping[str, Any]) -> GPTConfig:
    if not config.get("tie_word_embeddings", False):
        raise UserError(
            f"{CONFIG} has tie_word_embeddings=false, an output with weights of its own: only "
            "models whose output shares the embedding's weights are read"
        )
    kinds = set(config.get("layer_types") or ()) - {"full_attention"}
    if kinds:
        raise UserError(
            f"{CONFIG} has layers of the type {min(kinds)}: only full_attention is read"
        )
    heads, kv_heads = (_count(config, f"num_{kind}_heads") for kind in ("attention", "key_value"))
    head_width = _count(config, "head_dim")
    if heads % kv_heads or head_width % 2:
        raise UserError(
            f"{CONFIG} has num_attention_heads={heads}, num_key_value_heads={kv_heads} and "
            f"head_dim={head_width}: the second must divide the first and the third be even"
        )
    return _normal(
        GPTConfig(
            "qwen3",
            vocab_size=_count(config, "vocab_size"),
            block_size=_count(config, "max_position_embeddings"),
            n_layer=_count(config, "num_hidden_layers"),
            n_head=heads,
            n_embd=_count(config, "hidden_size"),
            dropout=0.0,
            rope_theta=_rope_theta(config),
            n_kv_head=kv_heads,
            head_dim=head_width,
            intermediate_size=_count(config, "intermediate_size"),
        )
    )


def _rope_theta(config: Mapping[str, Any]) -> float:
    """The base of the rotary positions; transformers 4 and 5 write it in different places."""
    scaling = config.get("rope_scaling") or {}
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)}
    for found in (scaling, rope):
        kind = found.get("rope_type") or found.get("type") or "default"
        if kind != "default" or found.get("partial_rotary_factor", 1.0) != 1.0:
            raise UserError(
                f"{CONFIG} has rotary positions of its own ({_written(found)}): only plain ones, "
                "without scaling, are read"
            )
    theta = rope.get("rope_theta")
    if not isinstance(theta, int | float) or not theta > 0:
        raise UserError(f"{CONFIG} has rope_theta={_written(theta)}: it must be a number above 0")
    return float(theta)


def _normal(cfg: GPTConfig) -> GPTConfig:
    """The same shape with 0 where a field says what is the rule anyway."""
    if cfg.n_kv_head == cfg.n_head:
        cfg = dataclasses.replace(cfg, n_kv_head=0)
    if cfg.head_dim * cfg.n_head == cfg.n_embd:
        cfg = dataclasses.replace(cfg, head_dim=0)
    derived = dataclasses.replace(cfg, intermediate_size=0)
    return derived if derived.hidden_width == cfg.hidden_width else cfg


def _count(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{CONFIG} has {name}={_written(value)}: it must be a number from 1 on")
    return value


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON: download it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object: download it again")
    return found


def _read_weights(folder: Path) -> Weights:
    """All weights of a folder by their names, in the types of the files.

    Raises:
      UserError: no safetensors, a damaged file, or weights of another type.
    """
    if (folder / WEIGHTS).is_file():
        return _of_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        files = _json(folder / INDEX).get("weight_map")
        if not isinstance(files, dict):
            raise UserError(f"{INDEX} has no weight_map: download it again")
        weights: Weights = {}
        for name in sorted(set(files.values())):
            weights |= _of_file(folder / name)
        if lacking := sorted(set(files) - set(weights)):
            raise UserError(f"{files[lacking[0]]} lacks the weight {lacking[0]}")
        return weights
    if list(folder.glob("pytorch_model*.bin")):
        raise UserError(
            "pytorch_model.bin is not read, as it may hold programs: with torch and transformers, "
            'convert it: python -c "from transformers import AutoModelForCausalLM as Model; '
            f"Model.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    raise UserError(f"there is neither {WEIGHTS} nor {INDEX}")


def _of_file(path: Path) -> Weights:
    import ml_dtypes  # noqa: F401 - teaches numpy the type bfloat16

    try:
        import safetensors
    except ImportError:
        raise UserError(
            "safetensors files need the package safetensors: EXTRAS=export bash "
            "scripts/environment.sh"
        ) from None
    weights = {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                kind = file.get_slice(name).get_dtype()
                if kind not in _TYPES:
                    raise UserError(
                        f"the weight {name} is of the type {kind}: "
                        f"{', '.join(_TYPES.values())} are read"
                    )
                weights[name] = file.get_tensor(name)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path.name} cannot be read ({checkpoint.first_line(error)})") from error
    return weights
