"""The API: what it answers, that its parts agree with each other and with the run itself."""

import codecs
import dataclasses
import itertools
import re

import numpy as np
import pytest
from serving import (
    complete,
    error_of,
    events_of,
    how_calls_end,
    open_models,
    request_that_leaves,
    serving,
    wait_until,
)

from hlm_jax.book.corpus import Chapter
from hlm_jax.measures.overlap import OverlapIndex
from hlm_jax.serving.copied import CopiedSpans, merged, recitation
from hlm_jax.serving.metrics import compilations

TEXTS = [
    "宝玉笑道：",
    "a",
    "😀 龘 e\u0301",
    "一\r\n二\n\n",
    "▁ 　\t",
    "<|chapter|><0xE5>",
    "\0",
    "",
]


@pytest.fixture(scope="module")
def client(trained):
    models = open_models(trained[0])
    # The same run as a machine serves it that does not have the book.
    models["bare"] = dataclasses.replace(models["tiny"], name="bare", reference=None)
    with serving(models) as client:
        yield client


@pytest.fixture(scope="module")
def run(client):
    return client.app.state.models["tiny"].run


def characters(tokens):
    """The text of tokens by their names: bytes are spelled, a separator is none.

    Bytes at the end that complete no character are no text.
    """
    parts = re.split(r"((?:<0x[0-9A-F]{2}>)+|<\|chapter\|>)", "".join(tokens))
    data = b"".join(
        bytes.fromhex(re.sub("<0x|>", "", part)) if part.startswith("<0x") else part.encode()
        for part in parts
        if part != "<|chapter|>"
    )
    return codecs.getincrementaldecoder("utf-8")().decode(data)


def chained(lists):
    return list(itertools.chain.from_iterable(lists))


# --- completions ---


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("echo", [True, False])
def test_tokens_joined_are_the_text_and_offsets_are_its_own(client, run, text, echo):
    body = {"prompt": text, "echo": echo, "logprobs": 3, "max_tokens": 12, "n": 2, "seed": 5}
    answer = complete(client, **body, temperature=1.5, top_p=1, return_token_ids=True)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    for choice in answer["choices"]:
        logprobs = choice["logprobs"]
        assert characters(logprobs["tokens"]) == choice["text"]
        assert echo is False or choice["text"].startswith(text)
        offsets = logprobs["text_offset"]
        assert len({len(values) for values in logprobs.values()}) == 1
        assert offsets == sorted(offsets)
        for i, token in enumerate(logprobs["tokens"]):
            end = offsets[i + 1] if i + 1 < len(offsets) else len(choice["text"])
            if not token.startswith("<"):
                assert choice["text"][offsets[i] : end] == token
        assert choice["prompt_token_ids"] == [
            run.tokenizer.separator_id,
            *run.tokenizer.encode(text),
        ]


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "宝玉", "n": 3, "logprobs": 2, "echo": True, "copied": True},
        {"prompt": ["宝玉", "黛玉笑道：", ""], "return_token_ids": True},
        {"prompt": [[5, 300, 7], [9]], "logprobs": 0, "stop": ["的", "了一"]},
        {"prompt": "宝", "max_tokens": 0, "echo": True, "logprobs": 1},
        {"prompt": "宝", "max_tokens": 60, "temperature": 0, "repetition_penalty": 1.3},
    ],
)
def test_a_streamed_answer_is_the_unstreamed_one(client, body):
    body = {"seed": 11, "max_tokens": 20} | body
    whole = complete(client, **body)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = client.post("/v1/completions", json=body | options)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, last = events_of(answer.text)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(event["usage"] is None and event["model"] == "tiny" for event in events)
    for choice in whole["choices"]:
        parts = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert [part["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
        assert parts[-1].get("recitation") == choice.get("recitation")
        if choice["logprobs"]:
            for name, values in choice["logprobs"].items():
                assert chained(part["logprobs"][name] for part in parts) == values
        if "token_ids" in choice:
            assert chained(part["token_ids"] for part in parts) == choice["token_ids"]
            assert parts[0]["prompt_token_ids"] == choice["prompt_token_ids"]
        if "copied" in choice:
            assert merged(chained(part["copied"] for part in parts)) == choice["copied"]


def test_a_prompt_costs_what_the_run_says(client, run):
    text = run.reference.splits["val"][0].text[:300]
    body = {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 4}
    (choice,) = complete(client, **body)["choices"]
    table = run.surprisal(text, top=4)
    assert len(table) > run.model.cfg.block_size  # windows slide
    found = choice["logprobs"]
    bits = -np.array(found["token_logprobs"]) / np.log(2)
    np.testing.assert_array_equal(bits.astype(np.float32), table.columns["bits"].astype(np.float32))
    assert found["text_offset"] == table.columns["start"].tolist()
    ranks = table.columns["rank"].tolist()
    rows = zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], ranks, strict=True)
    for token, logprob, top, rank in rows:
        assert len(top) == 4 + (rank > 4)
        assert top[token] == logprob
        assert (max(top.values()) == logprob) == (rank == 1)
    assert {rank == 1 for rank in ranks} == {True, False}


