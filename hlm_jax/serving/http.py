"""What every route shares: a JSON object or a query read field by field, and refusals.

A refusal is answered as OpenAI's API does, {"error": {"message", "type", "param", "code"}}.
"""

import asyncio
import dataclasses
import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse

from hlm_jax.errors import UserError

T = TypeVar("T")
SHOWN = 60  # characters of a client's own value that a message repeats
BODY_SECONDS = 30  # for a request to arrive
DIGITS = 400  # of an integer; more than any field takes, and few enough to be read at once
NAMES = 200  # of one object of JSON, or of a query
RETRY_SECONDS = {429: 1, 503: 5}  # the header Retry-After of these statuses

_FOLDER = r"""[^\s/\\:,;'"][^/\\:,;'"\n]*"""  # spaces within it, but none before it
# Where an absolute path begins: /A/, C:\, \\A\ or file:///.
_ROOT = rf"(?:/(?={_FOLDER}/)|[A-Za-z]:[/\\]+|\\\\(?={_FOLDER}\\)|file:/+)"
_FOLDERS = re.compile(rf"(?<![\w/.~\\]){_ROOT}(?:{_FOLDER}[/\\]+)*")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one client may ask for; docs/serving.md tells what each answers.

    Attributes:
      body: bytes of a request.
      max_tokens: new tokens of one text.
      n: texts of one prompt.
      prompts: of one request.
      sequences: prompts x n of one request.
      stop, stop_chars: stop strings of a request, and characters of one.
      scored_tokens: tokens of all prompts of a request that is scored (echo with logprobs).
      requests: requests in work at once; those for /health, /metrics and the page are not counted.
      jobs: scores and tables that wait for the one thread that computes them.
    """

    body: int = 2**20
    max_tokens: int = 4096
    n: int = 16
    prompts: int = 64
    sequences: int = 64
    stop: int = 4
    stop_chars: int = 200
    scored_tokens: int = 2**17
    requests: int = 64
    jobs: int = 16


class Refusal(Exception):
    """A request that is not answered, and why.

    Args:
      status: of HTTP, 400 to 599.
      message: one sentence for people; never a path of the machine.
      param: the field at fault.
      code: a word for programs, such as "model_not_found".
      headers: of the answer; 429 and 503 have Retry-After without being told.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.code = status, code
        self.message, self.param = _unicode(message), param if param is None else _unicode(param)
        again = {"Retry-After": str(RETRY_SECONDS[status])} if status in RETRY_SECONDS else {}
        self.headers = again | dict(headers or {})

    @property
    def type(self) -> str:
        """The kind of error, by the status."""
        if self.status >= 500:
            return "server_error"
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        return kinds.get(self.status, "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """{"error": …}."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The answer with its status and headers."""
        return JSONResponse(self.body(), self.status, self.headers)

    @classmethod
    def of(cls, error: UserError) -> "Refusal":
        """A UserError as a 400; absolute paths in its message keep their last name only."""
        return cls(400, without_paths(str(error)))


def busy(message: str) -> Refusal:
    """A 429 that asks to try again after a second."""
    return Refusal(429, message, code="busy")


def draining() -> Refusal:
    """The 503 of a server that shuts down."""
    return Refusal(503, "the server is shutting down", code="draining")


def without_paths(message: str) -> str:
    """The message with every absolute path shortened to its last name.

    Paths of POSIX, of Windows and URLs of files; their folders may hold spaces. Words between a
    path and a later slash may be lost.
    """
    return _FOLDERS.sub("", message)


def shown(value: Any) -> str:
    """A client's value as a message repeats it: JSON of at most SHOWN characters, or its kind."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _unicode(text: str) -> str:
    """The text without halves of surrogate pairs, which no answer can hold."""
    return text.encode("utf-8", "replace").decode()


# --- JSON ---


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
      Refusal: 415 for another content type, 413 for a body above the limit, 408 for one that does
        not arrive, 400 for what is no
        object of JSON.
    """
    require_json(request)
    limit = request.app.state.limits.body
    too_large = Refusal(413, f"the request is larger than {limit:,} bytes", code="body_too_large")
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:DIGITS]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the request did not arrive within {BODY_SECONDS} seconds") from None
    return parse_object(bytes(body))


