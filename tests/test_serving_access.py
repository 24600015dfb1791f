"""Who may reach the API: hosts, other sites, the key; the names of models and the options."""

import contextlib
import dataclasses
import re
import socket
from pathlib import Path

import pytest
from serving import HOST, error_of, open_models
from starlette.testclient import TestClient

from hlm_jax.errors import UserError
from hlm_jax.serving import http, protocol, reading, requests, search, server
from hlm_jax.serving.app import create_app
from hlm_jax.serving.http import Limits
from hlm_jax.serving.models import names_of
from tests.conftest import REPO

PASSED = 503  # nothing is warm here: what may come in is told so


class Bound:
    """A socket that is bound to an address which this machine need not have."""

    def __init__(self, address):
        self._address = address

    def getsockname(self):
        return self._address, 8000


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
        ("127.0.0.1", "localhost:", PASSED),
        ("127.0.0.1", "localhost:1@evil.example", 403),
        ("127.0.0.1", "localhost:80:80", 403),
        ("127.0.0.1", "[::1]evil.example", 403),
        ("127.0.0.1", "[::1]:8000.evil.example", 403),
        ("127.0.0.1", "[localhost]", 403),
        ("127.0.0.1", "::1", 403),
        ("127.0.0.1", "user@localhost", 403),
        ("127.0.0.1", "localhost/", 403),
        ("192.168.0.7", "192.168.0.7:8000", PASSED),
        ("0.0.0.0", "192.168.0.7:8000", PASSED),
        ("0.0.0.0", "[fe80::1]:8000", PASSED),
        ("0.0.0.0", "evil.example", 403),
        ("0.0.0.0", "shelf.example", PASSED),
    ],
)
def test_only_hosts_of_the_list_are_answered(models, bound, host, status):
    hosts = server.allowed_hosts(bound, Bound(bound), ["shelf.example"])
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
    answer = opened.options("/v1/completions", headers=ask)
    assert error_of(answer)[0] == 400
    assert "(Disallowed CORS origin)" in error_of(answer)[1]
    ask |= {"Origin": "https://a.example", "Access-Control-Request-Headers": "x-other"}
    assert error_of(opened.options("/v1/completions", headers=ask))[0] == 400


LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
IMAGE = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
SCRIPT = {"Sec-Fetch-Mode": "cors", "Origin": "https://a.example"}


