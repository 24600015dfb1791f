"""Every config key with its default, its rule and one line of help.

The defaults are those of the reference run, configs/base.py. `config` uses this table to load,
check and print configs, in the order of the table.
"""

import contextlib
import dataclasses
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable
from typing import Any

# 256 bytes, <unk>, the separator, the newline, “ and ”, the sign of a space, and one character.
SMALLEST_VOCABULARY = 263
# The conversions that the opencc package ships.
OPENCC = (
    *("hk2s", "hk2sp", "hk2t", "jp2t", "s2hk", "s2hkp", "s2t", "s2tw", "s2twp"),
    *("t2hk", "t2jp", "t2s", "t2tw", "tw2s", "tw2sp", "tw2t"),
)
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a list of paths",
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a key accepts.

    Attributes:
      kind: int, float, bool, str or tuple (of str).
      summary: the rule in a few words, for --help_config.
      must: completes "key=value" when the value is refused, such as " must be at least 1".
      accepts: whether a value of this kind is allowed.
      is_path: the value names files or folders, in which ~ is expanded.
    """

    kind: type
    summary: str
    must: str
    accepts: Callable[[Any], bool]
    is_path: bool = False

    def parse(self, key: str, text: str) -> Any:
        """The value of a command line's words.

        Raises:
          ValueError: the words are no value of this kind. The message names the key.
        """
        if self.kind is str:
            return text
        if self.kind is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if self.kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if self.kind in (int, float):
            with contextlib.suppress(ValueError):  # the message below is clearer
                return self.kind(text)
        raise ValueError(f"--config.{key} is {_KINDS[self.kind]}, not {text!r}")

    def problem(self, key: str, value: Any) -> str | None:
        """Why a value is refused, as one line that begins with the key, or None."""
        if not self._is_kind(value):
            return f"{key} is {_KINDS[self.kind]}, not {value!r}"
        if self.kind is float and not abs(value) <= sys.float_info.max:  # NaN compares as False
            return f"{key}={value} must be a finite number"
        return None if self.accepts(value) else f"{key}={written(value)}{self.must}"

    def settle(self, value: Any) -> Any:
        """An accepted value in its final form: of the rule's own type, with ~ expanded in paths."""
        if self.is_path and self.kind is tuple:
            return tuple(map(os.path.expanduser, value))
        return os.path.expanduser(value) if self.is_path else self.kind(value)

    def _is_kind(self, value: Any) -> bool:
        if self.kind is tuple:
            return isinstance(value, tuple | list) and all(isinstance(v, str) for v in value)
        if self.kind is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        return isinstance(value, self.kind) and (self.kind is bool or not isinstance(value, bool))


def written(value: Any) -> str:
    """A value as it is written on the command line: 3e-05, true, 宝玉笑道：, a,b or ''."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        value = ",".join(map(str, value))
    text = str(value)
    shown = all(char.isprintable() or char == "\u3000" for char in text)  # no line ends
    return text if text and shown else repr(text)


def number(
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> Rule:
    """A finite number; `low` and `high` are allowed themselves, `above` and `below` are not."""
    return _ranged(float, "number", low, above, high, below)


def whole(*, low: int, high: int | None = None) -> Rule:
    """A whole number from `low` to `high`, both allowed."""
    return _ranged(int, "whole number", low, None, high, None)


def _ranged(kind: type, noun: str, low, above, high, below) -> Rule:
    def accepts(value):
        return (
            (low is None or value >= low)
            and (above is None or value > above)
            and (high is None or value <= high)
            and (below is None or value < below)
        )

    if high is None and below is None:
        words = f"at least {low}" if above is None else f"greater than {above}"
        return Rule(kind, f"{noun}, {words}", f" must be {words}", accepts)
    start = f"[{low}" if above is None else f"({above}"
    interval = f"{start}, {high}]" if below is None else f"{start}, {below})"
    return Rule(kind, f"{noun} in {interval}", f" must lie in {interval}", accepts)


def choice(*names: str, otherwise: str = "") -> Rule:
    """One of these words. `otherwise` ends the error line."""
    *most, last = names
    words = f"{', '.join(most)} or {last}" if most else last
    return Rule(str, words, f": use {words}{otherwise}", lambda value: value in names)


def truth() -> Rule:
    """True or False."""
    return Rule(bool, "true or false", "", lambda value: True)


def text() -> Rule:
    """Unicode text, empty or with a character that can be seen."""

    def accepts(value):
        visible = any(char.isprintable() and not char.isspace() for char in value)
        return _is_unicode(value) and (visible or not value)

    return Rule(str, "text, or empty", " must be Unicode text, and not white space alone", accepts)


def path(*, optional: bool = False) -> Rule:
    """The path of a file or folder; with `optional`, it may be empty."""
    summary = "path, or empty" if optional else "path"
    return Rule(
        str, summary, " must be a path", lambda value: bool(value.strip()) or optional, is_path=True
    )


def paths() -> Rule:
    """Any number of paths, separated by commas on the command line."""
    must = " must be paths, none of them empty"
    return Rule(tuple, "paths, separated by commas", must, lambda value: all(value), is_path=True)


def conversion() -> Rule:
    """An OpenCC conversion by name or by its .json file; empty for none."""

    def accepts(value):
        return not value or value in OPENCC or value.endswith(".json")

    must = ": use a conversion of OpenCC, such as t2s, tw2s or hk2s"
    return Rule(str, "conversion of OpenCC, such as t2s, or empty", must, accepts)


def pattern() -> Rule:
    """A regular expression; empty for none."""

    def accepts(value):
        try:
            with warnings.catch_warnings(action="error", category=FutureWarning):
                re.compile(value)
        except (re.error, OverflowError, RecursionError, FutureWarning):
            return False
        return True

    must = " is no regular expression of Python; write for example ^第.+回 or ^\\d+\\."
    return Rule(str, "regular expression, or empty", must, accepts)


def brackets() -> Rule:
    """Pairs of brackets, one after the other; empty for none."""

    def accepts(value):
        kinds = [unicodedata.category(char) for char in value]
        pairs = zip(kinds[::2], kinds[1::2], strict=False)
        paired = len(value) % 2 == 0 and len(set(value)) == len(value)
        return paired and all(pair in (("Ps", "Pe"), ("Pi", "Pf")) for pair in pairs)

    must = " must be pairs of an opening and a closing bracket, such as 【】（）"
    return Rule(str, "pairs of brackets, or empty", must, accepts)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except (
        UnicodeEncodeError
    ):  # half of a surrogate pair, as from a command line in another encoding
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key: the reference run's value, what is allowed, and what it does in one line."""

    default: Any
    rule: Rule
    line: str


