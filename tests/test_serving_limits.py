"""What the API refuses, with which status and words, and what it counts."""

import asyncio
import json
import threading
import time

import pytest
from serving import HOST, complete, error_of, events_of, open_models, serving, wait_until
from starlette.testclient import TestClient

from hlm_jax.serving.app import create_app
from hlm_jax.serving.http import Fields, Limits, Refusal, parse_object, without_paths
from hlm_jax.serving.models import Jobs, distinct_names

LIMITS = Limits(body=20_000, requests=2, jobs=1, scored_tokens=900)


@pytest.fixture(scope="module")
def models(trained):
    return open_models(trained[0], max_rows=2, max_waiting=2)


@pytest.fixture(scope="module")
def client(models):
    with serving(models, limits=LIMITS) as client:
        yield client


REFUSED = [
    ({"prompt": "a", "n": 17}, 400, "n must be a whole number from 1 to 16, not 17"),
    ({"prompt": "a", "n": True}, 400, "n must be a whole number from 1 to 16, not true"),
    ({"prompt": ["a"] * 65}, 400, "65 prompts: at most 64"),
    ({"prompt": ["a"] * 13, "n": 5}, 400, "13 prompts x n = 65 texts: at most 64"),
    ({"prompt": "a", "max_tokens": 4097}, 400, "max_tokens must be a whole number from 0 to 4,096"),
    ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens must be at least 1, or 0 with echo: true"),
    ({"prompt": "a", "max_tokens": 1.5}, 400, "max_tokens must be a whole number"),
    ({"prompt": "a", "stop": list("abcde")}, 400, "stop has 5 strings: at most 4"),
    ({"prompt": "a", "stop": [""]}, 400, "a stop string has 0 characters: 1 to 200"),
    ({"prompt": "a", "stop": "b" * 201}, 400, "a stop string has 201 characters: 1 to 200"),
    ({"prompt": "a", "stop": [3]}, 400, "stop must be a string or a list of strings, not a list"),
    ({"prompt": "a", "logprobs": 21}, 400, "logprobs must be a whole number from 0 to 20, not 21"),
    ({"prompt": "a", "logprobs": True}, 400, "logprobs must be a whole number from 0 to 20"),
    ({"prompt": "a", "temperature": -0.1}, 400, "temperature must be a number from 0 to 100"),
    ({"prompt": "a", "top_p": "1"}, 400, 'top_p must be a number from 0 to 1, not "1"'),
    ({"prompt": "a", "seed": 2**63}, 400, "seed must be a whole number from -9,223,372"),
    ({"prompt": "a", "stream": 1}, 400, "stream must be true or false, not 1"),
    ({"prompt": "a", "stream_options": {}}, 400, "stream_options needs stream: true"),
    ({"prompt": "a", "max_token": 1}, 400, '"max_token" is not supported here: is max_tokens mea'),
    ({"prompt": "a", "best_of": 2}, 400, "best_of is not supported: every text that is written"),
    ({"prompt": "a", "suffix": "b"}, 400, "suffix is not supported: the model reads only"),
    ({"prompt": "a", "logit_bias": {"3": 1}}, 400, "logit_bias is not supported: no single token"),
    ({"prompt": "a", "presence_penalty": 0.5}, 400, "presence_penalty is not supported: use rep"),
    ({"prompt": "a", "frequency_penalty": 1}, 400, "frequency_penalty is not supported: use rep"),
    ({"prompt": "a", "user": "b"}, 400, "user is not supported: the server knows no users"),
    ({"messages": []}, 400, "messages is not supported: the model knows no chat, use prompt"),
    ({}, 400, "prompt is missing"),
    ({"prompt": []}, 400, "prompt must be a string, a list of strings, a list of token ids or"),
    ({"prompt": [[]]}, 400, "a prompt has no token ids"),
    ({"prompt": {"a": 1}}, 400, "prompt must be a string, a list of strings, a list of token ids"),
    ({"prompt": ["a", 1]}, 400, "prompt must be a string, a list of strings, a list of token ids"),
    ({"prompt": [1500]}, 400, "prompt must be token ids from 0 to 1,499, not 1500"),
    ({"prompt": [1, True]}, 400, "prompt must be token ids from 0 to 1,499, not true"),
    ({"prompt": [1], "clean": True}, 400, "clean is of texts: a prompt of token ids is taken as"),
    ({"prompt": [1] * 32}, 400, "the prompt has 32 tokens and the model reads at most 31 before"),
    (
        {"prompt": [1] * 901, "echo": True, "logprobs": 0, "max_tokens": 0},
        400,
        "the prompts have 901 tokens: at most 900",
    ),
    ({"prompt": "a", "model": "gpt-4"}, 404, "there is no such model: use tiny"),
    ({"prompt": "a", "n": 9}, 429, "too many texts wait to be written: try again in a second"),
    ({"prompt": "a" * 20_000}, 413, "the request is larger than 20,000 bytes"),
]


