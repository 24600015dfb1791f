"""Turns a config file and overrides into a ConfigDict that is checked before the book is read.

A config file defines get_config() -> ml_collections.ConfigDict. Overrides are written
--config.section.key=value. The keys themselves are in `keys`. Imports no JAX.
"""

import difflib
import importlib.util
import json
import os
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from hlm_jax.conflicts import conflict
from hlm_jax.errors import UserError
from hlm_jax.keys import ADDED, FIXED, KEYS, REMOVED, RENAMED, SHAPE, WITHOUT_EFFECT, Key
from hlm_jax.rules import written

ABSENT = "(absent)"


class ConfigError(UserError):
    """A config that cannot be loaded or makes no sense."""


# --- loading ---


def default_config() -> ConfigDict:
    """The reference run's config, not locked."""
    return ConfigDict(_nested({name: key.default for name, key in KEYS.items()}))


def load_config(path: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """The config of a file with `overrides` ("section.key=value"): checked, settled and locked.

    Raises:
      ConfigError: missing file, unknown key (the nearest one is named), wrong type or impossible
        value.
    """
    module = load_module(path, needs=("get_config",))
    try:
        config = module.get_config()
    except ConfigError:
        raise
    except Exception as error:  # anything can go wrong in a user's file
        raise ConfigError(f"{path}: {_one_line(error)}") from error
    if not isinstance(config, ConfigDict | dict):
        raise ConfigError(f"{path}: get_config() must return a ConfigDict, not {config!r}")
    values = flatten(config)
    _check_names(values, f"{path}: ")
    for override in overrides:
        key, value = _override(override)
        values[key] = value
    _check_values(values)
    return settled(ConfigDict(_nested(values)))


def load_module(path: str, needs: tuple[str, ...]) -> ModuleType:
    """The module of a Python file, which may import others of the configs folder that it lies in.

    Raises:
      ConfigError: no such file, one that does not run, or one without the names it `needs`.
    """
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        near = _nearest(file.name, [p.name for p in file.parent.glob("*.py")])
        raise ConfigError(f"{path}: no such file{near}")
    spec = importlib.util.spec_from_file_location(f"hlm_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    root = str(file.resolve().parent.parent)  # for: from configs import base
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # anything can go wrong in a user's file
        raise ConfigError(f"{path}: {_one_line(error)}") from error
    finally:
        sys.path.remove(root)
    if missing := [name for name in needs if not hasattr(module, name)]:
        raise ConfigError(f"{path} defines no {missing[0]}")
    return module


def settled(config: ConfigDict) -> ConfigDict:
    """A checked config in its final form: a locked copy with ~ expanded and values of their types.

    `load_config` has done this already.
    """
    values = flatten(config)
    final = {name: key.rule.settle(values[name]) for name, key in KEYS.items()}
    return ConfigDict(_nested(final)).lock()


def replaced(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A settled config with other values of some keys, {"section.key": value}."""
    return settled(ConfigDict(_nested(flatten(config) | dict(values))))


def _override(words: str) -> tuple[str, Any]:
    """(key, value) of "section.key=value"."""
    key, equals, value = words.partition("=")
    if key not in KEYS:
        raise ConfigError(_unknown(key, "--config."))
    if not equals:
        raise ConfigError(f"--config.{key} needs a value: write --config.{key}=VALUE")
    try:
        return key, KEYS[key].rule.parse(key, value)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _one_line(error: Exception) -> str:
    """An error of a user's file in one line; renamed and removed keys are named."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    for old in (*RENAMED, *REMOVED):
        if old.rsplit(".", 1)[-1] in line:
            line += f"; {_unknown(old)}"
    return line


# --- checking ---


def check(config: ConfigDict) -> None:
    """Refuses a config that could not be trained; `load_config` has done this already.

    Raises:
      ConfigError: a key is missing, unknown, of a wrong type or out of range, or keys do not fit
        together.
    """
    values = flatten(config)
    _check_names(values)
    _check_values(values)


def _check_names(values: Mapping[str, Any], where: str = "") -> None:
    for name in values:
        if name not in KEYS:
            raise ConfigError(where + _unknown(name))
    for name in KEYS:
        if name not in values:
            raise ConfigError(
                f"{where}the config has no {name}: begin with hlm_jax.config.default_config()"
            )


def _unknown(name: str, prefix: str = "") -> str:
    """Why there is no such key, and what to write instead."""
    if name in RENAMED:
        return f"{prefix}{name} was renamed: use {prefix}{RENAMED[name]}"
    if name in REMOVED:
        return f"{prefix}{name} {REMOVED[name]}"
    if inside := [key for key in KEYS if key.startswith(name + ".")]:
        return (
            f"{prefix}{name} is a section and cannot be replaced: "
            f"set its keys, such as {prefix}{inside[0]}=…"
        )
    leaf = name.rsplit(".", 1)[-1]
    same = [key for key in KEYS if key.rsplit(".", 1)[-1] == leaf]  # under another section
    return f"unknown config key {name!r}{_nearest(name, same or list(KEYS))}"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else ""


def _check_values(values: Mapping[str, Any]) -> None:
    for name, key in KEYS.items():
        if problem := key.rule.problem(name, values[name]):
            raise ConfigError(problem + _example(name, key))
    if problem := conflict(values):
        raise ConfigError(problem)


def _example(name: str, key: Key) -> str:
    """ "; for example --config.key=default" where the default shows something."""
    if key.rule.must.startswith(":") or not key.default:
        return ""
    return f"; for example --config.{name}={shlex.quote(written(key.default))}"


# --- recording and comparing ---


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"section.key": value} of a ConfigDict or nested dict, in order."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            out.update({f"{key}.{k}": v for k, v in flatten(value).items()})
        else:
            out[str(key)] = value
    return out


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        *sections, leaf = name.split(".")
        section = out
        for part in sections:
            section = section.setdefault(part, {})
        section[leaf] = value
    return out


def recorded(config: ConfigDict) -> dict[str, Any]:
    """What config.json and checkpoints hold: nested plain values, tuples as lists, full paths."""
    values = flatten(settled(config))
    for name, key in KEYS.items():
        if key.rule.is_path:
            values[name] = _each(os.path.abspath, values[name])
    return json.loads(json.dumps(_nested({name: values[name] for name in KEYS})))


def upgrade(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config of any version with exactly the keys of today, in their order.

    Renamed keys are mapped, removed ones dropped; missing ones get the values that mean what the
    run did.
    """
    old = flatten(saved)
    values = {name: key.default for name, key in KEYS.items()} | ADDED
    values.update({RENAMED.get(name, name): value for name, value in old.items()})
    return json.loads(json.dumps(_nested({name: values[name] for name in KEYS})))


def changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{key: (saved, now)} of every key whose values differ, except those without effect.

    Where both start from another model, the shape of the model is that one's and is not compared.

    Args:
      saved: a recorded config of any version. Relative paths count from the current folder.
      now: the config of today, as `recorded` gives it.
    """
    before, after = flatten(upgrade(saved)), flatten(upgrade(now))
    own_book = before["corpus.path"] and after["corpus.path"]
    further = before["corpus.extra"] or after["corpus.extra"]
    found = {}
    for name, key in KEYS.items():
        if name.startswith(WITHOUT_EFFECT) or (name == "corpus.revision" and own_book):
            continue
        if name in SHAPE and before["train.init_from"] and after["train.init_from"]:
            continue
        if name.startswith("corpus.extra_") and not further:
            continue
        pair = before[name], after[name]
        if key.rule.is_path:
            pair = _each(os.path.realpath, pair[0]), _each(os.path.realpath, pair[1])
        if pair[0] != pair[1]:
            found[name] = before[name], after[name]
    return found


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, resuming: bool = False
) -> list[str]:
    """ "key: saved -> now" for every key that differs and makes it another run.

    Args:
      saved, now: as `changes`.
      resuming: leaves out the keys with which a training may go on.
    """
    old = flatten(saved)
    lines = [
        f"{name}: {written(before)} -> {written(after)}"
        for name, (before, after) in changes(saved, now).items()
        if KEYS[name].resume == FIXED or not resuming
    ]
    # With these values a removed key did nothing.
    idle = {"model.embedding_dropout": (-1, old.get("model.dropout"))}
    lines += [
        f"{name}: {written(old[name])} -> (removed)"
        for name in REMOVED
        if name in old and old[name] not in idle.get(name, (0,))
    ]
    others = [name for name in old if name not in (*KEYS, *RENAMED, *REMOVED)]
    return lines + [f"{name}: {written(old[name])} -> {ABSENT}" for name in others]


def _each(function, value):
    """`function` of a path or of every path of a list; an empty path stays empty."""
    if isinstance(value, tuple | list):
        return [function(path) for path in value]
    return function(value) if value else value


# --- printing ---


def as_text(config: ConfigDict) -> str:
    """The config for people: one key a line under its section, values as on the command line."""
    values, lines, open_section = flatten(config), [], ""
    for name in KEYS:
        section, _, leaf = name.rpartition(".")
        if section != open_section:
            lines.append(f"{section}:")
            open_section = section
        lines.append(f"{'  ' if section else ''}{leaf}: {written(values[name])}")
    return "\n".join(lines)


def book_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of corpus.load_corpus: the section corpus without the keys of extra texts."""
    keys = config["corpus"].items()
    return {name: value for name, value in keys if not name.startswith("extra")}


def describe_keys() -> str:
    """Every key with its default, its rule and what it does, in at most 100 columns."""
    name_width = max(map(len, KEYS)) + 2
    default_width = max(_columns(written(key.default)) for key in KEYS.values()) + 2

    def row(name: str, default: str, resume: str, rule: str) -> str:
        return (
            _pad(name, name_width) + _pad(default, default_width) + _pad(resume, 10) + rule
        ).rstrip()

    lines = [row("key", "default", "resume", "rule, and below it what the key does")]
    for name, key in KEYS.items():
        lines.append(row(name, written(key.default), key.resume, key.rule.summary))
        lines.append(" " * name_width + key.line)
    return "\n".join(lines)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    """Columns that a terminal shows `text` in: two for a Chinese character."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
