"""What every request passes before a route sees it: its host, its key, how many are in work."""

import hmac
import ipaddress
import time
from collections.abc import Collection

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hlm_jax.serving.http import Refusal, busy
from hlm_jax.serving.metrics import Metrics

OPEN = ("/", "/health")  # without a key, while warming too, and not counted among those in work
UNCOUNTED = (*OPEN, "/metrics")
ANYWHERE = ("0.0.0.0", "::")  # binding to these answers under every address of the machine


class Measured:
    """Counts requests by route and status, and the time that they took."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Collection[str]):
        self._app, self._metrics, self._routes = app, metrics, frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begin = 500, time.monotonic()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            status = 499 if scope.get("client_left") else status
            known = scope["path"] if scope["path"] in self._routes else "other"
            route = getattr(scope.get("route"), "path", known)  # none where it was refused before
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - begin)


class HostGate:
    """Answers only requests for a host of the list: a page of another site cannot reach in.

    A site that lets its own name point to this machine (DNS rebinding) sends that name.

    Args:
      allowed: names and addresses without a port. One of ANYWHERE allows every address, which no
        such site can send.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]):
        self._app = app
        self._allowed = {host.strip("[]").lower() for host in allowed}
        self._any_address = any(host in self._allowed for host in ANYWHERE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not self._allows(hosts[0]):
                refusal = Refusal(
                    403,
                    "this server does not answer under that host name: use its own address, or "
                    "start it with --allowed_host NAME",
                    code="host_not_allowed",
                )
                await refusal.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _allows(self, header: str) -> bool:
        host = header.strip().lower()
        host = host[1:].partition("]")[0] if host[:1] == "[" else host.partition(":")[0]
        if host in self._allowed:
            return True
        return self._any_address and _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Gate:
    """Asks for the key, and refuses while warming, while draining and above a number of requests.

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
        state.in_work += counted
        try:
            await self._app(scope, receive, send)
        finally:
            state.in_work -= counted

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


def not_ready(app: Starlette) -> Refusal | None:
    """A 503 while the models warm up or the server drains; else None."""
    again = {"Retry-After": "5"}
    if app.state.draining:
        return Refusal(503, "the server is shutting down", code="draining", headers=again)
    if any(served.failed for served in app.state.models.values()):
        return Refusal(503, "the engine has stopped: its log tells why", code="failed")
    if not all(served.ready for served in app.state.models.values()):
        return Refusal(503, "the server is warming up", code="warming_up", headers=again)
    return None