def test_ids_are_taken_verbatim(client, run):
    separator, text = run.tokenizer.separator_id, "黛玉笑道："
    ids = [separator, *run.tokenizer.encode(text)]
    body = {"echo": True, "logprobs": 1, "max_tokens": 0}
    verbatim = complete(client, prompt=ids, **body)["choices"][0]
    of_text = complete(client, prompt=text, **body)["choices"][0]
    assert verbatim["text"] == of_text["text"] == text
    for name, first in (("token_logprobs", None), ("top_logprobs", None), ("text_offset", 0)):
        assert verbatim["logprobs"][name] == [first, *of_text["logprobs"][name]]
    assert verbatim["logprobs"]["tokens"] == ["<|chapter|>", *of_text["logprobs"]["tokens"]]
    bare = complete(client, prompt=text, add_special_tokens=False, **body)["choices"][0]
    assert bare["logprobs"]["token_logprobs"][0] is None
    assert bare["logprobs"]["tokens"] == of_text["logprobs"]["tokens"]
    half = [run.tokenizer.encode("龘")[0]] * 2  # a byte that completes nothing
    assert complete(client, prompt=half, **body)["choices"][0]["text"] == "��"


def test_every_choice_has_a_seed_of_its_own(client):
    body = {"prompt": ["宝玉", "黛玉"], "max_tokens": 16, "n": 3}
    first = complete(client, **body)
    texts = [choice["text"] for choice in first["choices"]]
    assert len(set(texts[:3])) == len(set(texts[3:])) == 3
    again = complete(client, **body, seed=first["seed"])
    assert [choice["text"] for choice in again["choices"]] == texts
    third = complete(client, prompt="宝玉", max_tokens=16, seed=first["seed"] + 2)
    assert third["choices"][0]["text"] == texts[2]
    other = complete(client, **body)
    assert other["seed"] != first["seed"]


def test_the_page_writes_what_the_run_writes(client, run):
    prompt, more = "  寶玉笑道：\n\n", {"temperature": 0.9, "top_k": 50, "min_p": 0.01}
    wanted = run.generate(prompt, num_samples=2, max_new_tokens=40, seed=3, **more)
    body = {"add_special_tokens": False, "clean": True, "max_tokens": 40, "n": 2, "seed": 3}
    answer = complete(client, prompt=prompt, echo=True, **body, **more)
    cleaned = run.tokenizer.decode(run.encode_prompt(prompt))
    assert [choice["text"] for choice in answer["choices"]] == [cleaned + t for t in wanted]
    begun = complete(client, prompt="", **body)
    assert begun["choices"][0]["text"] == run.generate(None, max_new_tokens=40, seed=3)[0]


