"""The frame of the HTML files, and their charts."""

import base64
import hashlib
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import HOSTILE, Reader, check_script, contrast, drawings

from hlm_jax.analysis import page
from hlm_jax.analysis.page.axes import nice_ticks, text_width
from hlm_jax.analysis.page.drawing import svg_file
from hlm_jax.errors import UserError


def boxes(drawing: ElementTree.Element, kind: str) -> list[tuple[float, float, float, float]]:
    """Where the texts of a class stand: left, top, right, bottom."""
    found = []
    for text in drawing.iter("text"):
        if text.get("class") == kind:
            width = text_width("".join(text.itertext()))
            x, y = float(text.get("x", 0)), float(text.get("y", 0))
            x -= {"end": width, "middle": width / 2}.get(text.get("text-anchor", ""), 0)
            found.append((x, y - 11, x + width, y + 2))
    return found


def meet(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- the frame ---


def test_a_page_is_one_file_that_reaches_for_nothing():
    text = page.document("A title", "<p>body</p>", script="let x = 1;", data={"a": 1})
    assert text.startswith("<!DOCTYPE html>")
    assert 'charset="utf-8"' in text
    assert "prefers-color-scheme" in text
    assert "@media print" in text
    assert 'name="viewport"' in text
    for tag, attributes in Reader(text).elements:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert len(text) < 15_000


def test_the_policy_allows_the_script_of_the_page_alone():
    text = page.document("t", "", script="let x = '</script>';")
    reader = Reader(text)
    (policy,) = [e["content"] for tag, e in reader.elements if "http-equiv" in e]
    (script,) = reader.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "let x = '<\\/script>';" in script


def test_nothing_from_a_book_becomes_markup():
    data = {"text": HOSTILE, HOSTILE: [HOSTILE]}
    body = f"<p>{page.escape(HOSTILE)}</p>{page.table([HOSTILE], [[HOSTILE]])}"
    text = page.document(HOSTILE, body, data=data)
    text.encode()  # no half character is left
    reader = Reader(text)
    assert len(reader.scripts) == 2
    assert "img" not in [tag for tag, _ in reader.elements]
    assert json.loads(reader.scripts[0]) == data
    assert "\x00" not in text


def test_a_label_has_two_languages_and_a_button_chooses():
    label = page.both("a <b>", "甲")
    assert (
        label == '<span class="en" lang="en">a &lt;b&gt;</span><span class="zh" lang="zh">甲</span>'
    )
    assert page.escape(label) == label
    assert page.plain(label) == "a <b> · 甲"
    text = page.document(label, "", lang="zh")
    assert '<html lang="zh">' in text
    assert "<title>a &lt;b&gt;</title>" in text
    assert 'id="language"' in text
    css = page.asset("page.css")
    assert 'html[lang^="zh"] .en, html:not([lang^="zh"]) .zh { display: none; }' in css


def test_data_is_json_whatever_numbers_it_holds():
    data = {
        "a": np.array([1.5, np.nan, -np.inf]),
        "b": np.int64(3),
        4: (np.float32(0.5), None, True),
    }
    assert json.loads(page.compact_json(data)) == {
        "a": [1.5, None, None],
        "b": 3,
        "4": [0.5, None, True],
    }
    assert " " not in page.compact_json([1, 2, {"a": 1}])


def test_a_table_has_numbers_with_four_digits_and_empty_cells():
    text = page.table(
        ["a", page.both("b", "乙")], [(1.23456789, None), ("x", True), (np.int64(7), 2.0)]
    )
    cells = re.findall(r"<td.*?>(.*?)</td>", text)
    assert cells == ["1.235", "", "x", "yes", "7", "2"]
    assert text.count('class="number"') == 3
    assert page.table(["a"], [(float("nan"),)]).count("–") == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.html"
    page.write(path, page.document("t", "甲"))
    assert "甲" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["a.html"]
    with pytest.raises(UserError, match="cannot be written"):
        page.write(tmp_path / "new", "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        page.write(tmp_path / "file" / "a.html", "x")


def test_the_script_of_every_page_has_no_syntax_error(tmp_path):
    check_script(page.asset("page.js"), tmp_path)


def test_text_and_curves_can_be_read_in_both_themes():
    css = page.asset("page.css")
    blocks = re.findall(r"\{([^{}]*--paper:[^{}]*)\}", css)
    assert len(blocks) == 4  # light, dark twice, print
    themes = [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in blocks]
    assert themes[1] == themes[2]
    for theme in themes:
        for ink in ("ink", "muted"):
            assert contrast(theme[ink], theme["paper"]) >= 4.5
            assert contrast(theme[ink], theme["panel"]) >= 4.5
        assert contrast(theme["warn-ink"], theme["warn-paper"]) >= 7
        for i in range(7):
            assert contrast(theme[f"s{i}"], theme["paper"]) >= 4.5


# --- charts ---

SERIES = {
    page.both("model <1>", "模型"): [(x, 5 + math.sin(x)) for x in range(1, 121)],
    "5-gram": [(x, float("nan") if x == 33 else 6 + math.cos(x)) for x in range(1, 121)],
}


def chart(**changes) -> str:
    return page.line_chart(
        SERIES, **{"x_label": page.both("chapter", "回"), "y_label": "bits"} | changes
    )


def test_a_line_chart_is_a_drawing_with_a_name_and_tooltips():
    text = chart(names={3: HOSTILE})
    (drawing,) = drawings(text)
    assert drawing.get("role") == "img"
    assert drawing.get("aria-label") == "bits / chapter · 回: model <1> · 模型, 5-gram"
    tips = [title.text for title in drawing.iter("title")]
    assert len(tips) == 239  # a dot for each value
    assert f"2 · model <1> · 模型: {5 + math.sin(2):.4g}" in tips
    assert "alert(1)" in tips[2]
    legend = text.split('<svg class="chart"')[0]
    assert 'lang="zh">模型</span>' in legend
    assert ">5-gram</span>" in legend


def test_a_value_that_is_missing_leaves_a_gap():
    (drawing,) = drawings(chart())
    first, second = [p for p in drawing.iter("path") if (p.get("class") or "").startswith("curve")]
    assert first.get("d").count("M") == 1
    assert second.get("d").count("M") == 2
    assert first.get("class") != second.get("class")  # colour
    assert first.get("stroke-dasharray") != second.get("stroke-dasharray")  # and without colour


def test_a_chart_marks_spans_milestones_and_links():
    text = chart(
        hatched=[(0.5, 9.5), (10.5, 80.5)],
        links={x: f"#ch={x}" for x in range(1, 121)},
        names={7: "第七回"},
        marks={80.5: "80 | 81", 81.5: "near", 119: "the end"},
        caption="below <it>",
    )
    (drawing,) = drawings(text)
    pattern = next(drawing.iter("pattern")).get("id")
    spans = next(g for g in drawing.iter("g") if g.get("fill") == f"url(#{pattern})")
    first, second = (float(rect.get("width")) for rect in spans)
    assert second == pytest.approx(first * 70 / 9, rel=0.02)
    assert "trained on" in text
    links = list(drawing.iter("a"))
    assert drawing.get("role") == "group"  # what is in an image cannot be reached
    assert [link.get("href") for link in links] == [f"#ch={x}" for x in range(1, 121)]
    assert links[6].get("aria-label") == "第七回"
    tip = next(links[6].iter("title")).text
    assert tip.split("\n") == [
        "第七回",
        f"model <1> · 模型: {5 + math.sin(7):.4g}",
        f"5-gram: {6 + math.cos(7):.4g}",
    ]
    labels = boxes(drawing, "halo")
    assert len(labels) == 3
    assert not any(meet(a, b) for i, a in enumerate(labels) for b in labels[:i])
    assert all(left >= 0 and right <= 900 for left, _, right, _ in labels)
    assert "<figcaption>below &lt;it&gt;</figcaption>" in text


@pytest.mark.parametrize("high", [1, 7, 120, 99_999, 3e6])
@pytest.mark.parametrize("width", [300, 900])
def test_labels_of_an_axis_do_not_meet(high, width):
    points = {"a": [(0, 0.001), (high / 3, 123456.5), (high, -5)]}
    (drawing,) = drawings(page.line_chart(points, x_label="x", y_label="y", width=width))
    ticks = boxes(drawing, "tick")
    assert len(ticks) >= 5
    assert not any(meet(a, b) for i, a in enumerate(ticks) for b in ticks[:i])
    assert all(left >= 0 for left, *_ in ticks)


@given(st.floats(-1000, 1000), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_enclose(place, size, count):
    low = place * size
    ticks = nice_ticks(low, low + size, count)
    steps = np.diff(ticks)
    assert ticks[0] <= low + size * 1e-6
    assert ticks[-1] >= low + size * (1 - 1e-6)
    assert len(ticks) <= count * 1.01 + 2
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    mantissa = steps[0] / 10.0 ** np.floor(np.log10(steps[0] * 1.001))
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 0.01


@pytest.mark.parametrize(("lang", "word"), [("en", "model <1>"), ("zh", "模型")])
def test_a_chart_is_a_file_of_its_own(lang, word):
    text = svg_file(chart(hatched=[(1, 5)], links={3: "#a"}, names={3: HOSTILE}), lang=lang)
    drawing = ElementTree.fromstring(text)
    labels = ["".join(label.itertext()) for label in drawing.findall(".//{*}text")]
    assert labels[:3] == [word, "5-gram", {"en": "trained on", "zh": "训练所用"}[lang]]
    assert ("回" in labels) == (lang == "zh")
    assert not drawing.findall(".//{*}a")
    assert not drawing.findall(".//{*}script")
    assert "var(" not in text
    width, height = (float(drawing.get(name)) for name in ("width", "height"))
    assert drawing.get("viewBox") == f"0 0 {width:g} {height:g}"
    (plain,) = drawings(chart())
    assert height > float(plain.get("viewBox").split()[3])  # the legend is in it
    many = {f"a long name of a model {i}": [(0, i), (1, i)] for i in range(9)}
    wrapped = ElementTree.fromstring(svg_file(page.line_chart(many, x_label="x", y_label="y")))
    assert float(wrapped.get("height")) > 320 + 3 * 22


def test_points_have_a_form_for_every_group_and_labels_that_do_not_meet():
    rng = np.random.default_rng(0)
    points = [(*rng.normal(size=2), f"第{i}回", "ab"[i % 2]) for i in range(80)]
    text = page.scatter(
        [*points, (1, float("nan"), "lost", "a")],
        x_label="PC1",
        y_label="PC2",
        links={"第3回": "#ch=3"},
        diagonal=True,
    )
    (drawing,) = drawings(text)
    tips = [title.text for title in drawing.iter("title")]
    assert len(tips) == 80
    assert "第3回" in tips[3]
    labels = boxes(drawing, "halo")
    assert 20 <= len(labels) <= 80
    assert not any(meet(a, b) for i, a in enumerate(labels) for b in labels[:i])
    shapes = [shape for shape in drawing.iter() if shape.find("title") is not None]
    assert {shape.tag for shape in shapes[0::2]} == {"circle"}
    assert {shape.tag for shape in shapes[1::2]} == {"path"}
    assert [a.get("href") for a in drawing.iter("a")] == ["#ch=3"]


def test_bars_stand_on_zero():
    rows = [("笑道", 3.0), ("<b>", 1.0), ("的", -2.0)]
    text = page.bars(rows, x_label="bits", groups=["for B", "for A"])
    (drawing,) = drawings(text)
    bars = [r for r in drawing.iter("rect") if r.get("class", "").startswith("fill")]
    width = [float(r.get("width")) for r in bars]
    assert width[0] == pytest.approx(3 * width[1], abs=0.2)
    zero = float(bars[0].get("x"))
    assert float(bars[2].get("x")) + width[2] == pytest.approx(zero, abs=0.2)
    assert bars[0].get("class") != bars[2].get("class")
    assert [t.text for t in drawing.iter("title")] == ["笑道: 3", "<b>: 1", "的: -2"]
    assert "for A" in text


def test_charts_of_nothing_or_of_one_point_are_drawn():
    label = {"x_label": "x", "y_label": "y"}
    for text in (
        page.line_chart({}, **label),
        page.line_chart({"a": []}, **label),
        page.line_chart({"a": [(3, 5.0)]}, **label, links={3: "#a"}),
        page.line_chart({"a": [(3, float("nan"))]}, **label),
        page.scatter([], **label),
        page.scatter([(0, 0, "a", "b")], **label),
        page.bars([], x_label="x"),
        page.bars([("a", 0.0)], x_label="x"),
    ):
        (drawing,) = drawings(text)
        assert "nan" not in ElementTree.tostring(drawing, encoding="unicode")


def test_the_same_input_gives_the_same_bytes():
    assert chart(hatched=[(1, 5)]) == chart(hatched=[(1, 5)])
    assert page.document("t", "b", data={"a": [1]}) == page.document("t", "b", data={"a": [1]})