@pytest.mark.parametrize(("body", "status", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_what_is_refused_says_why(client, body, status, words):
    found, message = error_of(client.post("/v1/completions", json=body))
    assert found == status
    assert message.startswith(words)


@pytest.mark.parametrize(
    "body",
    [
        {"best_of": 1, "suffix": "", "logit_bias": {}, "presence_penalty": 0, "user": ""},
        {"frequency_penalty": 0.0, "stop": None, "logprobs": None, "top_k": -1, "seed": None},
        {"max_tokens": 2.0, "stop": [], "stream": False, "echo": False},
    ],
)
def test_fields_that_ask_for_nothing_are_accepted(client, body):
    assert complete(client, **({"prompt": "宝玉", "max_tokens": 2} | body))["choices"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the request is not JSON at character 0"),
        (b"[]", "the request must be an object of JSON"),
        (b'{"prompt": "a", "prompt": "b"}', '"prompt" is given twice'),
        (b'{"prompt": "a", "temperature": NaN}', "NaN is no number of JSON"),
        (b'{"prompt": "a", "temperature": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"prompt": "a", "temperature": 1e999}', "the number 1e999 is too large"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "a number has 5,000 digits"),
        (b'{"prompt": "\\ud83d"}', "a string holds half of a surrogate pair"),
        (b'{"\\ud83d": 1, "\\ud83d": 1}', '"?" is given twice'),
        (b'{"prompt": "\xff"}', "the request is not UTF-8 at byte 12"),
        (b'{"prompt": ' + b"[" * 9000 + b"]" * 9000 + b"}", "the request is nested too deeply"),
    ],
)
def test_what_is_no_json_is_refused(client, data, words):
    answer = client.post(
        "/v1/completions", content=data, headers={"Content-Type": "application/json"}
    )
    status, message = error_of(answer)
    assert status == 400
    assert message.startswith(words)


def test_only_json_is_read_and_only_so_much(client):
    data = json.dumps({"prompt": "宝玉", "max_tokens": 1}).encode()
    for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {"Content-Type": kind} if kind else {}
        answer = client.post("/v1/completions", content=data, headers=headers)
        assert error_of(answer)[0] == 415
    headers = {"Content-Type": "application/json; charset=gbk"}
    assert client.post("/tokenize", content=data, headers=headers).status_code == 415
    headers = {"Content-Type": "Application/JSON; charset=UTF-8"}
    assert client.post("/v1/completions", content=data, headers=headers).status_code == 200
    chunks = (b" " * 5000 for _ in range(5))  # without a Content-Length
    assert error_of(client.post("/v1/completions", content=chunks, headers=headers))[0] == 413


def test_routes_and_methods_that_do_not_exist(client):
    assert error_of(client.get("/nothing"))[0] == 404
    answer = client.get("/v1/completions")
    assert error_of(answer)[0] == 405
    assert answer.headers["allow"] == "POST"
    assert client.post("/v1/chat/completions", json={}).status_code == 404


# --- tokens and models ---


@pytest.mark.parametrize("text", ["宝玉笑道：", "😀 e\u0301", "一\r\n\n", "▁ \t", "<unk>\0", ""])
def test_tokens_come_back_as_the_text(client, models, text):
    body = {"prompt": text, "add_special_tokens": False}
    found = client.post("/tokenize", json=body).json()
    assert found["tokens"] == models["tiny"].run.tokenizer.encode(text)
    assert found["count"] == len(found["tokens"])
    assert client.post("/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": text}
    first, *rest = client.post("/tokenize", json={"prompt": text}).json()["tokens"]
    assert (first, rest) == (models["tiny"].run.tokenizer.separator_id, found["tokens"])


def test_the_separator_has_a_name_that_clients_can_use(client, models):
    info = client.get("/tokenizer_info").json()
    separator = models["tiny"].run.tokenizer.separator_id
    assert info["eos_token"] == info["bos_token"] == "<|chapter|>"
    assert info["eos_token_id"] == separator
    body = {"prompt": info["eos_token"], "add_special_tokens": False}
    assert client.post("/tokenize", json=body).json()["tokens"] == [separator]
    named = client.post("/detokenize", json={"tokens": [separator]}).json()["prompt"]
    assert named == info["eos_token"]
    assert client.get("/tokenizer_info?model=x").status_code == 404
    assert error_of(client.get("/tokenizer_info?modl=x"))[1].endswith("is model meant?")
    assert error_of(client.post("/detokenize", json={"tokens": "a"}))[0] == 400


def test_the_models_are_listed_without_a_path(client, trained):
    answer = client.get("/v1/models")
    (model,) = answer.json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", 32)
    assert (model["step"], model["book"], model["max_tokens"]) == (12, "book", 4096)
    assert client.get("/v1/models/tiny").json() == model
    assert error_of(client.get("/v1/models/other"))[0] == 404
    assert str(trained[0].parent) not in answer.text


def test_names_of_tokens_are_their_own(models):
    tokenizer = models["tiny"].run.tokenizer
    names = distinct_names(tokenizer)
    assert len(set(names)) == tokenizer.vocab_size
    assert names[tokenizer.encode("宝")[0]] == "宝"
    assert [names[token] for token in tokenizer.encode("龘")] == ["<0xE9>", "<0xBE>", "<0x98>"]


# --- too much, too early, too late, broken ---


def test_before_and_after_its_work_the_server_says_so(trained):
    app = create_app(open_models(trained[0], max_rows=1), allowed_hosts=[HOST])
    early = TestClient(app)  # nothing warms it
    for path in ("/health", "/v1/models", "/tokenizer_info"):
        answer = early.get(path)
        assert error_of(answer) == (503, "the server is warming up")
        assert answer.headers["retry-after"] == "5"
    served = app.state.models["tiny"]
    served._warm.set()  # and its engine does not work
    answer = early.get("/v1/models")
    assert error_of(answer) == (503, "the engine has stopped: its log tells why")
    assert answer.headers["retry-after"] == "5"
    app.state.draining = True
    assert error_of(early.get("/v1/models")) == (503, "the server is shutting down")


def test_requests_above_the_limit_are_told_to_wait(client):
    begun, go = threading.Event(), threading.Event()
    jobs = client.app.state.jobs

    def block():
        begun.set()
        assert go.wait(60)

    body = {"prompt": "宝玉", "max_tokens": 0, "echo": True, "logprobs": 0}
    answers = []

    def ask():
        answers.append(client.post("/v1/completions", json=body))

    first = threading.Thread(target=lambda: asyncio.run(jobs.run(block)))
    threads = [threading.Thread(target=ask) for _ in range(2)]
    try:
        first.start()
        assert begun.wait(60)
        threads[0].start()
        wait_until(lambda: jobs.pending == 2)
        answer = client.post("/v1/completions", json=body)
        assert error_of(answer)[1].startswith("too many scores and tables wait")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        client.app.state.in_work += 1
        assert error_of(client.get("/v1/models"))[0] == 429
        assert client.get("/health").status_code == 200
        client.app.state.in_work -= 1
    finally:
        go.set()
        first.join()
        threads[0].join()
    assert [answer.status_code for answer in answers] == [200]


def test_a_job_that_nobody_waits_for_never_begins():
    jobs, go, ran = Jobs(4), threading.Event(), []

    async def leave():
        first = asyncio.create_task(jobs.run(go.wait, 60))
        second = asyncio.create_task(jobs.run(ran.append, 1))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait([second])
        go.set()
        await first

    asyncio.run(leave())
    jobs.close()
    assert (ran, jobs.pending) == ([], 0)
    with pytest.raises(Refusal, match="shutting down") as refused:
        asyncio.run(jobs.run(ran.append, 2))
    assert refused.value.headers == {"Retry-After": "5"}


class Broken:
    """An engine that fails with words that no client may read."""

    def __init__(self, engine, after):
        self._engine, self._after = engine, after

    def __getattr__(self, name):
        return getattr(self._engine, name)

    async def stream(self, requests):
        async for number, item in _numbered(self._engine.stream(requests)):
            if number == self._after:
                raise RuntimeError("secret of /home/me")
            yield item


async def _numbered(items):
    number = 0
    async for item in items:
        yield number, item
        number += 1


@pytest.mark.parametrize("after", [0, 2])
def test_a_bug_is_told_without_its_words(client, models, after, monkeypatch):
    served = models["tiny"]
    monkeypatch.setitem(served.__dict__, "engine", Broken(served.engine, after))
    body = {"prompt": "宝玉", "max_tokens": 200}
    answer = client.post("/v1/completions", json=body)
    assert error_of(answer) == (500, "the server failed on this request; its log tells why")
    answer = client.post("/v1/completions", json=body | {"stream": True})
    assert "secret" not in answer.text
    if after:
        last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["error"]["type"] == "server_error"
    else:
        assert error_of(answer)[0] == 500
    monkeypatch.undo()
    assert events_of(client.post("/v1/completions", json=body | {"stream": True}).text)


# --- metrics, fields ---


def test_metrics_count_what_happened(client):
    def value(name):
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    route = 'hlm_requests_total{route="/v1/completions",status="200"}'
    names = (route, "hlm_generated_tokens_total", "hlm_prompt_tokens_total")
    before = [value(name) for name in (*names, "hlm_first_token_seconds_count")]
    usage = complete(client, prompt="宝玉", max_tokens=20, n=2, seed=4)["usage"]
    after = [value(name) for name in (*names, "hlm_first_token_seconds_count")]
    wanted = [1, usage["completion_tokens"], usage["prompt_tokens"], 1]
    assert [b - a for a, b in zip(before, after, strict=True)] == wanted
    assert value('hlm_dispatches_total{model="tiny"}') > 0
    client.get("/v1/models/tiny")
    assert value('hlm_requests_total{route="/v1/models/{name:path}",status="200"}') >= 1
    assert value('hlm_rows_active{model="tiny"}') == value("hlm_requests_in_work") == 0


def test_a_query_is_read_like_json():
    fields = Fields({"a": "3", "b": "0.5", "c": "true", "d": "x"}, query=True)
    found = fields.whole("a", low=1, high=5), fields.number("b", low=0, high=1), fields.flag("c")
    assert found == (3, 0.5, True)
    with pytest.raises(Refusal, match='"d" is not supported here'):
        fields.done()
    for value in ("", "1.5", "１", "1_0", " 1", "nan", "x"):
        with pytest.raises(Refusal, match="a must be a whole number from 1 to 5"):
            Fields({"a": value}, query=True).whole("a", low=1, high=5)


def test_paths_lose_their_folders():
    for said, left in {
        "/root/runs/a/book.txt: cannot be read; use and/or --corpus ~/x": (
            "book.txt: cannot be read; use and/or --corpus ~/x"
        ),
        "cannot read /root/my runs/a b/my book.txt: no": "cannot read my book.txt: no",
        r"C:\Users\me and you\book.txt is bad": "book.txt is bad",
        "'D:/runs/a': no": "'a': no",
        r"\\srv\share\a b\c.txt": "c.txt",
        "see file:///root/my%20runs/x.txt": "see x.txt",
        "file://host/root/x.txt": "x.txt",
        r"1/2, docs/serving.md, ./a/b, https://example.org/a/b, \d+\w": None,
    }.items():
        assert without_paths(said) == (said if left is None else left)


def test_a_million_names_are_refused_at_once(client):
    begin = time.monotonic()
    names = ",".join(f'"{i:07}":0' for i in range(90_000))
    with pytest.raises(Refusal, match="90,001 names in one object or query: at most 200"):
        parse_object(f'{{{names},"0000000":0}}'.encode())
    inner = '{"a":' + "{" + names + "}}"
    with pytest.raises(Refusal, match="90,000 names"):
        parse_object(inner.encode())
    query = "&".join(f"n{i}=1" for i in range(50_000))
    answer = client.get(f"/tokenizer_info?{query[:60_000]}")
    assert error_of(answer)[0] == 400
    assert "names in one object or query" in error_of(answer)[1]
    assert time.monotonic() - begin < 5  # minutes where every name is compared with all others
    last = '{"a":1,"b":1,"a":2}'
    with pytest.raises(Refusal, match='"a" is given twice'):
        parse_object(last.encode())
    assert error_of(client.get("/tokenizer_info?model=x&model=y"))[1] == '"model" is given twice'
    assert len(parse_object(json.dumps(dict.fromkeys(map(str, range(200)), 0)).encode())) == 200
