"""Who may reach the API: hosts, other sites, the key; the names of models and the options."""

import dataclasses
import socket
from pathlib import Path

import pytest
from serving import HOST, error_of, open_models
from starlette.testclient import TestClient

from hlm_jax.errors import UserError
from hlm_jax.serving import server
from hlm_jax.serving.app import create_app
from hlm_jax.serving.http import Limits
from hlm_jax.serving.models import names_of
from tests.conftest import REPO

PASSED = 503  # nothing is warm here: what may come in is told so


@pytest.fixture(scope="module")
def models(trained):
    return open_models(trained[0], max_rows=1)


# --- who may come in ---


@pytest.mark.parametrize(
    ("bound", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", PASSED),
        ("127.0.0.1", "localhost", PASSED),
        ("127.0.0.1", "LOCALHOST:1", PASSED),
        ("127.0.0.1", "[::1]:8000", PASSED),
        ("127.0.0.1", "evil.example", 403),
        ("127.0.0.1", "evil.example:8000", 403),
        ("127.0.0.1", "127.0.0.1.evil.example", 403),
        ("127.0.0.1", "192.168.0.7", 403),
        ("127.0.0.1", "", 403),
        ("192.168.0.7", "192.168.0.7:8000", PASSED),
        ("0.0.0.0", "192.168.0.7:8000", PASSED),
        ("0.0.0.0", "[fe80::1]:8000", PASSED),
        ("0.0.0.0", "evil.example", 403),
        ("0.0.0.0", "shelf.example", PASSED),
    ],
)
def test_only_hosts_of_the_list_are_answered(models, bound, host, status):
    hosts = server.allowed_hosts(bound, ["shelf.example"])
    outside = TestClient(create_app(models, allowed_hosts=hosts))
    answer = outside.get("/v1/models", headers={"Host": host})
    assert answer.status_code == status
    if status != PASSED:
        assert "does not answer under that host name" in error_of(answer)[1]


def test_other_sites_are_let_in_by_name_alone(models):
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    ask["Access-Control-Request-Headers"] = "content-type"
    closed = TestClient(create_app(models, allowed_hosts=[HOST]))
    answer = closed.options("/v1/completions", headers=ask)
    assert answer.status_code == PASSED
    assert not [name for name in answer.headers if name.startswith("access-control")]
    app = create_app(models, allowed_hosts=[HOST], cors=["https://a.example"], api_key="k")
    opened = TestClient(app)
    answer = opened.options("/v1/completions", headers=ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    refused = opened.get("/v1/models", headers={"Origin": "https://a.example"})
    assert refused.status_code == 401  # and its page may read why
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
    ask["Origin"] = "https://b.example"
    assert opened.options("/v1/completions", headers=ask).status_code == 400


def test_a_key_opens_every_route(models):
    locked = TestClient(create_app(models, allowed_hosts=[HOST], api_key="a-key"))
    for header in (None, "Bearer a-ke", "Bearer a-key2", "Basic a-key", "Bearer 键", "a-key"):
        headers = {} if header is None else {"Authorization": header.encode()}
        for path in ("/v1/models", "/metrics", "/tokenizer_info", "/nothing"):
            answer = locked.get(path, headers=headers)
            assert error_of(answer)[0] == 401
            assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.get("/health").status_code == PASSED
    answer = locked.get("/v1/models", headers={"Authorization": "Bearer a-key"})
    assert answer.status_code == PASSED


# --- names and options ---


def test_the_docs_name_every_limit():
    docs = (REPO / "docs" / "serving.md").read_text(encoding="utf-8")
    table = docs[docs.index("## Errors and limits") : docs.index("## Safety")]
    for name, value in dataclasses.asdict(Limits()).items():
        assert f" {value:,} " in table, name
    assert f"at most {server.DRAIN_SECONDS} seconds" in docs
    assert f"1 to {server.MOST_ROWS} (default" in docs


@pytest.mark.parametrize(
    ("places", "names"),
    [
        ([("/r/tiny", 3)], ["tiny"]),
        ([("/r/tiny", 3), ("/r/base", 3)], ["tiny", "base"]),
        ([("/r/a/tiny", 3), ("/r/b/tiny", 3), ("/r/c", 1)], ["a/tiny", "b/tiny", "c"]),
        ([("/r/a/x/tiny", 3), ("/r/b/x/tiny", 3)], ["a/x/tiny", "b/x/tiny"]),
        ([("/r/tiny", 3), ("/r/tiny", 6)], ["tiny@3", "tiny@6"]),
    ],
)
def test_models_have_the_shortest_names_that_differ(places, names):
    assert names_of([(Path(folder), step) for folder, step in places]) == names


def test_a_checkpoint_is_served_once():
    with pytest.raises(UserError, match="the same checkpoint is given twice"):
        names_of([(Path("/r/tiny"), 3), (Path("/r/tiny"), 3)])


def test_options_that_cannot_work_are_refused():
    for key in ("", "a b", "键"):
        with pytest.raises(UserError, match="--api_key"):
            server.check(key, [], 8)
    with pytest.raises(UserError, match="--cors must be an origin"):
        server.check(None, ["a.example"], 8)
    with pytest.raises(UserError, match="--max_rows"):
        server.check(None, [], 0)
    server.check("k", ["https://a.example", "*"], 8)
    assert server.each(["a", "b"], [], ["c"]) == [
        (Path("a"), "best", Path("c")),
        (Path("b"), "best", Path("c")),
    ]
    assert [step for _, step, _ in server.each(["a", "b"], ["1", "2"], [])] == ["1", "2"]
    with pytest.raises(UserError, match="--step is given 2 times for 3 --workdir"):
        server.each(["a", "b", "c"], ["1", "2"], [])


def test_a_used_port_and_an_unknown_host_are_refused():
    with server.bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert server.address_of(bound) == f"http://127.0.0.1:{port}/"
        with pytest.raises(UserError, match=f"cannot bind to 127.0.0.1 port {port} \\(address al"):
            server.bind("127.0.0.1", port)
    with pytest.raises(UserError, match="--port must be a number"):
        server.bind("127.0.0.1", 70_000)
    with pytest.raises(UserError, match="there is no host"):
        server.bind("no such host", 0)


def test_binding_to_another_address_is_explained(monkeypatch):
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert server.exposure(host, has_key=False) == ""
    assert "everybody who reaches it" in server.exposure("0.0.0.0", has_key=False)
    assert "whoever has the key" in server.exposure("shelf.example", has_key=True)
    assert socket.gethostname() in server.allowed_hosts("0.0.0.0", [])