KEYS: dict[str, Key] = {
    "seed": Key(0, whole(low=0, high=2**32 - 1), "Decides weights, windows, dropout and samples."),
    "dtype": Key(
        "auto",
        choice("auto", "float32", "bfloat16", "float16"),
        "Type of matrix products in training. auto: the device's fastest.",
    ),
    "attention": Key(
        "auto",
        choice("auto", "xla", "fused"),
        "auto: the faster one. fused is used only where dropout is 0.",
    ),
    "mesh.fsdp": Key(
        1,
        whole(low=1),
        "Devices that share the weights; further devices repeat them.",
    ),
    "corpus.path": Key(
        "", path(optional=True), "A text, HTML or EPUB file, or a folder. Empty: the edition."
    ),
    "corpus.edition": Key(
        "zhiyanzhai",
        choice("zhiyanzhai", otherwise=", or --config.corpus.path=BOOK.txt for another book"),
        "The edition that is fetched when corpus.path is empty.",
    ),
    "corpus.revision": Key(
        2, whole(low=1, high=2), "Revision of the edition's text. Runs of version 0.1 read 1."
    ),
    "corpus.cache_dir": Key("data", path(), "Folder that keeps the fetched edition."),
    "corpus.convert": Key("", conversion(), "Conversion of the text's characters."),
    "corpus.heading": Key("", pattern(), "Matches the book's heading lines. Empty: detect them."),
    "corpus.drop_brackets": Key(
        "", brackets(), "Brackets whose content, a commentary, is left out of the book."
    ),
    "corpus.parts": Key(20, whole(low=10), "Equal parts of a book that has no chapters."),
    "split.held_out": Key(
        False,
        truth(),
        "true: of ten chapters the 5th is for tests, the 10th for validation.",
    ),
    "split.train_every": Key(1, whole(low=1), "N: trains on every Nth training chapter only."),
    # Tokens per character of the validation chapters: 1.0 -> .824, .998 -> .784, .995 -> .774,
    # .993 -> .772, .99 -> .772. Tokens for rare characters would displace more useful words.
    "tokenizer.character_coverage": Key(
        0.993,
        number(low=0.98, high=1),
        "Fraction of the text whose characters get tokens; the rest is bytes.",
    ),
    "model.form": Key("gpt2", choice("gpt2", "qwen3"), "Architecture: that of GPT-2 or of Qwen3."),
    "model.vocab_size": Key(
        5000,
        whole(low=SMALLEST_VOCABULARY),
        "Tokens in the vocabulary, bytes and special tokens included.",
    ),
    "model.block_size": Key(256, whole(low=2), "Tokens that the model reads at once."),
    "model.n_layer": Key(12, whole(low=1), "Transformer blocks."),
    "model.n_head": Key(12, whole(low=1), "Attention heads; divides model.n_embd."),
    "model.n_embd": Key(768, whole(low=1), "Width of the model."),
    "model.dropout": Key(
        0.1, number(low=0, below=1), "Of embeddings, attention weights and residual branches."
    ),
    "model.rope_theta": Key(
        10000.0, number(above=0), "Base of the rotary position angles (qwen3 only)."
    ),
    "optim.name": Key(
        "adamw", choice("adamw", "muon"), "muon moves hidden matrices by Muon, the rest by AdamW."
    ),
    "optim.learning_rate": Key(3e-5, number(low=0), "Peak rate of AdamW."),
    "optim.muon_learning_rate": Key(0.0, number(low=0), "Peak rate of Muon."),
    "optim.schedule": Key(
        "constant", choice("constant", "cosine", "linear"), "Rate after the warm-up."
    ),
    "optim.warmup_steps": Key(0, whole(low=0), "Steps in which the rate rises to its peak."),
    "optim.final_fraction": Key(
        0.0, number(low=0, high=1), "cosine and linear: the last rate, as a fraction of the peak."
    ),
    "optim.b1": Key(0.9, number(low=0, below=1), "AdamW: decay of the mean gradient."),
    "optim.b2": Key(0.999, number(low=0, below=1), "AdamW: decay of the mean squared gradient."),
    "optim.eps": Key(1e-8, number(above=0), "AdamW: added to the root of the squared gradient."),
    "optim.weight_decay": Key(0.01, number(low=0), "Weight decay, of matrices only."),
    "optim.grad_clip_norm": Key(1.0, number(low=0), "Largest norm of the gradient. 0: no limit."),
    "train.batch_size": Key(64, whole(low=1), "Windows in a step, of all devices together."),
    "train.epochs": Key(2000, whole(low=0), "Times that the training text is read."),
    "train.steps": Key(
        0, whole(low=0, high=2**31 - 1), "Optimizer steps. 0: train.epochs decides."
    ),
    "train.grad_accum_steps": Key(
        1, whole(low=1), "Parts that a batch is computed in, to save memory."
    ),
    "train.corrupt_inputs": Key(
        0.0, number(low=0, below=1), "Fraction of input tokens replaced by random ones. 0: none."
    ),
    "train.corrupt_anneal": Key(
        0.0,
        number(low=0, high=1),
        "Last fraction of the steps, in which it moves to train.corrupt_final.",
    ),
    "train.corrupt_final": Key(
        0.0, number(low=0, below=1), "Fraction of input tokens replaced at the last step."
    ),
    "train.teachers": Key(
        (), paths(), "Workdirs of runs whose mean prediction is part of every target."
    ),
    "train.teacher_weight": Key(
        0.5, number(low=0, high=1), "Weight of the teachers' prediction in a target."
    ),
    "train.steps_per_dispatch": Key(
        8, whole(low=1), "Steps in one device call; reduced to a divisor of the intervals."
    ),
    "train.ema_decay": Key(
        0.0, number(low=0, below=1), "Decay of the weights' moving average. 0: none is kept."
    ),
    "train.eval_every_steps": Key(1000, whole(low=1), "Steps between evaluations."),
    "train.eval_extraction": Key(
        False, truth(), "Evaluations also measure how much training text is recited."
    ),
    "train.log_every_steps": Key(50, whole(low=1), "Steps between log lines."),
    "train.patience": Key(
        0, whole(low=0), "Stops after this many evaluations without a better one. 0: never."
    ),
    "checkpoint.every_steps": Key(1000, whole(low=1), "Steps between checkpoints."),
    "checkpoint.keep_latest": Key(
        2, whole(low=1), "Newest checkpoints that are kept, in addition to the best one."
    ),
    "sample.prompt": Key(
        "", text(), "Beginning of the samples. Empty: that of a chapter of the book."
    ),
    "sample.max_new_tokens": Key(200, whole(low=1), "Length of the samples in tokens."),
    # Of the temperatures and top_p that were tried, these write most like real chapters.
    "sample.temperature": Key(1.0, number(low=0), "0 takes the likeliest token."),
    "sample.top_k": Key(0, whole(low=0), "Only the k likeliest tokens. 0: all."),
    "sample.top_p": Key(
        0.9,
        number(low=0, high=1),
        "Only the likeliest tokens, up to this total probability. 1: all.",
    ),
    "sample.min_p": Key(
        0.0,
        number(low=0, high=1),
        "Only tokens of at least this fraction of the largest probability.",
    ),
    "sample.repetition_penalty": Key(
        1.0, number(above=0), "Divides the logits of tokens that occurred. 1: no change."
    ),
}

# Keys of version 0.1.0 under the names of today.
RENAMED = {"train.accumulate_steps": "train.grad_accum_steps"}
# Keys of version 0.1.0 that are gone, and what to do about it.
REMOVED = {"model.embedding_dropout": "was removed: model.dropout is also the embeddings' rate"}
# Keys that version 0.1.0 did not have, with the values that mean what its runs did.
ADDED = {
    "corpus.revision": 1,
    "sample.top_k": 0,
    "sample.min_p": 0.0,
    "sample.repetition_penalty": 1.0,
}
# Keys that may change when a run is resumed: they change no figure that it computes. The content
# of corpus.path is checked by its sha256.
FREE_ON_RESUME = (
    "checkpoint.",
    "corpus.cache_dir",
    "corpus.path",
    "mesh.",
    "sample.",
    "train.log_every_steps",
)
