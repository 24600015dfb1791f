"""A connection of HTTP/1.1 with limits to its time, and uvicorn's own refusals as error objects."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hlm_jax.serving.http import Refusal, busy

CONNECTIONS = 256  # at once
HEAD_BYTES = 2**14  # of a request line and its headers
HEAD_SECONDS = 30  # for them to arrive, from the connection or the answer before
SEND_SECONDS = 60  # for a client to read what waits to be sent to it


class Connection(H11Protocol):
    """As uvicorn's, for clients that are slow or many on purpose.

    A request whose client is cut off counts as one whose client has left.
    """

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse(busy(f"{CONNECTIONS} connections are open: try again in a second"))
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        if self.cycle is not None and not self.cycle.response_complete:
            self._cycle_scope()["client_left"] = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # refused
            return
        super().data_received(data)
        self._await_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def on_response_complete(self) -> None:
        cycle = self.cycle
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(SEND_SECONDS, self._abort_unread, cycle)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for bytes that are no HTTP."""
        self._refuse(Refusal(400, f"no request of HTTP/1.1, or its head is too long: {msg}"))

    def _refuse(self, refusal: Refusal) -> None:
        """Answers without the application, and closes."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its application sends into the void
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(refusal.body()).encode()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            headers |= {"Connection": "close"} | refusal.headers
            head = h11.Response(status_code=refusal.status, headers=list(headers.items()))
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _idle(self) -> bool:
        """Whether no request is in work."""
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        if not self._idle():
            if self._head is not None:
                self._head.cancel()
                self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head = None
        if self._idle():
            self.transport.abort()

    def _abort_unread(self, cycle: Any) -> None:
        if self.cycle is cycle and self.transport.get_write_buffer_size():
            self.transport.abort()

    def _cycle_scope(self) -> dict[str, Any]:
        scope: Any = self.cycle.scope
        return scope
