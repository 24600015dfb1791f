"""A chart of a page as an SVG file of its own: its legend inside, its colours fixed."""

import re
from xml.etree import ElementTree

from hlm_jax.analysis.page import asset
from hlm_jax.analysis.page.axes import text_width
from hlm_jax.analysis.page.charts import COLOURS

_SVG = "http://www.w3.org/2000/svg"
_ROW = 22  # pixels of a line of the legend
_KEY = 26  # pixels of a sign in it


def svg_file(figure: str, *, lang: str = "en") -> str:
    """The drawing of a chart (analysis/page/charts.py) as a file, in the light theme.

    It has the legend, no links, and the labels of one language. Its style needs no variables, which
    drawing programs do not know.

    Args:
      lang: "en" or "zh".
    """
    root = ElementTree.fromstring(figure)
    drawing = next(svg for svg in root.iter("svg") if svg.get("class") == "chart")
    _, _, width, height = map(float, drawing.get("viewBox", "").split())
    keys = [_key(span, lang) for span in root.iter("span") if span.get("class") == "key"]
    legend, top = _legend(keys, width)
    file = ElementTree.Element("svg", {"xmlns": _SVG, "class": "chart"})
    for name, value in (("width", width), ("height", height + top)):
        file.set(name, f"{value:g}")
    file.set("viewBox", f"0 0 {width:g} {height + top:g}")
    ElementTree.SubElement(file, "title").text = drawing.get("aria-label", "")
    ElementTree.SubElement(file, "style").text = _style()
    ElementTree.SubElement(file, "rect", {"width": "100%", "height": "100%", "class": "paper"})
    file.append(legend)
    inside = ElementTree.SubElement(file, "g", {"transform": f"translate(0 {top:g})"})
    inside.extend(child for child in drawing if child.tag != "a")
    _speak(file, lang)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return head + ElementTree.tostring(file, encoding="unicode") + "\n"


def _key(span: ElementTree.Element, lang: str) -> tuple[list[ElementTree.Element], str]:
    """The sign of an entry of the legend, and its label."""
    _speak(span, lang)
    return list(span[0]), "".join(text for text in span.itertext() if text)


def _legend(
    keys: list[tuple[list[ElementTree.Element], str]], width: float
) -> tuple[ElementTree.Element, float]:
    """The entries in lines, and their height in pixels."""
    legend = ElementTree.Element("g")
    x, y = 12.0, 16.0
    for sign, label in keys:
        room = _KEY + 8 + text_width(label) + 24
        if x > 12 and x + room > width:
            x, y = 12.0, y + _ROW
        entry = ElementTree.SubElement(legend, "g", {"transform": f"translate({x:g} {y:g})"})
        entry.extend(sign)
        ElementTree.SubElement(entry, "text", {"x": f"{_KEY + 8}", "y": "4.5"}).text = label
        x += room
    return legend, y + _ROW / 2 if keys else 0.0


def _speak(element: ElementTree.Element, lang: str) -> None:
    """Takes out the labels of the other language."""
    other = {"en": "zh", "zh": "en"}[lang]
    for parent in list(element.iter()):
        for child in list(parent):
            if child.get("class") == other:
                parent.remove(child)


def _style() -> str:
    """The rules of page.css for charts, with the values of the light theme."""
    css = asset("page.css")
    values = dict(re.findall(r"--([\w-]+): ([^;]+);", css[: css.index("}")]))
    chart = [line for line in css.splitlines() if line.startswith("svg.chart ")]
    rules = [line for line in chart if ".column" not in line and " a:" not in line]
    rules = [re.sub(r"var\(--([\w-]+)\)", lambda found: values[found[1]], line) for line in rules]
    rules.append(f".paper {{ fill: {values['paper']}; }}")
    for i in range(COLOURS):
        colour = values[f"s{i}"]
        rules.append(f".stroke.s{i} {{ stroke: {colour}; }}")
        rules.append(f".fill.s{i} {{ fill: {colour}; stroke: {colour}; }}")
        hollow = f"fill: {values['paper']}; stroke: {colour}; stroke-width: 1.8;"
        rules.append(f".hollow.s{i} {{ {hollow} }}")
    return "\n".join(rules)
