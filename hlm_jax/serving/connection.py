"""Work that ends when its client leaves."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """What the work returns; it is cancelled when the client leaves.

    Args:
      receive: of the request, whose body has been read.

    Raises:
      ClientDisconnect: the client has left.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.wait((task, gone))
    if not task.cancelled() and (error := task.exception()):
        raise error
    raise ClientDisconnect


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events; their source is closed when the client leaves.

    Args:
      first: an event that has come already.
      rest: those after it.
    """

    media_type = "text/event-stream"

    def __init__(self, first: str, rest: AsyncGenerator[str, None]):
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first, self._rest = first, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def put(event: str, *, more: bool = True) -> None:
            data = event.encode()
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def write() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await put(self._first)
            async for event in self._rest:
                await put(event)
            await put("", more=False)

        try:
            await while_connected(receive, write())
        except ClientDisconnect:
            scope["client_left"] = True  # nobody reads the rest
        finally:
            await self._rest.aclose()
