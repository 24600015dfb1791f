"""Configs: loading a config file, overriding it from the command line, checking it. No JAX, so that errors are quick.

A config file defines get_config() -> ml_collections.ConfigDict. Overrides are written --config.section.key=value.
"""

import difflib
import importlib.util
import json
import sys
from pathlib import Path

from ml_collections import ConfigDict

from hlm_jax.errors import UserError

# Keys that may differ between a run and its resumption: they change no figure that the run computes.
FREE_ON_RESUME = ("checkpoint.", "corpus.cache_dir", "train.log_every_steps", "mesh.")


class ConfigError(UserError):
    """A config that cannot be loaded or makes no sense."""


def load_config(path: str, overrides=()) -> ConfigDict:
    """The locked config of a file, with `overrides` ("section.key=value") applied and checked.

    Raises:
      ConfigError: missing file, unknown key (the nearest one is named), wrong type, impossible value.
    """
    try:
        config = load_module(path, needs=("get_config",)).get_config()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    config.lock()
    for override in overrides:
        _override(config, override)
    check(config)
    return config


def load_module(path: str, needs: tuple[str, ...]):
    """The module of a Python file, which may import others of the configs folder that it lies in.

    Raises:
      ConfigError: no such file, one that does not run, or one without the names it `needs`.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(
            f"{path}: no such file"
            + _nearest(file.name, [p.name for p in file.parent.glob("*.py")])
        )
    spec = importlib.util.spec_from_file_location(f"hlm_config_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(
        0, str(file.resolve().parent.parent)
    )  # a config may build on another: from configs import base
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if missing := [name for name in needs if not hasattr(module, name)]:
        raise ConfigError(f"{path} defines no {missing[0]}")
    return module


def _override(config: ConfigDict, text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--config.{key} needs a value: write --config.{key}=VALUE")
    known = flatten(config)
    if key in known:
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        section[name] = _parse(key, value, known[key])
    elif any(k.startswith(key + ".") for k in known):
        example = next(k for k in known if k.startswith(key + "."))
        raise ConfigError(
            f"--config.{key} is a section and cannot be replaced: set its keys, such as --config.{example}=…"
        )
    else:
        raise ConfigError(f"unknown config key {key!r}" + _nearest(key, list(known)))


def _parse(key: str, value: str, default):
    kind = type(default)
    if kind is str:
        return value
    if kind is bool:
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise ConfigError(f"--config.{key} is true or false, not {value!r}")
    if kind is tuple:
        item = type(default[0]) if default else str
        return tuple(_parse(key, part.strip(), item()) for part in value.split(",") if part.strip())
    try:
        return kind(value)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"--config.{key} is {what}, not {value!r}") from None


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:  # a key under the wrong section, or without one
        tail = name.rsplit(".", 1)[-1]
        close = [k for k in known if k.rsplit(".", 1)[-1] == tail][:1]
    return f"; did you mean {close[0]}?" if close else ""


def flatten(config) -> dict:
    """{"section.key": value} of a ConfigDict or nested dict, in order."""
    out = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            out.update({f"{key}.{k}": v for k, v in flatten(value).items()})
        else:
            out[key] = value
    return out


def to_json(config: ConfigDict) -> dict:
    """The config as nested plain values, as JSON would give it back (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def differences(before: dict, now: dict) -> list[str]:
    """ "key: before -> now" for every key that differs, but those of FREE_ON_RESUME."""
    a, b = flatten(before), flatten(now)
    keys = [k for k in {**a, **b} if not k.startswith(FREE_ON_RESUME)]
    missing = "(absent)"
    return [
        f"{k}: {a.get(k, missing)} -> {b.get(k, missing)}"
        for k in keys
        if a.get(k, missing) != b.get(k, missing)
    ]


def check(config: ConfigDict) -> None:
    """Raises ConfigError where values make no sense together."""
    model, train = config.model, config.train

    def need(condition, message):
        if not condition:
            raise ConfigError(message)

    for key, low in (
        ("model.vocab_size", 1),
        ("model.block_size", 2),
        ("model.n_layer", 1),
        ("model.n_head", 1),
        ("model.n_embd", 1),
        ("train.batch_size", 1),
        ("train.accumulate_steps", 1),
        ("train.steps_per_dispatch", 1),
        ("mesh.fsdp", 1),
        ("train.eval_every_steps", 1),
        ("train.log_every_steps", 1),
        ("checkpoint.every_steps", 1),
        ("checkpoint.keep_latest", 1),
        ("corpus.parts", 10),
        ("split.train_every", 1),
        ("train.epochs", 0),
        ("train.steps", 0),
        ("train.patience", 0),
        ("optim.warmup_steps", 0),
        ("optim.learning_rate", 0),
        ("optim.weight_decay", 0),
        ("optim.grad_clip_norm", 0),
    ):
        value = flatten(config)[key]
        need(value >= low, f"{key}={value} must be at least {low}")
    need(
        train.steps or train.epochs,
        "set train.epochs or train.steps: both are 0, there is nothing to train",
    )
    need(model.form in ("gpt2", "qwen3"), f"model.form={model.form!r}: use gpt2 or qwen3")
    need(
        model.n_embd % model.n_head == 0,
        f"model.n_head={model.n_head} does not divide model.n_embd={model.n_embd}",
    )
    need(
        model.form == "gpt2" or model.n_embd // model.n_head % 2 == 0,
        f"form qwen3 rotates pairs: model.n_embd / model.n_head = {model.n_embd // model.n_head} must be even",
    )
    for key in (
        "model.dropout",
        "model.embedding_dropout",
        "train.corrupt_inputs",
        "train.corrupt_final",
        "train.ema_decay",
    ):
        value, own = (
            flatten(config)[key],
            ", or be -1 for model.dropout's rate" if key == "model.embedding_dropout" else "",
        )
        need(
            0 <= value < 1 or (key == "model.embedding_dropout" and value == -1),
            f"{key}={value} must lie in [0, 1)" + own,
        )
    for key in ("train.teacher_weight", "train.corrupt_anneal"):
        need(0 <= flatten(config)[key] <= 1, f"{key}={flatten(config)[key]} must lie in [0, 1]")
    need(
        0.98 <= config.tokenizer.character_coverage <= 1,
        "tokenizer.character_coverage must lie in [0.98, 1] (SentencePiece)",
    )
    need(
        train.batch_size % train.accumulate_steps == 0,
        f"train.accumulate_steps={train.accumulate_steps} does not divide train.batch_size={train.batch_size}",
    )


def count_parameters(model) -> int:
    """The exact number of parameters of a config's model section, without building it."""
    d, v, layers = model.n_embd, model.vocab_size, model.n_layer
    if model.form == "gpt2":
        block = (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + 4 * d
        return v * d + model.block_size * d + layers * block + 2 * d
    hidden = -(-8 * d // 3 // 64) * 64
    block = 3 * d * d + d * d + 3 * d * hidden + 2 * d + 2 * (d // model.n_head)
    return v * d + layers * block + d