def test_stop_strings_end_a_text_and_are_no_part_of_it(client):
    body = {"prompt": "宝玉", "max_tokens": 24, "seed": 2, "logprobs": 1, "n": 8}
    free = complete(client, **body)["choices"]
    # A stop string that begins within a token, so that it cuts it.
    index, at, token = next(
        (choice["index"], at, token)
        for choice in free
        for at, token in zip(*map(choice["logprobs"].get, ("text_offset", "tokens")), strict=True)
        if len(token) > 1 and token[0] != "<" and choice["text"].find(token[1:]) == at + 1 > 2
    )
    whole = free[index]
    choice = complete(client, **body, stop=[token[1:], "never in it"])["choices"][index]
    assert choice["text"] == whole["text"][: at + 1]
    assert (choice["finish_reason"], whole["finish_reason"]) == ("stop", "length")
    assert choice["logprobs"]["tokens"][-1] == token[0]
    for tokens, top in zip(*map(choice["logprobs"].get, ("tokens", "top_logprobs")), strict=True):
        assert tokens in top
    assert token not in choice["logprobs"]["top_logprobs"][-1]
    assert characters(choice["logprobs"]["tokens"]) == choice["text"]
    assert complete(client, **body, stop=token[1:])["choices"][index] == choice


def test_the_separators_name_stops_at_a_chapters_end(client, run):
    end = run.tokenizer.separator_id
    most = {"prompt": [7], "max_tokens": 400, "temperature": 100, "top_p": 1, "n": 8}
    body = most | {"seed": 1, "return_token_ids": True}
    free = complete(client, **body)["choices"]
    ended = [choice for choice in free if end in choice["token_ids"][:-1]]
    assert ended, "no text of these seeds begins a chapter: take others"
    for more in ({"stop_at_chapter_end": True}, {"stop": "<|chapter|>"}):
        stopped = complete(client, **body, **more)["choices"]
        for choice, whole in zip(stopped, free, strict=True):
            at = end in whole["token_ids"]
            assert choice["finish_reason"] == ("stop" if at else "length")
            assert whole["text"].startswith(choice["text"])
            assert end not in choice["token_ids"][:-1]


