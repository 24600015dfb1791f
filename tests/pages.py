"""What the tests of HTML files share: reading a page, hostile text, contrast, syntax of scripts."""

import html.parser
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \"'&amp;\x00\ud800"


class Reader(html.parser.HTMLParser):
    """The elements of a page, with their attributes and the text of scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.elements and self.cdata_elem == "script":
            self.scripts[-1] += data


def check_script(text: str, folder: Path) -> None:
    """Fails on a syntax error, where node can tell."""
    if not shutil.which("node"):
        pytest.skip("needs node")
    (folder / "script.js").write_text(text, encoding="utf-8")
    done = subprocess.run(["node", "--check", "script.js"], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(a: str, b: str) -> float:
    """The ratio of WCAG 2."""
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def drawings(text: str) -> list[ElementTree.Element]:
    found = re.findall(r'<svg class="chart".*?</svg>', text, re.DOTALL)
    return [ElementTree.fromstring(drawing) for drawing in found]
