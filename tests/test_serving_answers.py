"""Answers that are long, cut or no longer wanted: how they are encoded, named and ended."""

import asyncio
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from serving import (
    complete,
    error_of,
    got,
    how_calls_end,
    open_models,
    request_that_leaves,
    serving,
    wait_until,
)

from hlm_jax.book.corpus import Chapter
from hlm_jax.measures.overlap import OverlapIndex
from hlm_jax.serving import answers, book, completions, reading, requests, search
from hlm_jax.serving.copied import CopiedSpans, merged
from hlm_jax.serving.engine import Token
from hlm_jax.serving.logprobs import of_tokens


@pytest.fixture(scope="module")
def client(trained):
    with serving(open_models(trained[0])) as client:
        yield client


@pytest.fixture(scope="module")
def run(client):
    return client.app.state.models["tiny"].run


@pytest.fixture
def on_the_loop(monkeypatch):
    """Watches a function of a module: a list of whether each call kept an event loop waiting."""

    def watch(module, name):
        found, function = [], getattr(module, name)

        def watched(*args, **options):
            found.append(asyncio._get_running_loop() is not None)
            return function(*args, **options)

        monkeypatch.setattr(module, name, watched)
        return found

    return watch


# --- long answers ---


def test_long_answers_are_encoded_in_small_pieces(monkeypatch):
    top = [{f"字{k}": -k / 7 for k in range(20)} for _ in range(5_000)]
    logprobs = {"tokens": ["字\n"] * 5_000, "top_logprobs": top, "text_offset": list(range(5_000))}
    data = {
        "choices": [{"index": 0, "text": "", "logprobs": logprobs}, {"logprobs": None}],
        "rows": [{"text": '\u2028"', "bits": 0.1, 3: None}] * 999,
        "deep": [[[[[[[[{"a": [1, [2]]}]]]]]]]],
        "none": {},
        "empty": [],
    }
    sizes, dumps = [], json.dumps

    def watched(*args, **options):
        sizes.append(len(encoded := dumps(*args, **options)))
        return encoded

    expected = dumps(data, ensure_ascii=False, separators=(",", ":"))
    monkeypatch.setattr(answers.json, "dumps", watched)
    assert answers.as_json(data) == expected
    assert sum(sizes) >= len(expected) // 2 > 1_000_000
    assert max(sizes) < 100_000
    with pytest.raises(ValueError, match="not JSON compliant"):
        answers.as_json({"a": [float("nan")] * 300})


def test_an_answer_with_too_many_numbers_is_refused(client, monkeypatch):
    body = {"prompt": [5] * 25_000, "echo": True, "logprobs": 20, "n": 16, "max_tokens": 0}
    status, message = error_of(client.post("/v1/completions", json=body))
    assert status == 400
    assert "400,000 tokens x (1 + logprobs) = 8,400,000 numbers: at most 1,048,576" in message
    without = {"prompt": [5] * 70_000, "echo": True, "n": 16, "max_tokens": 0}
    assert error_of(client.post("/v1/completions", json=without))[0] == 400
    monkeypatch.setattr(requests, "NUMBERS", 100)
    most = {"prompt": [5] * 5, "echo": True, "logprobs": 4, "n": 2, "max_tokens": 5}
    complete(client, **most)
    assert error_of(client.post("/v1/completions", json=most | {"max_tokens": 6}))[0] == 400
    complete(client, **most | {"echo": False, "max_tokens": 10})


