"""The routes of the book: chapters, their curve and occurrences; a search always ends."""

import time
from xml.etree import ElementTree

import pytest
from serving import got, refused, rows_of, serving, two_models, wait_until

from hlm_jax.analysis.stylometry import concordance
from hlm_jax.serving import book, search


@pytest.fixture(scope="module")
def client(trained):
    """A server of two checkpoints of one run, which share an engine: here none writes."""
    with serving(two_models(trained[0])) as client:
        yield client


@pytest.fixture(scope="module")
def run(client):
    return next(iter(client.app.state.models.values())).run


# --- chapters ---


def test_chapters_are_computed_one_by_one_and_kept(client, run):
    first = got(client, "/chapters", scores=False)
    chapters = first["chapters"]
    assert first["pending"] == len(chapters) == sum(map(len, run.reference.splits.values()))
    assert all(one["bits_per_char"] is None for one in chapters)
    wait_until(lambda: got(client, "/chapters")["pending"] == 0)
    found = got(client, "/chapters")["chapters"]
    assert [one["number"] for one in found] == sorted(one["number"] for one in found)
    held = next(one for one in found if one["split"] == "val")
    text = run.reference.splits["val"][0].text
    assert held["number"] == run.reference.splits["val"][0].number
    assert held["bits_per_char"] == pytest.approx(run.score(text)[0].bits_per_char, rel=1e-4)
    assert held["ngram_bits_per_char"] == run.reference.baseline_bits_per_char(text)
    table = rows_of(client.get("/chapters", params={"format": "csv"}).text)
    assert list(table[0]) == list(book.COLUMNS)
    assert len(table) == len(found)


def test_the_curve_is_drawn_for_the_page_and_as_a_file(client):
    wait_until(lambda: got(client, "/chapters")["pending"] == 0)
    chart = got(client, "/chapters", chart=True)["chart"]
    assert "style=" not in chart  # the page's policy refuses it
    assert 'href="#panel=read&amp;ch=1"' in chart
    for lang, word in (("en", "trained on"), ("zh", "训练所用")):
        answer = client.get("/chapters", params={"format": "svg", "lang": lang})
        assert answer.headers["content-type"] == "image/svg+xml"
        drawing = ElementTree.fromstring(answer.text)
        texts = ["".join(text.itertext()) for text in drawing.findall(".//{*}text")]
        assert word in texts
        assert ("回" in texts) == (lang == "zh")
        assert "5-gram" in texts
        assert "var(" not in answer.text
        assert not drawing.findall(".//{*}a")


def test_a_chapter_is_read(client, run):
    chapter = run.reference.splits["val"][0]
    found = got(client, f"/chapters/{chapter.number}")
    assert found["text"] == chapter.text
    assert (found["heading"], found["split"]) == (chapter.heading, "val")
    refused(client.get("/chapters/999"), 404)
    refused(client.get("/chapters/one"), 404)


# --- occurrences ---


def chapters_of(run):
    return [chapter for chapter, _ in book.split_chapters(run.reference)]


def test_hits_are_those_of_the_concordance(client, run):
    every = chapters_of(run)
    for query in ({}, {"sort": "left", "width": 4}, {"sort": "right"}):
        found = got(client, "/kwic", words="宝玉 道", limit=7, offset=3, **query)
        hits = concordance.kwic(every, ["宝玉", "道"], **query)
        assert found["total"] == len(hits)
        places = [(hit.chapter, hit.offset, hit.left, hit.match, hit.right) for hit in hits[3:10]]
        assert [tuple(hit.values()) for hit in found["hits"]] == places
    word = next(one for one in found["words"] if one["word"] == "道")
    own = concordance.kwic(every, "道")
    spread = concordance.dispersion_of(every, own)
    assert (word["total"], word["dp"], word["d"]) == (spread.total, spread.dp, spread.d)
    assert word["places"] == concordance.places(every, own)
    assert found["chars"] == sum(len(chapter.text) for chapter in every)
    rows = rows_of(client.get("/kwic", params={"words": "道", "format": "csv"}).text)
    assert len(rows) == spread.total
    few = got(client, "/kwic", words="道", chapters="1-3")
    assert {hit["chapter"] for hit in few["hits"]} <= {1, 2, 3}
    assert few["total"] == sum(chapter.text.count("道") for chapter in every[:3])


def test_the_other_script_is_named_where_nothing_is_found(client):
    found = got(client, "/kwic", words="寶玉")
    assert (found["total"], found["hits"]) == (0, [])
    (word,) = found["words"]
    assert word["variants"] == {"宝玉": got(client, "/kwic", words="宝玉")["total"]}
    assert (word["dp"], word["d"]) == (None, None)


def test_a_regular_expression_is_found_or_refused_in_time(client, run, monkeypatch):
    found = got(client, "/kwic", words="[宝黛]玉", regex=True)
    hits = concordance.kwic(chapters_of(run), "[宝黛]玉", regex=True)
    assert found["total"] == len(hits)
    assert found["hits"][0]["match"] == hits[0].match
    bad = {"words": "(", "regex": True}
    assert "is no regular expression" in refused(client.get("/kwic", params=bad))
    empty = {"words": "a*", "regex": True}
    assert "matches the empty text" in refused(client.get("/kwic", params=empty))
    monkeypatch.setattr(search, "SECONDS", 1)
    slow = {"words": "(?:.*)*$x", "regex": True}
    begin = time.monotonic()
    assert "make it simpler" in refused(client.get("/kwic", params=slow))
    assert time.monotonic() - begin < 10
    monkeypatch.setattr(search, "CHILDREN", 0)
    refused(client.get("/kwic", params={"words": "玉", "regex": True}), 429)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({}, "words is missing"),
        ({"words": "　 "}, "give a word to look for"),
        ({"words": "玉", "sort": "up"}, "sort must be"),
        ({"words": "玉", "width": 101}, "width must be"),
        ({"words": "玉", "limit": "x"}, "limit must be"),
        ({"words": "玉", "chapters": "99"}, "the book has no chapter 99"),
        ({"words": "玉" * 201}, "words has 201 characters"),
        ({"words": "玉", "with": "石"}, "is width meant"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_name(client, query, reason):
    assert reason in refused(client.get("/kwic", params=query))


def test_too_many_hits_are_refused(client, monkeypatch):
    monkeypatch.setattr(search, "HITS", 3)
    assert "look for something rarer" in refused(client.get("/kwic", params={"words": "道"}))
