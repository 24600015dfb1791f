"""The heat map: the exact text and every figure, in one file that no text can break."""

import base64
import itertools
import json
import re
import shutil
import subprocess
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from pages import HOSTILE, Reader, check_script, contrast, drawings, luminance

from hlm_jax.analysis.page import asset, both, colours, heatmap
from hlm_jax.analysis.page.cells import _reaching, cells_of
from hlm_jax.analysis.surprisal.table import Document, SurprisalTable
from hlm_jax.errors import UserError

TEXT = "第一回　甄士隐\n此开卷第一回也。宝玉笑道：“你来了，坐。”\n众人听了，都笑起来。\n"


def table(texts, *, longest=3, seed=0, splits="val", top=2, rows=None, **columns):
    """A made-up table of these texts; `rows` are (start, end) instead of random tokens."""
    rng = np.random.default_rng(seed)
    splits = [splits] * len(texts) if isinstance(splits, str) else splits
    documents, units = [], []
    for number, (text, split) in enumerate(zip(texts, splits, strict=True), start=1):
        documents.append(SimpleNamespace(name="book", chapter=number, text=text, split=split))
        spans = rows or []
        while not rows and (at := spans[-1][1] if spans else 0) < len(text):
            spans.append((at, min(len(text), at + int(rng.integers(1, longest + 1)))))
        units += [(i, a, b, text[a:b]) for i, (a, b) in enumerate(spans)]
    index, start, end, words = (list(column) for column in zip(*units, strict=True))
    n = len(units)
    made = {
        "index": np.array(index),
        "start": np.array(start),
        "end": np.array(end),
        "text": words,
        "bits": rng.exponential(5, n),
        "rank": rng.integers(1, 3000, n),
        "entropy_bits": rng.uniform(0, 9, n),
        "context_tokens": np.minimum(index, 64),
        "unigram_bits": rng.exponential(8, n),
        "ngram_bits": rng.exponential(6, n),
        "copied_len": rng.integers(0, 4, n),
        "is_speech": rng.random(n) < 0.5,
    }
    for k in range(top):
        made[f"top_{k + 1}"] = [f"{w if k else '的:'}:{0.5 / (k + 1):.4f}" for w in words]
    return SimpleNamespace(unit="token", columns=made | columns, documents=documents)


def data_of(page: str) -> dict:
    return json.loads(Reader(page).scripts[0])


def unpacked(page: str) -> list[dict]:
    """The columns of every part."""
    packed = (base64.b64decode(part["z"]) for part in data_of(page)["pages"])
    return [json.loads(zlib.decompress(one)) for one in packed]


# --- what the file holds ---


def test_the_file_holds_the_exact_text_and_every_figure():
    made = table([TEXT, TEXT[::-1]])
    page = heatmap.heatmap(made, title="Book")
    parts = unpacked(page)
    assert [part["t"] for part in parts] == [TEXT, TEXT[::-1]]
    columns = [part["m"][0] for part in parts]
    joined = {key: [value for c in columns for value in c[key]] for key in "nbregucxs"}
    np.testing.assert_allclose(np.array(joined["b"]) / 1000, made.columns["bits"], atol=6e-4)
    np.testing.assert_allclose(np.array(joined["g"]) / 100, made.columns["ngram_bits"], atol=6e-3)
    np.testing.assert_allclose(np.array(joined["e"]) / 100, made.columns["entropy_bits"], atol=6e-3)
    assert joined["r"] == made.columns["rank"].tolist()
    assert joined["x"] == made.columns["context_tokens"].tolist()
    assert joined["s"] == made.columns["is_speech"].astype(int).tolist()
    assert joined["n"] == (made.columns["end"] - made.columns["start"]).tolist()
    words = data_of(page)["words"]
    first = made.columns["text"][0]
    assert [words[i] for i in columns[0]["a"][:2]] == ["的:", first]
    assert columns[0]["p"][:2] == [500, 250]
    assert data_of(page)["top"] == 2


def test_the_bytes_of_one_character_are_one_unit():
    rows = [(0, 1), (1, 2), (1, 2), (1, 2), (2, 4)]
    numbers = {"bits": [1, 2, 3, 4, 5], "rank": [1, 9, 7, 8, 2], "ngram_bits": [1, 6, 0, 0, 2]}
    numbers["entropy_bits"] = [1, 2, 3, 4, 5]
    made = table(["甲𠀀乙丙"], rows=rows, **{k: np.array(v) for k, v in numbers.items()})
    columns = unpacked(heatmap.heatmap(made, title="t"))[0]["m"][0]
    assert columns["n"] == [1, 1, 2]
    assert columns["b"] == [1000, 9000, 5000]
    assert columns["g"] == [100, 600, 200]
    assert columns["r"] == [1, 9, 2]
    assert columns["e"] == [100, 200, 500]
    assert columns["w"] == {"1": 3}


