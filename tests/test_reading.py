"""The reading routes: what they answer is what the package computes, and a search always ends."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import HOSTILE
from serving import error_of, posted, refused, rows_of, serving, text_of, two_models

from hlm_jax.run import load_run
from hlm_jax.serving import reading
from hlm_jax.serving.models import served

TEXT = "宝玉笑道：“你来了，坐。”\n众人听了，都笑起来。\n"


@pytest.fixture(scope="module")
def client(trained):
    """A server of two checkpoints of one run, which share an engine: here none writes."""
    with serving(two_models(trained[0])) as client:
        yield client


@pytest.fixture(scope="module")
def names(client):
    return list(client.app.state.models)


@pytest.fixture(scope="module")
def run(client, names):
    return client.app.state.models[names[0]].run


# --- surprisal ---


def test_rows_are_those_of_the_table(client, run):
    found = posted(client, text=TEXT, top=3)
    table = run.surprisal(TEXT, top=3, reference=run.reference)
    rows = list(table.known_rows())
    assert [set(row) for row in found["rows"]] == [set(row) for row in rows]
    for row, expected in zip(found["rows"], rows, strict=True):
        assert row["bits"] == pytest.approx(expected["bits"], abs=2e-5)
        for name in ("start", "end", "text", "token_id", "rank", "copied_len", "is_speech"):
            assert row[name] == expected[name]
        assert [c[:-7] for c in (row["top_1"], row["top_3"])] == [
            expected[name][:-7] for name in ("top_1", "top_3")
        ]
    assert text_of(found["rows"]) == TEXT
    sums = found["sums"]
    assert sums["bits"] == pytest.approx(float(np.sum(table.columns["bits"])), rel=1e-5)
    assert sums["bits_per_char"] == pytest.approx(sums["bits"] / len(TEXT))
    assert sums["ngram_bits_per_char"] == pytest.approx(run.reference.baseline_bits_per_char(TEXT))


def test_a_csv_is_the_file_of_the_script(client, run, tmp_path):
    number = run.reference.splits["val"][0].number
    answer = client.post("/surprisal", json={"chapters": number, "format": "csv", "top": 1})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="surprisal.csv"'
    rows = rows_of(answer.text)
    assert [name for name in rows[0] if name.startswith("top_")] == ["top_1"]
    assert {row["chapter"] for row in rows} == {str(number)}
    assert text_of(rows) == run.reference.splits["val"][0].text


def test_trained_chapters_and_copies_of_them_are_told(client, run):
    trained, held = (run.reference.splits[name][0] for name in ("train", "val"))
    found = posted(client, chapters=[trained.number])
    assert found["warnings"][0].startswith("TRAINED ON:")
    assert found["documents"][0]["split"] == "train"
    assert not posted(client, chapters=str(held.number))["warnings"]
    mixed = held.text[:300] + trained.text[100:160]
    found = posted(client, text=mixed)
    assert found["documents"][0]["split"] == "val"
    assert re.match("PARTLY TRAINED ON: 1[0-9]% of this text stands", found["warnings"][0])
    assert posted(client, text=trained.text[:200])["documents"][0]["split"] == "train"


def test_a_text_is_cleaned_where_that_is_asked_for(client):
    raw = "　　寶玉笑道：\t“你”\r\n\r\n坐"
    assert text_of(posted(client, text=raw)["rows"]) == raw
    found = posted(client, text=raw, clean=True)
    assert found["text"] == text_of(found["rows"]) == "寶玉笑道： “你”\n坐\n"


def test_characters_and_strides(client):
    by_character = posted(client, text=TEXT, unit="char", top=2)
    assert [row["text"] for row in by_character["rows"]] == list(TEXT)
    long = TEXT * 6
    plain, steady = (posted(client, text=long, **more)["rows"] for more in ({}, {"stride": 4}))
    assert [r["bits"] for r in plain] != [r["bits"] for r in steady]
    least = min(row["context_tokens"] for row in steady[40:])
    assert least > min(row["context_tokens"] for row in plain[40:])


def test_the_heat_map_gets_what_the_file_has(client, run, names):
    from hlm_jax.analysis.page.heatmap import reader_data
    from hlm_jax.analysis.surprisal import surprisal_table

    heat = posted(client, text=TEXT, format="heat", top=5)["heat"]
    table = surprisal_table(run, TEXT, top=5, reference=run.reference)
    expected = reader_data({names[0]: table})
    assert heat["words"] == expected["words"]
    assert list(heat["scales"]) == list(expected["scales"])
    assert heat["top"] == 5
    assert heat["models"] == [names[0]]


def test_two_requests_score_once(client, monkeypatch):
    calls = []
    score = reading.surprisal_table
    monkeypatch.setattr(
        reading, "surprisal_table", lambda *a, **k: calls.append(1) or score(*a, **k)
    )
    text = "此文只算一次。"
    assert "top_1" not in posted(client, text=text)["rows"][0]
    assert "top_4" in posted(client, text=text, top=4)["rows"][0]
    posted(client, text=text, format="heat")
    assert len(calls) == 1
    for i in range(reading.KEPT + 1):
        posted(client, text=f"{text}{i}")
    kept = reading.tables_of(SimpleNamespace(app=client.app))._kept
    assert len(kept) == reading.KEPT
    monkeypatch.setattr(reading, "KEPT_ROWS", 20)
    posted(client, text=text * 3)
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "give text or chapters, one of them"),
        ({"text": "宝", "chapters": 1}, "one of them"),
        ({"text": ""}, "the text is empty"),
        ({"text": " \n", "clean": True}, "the text is empty"),
        ({"text": 3}, "text must be a string"),
        ({"text": "宝", "unit": "word"}, 'unit must be "token" or "char"'),
        ({"text": "宝", "unit": "char", "stride": 4}, "a stride is of tokens"),
        ({"text": "宝", "top": 21}, "top must be a whole number from 0 to 20"),
        ({"text": "宝", "stride": 33}, "stride must be a whole number from 1 to 32"),
        ({"text": "宝", "format": "xml"}, "format must be"),
        ({"text": "宝", "tops": 2}, '"tops" is not supported here: is top meant\\?'),
        ({"chapters": 1, "clean": True}, "chapters are clean already"),
        ({"chapters": 999}, "the book has no chapter 999"),
        ({"chapters": "a"}, "chapters a:"),
        ({"chapters": True}, "chapters must be"),
        ({"text": "玉" * 5_001, "unit": "char"}, "5,001 characters by character: at most 5,000"),
        ({"text": "玉" * 60_001}, "at most 60,000"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(client, body, reason):
    assert re.search(reason, refused(client.post("/surprisal", json=body)))


def test_hostile_texts_come_back_as_they_are(client):
    for text in (HOSTILE.replace("\ud800", ""), "\0", "a\r\nb\u2028", "😀 龘 e\u0301"):
        found = posted(client, text=text)
        assert found["documents"][0]["chars"] == len(text)
        covered = {i for row in found["rows"] for i in range(row["start"], row["end"])}
        assert covered == set(range(len(text)))
        posted(client, text=text, format="heat", top=2)


# --- two models ---


def test_two_models_are_compared_over_common_stretches(client, names):
    found = posted(client, "/compare", text=TEXT, models=names)
    a, b = (posted(client, text=TEXT, model=name) for name in names)
    assert [one["model"] for one in found["models"]] == names
    per_char = [one["sums"]["bits_per_char"] for one in (a, b)]
    assert found["difference_bits_per_char"] == pytest.approx(per_char[0] - per_char[1])
    rows = found["rows"]
    assert "".join(row["text"] for row in rows) == TEXT
    for name, one in (("bits_a", a), ("bits_b", b)):
        total = sum(row[name] for row in rows)
        assert total == pytest.approx(one["sums"]["bits"], rel=1e-5)
    assert all(
        row["difference"] == pytest.approx(row["bits_a"] - row["bits_b"], abs=1e-5) for row in rows
    )
    swapped = posted(client, "/compare", text=TEXT, models=names[::-1])
    assert swapped["difference_bits_per_char"] == -found["difference_bits_per_char"]
    csv_rows = rows_of(client.post("/compare", json={"text": TEXT, "format": "csv"}).text)
    assert [row["start"] for row in csv_rows] == [str(row["start"]) for row in rows]
    heat = posted(client, "/compare", chapters=3, format="heat")["heat"]
    assert heat["models"] == names
    assert "difference" in heat["scales"]


def test_a_pair_is_two_names(client, names):
    for models in ([names[0]], [names[0]] * 2, "ab", [1, 2]):
        body = {"text": TEXT, "models": models}
        assert "models must be" in refused(client.post("/compare", json=body))
    body = {"text": TEXT, "models": [names[0], "x"]}
    refused(client.post("/compare", json=body), 404)


# --- whatever is sent ---

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["宝玉笑道", "char", "csv", "heat", "1-3", "left", "tiny@12"]),
    st.lists(st.integers(-1, 30) | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)
BODY = ("text", "chapters", "unit", "top", "stride", "clean", "format", "model", "models", "x")
QUERY = ("words", "width", "sort", "chapters", "limit", "offset", "format", "model", "scores")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_nothing_that_is_sent_is_an_error_of_the_server(client, data):
    path = data.draw(st.sampled_from(["/surprisal", "/compare", "/kwic", "/chapters"]))
    names = QUERY if path in ("/kwic", "/chapters") else BODY
    fields = data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=5))
    if names is QUERY:
        words = {name: str(value) for name, value in fields.items()}
        answer = client.get(path, params=words | data.draw(st.sampled_from([{}, {"words": "玉"}])))
    else:
        answer = client.post(path, json=data.draw(st.sampled_from([{}, {"text": "玉"}])) | fields)
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        error_of(answer)


# --- without a book, or a second model ---


def test_without_the_book_every_route_says_so(trained):
    run = load_run(trained[0])
    with serving(served([(run, None)], max_rows=1)) as client:
        for answer in (
            client.get("/chapters"),
            client.get("/chapters/1"),
            client.get("/kwic", params={"words": "玉"}),
            client.post("/surprisal", json={"chapters": 1}),
        ):
            assert "is not at hand" in refused(answer, 409)
        found = posted(client, text=TEXT)
        assert "without the model's book" in found["notes"][0]
        assert found["rows"][0]["ngram_bits"] is None
        assert "start the server with" in refused(client.post("/compare", json={"text": "宝"}), 409)


def test_no_answer_names_a_path_of_the_machine(client, trained):
    answers = [
        client.get("/"),
        client.get("/chapters"),
        client.get("/kwic", params={"words": "玉"}),
        client.post("/surprisal", json={"text": "宝玉"}),
        client.post("/compare", json={"text": "宝玉"}),
        client.post("/surprisal", json={"chapters": 999}),
    ]
    for answer in answers:
        assert str(trained[0].parent) not in answer.text
        assert "/tmp/" not in answer.text
