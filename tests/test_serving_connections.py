"""How connections and the server end: slow clients, SIGTERM before, during and after its work."""

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import threading
import time

import pytest
import uvicorn
from serving import HOST, error_of, open_models, wait_until
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from hlm_jax.serving import protocol, server
from hlm_jax.serving.app import create_app
from hlm_jax.serving.connection import EventStream
from hlm_jax.serving.engine import Busy
from hlm_jax.serving.gate import PIECE, Gate, Measured, end_requests
from hlm_jax.serving.metrics import Metrics
from hlm_jax.serving.models import Cancelled, Jobs

LARGE = 20_000_000  # bytes; more than the system keeps for a client


# --- clients ---


def app_of(*routes):
    """An application with the gates of the real one, whose models are none."""
    metrics = Metrics(list)
    names = [route.path for route in routes]
    middleware = [
        Middleware(Measured, metrics=metrics, routes=names, headers={}),
        Middleware(Gate, key=None, most=9),
    ]
    app = Starlette(routes=list(routes), middleware=middleware)
    app.state.models, app.state.draining, app.state.ended = {}, False, False
    app.state.in_work, app.state.requests, app.state.jobs = 0, set(), Jobs(2)
    app.state.metrics = metrics
    return app


def status_counts(app):
    (family,) = app.state.metrics.requests.collect()
    return {s.labels["status"]: s.value for s in family.samples if s.name.endswith("_total")}


@contextlib.contextmanager
def listening(app):
    """The port of a server in a thread of this process."""
    bound = server.bind("127.0.0.1", 0)
    config = uvicorn.Config(
        app,
        http=protocol.Connection,
        h11_max_incomplete_event_size=protocol.HEAD_BYTES,
        timeout_graceful_shutdown=1,
        lifespan="off",
        log_level="critical",
        ws="none",
    )
    one = uvicorn.Server(config)
    thread = threading.Thread(target=one.run, args=([bound],))
    thread.start()
    try:
        wait_until(lambda: one.started)
        yield bound.getsockname()[1]
    finally:
        one.should_exit = True
        thread.join(30)
        bound.close()


def connect(port, data=b""):
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(data)
    return client


def read_all(client):
    """What comes until the server closes."""
    found = b""
    with client, contextlib.suppress(ConnectionResetError):
        while data := client.recv(2**16):
            found += data
    return found


async def large(_):
    return Response(b"x" * LARGE)


async def endless(_):
    async def events():
        while True:
            yield "data: " + "x" * PIECE + "\n\n"
            await asyncio.sleep(0)

    return EventStream("data: 1\n\n", events())