def test_figures_that_are_missing_are_null_or_left_out():
    rows = [(0, 2), (3, 4)]
    numbers = {"bits": [np.nan, 2], "rank": [-1, 5], "ngram_bits": [np.nan] * 2}
    numbers["copied_len"] = [-1, -1]
    made = table(["甲乙丙丁戊"], rows=rows, **{k: np.array(v) for k, v in numbers.items()})
    page = heatmap.heatmap(made, title="t")
    columns = unpacked(page)[0]["m"][0]
    assert columns["r"] == [None, 5]
    assert columns["b"] == [None, 2000]
    assert not {"g", "c"} & set(columns)
    assert columns["gaps"] == {"1": 1}
    assert list(data_of(page)["scales"]) == ["bits", "rank", "entropy"]


def test_a_copy_colours_every_character_that_it_reaches_over():
    rng = np.random.default_rng(3)
    for _ in range(20):
        start = np.cumsum(rng.integers(1, 4, 60))
        copied = np.where(rng.random(60) < 0.2, rng.integers(0, 40, 60), rng.integers(0, 3, 60))
        expected = [
            max([c, *(k for s, k in zip(start[:i], copied[:i], strict=True) if s + k > at)])
            for i, (at, c) in enumerate(zip(start, copied, strict=True))
        ]
        assert _reaching(start, copied.astype(float)).tolist() == expected


def test_long_texts_are_cut_where_a_line_and_a_unit_end(monkeypatch):
    monkeypatch.setattr(heatmap, "PART", 50)
    text = TEXT * 6 + "甲" * 130
    named = {"a": table([text], seed=1), "b": table([text], seed=2, longest=2)}
    page = heatmap.heatmap(named, title="t")
    parts, pages = unpacked(page), data_of(page)["pages"]
    assert "".join(part["t"] for part in parts) == text
    assert all(len(part["t"]) <= 50 for part in parts)
    assert sum(part["t"].endswith("\n") for part in parts) >= 5
    assert [p["id"] for p in pages] == [f"1.{i + 1}" for i in range(len(pages))]
    assert [p["from"] for p in pages] == np.cumsum([0, *(len(p["t"]) for p in parts)])[:-1].tolist()
    for model, made in enumerate(named.values()):
        for part in parts:
            assert sum(part["m"][model]["n"]) == len(part["t"])
        bits = sum(sum(part["m"][model]["b"]) for part in parts) / 1000
        assert bits == pytest.approx(made.columns["bits"].sum(), rel=1e-3)


def test_a_short_text_is_a_small_file_and_a_long_one_takes_few_bytes_a_character():
    short = heatmap.heatmap(table([TEXT]), title="t")
    assert len(short) < 60_000
    text = TEXT * 200
    long = heatmap.heatmap(table([text] * 5, top=0), title="t")
    assert (len(long) - len(short)) / (5 * len(text)) < 18


def test_the_same_tables_give_the_same_bytes():
    assert heatmap.heatmap(table([TEXT]), title="t") == heatmap.heatmap(table([TEXT]), title="t")


# --- hostile texts ---


