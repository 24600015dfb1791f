"""Answers: JSON and files to be saved, and the jobs that compute them while somebody waits."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from starlette.responses import Response

from hlm_jax.serving.models import Cancelled, Jobs

R = TypeVar("R")
FEW = 64  # elements of a list that may each be long
SLICE = 200  # elements that are encoded at once
DEEP = 6  # levels whose values are encoded one by one


def as_json(data: Any) -> str:
    """JSON of finite numbers, in which no other thread waits long for its turn.

    json.dumps keeps all threads waiting until it returns, for seconds where an answer is long:
    long lists are encoded in slices.
    """
    return "".join(_pieces(data, DEEP))


def _pieces(data: Any, deep: int) -> Iterator[str]:
    if isinstance(data, list) and len(data) > FEW:
        yield "["
        for start in range(0, len(data), SLICE):
            yield ("," if start else "") + _encoded(data[start : start + SLICE])[1:-1]
        yield "]"
    elif isinstance(data, list) and deep:
        yield "["
        for i, value in enumerate(data):
            yield "," if i else ""
            yield from _pieces(value, deep - 1)
        yield "]"
    elif isinstance(data, dict) and deep:
        yield "{"
        for i, (name, value) in enumerate(data.items()):
            yield ("," if i else "") + _encoded({name: 0})[1:-2]
            yield from _pieces(value, deep - 1)
        yield "}"
    else:
        yield _encoded(data)


def _encoded(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def answered(body: str, file: str | None = None) -> Response:
    """JSON; a table or a drawing to be saved where `file` names it .csv or .svg."""
    if file is None:
        return Response(body, media_type="application/json")
    kinds = {"csv": "text/csv; charset=utf-8", "svg": "image/svg+xml"}
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(body, media_type=kinds[file.rpartition(".")[2]], headers=headers)


async def while_wanted(jobs: Jobs, function: Callable[..., R], *arguments: Any) -> R:
    """What a job returns; it can end early.

    Args:
      function: takes the arguments and a check. It calls the check now and then, with whatever
        arguments, and lets its exception through.

    Raises:
      Refusal: 429 where too many jobs wait, 503 where the server shuts down.
    """
    left = threading.Event()

    def check(*_: Any) -> None:
        """Raises Cancelled where the caller was cancelled, or the server shuts down."""
        if left.is_set() or jobs.closing.is_set():
            raise Cancelled

    try:
        return await jobs.run(function, *arguments, check)
    finally:
        left.set()
