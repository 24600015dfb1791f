"""One HTML file without a network: its frame and its data; labels, tables and charts with it.

Everything that comes from a book passes `escape`, or travels as JSON that a script writes with
textContent. A content policy in the file names the hash of the script, so nothing else can run and
nothing can be fetched. Colours are variables of page.css, so a chart follows the theme.
"""

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax.analysis.page.charts import bars, line_chart, scatter
from hlm_jax.analysis.page.markup import Both, Html, both, escape, number, plain, table
from hlm_jax.analysis.tables import write_text

__all__ = [
    "Both",
    "Html",
    "asset",
    "bars",
    "both",
    "compact_json",
    "document",
    "escape",
    "line_chart",
    "number",
    "plain",
    "scatter",
    "table",
    "write",
]


def compact_json(data: Any) -> str:
    """JSON that can stand inside a script element.

    Numpy arrays become lists, numbers that are not finite become null, and `<` becomes an escape.
    """
    text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return re.sub("[\x7f\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def document(
    title: str,
    body: str,
    *,
    style: str = "",
    script: str = "",
    data: Any = None,
    lang: str = "en",
) -> str:
    """A whole HTML file: UTF-8, no network, system fonts, light and dark, printable.

    Args:
      title: the heading and the name of the window; plain text or a label of `both`.
      body: HTML. The caller has escaped what comes from a book.
      style: CSS after that of page.css.
      script: JavaScript; it runs after the body was read.
      data: anything JSON can hold; the script reads it from the element with id "data".
      lang: "en" or "zh", the language at first; a button changes it.
    """
    ours = f"{asset('page.js')}\n{script}".replace("</", "<\\/")
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src '{_digest(ours)}'"
    )
    stored = "" if data is None else _data_element(data)
    css = f"{asset('page.css')}\n{style}".replace("</", "<\\/")
    return f"""<!DOCTYPE html>
<html lang="{escape(lang)}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title.english if isinstance(title, Both) else title)}</title>
<style>
{css}</style>
</head>
<body>
<header class="page">
<h1>{escape(title)}</h1>
<div class="no-print">
<button id="language" type="button"><span class="en" lang="zh">中文</span><span class="zh" lang="en">English</span></button>
<button id="theme" type="button">{both("Light / dark", "明 / 暗")}</button>
</div>
</header>
<main>
{body}
</main>
{stored}<script>{ours}</script>
</body>
</html>
"""  # noqa: E501 - a label may not be broken by a line end


def asset(name: str) -> str:
    """The text of a file that lies beside this module."""
    return resources.files("hlm_jax.analysis.page").joinpath(name).read_text(encoding="utf-8")


def write(path: str | Path, html: str) -> None:
    """Writes the file whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    write_text(path, html)


def _data_element(data: Any) -> str:
    return f'<script type="application/json" id="data">{compact_json(data)}</script>\n'


def _digest(script: str) -> str:
    """The name by which a content policy allows this script alone."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _finite(data: Any) -> Any:
    """Only what JSON holds: numpy becomes Python, numbers that are not finite become None."""
    if isinstance(data, (np.ndarray, np.generic)):
        data = data.tolist()
    if isinstance(data, float):
        return data if np.isfinite(data) else None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