def require_json(request: Request) -> None:
    """Raises a Refusal, 415, where the content type is not JSON in UTF-8."""
    kind, *parameters = request.headers.get("content-type", "").lower().split(";")
    charsets = [p.split("=", 1)[1].strip(' "') for p in map(str.strip, parameters) if "=" in p]
    if kind.strip() != "application/json" or any(c not in ("utf-8", "utf8") for c in charsets):
        raise Refusal(415, "send JSON in UTF-8, with the header Content-Type: application/json")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in these bytes (RFC 8259: no NaN, no name twice; text is Unicode).

    Raises:
      Refusal: 400.
    """

    def refuse(constant: str) -> Any:
        raise Refusal(400, f"{constant} is no number of JSON")

    def real(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise Refusal(400, f"the number {digits[:SHOWN]} is too large")
        return value

    def integer(digits: str) -> int:
        if len(digits) > DIGITS:
            raise Refusal(400, f"a number has {len(digits):,} digits")
        return int(digits)

    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=refuse,
            parse_float=real,
            parse_int=integer,
        )
        if b"\\ud" in body.lower():  # an escape that may be half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the request is not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        message = "a string holds half of a surrogate pair, which is not Unicode text"
        raise Refusal(400, message) from None
    except json.JSONDecodeError as error:
        raise Refusal(400, f"the request is not JSON at character {error.pos}") from None
    except RecursionError:
        raise Refusal(400, "the request is nested too deeply") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the request must be an object of JSON: {…}")
    return value


def _unique(pairs: Sequence[tuple[str, T]]) -> dict[str, T]:
    """The pairs as a dict.

    Raises:
      Refusal: 400 for more than NAMES of them, or a name that comes twice.
    """
    if len(pairs) > NAMES:
        raise Refusal(400, f"{len(pairs):,} names in one object or query: at most {NAMES}")
    found: dict[str, T] = {}
    for name, value in pairs:
        if name in found:
            raise Refusal(400, f"{shown(name)} is given twice", param=name[:SHOWN])
        found[name] = value
    return found


# --- fields ---


class Required:
    """The default of a field that must be given."""


REQUIRED: Final = Required()


class Fields:
    """The fields of a request, each read once under its name.

    A null counts as not given. Every reader raises a Refusal, 400, that names the field; `done`
    refuses what no reader asked for.

    Args:
      body: of JSON, or of a query.
      query: whether the values are a query's strings, so that numbers and flags are spelled out.
    """

    def __init__(self, body: Mapping[str, Any], *, query: bool = False):
        self._left, self._query = dict(body), query
        self._asked: list[str] = []

    @classmethod
    def of_query(cls, request: Request) -> "Fields":
        """The fields of a request's query string."""
        return cls(_unique(request.query_params.multi_items()), query=True)

    def take(self, name: str, default: T | Required = REQUIRED) -> Any | T:
        """The raw value."""
        self._asked.append(name)
        value = self._left.pop(name, None)
        return self._default(name, default) if value is None else value

    def text(self, name: str, *, most: int, default: T | Required = REQUIRED) -> str | T:
        """A string of at most `most` characters."""
        value = self.take(name, None)
        if value is None:
            return self._default(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a string", value)
        if len(value) > most:
            raise Refusal(
                400, f"{name} has {len(value):,} characters: at most {most:,}", param=name
            )
        return value

    def number(
        self, name: str, *, low: float, high: float, default: T | Required = REQUIRED
    ) -> float | T:
        """A finite number from `low` to `high`."""
        value = self.take(name, None)
        if value is None:
            return self._default(name, default)
        rule = f"a number from {low:g} to {high:g}"
        if self._query:
            value = self._spelled(name, value, float, rule)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, rule, value)
        if not low <= value <= high:  # false of NaN
            raise self.wrong(name, rule, value)
        return float(value)

    def whole(self, name: str, *, low: int, high: int, default: T | Required = REQUIRED) -> int | T:
        """A whole number from `low` to `high`."""
        value = self.take(name, None)
        if value is None:
            return self._default(name, default)
        rule = f"a whole number from {low:,} to {high:,}"
        if self._query:
            value = self._spelled(name, value, int, rule)
        if isinstance(value, float) and value.is_integer():  # 5.0 is an integer of JSON
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, rule, value)
        return value

    def flag(self, name: str, *, default: T | Required = REQUIRED) -> bool | T:
        """True or false."""
        value = self.take(name, None)
        if value is None:
            return self._default(name, default)
        if self._query:
            value = {"true": True, "1": True, "false": False, "0": False}.get(value, value)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def choice(
        self, name: str, choices: Sequence[str], *, default: T | Required = REQUIRED
    ) -> str | T:
        """One of some words."""
        value = self.take(name, None)
        if value is None:
            return self._default(name, default)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(name, " or ".join(map(shown, choices)), value)
        return value

    def neutral(self, name: str, *values: Any, why: str) -> None:
        """Takes a field of OpenAI's that is not supported: refused unless it asks for nothing.

        Args:
          values: those that ask for nothing, such as 0 for a penalty.
          why: one sentence that follows "NAME is not supported: ".
        """
        value = self.take(name, None)
        if value is not None and not any(type(value) is type(v) and value == v for v in values):
            raise Refusal(
                400, f"{name} is not supported: {why}", param=name, code="unsupported_parameter"
            )

    def done(self) -> None:
        """Refuses, by name, what nobody took."""
        for name in self._left:
            close = difflib.get_close_matches(name[:SHOWN], self._asked, 1)
            hint = f": is {close[0]} meant?" if close else ""
            raise Refusal(
                400,
                f"{shown(name)} is not supported here{hint}",
                param=name[:SHOWN],
                code="unsupported_parameter",
            )

    def wrong(self, name: str, rule: str, value: Any) -> Refusal:
        """A Refusal: the field must be `rule`."""
        return Refusal(
            400, f"{name} must be {rule}, not {shown(value)}", param=name, code="invalid_value"
        )

    def _default(self, name: str, default: T | Required) -> T:
        if isinstance(default, Required):
            raise Refusal(400, f"{name} is missing", param=name, code="missing")
        return default

    def _spelled(self, name: str, value: str, kind: type[int] | type[float], rule: str) -> Any:
        if len(value) <= DIGITS and re.fullmatch(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", value.lower()):
            try:
                return kind(value)
            except ValueError:
                pass  # such as 1.2.3: refused below
        raise self.wrong(name, rule, value)
