"""Text as HTML: escaping, labels in two languages, tables."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Html(str):
    """Text that is HTML already; every function here leaves it as it is and escapes other text."""

    __slots__ = ()


class Both(Html):
    """A label in two languages; `english` and `chinese` are its plain texts."""

    english: str
    chinese: str


def escape(text: str) -> Html:
    """The text as HTML, for elements and quoted attributes; what cannot stand there becomes �."""
    return text if isinstance(text, Html) else Html(html.escape(_FORBIDDEN.sub("�", str(text))))


def both(english: str, chinese: str) -> Both:
    """A label that shows one of two languages: the button of the page chooses."""
    pair = (("en", "en", english), ("zh", "zh", chinese))
    spans = (f'<span class="{c}" lang="{tag}">{escape(text)}</span>' for c, tag, text in pair)
    label = Both("".join(spans))
    label.english, label.chinese = english, chinese
    return label


def plain(label: str) -> str:
    """A label without markup, for attributes and tooltips: both languages where there are two."""
    return f"{label.english} · {label.chinese}" if isinstance(label, Both) else str(label)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    """A table; numbers stand at the right, floats with four digits, None is empty."""
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return Html(
        f'<div class="scroll"><table>\n<thead><tr>{titles}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody>\n</table></div>"
    )


def number(value: float) -> str:
    """A number for a reader: whole, or with four digits."""
    if not np.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e7:
        return str(int(value))
    return f"{value:.4g}"


def _cell(value: Any) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, (bool, np.bool_)):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, (int, float, np.number)):
        return f'<td class="number">{number(float(value))}</td>'
    return f"<td>{escape(value)}</td>"