def test_long_answers_are_not_encoded_on_the_event_loop(client, run, on_the_loop):
    found = on_the_loop(completions, "as_json")
    text = "".join(chapter.text for chapter in run.reference.splits["val"])[:2_500]
    body = {"prompt": text, "echo": True, "max_tokens": 0, "logprobs": 0}
    complete(client, **body)
    answer = client.post("/v1/completions", json=body | {"stream": True})
    assert len(answer.text) > 10_000
    assert found == [False, False]
    csv, hits = on_the_loop(book, "csv_text"), on_the_loop(search, "Hit")
    for regex in (False, True):
        client.get("/kwic", params={"words": "道", "regex": regex, "format": "csv"})
    assert csv == [False, False]
    assert hits
    assert not any(hits)
    json_of = on_the_loop(book, "as_json")
    assert got(client, "/kwic", words="道")["total"] == len(hits)
    assert json_of == [False]


# --- names of tokens ---

PIECES = {
    0: b"",
    1: b"<",
    2: "宝玉".encode(),
    3: "宝".encode(),
    4: "宝".encode()[2:] + "玉笑".encode(),
}
PIECES |= {5: "𠀀".encode()[1:3], 6: "笑道".encode()}
NAMES = ["<|chapter|>", "<0x3C>", "宝玉", "宝", "<0x9D><0xE7><0x8E><0x89><0xE7><0xAC><0x91>"]
NAMES += ["<0xA0><0x80>", "<|6|>"]


def named(text, token, start, end, *others):
    """(name of a token at its place, the names of its alternatives)."""
    tokenizer = SimpleNamespace(token_bytes=PIECES.__getitem__)
    served = SimpleNamespace(names=NAMES, run=SimpleNamespace(tokenizer=tokenizer))
    top = [(other, -1.0 - other) for other in (token, *others)]
    found = of_tokens(served, [Token(token, start, end, -1.0 - token, top)], text, 0, 20)
    ((name,), (alternatives,)) = found["tokens"], found["top_logprobs"]
    assert alternatives[name] == -1.0 - token
    assert len(alternatives) == len(top)
    return name, list(alternatives)


def test_only_a_token_that_is_cut_has_another_name():
    assert named("宝玉", 2, 0, 2, 3) == ("宝玉", ["宝玉", "宝"])
    assert named("<", 1, 0, 1, 2) == ("<0x3C>", ["<0x3C>", "宝玉"])  # it begins with its text
    assert named("笑宝", 2, 1, 2, 6) == ("宝", ["宝", "<|6|>"])
    taken = "<0xE5><0xAE><0x9D>"  # another token has the name
    assert named("笑宝", 2, 1, 2, 3) == (taken, [taken, "宝"])
    assert named("笑", 6, 0, 1) == ("笑", ["笑"])
    assert named("笑道", 6, 0, 2) == ("<|6|>", ["<|6|>"])  # whole, under its own name
    assert named("宝玉笑", 4, 0, 3)[0] == NAMES[4]
    assert named("宝玉", 4, 0, 2)[0] == "<0x9D><0xE7><0x8E><0x89>"
    assert named("宝", 4, 0, 1)[0] == "<0x9D>"
    assert named("宝", 5, 1, 1)[0] == NAMES[5]
    assert named("宝", 0, 1, 1)[0] == "<|chapter|>"


def test_a_separator_is_a_token_and_no_text(client, run):
    separator, (a, b) = run.tokenizer.separator_id, run.tokenizer.encode("的了")[-2:]
    body = {"echo": True, "logprobs": 1, "max_tokens": 0}
    (choice,) = complete(client, prompt=[a, separator, b], **body)["choices"]
    tokens = choice["logprobs"]["tokens"]
    assert tokens[1] == "<|chapter|>"
    assert choice["text"] == tokens[0] + tokens[2]
    assert choice["logprobs"]["text_offset"] == [0, len(tokens[0]), len(tokens[0])]


# --- copied spans ---