@pytest.mark.parametrize(
    ("cors", "path", "headers", "refused"),
    [
        ([], "/kwic?words=x", IMAGE, True),
        ([], "/", IMAGE, True),
        ([], "/health", IMAGE, True),
        ([], "/kwic?words=x", LINK, True),
        ([], "/", LINK, False),
        ([], "/kwic?words=x", SCRIPT, True),
        (["https://a.example"], "/kwic?words=x", SCRIPT, False),
        (["https://b.example"], "/kwic?words=x", SCRIPT, True),
        (["https://a.example"], "/kwic?words=x", IMAGE, True),
        (["*"], "/kwic?words=x", IMAGE, False),
    ],
)
def test_pages_of_other_sites_start_nothing(models, cors, path, headers, refused):
    client = TestClient(create_app(models, allowed_hosts=[HOST], cors=cors))
    answer = client.get(path, headers=headers | {"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code == 403) == refused
    if refused:
        assert error_of(answer)[1].startswith("a page of another site asks")
    for site in ("same-origin", "none"):
        own = client.get(path, headers=headers | {"Sec-Fetch-Site": site})
        assert own.status_code in (200, PASSED)


def test_every_answer_tells_browsers_what_it_is(models):
    for cors, policy in ([], "same-origin"), (["https://a.example"], "cross-origin"):
        app = create_app(models, allowed_hosts=[HOST], cors=cors)
        client = TestClient(app, raise_server_exceptions=False)
        page = client.get("/")
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cross-origin-resource-policy"] == "same-origin"  # whatever --cors says
        answers = [client.get(path) for path in ("/health", "/nothing", "/v1/models")]
        answers.append(client.get("/", headers={"Host": "evil.example"}))
        app.state.metrics = None  # a bug
        answers.append(client.get("/metrics"))
        assert {answer.status_code for answer in answers} == {403, PASSED}
        app.state.draining, app.state.models = False, {}
        answers.append(client.get("/metrics"))
        assert answers[-1].status_code == 500
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == policy


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


# The row of docs/serving.md that names a limit: how its first cell begins, or all of it.
ROWS = {
    "body": "{:,} bytes of a request",
    "max_tokens": "`max_tokens` 0 to {:,}",
    "n": "`n` 1 to {:,}",
    "prompts": "{:,} prompts of a request",
    "sequences": "prompts x `n` up to {:,}",
    "stop": "{:,} stop strings of",
    "stop_chars": f"{Limits().stop} stop strings of 1 to {{:,}} characters",
    "scored_tokens": "{:,} tokens of prompts that are scored",
    "requests": "{:,} requests in work",
    "jobs": "{:,} scores and tables that wait for the one in work",
}
OTHER_ROWS = (
    f"{http.BODY_SECONDS} seconds for a request to arrive",
    f"{http.NAMES} names of one object or query",
    f"{requests.NUMBERS:,} numbers of one answer",
    f"{protocol.CONNECTIONS} connections",
    f"{protocol.HEAD_BYTES:,} bytes of a request line and its headers",
    f"{protocol.HEAD_SECONDS} seconds for them to arrive",
    f"{protocol.SEND_SECONDS} seconds for a client to read",
    f"{reading.CHARS:,} characters to be scored by tokens, {reading.EXACT_CHARS:,} by char",
    f"{search.SECONDS} seconds and {search.MEMORY >> 30} GiB for a regular expression",
    f"{search.HITS:,} occurrences",
    f"{search.CHILDREN} searches by regular expression at once",
)


def test_the_docs_name_every_limit():
    docs = (REPO / "docs" / "serving.md").read_text(encoding="utf-8")
    table = docs[docs.index("## Errors and limits") : docs.index("## Safety")]
    cells = re.findall(r"^\| ([^|]*?) \|", table, flags=re.MULTILINE)
    limits = dataclasses.asdict(Limits())
    assert ROWS.keys() == limits.keys()
    named = [row.format(limits[name]) for name, row in ROWS.items()]
    for row in (*named, *OTHER_ROWS):
        starts = re.compile(re.escape(row) + r"(?![\w,])" if row[-1].isdigit() else re.escape(row))
        assert [cell for cell in cells if starts.match(cell)], row
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


def test_binding_to_another_address_is_explained():
    def meaning(host, address, has_key=False):
        return server.exposure(host, Bound(address), has_key=has_key)

    for host in ("127.0.0.1", "::1", "127.0.0.2", "::ffff:127.0.0.1"):
        assert meaning(host, host) == ""
    assert "bound to 0: other machines" in meaning("0", "0.0.0.0")
    assert "everybody who reaches it" in meaning("::", "::")
    assert "whoever has the key" in meaning("shelf.example", "192.168.0.7", has_key=True)
    assert meaning("evil.localhost", "192.168.0.7")


@pytest.mark.parametrize("host", ["0", "0.0.0.0", "::0", "127.1", "localhost"])
def test_what_the_system_makes_of_a_host_decides(models, host):
    with contextlib.closing(_bound(host)) as bound:
        hosts = server.allowed_hosts(host, bound, [])
        everywhere = server.exposure(host, bound, has_key=False) != ""
    assert everywhere == (host not in ("127.1", "localhost"))
    assert (socket.gethostname() in hosts) == everywhere
    client = TestClient(create_app(models, allowed_hosts=hosts))
    for sent in ("192.168.0.7", "[fe80::1]:8000"):
        status = client.get("/v1/models", headers={"Host": sent}).status_code
        assert status == (PASSED if everywhere else 403)


def _bound(host):
    try:
        return server.bind(host, 0)
    except UserError as error:
        pytest.skip(str(error))  # a machine without IPv6
