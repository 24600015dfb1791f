"""What every request passes before a route sees it: its host, its site, its key, its number."""

import asyncio
import hmac
import ipaddress
import json
import re
import time
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hlm_jax.serving.http import Refusal, busy, draining
from hlm_jax.serving.metrics import Metrics

OPEN = ("/", "/health")  # without a key, while warming too, and not counted among those in work
UNCOUNTED = (*OPEN, "/metrics")
ANYWHERE = ("0.0.0.0", "::")  # binding to these answers under every address of the machine
PIECE = 2**16  # bytes of an answer that are handed to the connection at once


def safe_headers(cors: Collection[str]) -> dict[str, str]:
    """What every answer tells browsers: its kind is as said, and who may embed it."""
    policy = "cross-origin" if cors else "same-origin"
    return {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": policy}


class Measured:
    """Counts requests by route and status, and the time that they took.

    A long answer is sent in pieces, as fast as its client reads: until then it is in work.

    Args:
      routes: paths that are counted by name.
      headers: of every answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: Collection[str],
        headers: Mapping[str, str],
    ):
        self._app, self._metrics, self._routes = app, metrics, frozenset(routes)
        self._headers = [(name.lower().encode(), v.encode()) for name, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begin = 500, time.monotonic()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = list(message.get("headers", ()))
                own = {name for name, _ in given}
                more = [pair for pair in self._headers if pair[0] not in own]
                message = {**message, "headers": given + more}
            await _in_pieces(message, send)

        try:
            await self._app(scope, receive, noting)
        finally:
            status = 499 if scope.get("client_left") else status
            known = scope["path"] if scope["path"] in self._routes else "other"
            route = getattr(scope.get("route"), "path", known)  # none where it was refused before
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - begin)


async def _in_pieces(message: MutableMapping[str, Any], send: Send) -> None:
    body = message.get("body", b"")
    if len(body) <= PIECE:
        await send(message)
        return
    last = (len(body) - 1) // PIECE * PIECE
    for begin in range(0, last, PIECE):
        await send({**message, "body": body[begin : begin + PIECE], "more_body": True})
    await send({**message, "body": body[last:]})


class HostGate:
    """Answers only requests for a host of the list, and none of another site's pages.

    A site that lets its own name point to this machine (DNS rebinding) sends that name. A page of
    another site may still send a GET, for an image for instance, whose answer it cannot read:
    browsers tell so (Sec-Fetch-Site).

    Args:
      allowed: names and addresses without a port. One of ANYWHERE allows every address, which no
        such site can send.
      cors: origins whose pages may ask; "*" is every one. A link to the page is always answered.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str], cors: Collection[str] = ()):
        self._app, self._cors = app, frozenset(cors)
        self._allowed = {host.strip("[]").lower() for host in allowed}
        self._any_address = any(host in self._allowed for host in ANYWHERE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(scope, Headers(scope=scope))
            if refusal is not None:
                await refusal.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._allows(hosts[0]):
            return Refusal(
                403,
                "this server does not answer under that host name: use its own address, or "
                "start it with --allowed_host NAME",
                code="host_not_allowed",
            )
        if headers.get("sec-fetch-site") != "cross-site":
            return None
        link = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if link or "*" in self._cors or headers.get("origin") in self._cors:
            return None
        return Refusal(
            403,
            "a page of another site asks: start the server with --cors ORIGIN to let it",
            code="cross_site",
        )

    def _allows(self, header: str) -> bool:
        parts = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?", header.lower())
        if parts is None:
            return False
        host = parts[1] or parts[2]
        if host in self._allowed:
            return True
        return self._any_address and _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Cors(CORSMiddleware):
    """As Starlette's; a preflight that it refuses is answered with the error object."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        reason = bytes(response.body).decode()
        headers = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
        message = f"--cors does not allow this request of another site ({reason})"
        return Refusal(400, message, code="cross_site", headers=headers).response()


class Gate:
    """Asks for the key, and refuses while warming, while draining and above a number of requests.

    Requests that `end_requests` breaks off are answered with 503; a stream ends with that error.

    Args:
      key: what `Authorization: Bearer KEY` must hold; None asks for none.
      most: requests in work at once.
    """

    def __init__(self, app: ASGIApp, key: str | None, most: int):
        self._app, self._most = app, most
        self._key = None if key is None else f"bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal, state = self._refusal(scope), scope["app"].state
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        counted = scope["path"] not in UNCOUNTED
        kind = None  # of the answer that has begun

        async def noting(message: Message) -> None:
            nonlocal kind
            if message["type"] == "http.response.start":
                kind = Headers(raw=message["headers"]).get("content-type", "")
            await send(message)

        task = asyncio.current_task()
        assert task is not None
        state.in_work += counted
        state.requests.add(task)
        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if not state.ended:
                raise
            task.uncancel()
            if kind is None:
                await draining().response()(scope, receive, send)
            elif kind.startswith("text/event-stream"):
                event = f"data: {json.dumps(draining().body())}\n\n".encode()
                await send({"type": "http.response.body", "body": event, "more_body": False})
        finally:
            state.in_work -= counted
            state.requests.discard(task)

    def _refusal(self, scope: Scope) -> Refusal | None:
        if scope["path"] in OPEN:
            return None
        if self._key is not None:
            kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            sent = f"{kind.lower()} {given.strip()}".encode()
            if not hmac.compare_digest(sent, self._key):
                headers = {"WWW-Authenticate": "Bearer"}
                message = "send the key of this server: Authorization: Bearer KEY"
                return Refusal(401, message, code="invalid_api_key", headers=headers)
        if unready := not_ready(scope["app"]):
            return unready
        if scope["path"] not in UNCOUNTED and scope["app"].state.in_work >= self._most:
            return busy(f"{self._most} requests are in work: try again in a second")
        return None


def end_requests(app: Starlette) -> None:
    """Breaks off the requests in work, and the scores and tables that they wait for."""
    app.state.ended = True
    app.state.jobs.stop()
    for task in app.state.requests:
        task.cancel()


def not_ready(app: Starlette) -> Refusal | None:
    """A 503 while the models warm up or the server drains; else None."""
    if app.state.draining:
        return draining()
    if any(served.failed for served in app.state.models.values()):
        return Refusal(503, "the engine has stopped: its log tells why", code="failed")
    if not all(served.ready for served in app.state.models.values()):
        return Refusal(503, "the server is warming up", code="warming_up")
    return None
