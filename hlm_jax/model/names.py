"""Weights under the names that transformers gives them in its GPT-2 and Qwen3. Imports no JAX.

GPT-2 stores its linear layers [in, out] as this project does; Qwen3 stores them [out, in], and
queries, keys and values apart. The tied output has no name of its own.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.model.shape import GPTConfig, Params

Weights = dict[str, np.ndarray]

_OUTPUT = "lm_head.weight"
# What older versions of transformers stored beside the weights: masks, and rotary frequencies.
_BUFFERS = re.compile(r"(?:^|\.)(?:attn\.(?:bias|masked_bias)|rotary_emb\.inv_freq)$")


@dataclasses.dataclass(frozen=True)
class _Weight:
    """One published weight and its place among the parameters.

    Attributes:
      name: transformers' name, without the prefix of the whole model.
      path: of the array in nested parameters.
      shape: of the weight as this project has it.
      transposed: whether transformers stores it the other way round.
      columns: which columns of the parameter it is; None for the whole.
    """

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool = False
    columns: slice | None = None


def published_weights(params: Params, cfg: GPTConfig) -> Weights:
    """The parameters of a model (numpy, nested) by transformers' names, in transformers' shapes."""
    out = {}
    for weight in _table(cfg):
        array: Any = params
        for key in weight.path:
            array = array[key]
        part = array if weight.columns is None else array[:, weight.columns]
        out[_prefix(cfg) + weight.name] = part.T if weight.transposed else part
    return out


def own_weights(weights: Mapping[str, np.ndarray], cfg: GPTConfig) -> Params:
    """The inverse of published_weights: nested parameters, float32.

    Names may lack the prefix of the whole model ("transformer.", "model."). Masks that older
    versions of transformers stored are left out, and so is an output that equals the embedding.

    Raises:
      UserError: a weight is missing, unexpected or of another shape than `cfg` needs, or the output
        has weights of its own.
    """
    prefix = _prefix(cfg)
    given = {
        name.removeprefix(prefix): array
        for name, array in weights.items()
        if not _BUFFERS.search(name)
    }
    output = given.pop(_OUTPUT, None)
    parts: dict[tuple[str, ...], list[np.ndarray]] = {}
    for weight in _table(cfg):
        if weight.name not in given:
            raise UserError(f"the weight {prefix}{weight.name} is missing")
        array = given.pop(weight.name)
        expected = weight.shape[::-1] if weight.transposed else weight.shape
        if array.shape != expected:
            raise UserError(
                f"the weight {prefix}{weight.name} has the shape {list(array.shape)}, "
                f"and the model's config needs {list(expected)}"
            )
        array = np.asarray(array.T if weight.transposed else array, np.float32)
        parts.setdefault(weight.path, []).append(array)  # in the order of their columns
    if given:
        name = next(name for name in sorted(weights) if name.removeprefix(prefix) in given)
        raise UserError(
            f"the weight {name} has no place in a {cfg.form} of {cfg.n_layer} layers "
            f"({len(given)} such weights in all)"
        )
    (embedding,) = parts["token_embedding",]
    if output is not None and not np.array_equal(np.asarray(output, np.float32), embedding):
        raise UserError(
            f"the weight {_OUTPUT} differs from the embedding: an output with weights of its own "
            "has no place in this model"
        )
    params: Params = {}
    for (*way, leaf), arrays in parts.items():
        place = params
        for key in way:
            place = place.setdefault(key, {})
        whole = np.concatenate(arrays, axis=1) if len(arrays) > 1 else arrays[0]
        place[leaf] = np.ascontiguousarray(whole)
    return params


def _prefix(cfg: GPTConfig) -> str:
    return "transformer." if cfg.form == "gpt2" else "model."


def _table(cfg: GPTConfig) -> list[_Weight]:
    return list(_gpt2(cfg) if cfg.form == "gpt2" else _qwen3(cfg))


def _gpt2(cfg: GPTConfig) -> Iterator[_Weight]:
    d, f = cfg.n_embd, cfg.hidden_width

    def norm(name: str, *path: str) -> Iterator[_Weight]:
        yield _Weight(f"{name}.weight", (*path, "scale"), (d,))
        yield _Weight(f"{name}.bias", (*path, "bias"), (d,))

    yield _Weight("wte.weight", ("token_embedding",), (cfg.vocab_size, d))
    yield _Weight("wpe.weight", ("position_embedding",), (cfg.block_size, d))
    yield from norm("ln_f", "final_norm")
    for i in range(cfg.n_layer):
        block, to = f"block_{i}", f"h.{i}"
        yield from norm(f"{to}.ln_1", block, "attention_norm")
        yield from norm(f"{to}.ln_2", block, "mlp_norm")
        for part, ours, theirs, shape in (
            ("attention", "qkv", "attn.c_attn", (d, cfg.qkv_width)),
            ("attention", "out", "attn.c_proj", (d, d)),
            ("mlp", "up", "mlp.c_fc", (d, f)),
            ("mlp", "down", "mlp.c_proj", (f, d)),
        ):
            path = block, part, ours
            yield _Weight(f"{to}.{theirs}.weight", (*path, "kernel"), shape)
            yield _Weight(f"{to}.{theirs}.bias", (*path, "bias"), shape[1:])


def _qwen3(cfg: GPTConfig) -> Iterator[_Weight]:
    d, f, width = cfg.n_embd, cfg.hidden_width, cfg.head_width
    borders = (0, *cfg.qkv_cuts, cfg.qkv_width)
    yield _Weight("embed_tokens.weight", ("token_embedding",), (cfg.vocab_size, d))
    yield _Weight("norm.weight", ("final_norm", "scale"), (d,))
    for i in range(cfg.n_layer):
        block, to = f"block_{i}", f"layers.{i}"
        qkv = block, "attention", "qkv", "kernel"
        for name, first, last in zip("qkv", borders, borders[1:], strict=False):
            columns, shape = slice(first, last), (d, last - first)
            yield _Weight(f"{to}.self_attn.{name}_proj.weight", qkv, shape, True, columns)
        out = block, "attention", "out", "kernel"
        yield _Weight(f"{to}.self_attn.o_proj.weight", out, (cfg.qkv_cuts[0], d), True)
        for name in ("q_norm", "k_norm"):
            gain = block, "attention", name, "scale"
            yield _Weight(f"{to}.self_attn.{name}.weight", gain, (width,))
        for name, shape in (("up", (d, f)), ("gate", (d, f)), ("down", (f, d))):
            yield _Weight(
                f"{to}.mlp.{name}_proj.weight", (block, "mlp", name, "kernel"), shape, True
            )
        for ours, theirs in (
            ("attention_norm", "input_layernorm"),
            ("mlp_norm", "post_attention_layernorm"),
        ):
            yield _Weight(f"{to}.{theirs}.weight", (block, ours, "scale"), (d,))
