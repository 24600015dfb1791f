"""A server in this process: an address, an application, signals."""

import asyncio
import ipaddress
import os
import re
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette

from hlm_jax.errors import UserError
from hlm_jax.serving.gate import ANYWHERE, end_requests
from hlm_jax.serving.protocol import HEAD_BYTES, Connection

T = TypeVar("T")
U = TypeVar("U")
MOST_ROWS = 64
DRAIN_SECONDS = 30  # for answers in work to end, after SIGTERM
LAST_SECONDS = 5  # after them, for what was broken off to be answered


def bind(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 takes a free one.

    Raises:
      UserError: no such host, or a port that is used or needs other rights.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port must be a number from 0 to {2**16 - 1:,}, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise UserError(f"there is no host {host!r}: leave --host out for this machine") from None
    bound = socket.socket(family, kind, protocol)
    if os.name == "posix":  # elsewhere it would let two servers share a port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen()  # so that a second server on this port is told at once
    except OSError as error:
        bound.close()
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot bind to {host} port {port} ({reason}): set --port") from None
    return bound


def address_of(bound: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    host, port = bound.getsockname()[:2]
    if host in ANYWHERE:
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _bound_to(bound: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that the system made of a host, such as 0.0.0.0 of 0."""
    address = ipaddress.ip_address(bound.getsockname()[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def exposure(host: str, bound: socket.socket, *, has_key: bool) -> str:
    """What binding to a host means, in one line; "" for the machine itself."""
    if _bound_to(bound).is_loopback:
        return ""
    who = "whoever has the key" if has_key else "without --api_key, everybody who reaches it"
    return (
        f"bound to {host}: other machines reach this server; {who} can use it, and texts travel "
        "unencrypted"
    )


def allowed_hosts(host: str, bound: socket.socket, more: Sequence[str]) -> list[str]:
    """Under which names and addresses a server answers that was bound to `host`."""
    address = str(_bound_to(bound))
    own = [socket.gethostname()] if address in ANYWHERE else []
    return ["127.0.0.1", "localhost", "::1", host, address, *own, *more]


def check(api_key: str | None, cors: Sequence[str], max_rows: int) -> None:
    """Refuses options that cannot work.

    Raises:
      UserError: one is impossible.
    """
    if api_key is not None and not re.fullmatch(r"[!-~]{1,500}", api_key):
        raise UserError("--api_key must be 1 to 500 letters, digits and signs of ASCII, no space")
    for origin in cors:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
            raise UserError(f"--cors must be an origin such as https://example.org, not {origin!r}")
    if not 1 <= max_rows <= MOST_ROWS:
        raise UserError(f"--max_rows must be a number from 1 to {MOST_ROWS}, not {max_rows}")


def each(
    workdirs: Sequence[str], steps: Sequence[str], corpora: Sequence[str]
) -> list[tuple[Path, str, Path | None]]:
    """(workdir, step, corpus) of every run; one step or corpus is that of all.

    Raises:
      UserError: there are several, but not one for each workdir.
    """

    def spread(name: str, given: Sequence[T], default: U) -> list[T | U]:
        if len(given) > 1 and len(given) != len(workdirs):
            raise UserError(
                f"--{name} is given {len(given)} times for {len(workdirs)} --workdir: give one, "
                "or one for each"
            )
        return [*given] if len(given) > 1 else [given[0] if given else default] * len(workdirs)

    books = [Path(os.path.expanduser(book)) for book in corpora]
    of_runs = spread("step", steps, "best"), spread("corpus", books, None)
    return list(zip([Path(os.path.expanduser(w)) for w in workdirs], *of_runs, strict=True))


class _Server(uvicorn.Server):
    """Tells the application at once that it is to end, and breaks off what takes too long."""

    def handle_exit(self, sig, frame) -> None:
        self._app.state.draining = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        late = loop.call_later(DRAIN_SECONDS, end_requests, self._app)
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()

    @property
    def _app(self) -> Starlette:
        assert isinstance(self.config.app, Starlette)
        return self.config.app


def serve(app: Starlette, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or Ctrl-C; answers in work then have DRAIN_SECONDS to end.

    Args:
      app: of create_app.
      ready: called when the models are warm.

    Raises:
      BaseException: what kept a model from warming up.
      KeyboardInterrupt: Ctrl-C ended it.
    """
    failures: list[BaseException] = []

    def warmed(error: BaseException | None) -> None:
        if error is None:
            ready()
        else:
            failures.append(error)
            server.should_exit = True

    app.state.warmed = warmed
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS + LAST_SECONDS,
        http=Connection,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws="none",
        lifespan="on",
    )
    server = _Server(config)
    # uvicorn raises the signal again when it has ended: SIGTERM is then no failure.
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        server.run(sockets=[bound])
    finally:
        signal.signal(signal.SIGTERM, before)
        bound.close()
    if failures:
        raise failures[0]
