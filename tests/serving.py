"""A server in the process of a test: an application, and requests to it."""

import asyncio
import csv
import dataclasses
import io
import json
import time
from contextlib import contextmanager

from starlette.testclient import TestClient

from hlm_jax.run import load_run
from hlm_jax.serving.app import create_app
from hlm_jax.serving.models import Cancelled, served

HOST = "testserver"  # that TestClient sends


def open_models(*workdirs, **options):
    """The models of runs, not yet warm."""
    runs = [load_run(workdir) for workdir in workdirs]
    return served([(run, run.reference) for run in runs], **options)


def two_models(workdir, steps=(12, 6)):
    """Two checkpoints of one run. They share the first one's engine, so that one set compiles."""
    runs = [load_run(workdir, step) for step in steps]
    (first,) = served([(runs[0], runs[0].reference)], max_rows=2).values()
    first, second = (
        dataclasses.replace(first, name=f"{first.name}@{step}", run=run)
        for step, run in zip(steps, runs, strict=True)
    )
    return {first.name: first, second.name: second}


@contextmanager
def serving(models, **options):
    """A client of an application whose models are warm; it is closed at the end."""
    app = create_app(models, **({"allowed_hosts": [HOST]} | options))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health").status_code == 200)
        yield client


def wait_until(holds, seconds=120):
    """Returns when it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def how_calls_end(monkeypatch, owner, name):
    """A list with a word for each call of the function: "begun", then "early" or "whole"."""
    found, function = [], getattr(owner, name)

    def watched(*args, **options):
        call = len(found)
        found.append("begun")
        try:
            result = function(*args, **options)
        except Cancelled:
            found[call] = "early"
            raise
        found[call] = "whole"
        return result

    monkeypatch.setattr(owner, name, watched)
    return found


def complete(client, **body):
    """The answer to a request for completions that must succeed."""
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events_of(text):
    """The objects of a streamed answer, which must end as it should."""
    *lines, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def error_of(answer):
    """(status, message) of a refusal, which must have the form of all refusals."""
    assert set(answer.json()) == {"error"}, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["message"]


def posted(client, path="/surprisal", **body):
    """The object that a POST answers, which must succeed."""
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def got(client, path, **query):
    """The object that a GET answers, which must succeed."""
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status=400):
    """The message of a refusal with this status."""
    code, message = error_of(answer)
    assert code == status, message
    return message


def rows_of(text):
    """The rows of a CSV."""
    return list(csv.DictReader(io.StringIO(text)))


def text_of(rows):
    """The text that rows cover; the bytes of one character have a row each."""
    return "".join({int(row["start"]): row["text"].replace("\\n", "\n") for row in rows}.values())


def request_that_leaves(app, body, *, after, path="/v1/completions"):
    """Sends a POST and disconnects when `after(messages sent)` holds."""
    sent = []

    async def run():
        gone, data = asyncio.Event(), json.dumps(body).encode()
        bodies = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive():
            if bodies:
                return bodies.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        async def leave():
            while not after(sent):
                await asyncio.sleep(0.002)
            gone.set()

        headers = [(b"host", HOST.encode()), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": (HOST, 80),
        }
        await asyncio.wait_for(asyncio.gather(app(scope, receive, send), leave()), 60)

    asyncio.run(run())
    return sent