def test_no_text_and_no_name_becomes_markup():
    made = table([HOSTILE, TEXT], top=3, splits=["train", HOSTILE])
    made.documents[0].name = HOSTILE
    made.notes = [HOSTILE]
    page = heatmap.heatmap({HOSTILE: made, "b": made}, title=HOSTILE)
    page.encode()
    reader = Reader(page)
    assert len(reader.scripts) == 2
    assert "img" not in [tag for tag, _ in reader.elements]
    assert all(
        not name.startswith("on") for _, attributes in reader.elements for name in attributes
    )
    assert unpacked(page)[0]["t"] == HOSTILE
    script = "".join(map(asset, (*heatmap.SCRIPTS, "standalone.js", "page.js")))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(", script)
    assert "http" not in script


# --- what is shown ---


def test_the_curve_stands_beside_the_5_gram_where_that_is_fair():
    texts, splits = [TEXT] * 4, ["train", "train", "val", "test"]
    made = table(texts, splits=splits)
    page = heatmap.heatmap(made, title="t")
    (drawing,) = drawings(page)
    assert [a.get("href") for a in drawing.iter("a")] == ["#ch=1", "#ch=2", "#ch=3", "#ch=4"]
    tips = [next(a.iter("title")).text for a in drawing.iter("a")]
    sums = [c.numbers["b"].sum() / len(TEXT) for c in cells_of(made)]
    for tip, each in zip(tips, sums, strict=True):
        assert float(re.search(r"模型: ([\d.]+)", tip)[1]) == pytest.approx(each, rel=1e-3)
        assert "第一回" in tip
    grams = [
        float(re.search(r"5-gram: ([\d.]+)", tip)[1]) if i > 1 else tip
        for i, tip in enumerate(tips)
    ]
    assert grams[3] == pytest.approx(cells_of(made)[3].numbers["g"].sum() / len(TEXT), rel=1e-3)
    assert "5-gram: –" in tips[0]
    assert len(list(next(g for g in drawing.iter("g") if "hatch" in (g.get("fill") or "")))) == 1
    assert "trained on" in page
    both_models = {"a": table(texts), "b": made}  # a was trained on none, and its 5-gram neither
    (drawing,) = drawings(heatmap.heatmap(both_models, title="t"))
    assert "5-gram: –" not in "".join(title.text or "" for title in drawing.iter("title"))
    assert len(list(drawing.iter("pattern"))) == 1
    assert not drawings(heatmap.heatmap(made, title="t", curve=False))
    assert not drawings(heatmap.heatmap(table([TEXT]), title="t"))


def test_addresses_are_chapter_numbers_where_these_differ():
    made = table([TEXT] * 3)
    for document, number in zip(made.documents, (5, 10, 80), strict=True):
        document.chapter = number
    pages = data_of(heatmap.heatmap(made, title="t"))["pages"]
    assert [page["id"] for page in pages] == ["5", "10", "80"]
    assert pages[0]["name"] == "5 · 第一回　甄士隐"
    for document, name in zip(made.documents, "abc", strict=True):
        document.chapter, document.name = 1, name
    pages = data_of(heatmap.heatmap(made, title="t"))["pages"]
    assert [page["id"] for page in pages] == ["1", "2", "3"]
    assert pages[1]["name"] == "1 · b · 第一回　甄士隐"


def test_two_models_can_be_subtracted_and_must_have_the_same_texts():
    a, b = table([TEXT]), table([TEXT], seed=1, splits="train")
    data = data_of(heatmap.heatmap({"a": a, "b": b}, title="t"))
    assert data["models"] == ["a", "b"]
    assert data["pages"][0]["splits"] == ["val", "train"]
    assert "difference" in data["scales"]
    assert "difference" not in data_of(heatmap.heatmap(a, title="t"))["scales"]
    with pytest.raises(UserError, match="a and b have different texts"):
        heatmap.heatmap({"a": a, "b": table([TEXT[1:]])}, title="t")
    with pytest.raises(UserError, match="no text"):
        heatmap.heatmap({}, title="t")


def test_both_languages_are_in_the_page():
    page = heatmap.heatmap(table([TEXT] * 2), title=both("Title", "标题"), lang="zh")
    assert '<html lang="zh">' in page
    spans = re.findall(r'class="(en|zh)"', page)
    assert spans.count("en") == spans.count("zh") > 10
    for scale in data_of(page)["scales"].values():
        assert len(scale["label"]) == len(scale["note"]) == 2
        assert len(scale["names"]) == len(scale["edges"]) + 1


def test_a_table_of_the_package_is_shown_by_token_and_by_character():
    made = table([TEXT, TEXT])
    documents = [Document("book", d.chapter, d.text, d.split) for d in made.documents]
    n = 2 * len(TEXT)
    names = ("unigram_bits", "ngram_bits", "copied_len", "is_speech")
    characters = dict(
        zip(names, (np.ones(n), np.ones(n), np.ones(n, int), np.ones(n, bool)), strict=True)
    )
    more = {"token_id": made.columns["index"], "paragraph": made.columns["index"]}
    real = SurprisalTable("token", made.columns | more, documents, characters, ["a <note>"])
    tokens = heatmap.heatmap(real, title="t")
    assert unpacked(tokens) == unpacked(heatmap.heatmap(made, title="t"))
    assert "a &lt;note&gt;" in tokens
    by_character = unpacked(heatmap.heatmap(real.by_character(), title="t"))
    for part, chars in zip(unpacked(tokens), by_character, strict=True):
        assert chars["m"][0]["n"] == [1] * len(TEXT)
        assert sum(chars["m"][0]["b"]) == sum(part["m"][0]["b"])
        assert chars["m"][0]["g"] == [100] * len(TEXT)


# --- colours ---


def test_every_class_can_be_read_in_both_themes():
    for name, themes in colours.PALETTES.items():
        for theme in themes:
            for background, ink in colours.colours(name, theme):
                assert contrast(background, ink) >= 4.5, (name, theme, background)
    for scale in colours.SCALES.values():
        assert (
            len(scale.names)
            == len(scale.edges) + 1
            == len(colours.PALETTES[scale.palette]["light"])
        )


@pytest.mark.parametrize("name", ["heat", "entropy", "copied"])
def test_more_is_darker_on_paper_and_brighter_in_the_dark(name):
    for theme, sign in (("light", -1), ("dark", 1)):
        shades = [luminance(background) for background, _ in colours.colours(name, theme)]
        assert (sign * np.diff(shades) > 0).all()


def test_classes_begin_at_their_edges():
    assert colours.SCALES["rank"].classes([1, 10, 11, 100, 101, 1000, 1001, np.nan]).tolist() == [
        *(0, 0, 1, 1, 2, 2, 3, -1)
    ]
    assert colours.SCALES["copied"].classes([0, 4, 5, 9, 15, 30]).tolist() == [0, 0, 1, 1, 3, 4]
    css = colours.style()
    assert css.count("--heat-6:") == 4
    assert ".rank-3{background:var(--rank-3);color:var(--rank-3i)}" in css


def test_a_passage_needs_no_script_and_no_style_sheet():
    units = [("宝玉", 12.0, "rank 3"), ("<b>", 0.1, '"'), ("。", float("nan"), "")]
    text = colours.passage(units, colours.SCALES["bits"])
    elements = Reader(text).elements
    assert {tag for tag, _ in elements} == {"div", "span"}
    assert all("class" not in attributes for tag, attributes in elements if attributes.get("title"))
    low, high = (colours.colours("heat", "light")[i] for i in (0, 5))
    assert f'<span title="rank 3" style="background:{high[0]};color:{high[1]}">宝玉</span>' in text
    assert (
        f'<span title="&quot;" style="background:{low[0]};color:{low[1]}">&lt;b&gt;</span>' in text
    )
    assert "<span>。</span>" in text
    assert "2–4" in text
    assert "2–4" not in colours.passage(units, colours.SCALES["bits"], legend=False)


# --- the reader ---


def test_the_scripts_have_no_syntax_error(tmp_path):
    for name in (*heatmap.SCRIPTS, "standalone.js"):
        check_script(asset(name), tmp_path)
    check_script("".join(map(asset, ("page.js", *heatmap.SCRIPTS, "standalone.js"))), tmp_path)


def test_every_element_that_the_reader_asks_for_is_there():
    page = heatmap.heatmap(table([TEXT] * 2), title="t")
    there = {attributes.get("id") for _, attributes in Reader(page).elements}
    asked = set(re.findall(r'\bat\("([a-z0-9]+)"\)', asset("heatmap.js")))
    assert len(asked) > 10
    assert asked <= there


def test_stretches_are_the_shortest_that_both_models_border(tmp_path):
    """units.js in node against a brute force over all spans."""
    if not shutil.which("node"):
        pytest.skip("needs node")
    text = TEXT * 3 + "𠀀🐢"
    named = {"a": table([text], seed=5), "b": table([text], seed=6, longest=4)}
    packed = data_of(heatmap.heatmap(named, title="t"))["pages"][0]["z"]
    (tmp_path / "run.js").write_text(
        asset("units.js")
        + f"""
        units.unpack("{packed}").then((raw) => {{
          const part = units.opened(raw), [a, b] = part.models;
          const found = units.stretches(a, b);
          const cost = (m, from, to) => units.bits(m, units.inside(m, from, to));
          const sums = found.start.map((from, i) => [a, b].map((m) => cost(m, from, found.end[i])));
          console.log(JSON.stringify({{ found, sums, text: part.slice(0), last: part.slice(-2) }}));
        }});""",
        encoding="utf-8",
    )
    done = subprocess.run(["node", "run.js"], cwd=tmp_path, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["text"] == text
    assert answer["last"] == "𠀀🐢"
    borders = sorted(
        {0, *(set(named["a"].columns["end"].tolist()) & set(named["b"].columns["end"].tolist()))}
    )
    assert answer["found"] == {"start": borders[:-1], "end": borders[1:]}
    for made, sums in zip(named.values(), zip(*answer["sums"], strict=True), strict=True):
        start, bits = made.columns["start"], made.columns["bits"]
        expected = [bits[(start >= a) & (start < b)].sum() for a, b in itertools.pairwise(borders)]
        np.testing.assert_allclose(sums, expected, atol=0.02)
