"""What a config key accepts: a type, a check, and the words for both.

`keys` gives every key a rule of these. Imports nothing of the package but how numbers are written.
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

from hlm_jax.numbers import chapter_numbers

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


def step() -> Rule:
    """A checkpoint: best, latest or the number of a step."""
    must = " must be best, latest or the number of a step"

    def accepts(value):
        return value in ("best", "latest") or (value.isascii() and value.isdecimal())

    return Rule(str, "best, latest or a number", must, accepts)


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


def chapters() -> Rule:
    """Chapter numbers such as 1-5,8, none of them twice; empty for none."""

    def accepts(value):
        try:
            chapter_numbers(value)
        except ValueError:
            return False
        return True

    must = " must be chapter numbers such as 1-5,8, rising within a range and none of them twice"
    return Rule(str, "chapter numbers such as 1-5,8, or empty", must, accepts)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except (
        UnicodeEncodeError
    ):  # half of a surrogate pair, as from a command line in another encoding
        return False
    return True