def test_a_long_recitation_is_searched_once(monkeypatch):
    rng = np.random.default_rng(1)
    chapters = [Chapter(n, "", "".join(rng.choice(list("甲乙丙丁"), 7_000))) for n in (1, 2)]
    index, searched = OverlapIndex(chapters), []
    matches = index.matches

    def watched(text):
        searched.append(len(text))
        return matches(text)

    monkeypatch.setattr(index, "matches", watched)
    text = chapters[1].text[500:6_500] + "戊" + chapters[0].text[:100]
    spans, told = CopiedSpans(index), []
    for at in range(0, len(text), 20):
        told += [[s.start, s.end, s.chapter] for s in spans.feed(text[at : at + 20])]
    assert merged(told) == [[0, 6_000, 2], [6_001, 6_101, 1]]
    assert sum(searched) < 3 * len(text)


def test_after_every_part_the_spans_are_those_of_the_text_so_far():
    rng = np.random.default_rng(2)
    same = "".join(rng.choice(list("甲乙"), 200))
    chapters = [
        Chapter(n, "", same[n:] + "".join(rng.choice(list("甲乙丙"), 200))) for n in range(1, 7)
    ]
    index = OverlapIndex(chapters)
    for _ in range(20):
        texts = [chapters[k].text for k in rng.integers(0, 6, 5)]
        text = "".join(t[a : a + int(rng.integers(1, 90))] for t in texts for a in (20, 150, 300))
        spans, told, at = CopiedSpans(index), [], 0
        while at < len(text):
            part = text[at : at + int(rng.integers(1, 25))]
            at += len(part)
            told += [[s.start, s.end, s.chapter] for s in spans.feed(part)]
            so_far = index.measure(text[:at]).spans
            assert merged(told) == [[s.start, s.end, s.chapter] for s in so_far]


def test_a_long_open_end_is_searched_in_a_thread(client, on_the_loop, monkeypatch):
    found = on_the_loop(CopiedSpans, "feed")
    complete(client, prompt="宝玉", max_tokens=8, copied=True)
    monkeypatch.setattr(completions, "SEARCHED", 0)
    complete(client, prompt="宝玉", max_tokens=8, copied=True)
    assert found[0] is True
    assert found[-1] is False


# --- jobs that nobody waits for ---


@pytest.fixture
def ended(monkeypatch):
    """How the tables end."""
    return how_calls_end(monkeypatch, reading, "surprisal_table")


def long_text(run, chars):
    return (run.reference.splits["train"][0].text * 100)[:chars]


@pytest.mark.parametrize(("unit", "chars"), [("token", 40_000), ("char", 5_000)])
def test_a_client_that_leaves_ends_its_table(client, run, ended, unit, chars):
    app, body = client.app, {"text": long_text(run, chars), "unit": unit}
    # A job that waits for a thread is dropped before it has begun a table.
    request_that_leaves(app, body, after=lambda _: ended, path="/surprisal")
    wait_until(lambda: app.state.jobs.pending == 0)
    assert ended == ["early"]


def test_a_server_that_ends_ends_its_jobs(client, run, ended):
    jobs, found = client.app.state.jobs, []
    scored = {"prompt": long_text(run, 100_000), "echo": True, "logprobs": 0, "max_tokens": 0}
    asked = [("/surprisal", {"text": long_text(run, 40_001)}), ("/v1/completions", scored)]
    try:
        for path, body in asked:
            thread = threading.Thread(
                target=lambda path=path, body=body: found.append(client.post(path, json=body))
            )
            thread.start()
            wait_until(lambda: jobs.pending == 1 and ended)
            jobs.closing.set()
            thread.join(30)
            jobs.closing.clear()
    finally:
        jobs.closing.clear()
    told = (503, "the server is shutting down")
    assert [error_of(answer) for answer in found] == [told, told]
    assert ended == ["early"]


def test_the_curve_ends_with_the_server_and_goes_on_after(client):
    jobs = client.app.state.jobs
    try:
        jobs.closing.set()
        pending = got(client, "/chapters")["pending"]
        assert got(client, "/chapters")["pending"] == pending > 0
    finally:
        jobs.closing.clear()
    wait_until(lambda: got(client, "/chapters")["pending"] == 0)