@pytest.mark.parametrize("path", ["/large", "/endless"])
def test_a_client_that_does_not_read_is_cut_off(monkeypatch, path):
    monkeypatch.setattr(protocol, "SEND_SECONDS", 0.5)
    app = app_of(Route("/large", large), Route("/endless", endless))
    with listening(app) as port:
        client = connect(port, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        wait_until(lambda: app.state.in_work == 1)
        time.sleep(0.2)
        assert app.state.in_work == 1  # as long as its bytes wait
        wait_until(lambda: app.state.in_work == 0, 20)
        wait_until(lambda: status_counts(app) == {"499": 1}, 20)
        client.close()


def test_a_client_that_reads_has_the_whole_answer(monkeypatch):
    monkeypatch.setattr(protocol, "SEND_SECONDS", 5)
    app = app_of(Route("/large", large))
    with listening(app) as port:
        ask = b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        head, _, body = read_all(connect(port, ask)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b"x" * LARGE
    assert status_counts(app) == {"200": 1}


def test_a_head_that_does_not_arrive_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    with listening(app_of(Route("/large", large))) as port:
        for begin in (b"", b"GET / HTTP/1.1\r\nHo"):
            assert read_all(connect(port, begin)) == b""
        # After an answer too: a head that comes byte by byte is no life sign.
        client = connect(port, b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"404" in client.recv(2**16)

        def closed():
            time.sleep(0.05)
            try:
                client.sendall(b"G")
            except ConnectionError:
                return True
            return False

        wait_until(closed, 4)  # uvicorn's own five seconds begin again with each byte
        client.close()


def refusal_of(data):
    head, _, body = data.partition(b"\r\n\r\n")
    (error,) = json.loads(body).values()
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["message"], head


def test_what_is_no_http_is_told_in_the_same_form():
    with listening(app_of(Route("/large", large))) as port:
        for data in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"b" * protocol.HEAD_BYTES):
            status, message, _ = refusal_of(read_all(connect(port, data)))
            assert status == 400
            assert message.startswith("no request of HTTP/1.1, or its head is too long")


def test_connections_have_a_limit(monkeypatch):
    monkeypatch.setattr(protocol, "CONNECTIONS", 2)
    with listening(app_of(Route("/large", large))) as port:
        idle = [connect(port) for _ in range(2)]
        status, message, head = refusal_of(read_all(connect(port)))
        assert (status, message) == (429, "2 connections are open: try again in a second")
        assert b"Retry-After: 1" in head
        for one in idle:
            one.close()


# --- the end ---


def test_what_takes_too_long_is_answered_when_the_server_ends():
    begun = threading.Barrier(3)

    async def table(request):
        def slow():
            begun.wait(20)
            while not request.app.state.jobs.closing.is_set():
                time.sleep(0.01)
            raise Cancelled

        return Response(await request.app.state.jobs.run(slow))

    async def text(request):
        async def events():
            await asyncio.to_thread(begun.wait, 20)
            await asyncio.sleep(60)
            yield "data: never\n\n"

        return EventStream("data: 1\n\n", events())

    app, answers = app_of(Route("/table", table), Route("/text", text)), {}
    with TestClient(app) as client:

        def ask(path):
            answers[path] = client.get(path)

        threads = [threading.Thread(target=ask, args=(path,)) for path in ("/table", "/text")]
        for thread in threads:
            thread.start()
        begun.wait(20)
        client.portal.call(end_requests, app)
        for thread in threads:
            thread.join(20)
    assert error_of(answers["/table"]) == (503, "the server is shutting down")
    assert answers["/table"].headers["retry-after"] == "5"
    first, last, _ = answers["/text"].text.split("\n\n")
    assert first == "data: 1"
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "draining"
    assert app.state.in_work == 0
    wait_until(lambda: app.state.jobs.pending == 0, 20)


def test_jobs_end_with_the_server():
    jobs, begun, ran = Jobs(4), threading.Event(), []

    def work():
        begun.set()
        while not jobs.closing.is_set():
            time.sleep(0.01)
        raise Cancelled

    async def both():
        first = asyncio.create_task(jobs.run(work))
        second = asyncio.create_task(jobs.run(ran.append, 1))
        await asyncio.to_thread(begun.wait, 20)
        await asyncio.to_thread(jobs.close)
        return await asyncio.gather(first, second, return_exceptions=True)

    found = asyncio.run(both())
    assert [(one.status, one.code) for one in found] == [(503, "draining")] * 2
    assert (ran, jobs.pending) == ([], 0)

    def cancelled():
        raise Cancelled

    with pytest.raises(Cancelled):  # without an end of the server it is the caller's own
        asyncio.run(Jobs(1).run(cancelled))


def test_an_end_while_warming_is_no_failure(trained):
    models = open_models(trained[0], max_rows=1)
    told = []
    app = create_app(models, allowed_hosts=[HOST])
    app.state.warmed = told.append
    with TestClient(app) as client:
        assert client.get("/health").status_code == 503
    assert told == []
    (served,) = models.values()
    assert not served.ready
    assert app.state.jobs.closing.is_set()
    with pytest.raises(Busy):
        served.engine.start()


def test_everything_is_closed_after_a_failure_too(trained):
    def fail(error):
        raise RuntimeError("nobody listens") from error

    (opened,) = open_models(trained[0], max_rows=1).values()
    served = dataclasses.replace(opened, engine=Unable())
    app = create_app({"tiny": served}, allowed_hosts=[HOST])
    app.state.warmed = fail

    def live():
        with TestClient(app):
            wait_until(lambda: served.engine.started)

    with pytest.raises(RuntimeError, match="nobody listens"):
        live()
    assert served.engine.closed
    assert app.state.jobs.closing.is_set()


class Unable:
    """An engine that cannot start."""

    ready = started = closed = False

    def start(self):
        self.started = True
        raise ValueError("no memory")

    def close(self):
        self.closed = True


@pytest.mark.slow
def test_sigterm_while_warming_ends_the_process(environment, trained):
    import subprocess
    import sys

    import httpx

    from tests.conftest import REPO

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--port", str(port), "--workdir", str(trained[0]), "--max_rows", "8"]
    env = environment | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = subprocess.Popen(
        [sys.executable, str(REPO / "scripts" / "serve.py"), *words],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def warming():
        assert process.poll() is None, process.stderr.read()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 503
        return False

    try:
        wait_until(warming)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "")
    assert [line[:15] for line in err.splitlines()] == ["note: compiling"]