def test_a_prompt_that_fills_the_block_is_scored_with_one_token_more(client, run):
    block = run.model.cfg.block_size
    ids = run.tokenizer.encode(run.reference.splits["val"][0].text[:200])
    assert len(ids) > block
    body = {"prompt": ids, "echo": True, "logprobs": 1, "temperature": 0}
    one = complete(client, **body, max_tokens=1)["choices"][0]
    none = complete(client, **body, max_tokens=0)["choices"][0]
    assert one["logprobs"]["token_logprobs"][:-1] == none["logprobs"]["token_logprobs"]
    after = complete(client, prompt=ids[-(block // 2) :], max_tokens=1, temperature=0)
    assert one["text"] == none["text"] + after["choices"][0]["text"]
    status, message = error_of(client.post("/v1/completions", json=body | {"max_tokens": 2}))
    assert status == 400
    assert f"{len(ids):,} tokens" in message
    assert f"at most {block - 1}" in message


def test_a_prompt_is_cut_where_that_is_asked_for(client, run):
    ids = run.tokenizer.encode(run.reference.splits["val"][0].text[:200])
    body = {"max_tokens": 8, "seed": 3, "return_token_ids": True, "echo": True}
    cut = complete(client, prompt=ids, truncate_prompt_tokens=16, **body)["choices"][0]
    assert cut["prompt_token_ids"] == ids[-16:]
    assert complete(client, prompt=ids[-16:], **body)["choices"] == [cut]
    short = complete(client, prompt="宝玉", truncate_prompt_tokens=16, **body)["choices"]
    assert complete(client, prompt="宝玉", **body)["choices"] == short
    high = {"prompt": "宝玉", "truncate_prompt_tokens": run.model.cfg.block_size}
    assert error_of(client.post("/v1/completions", json=high))[0] == 400


def test_usage_counts_a_prompt_once(client, run):
    answer = complete(client, prompt="宝玉", max_tokens=8, n=2, seed=1)
    prompt = 1 + len(run.tokenizer.encode("宝玉"))
    assert answer["usage"]["prompt_tokens"] == prompt
    assert 8 < answer["usage"]["completion_tokens"] <= 16
    assert answer["usage"]["total_tokens"] == prompt + answer["usage"]["completion_tokens"]


# --- copied spans ---


def test_copied_spans_in_parts_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    chapters = [Chapter(n, "", "".join(rng.choice(list("甲乙丙"), 300))) for n in range(1, 6)]
    index = OverlapIndex(chapters)
    for case in range(30):
        texts = [chapters[k].text for k in rng.integers(0, 5, 6)]
        pieces = [t[a : a + rng.integers(1, 40)] for t in texts for a in rng.integers(0, 260, 2)]
        text = "丁".join(pieces) if case % 2 else "".join(pieces)
        spans, told, at = CopiedSpans(index), [], 0
        while at < len(text):
            part = text[at : at + int(rng.integers(1, 30))]
            at += len(part)
            for span in spans.feed(part):
                assert text[span.start : span.end] in chapters[span.chapter - 1].text
                assert span.end <= at
                told.append([span.start, span.end, span.chapter])
        whole = [[s.start, s.end, s.chapter] for s in index.measure(text).spans]
        assert whole
        assert merged(told) == whole


def test_a_choice_tells_what_it_recites(client, run):
    answer = complete(client, prompt="宝玉", max_tokens=20, copied=True, n=2)
    for choice in answer["choices"]:
        spans = run.reference.overlap_index.measure(choice["text"]).spans
        assert choice["copied"] == [[span.start, span.end, span.chapter] for span in spans]
        assert choice["recitation"] == recitation(run.reference, choice["text"])
        assert choice["recitation"].startswith("recitation: 5-grams from the training text ")


def test_without_the_book_an_answer_says_so(client):
    body = {"prompt": "宝玉", "max_tokens": 8, "seed": 1, "copied": True}
    answer = complete(client, model="bare", **body)
    assert answer["model"] == "bare"
    (choice,) = answer["choices"]
    assert choice["copied"] is None
    assert choice["recitation"] == "recitation: not measured, the book is not at hand"
    assert choice["text"] == complete(client, **body)["choices"][0]["text"]
    books = [model["book"] for model in client.get("/v1/models").json()["data"]]
    assert books == ["book", None]


# --- clients that leave ---


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_rows(client, stream):
    engine = client.app.state.models["tiny"].engine
    body = {"prompt": ["宝玉"] * 8, "max_tokens": 4000, "n": 8, "stream": stream}

    def enough(sent):
        return len(sent) > 3 if stream else engine.stats().active == 8

    sent = request_that_leaves(client.app, body, after=enough)
    wait_until(lambda: engine.stats().active + engine.stats().waiting == 0, seconds=20)
    kinds = [message["type"] for message in sent]
    assert kinds[:1] == ["http.response.start"]
    assert stream is False or sent[-1]["more_body"]
    assert client.app.state.in_work == 0
    assert 'hlm_requests_total{route="/v1/completions",status="499"}' in client.get("/metrics").text


def test_a_client_that_leaves_ends_its_scores(client, run, monkeypatch):
    app, ended = client.app, how_calls_end(monkeypatch, run.evaluator, "token_details")
    text = run.reference.splits["train"][0].text * 100
    body = {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
    # A job that still waits for a thread is dropped before it scores anything.
    request_that_leaves(app, body, after=lambda _: ended)
    wait_until(lambda: app.state.jobs.pending == 0)
    assert ended == ["early"]


# --- after the warm-up ---


def test_nothing_compiles_after_the_warm_up(client):
    import jax

    before = compilations().total
    assert before > 0
    for n, tokens, more in [
        (1, 1, {}),
        (3, 40, {"logprobs": 5, "echo": True}),
        (16, 9, {"temperature": 0, "repetition_penalty": 1.2, "top_k": 3}),
        (2, 33, {"min_p": 0.1, "top_p": 0.5, "logprobs": 20}),
    ]:
        for prompt in ("宝", "宝玉笑道：", [5] * 31, ["甲", "乙丙丁戊"]):
            complete(client, prompt=prompt, n=n, max_tokens=tokens, **more)
    complete(client, prompt=[5] * 400, max_tokens=1, echo=True, logprobs=1)
    assert compilations().total == before
    jax.jit(lambda x: x * 3 + 1)(np.float32(2))
    assert compilations().total == before + 1
    assert f"hlm_compilations_total {before + 1:.1f}" in client.get("/metrics").text
