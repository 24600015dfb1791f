"""Tables of surprisal as one HTML file: the exact text, coloured, and what stands behind each unit.

The file holds the text and the columns once, in parts of at most PART characters, compressed; the
reader (heatmap.js) unpacks and draws the part that is read. 500,000 characters stay usable.
"""

import base64
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hlm_jax.analysis.page import asset, colours, document, line_chart
from hlm_jax.analysis.page.cells import (
    NUMBERS,
    Cells,
    Table,
    cells_of,
    common_documents,
    documents_of,
)
from hlm_jax.analysis.page.markup import Html, both, escape
from hlm_jax.analysis.surprisal.table import KNOWN, SurprisalTable, partly_trained

PART = 30_000  # characters that are drawn at once
SCRIPTS = ("dom.js", "units.js", "heatmap.js")  # of the reader, in this order
_NAME = 48  # characters of a heading in the list of chapters
# Numbers travel as whole numbers, times this; those that are whole already are not named here.
_FACTORS = {"b": 1000, "e": 100, "g": 100, "u": 100}
# The number that a colouring shows.
_NEEDS = {"bits": "b", "rank": "r", "entropy": "e", "copied": "c", "ngram": "g", "difference": "b"}

_TRAINED = both(
    "Hatched chapters were trained on: a low curve there is memory. "
    "The 5-gram is shown where it was not trained.",
    "画斜线的各回曾用于训练：曲线低是记忆。五元模型只画未训练的各回。",
)


def heatmap(
    tables: Mapping[str, Table] | Table, *, title: str, curve: bool = True, lang: str = "en"
) -> str:
    """The page of one table, or of several models' tables of the same texts.

    With several, A minus B is a colouring: over the shortest stretches at whose ends both models
    have a border, so that tokens of different tokenizers are compared exactly.

    Args:
      tables: a table, or tables by the names of their models.
      title: of the page; plain text or a label of `both`.
      curve: shows bits per character of all chapters beside the 5-gram, where there are several.
      lang: "en" or "zh", the language at first.

    Raises:
      UserError: no text, or tables of different texts.
    """
    named = dict(tables) if isinstance(tables, Mapping) else {"model": tables}
    book = _Book(named)
    notes = dict.fromkeys(note for t in named.values() for note in getattr(t, "notes", ()))
    drawing = book.curve() if curve and len(book.texts) > 1 else Html()
    said = "".join(f'<p class="muted">{escape(note)}</p>\n' for note in notes)
    return document(
        title,
        _warnings(named) + drawing + frame(notes=said),
        style=style(),
        script="".join(map(asset, (*SCRIPTS, "standalone.js"))),
        data=book.data(),
        lang=lang,
    )


def reader_data(tables: Mapping[str, Table]) -> dict[str, Any]:
    """What `heatmap(…).show` of heatmap.js draws: texts, units and colourings, JSON-able.

    Args:
      tables: as of `heatmap`, by the names of their models.

    Raises:
      UserError: no text, or tables of different texts.
    """
    return _Book(tables).data()


def style() -> str:
    """The style sheet of the reader, after that of the page."""
    return asset("heatmap.css") + colours.style()


class _Book:
    """The texts that are shown, and their units by model.

    Attributes:
      named: the tables by model.
      texts: their documents.
      cells: by model, by text.
      splits: by text, by model.
      copied: by text, by model: the share that stands in the training chapters, None if not known.
      ids: names of the texts in addresses: chapter numbers, or positions where those repeat.
      borders: of every text, where it is cut into parts.
    """

    def __init__(self, named: Mapping[str, Table]):
        self.named = named
        self.texts = common_documents(named)
        self.cells = [cells_of(table) for table in named.values()]
        of_models = [[d.split for d in documents_of(table)] for table in named.values()]
        self.splits = list(zip(*of_models, strict=True))
        self.copied = list(zip(*map(_copied_shares, named.values()), strict=True))
        numbers = [str(text.chapter) for text in self.texts]
        self.numbered = len(set(numbers)) == len(numbers)
        self.ids = numbers if self.numbered else [str(i + 1) for i in range(len(numbers))]
        by_text = zip(*self.cells, strict=True)
        pairs = zip(self.texts, by_text, strict=True)
        self.borders = [_borders(text.text, cells) for text, cells in pairs]

    def data(self) -> dict[str, Any]:
        """What the reader reads."""
        words: dict[str, int] = {}
        choices = (choice for model in self.cells for cells in model for choice in cells.choices)
        top = max(map(len, choices), default=0)
        pages = [page for i in range(len(self.texts)) for page in self._pages(i, top, words)]
        return {
            "models": list(self.named),
            "units": [table.unit for table in self.named.values()],
            "scales": self._scales(),
            "top": top,
            "words": list(words),
            "pages": pages,
        }

    def _pages(self, i: int, top: int, words: dict[str, int]) -> list[dict[str, Any]]:
        """The parts of one text; adds to `words` what its alternatives name by number."""
        text, ids = self.texts[i].text, self._part_ids(i)
        pages = []
        for n, (a, b) in enumerate(itertools.pairwise(self.borders[i])):
            columns = [_columns(model[i], a, b, top, words) for model in self.cells]
            part = f" ({n + 1}/{len(ids)})" if len(ids) > 1 else ""
            page = {"id": ids[n], "x": self.ids[i], "name": self._name(i) + part, "from": a}
            packed = _packed({"t": text[a:b], "m": columns})
            known = {"splits": self.splits[i], "copied": self.copied[i]}
            pages.append({**page, **known, "z": packed})
        return pages

    def _part_ids(self, i: int) -> list[str]:
        parts = len(self.borders[i]) - 1
        return [f"{self.ids[i]}.{n + 1}" for n in range(parts)] if parts > 1 else [self.ids[i]]

    def _name(self, i: int) -> str:
        """The number of a text and its first line; the document's name where there are several."""
        text = self.texts[i]
        line = text.text.lstrip().split("\n", 1)[0].strip()
        line = line if len(line) <= _NAME else f"{line[: _NAME - 1]}…"
        several = len({text.name for text in self.texts}) > 1
        number = str(text.chapter) if len(self.texts) > 1 else ""
        parts = (number, text.name if several else "", line)
        return " · ".join(dict.fromkeys(part for part in parts if part))

    def _scales(self) -> dict[str, Any]:
        """The colourings whose numbers all models have."""
        held = set.intersection(*(set(cells.numbers) for model in self.cells for cells in model))
        found: dict[str, Any] = {}
        for name, scale in colours.SCALES.items():
            if _NEEDS[name] not in held or (name == "difference" and len(self.named) < 2):
                continue
            label, note = ([text.english, text.chinese] for text in (scale.label, scale.note))
            found[name] = {"label": label, "note": note, "palette": scale.palette}
            found[name] |= {"edges": scale.edges, "names": scale.names}
        return found

    def curve(self) -> Html:
        """Bits per character of every text by every model; a click opens it."""
        by_text = zip(self.texts, zip(*self.cells, strict=True), strict=True)
        bits = [[_per_character(c, "b", text.text) for c in cells] for text, cells in by_text]
        first = zip(self.texts, self.cells[0], strict=True)
        return chapter_curve(
            [float(name) for name in self.ids],
            dict(zip(self.named, zip(*bits, strict=True), strict=True)),
            [_per_character(cells, "g", text.text) for text, cells in first],
            splits=self.splits,
            names=[self._name(i) for i in range(len(self.texts))],
            links=[f"#ch={self._part_ids(i)[0]}" for i in range(len(self.texts))],
            numbered=self.numbered,
        )


def chapter_curve(
    xs: Sequence[float],
    bits: Mapping[str, Sequence[float]],
    ngram: Sequence[float],
    *,
    splits: Sequence[Sequence[str]],
    names: Sequence[str],
    links: Sequence[str],
    numbered: bool = True,
) -> Html:
    """Bits per character of every text by every model.

    Beside them the 5-gram of the first one's book, on the texts that it was not trained on: it has
    learned the others by heart.

    Args:
      xs: the texts' numbers.
      bits: of every model, [texts]; nan where it is not known.
      ngram: of the 5-gram, [texts].
      splits: of every text, by every model.
      names, links: of every text: its name, and the address that a click opens.
      numbered: whether the numbers are those of chapters.
    """
    order = np.argsort(xs, kind="stable").tolist()
    label = {name: name if len(bits) > 1 else both("model", "模型") for name in bits}
    series = {label[name]: [(xs[i], values[i]) for i in order] for name, values in bits.items()}
    fair = [(xs[i], np.nan if splits[i][0] == "train" else ngram[i]) for i in order]
    if np.isfinite([y for _, y in fair]).any():
        series["5-gram"] = fair
    trained = sorted(x for x, of in zip(xs, splits, strict=True) if "train" in of)
    return line_chart(
        series,
        x_label=both("chapter", "回") if numbered else both("text", "文"),
        y_label=both("bits per character", "每字比特数"),
        hatched=_spans(trained),
        hatched_label=both("trained on", "训练所用")
        if len(bits) == 1
        else both("trained on by one of the models", "有模型训练过"),
        caption=_TRAINED if trained else "",
        links=dict(zip(xs, links, strict=True)),
        names=dict(zip(xs, names, strict=True)),
        height=250,
    )


def _copied_shares(table: Table) -> list[float | None]:
    """Of every text; None where a text is too little copied to be named, or that is not known."""
    if not isinstance(table, SurprisalTable):
        return [None] * len(documents_of(table))
    shares = [row["copied"] for row in table.by_chapter()]
    return [None if share is None or share <= KNOWN else round(share, 4) for share in shares]


def _warnings(named: Mapping[str, Table]) -> str:
    """What is copied in part from training chapters, by name, above everything else."""
    return "".join(
        f'<p class="warning">{escape(f"{name}: {line}" if len(named) > 1 else line)}</p>\n'
        for name, table in named.items()
        if isinstance(table, SurprisalTable)
        for line in partly_trained(table)
    )


def _borders(text: str, models: Sequence[Cells]) -> list[int]:
    """Where a long text is cut: between units of all models, at the end of a line if it can be."""
    if len(text) <= PART:
        return [0, len(text)]
    common = set.intersection(*(set(cells.end.tolist()) for cells in models))
    places = np.array(sorted(place for place in common if 0 < place < len(text)), dtype=int)
    lines = np.array([place for place in places if text[place - 1] == "\n"], dtype=int)
    borders = [0]
    while len(text) - borders[-1] > PART:
        low = borders[-1]
        later = places[places > low]
        near = [some[(some > low) & (some <= low + PART)] for some in (lines, places)]
        if not len(later):
            break
        borders.append(int(next((some[-1] for some in near if len(some)), later[0])))
    return [*borders, len(text)]


def _columns(cells: Cells, a: int, b: int, top: int, words: dict[str, int]) -> dict[str, Any]:
    """The units of one model in the text from a to b, as whole numbers; offsets count from a."""
    part = slice(*np.searchsorted(cells.start, [a, b]).tolist())
    start, end = cells.start[part], cells.end[part]
    gaps = start - np.append(a, end[:-1])[: len(start)]  # characters that no unit has
    columns: dict[str, Any] = {"n": (end - start).tolist()}
    if gaps.any():
        columns["gaps"] = {str(i): int(gaps[i]) for i in np.flatnonzero(gaps)}
    for short in NUMBERS:
        if short in cells.numbers:
            columns[short] = _whole(cells.numbers[short][part] * _FACTORS.get(short, 1))
    within = range(part.start, part.stop)
    several = {str(i - part.start): n for i, n in cells.several.items() if i in within}
    if several:
        columns["w"] = several
    if top:
        pairs = [pair for c in cells.choices[part] for pair in [*c, *[("", -1.0)] * (top - len(c))]]
        columns["a"] = [words.setdefault(w, len(words)) if p >= 0 else -1 for w, p in pairs]
        columns["p"] = [round(max(p, 0) * 1000) for _, p in pairs]
    return columns


def _whole(values: np.ndarray) -> list[int | None]:
    known = np.isfinite(values)
    whole = np.rint(np.where(known, values, 0)).astype(np.int64)
    return [n if k else None for n, k in zip(whole.tolist(), known.tolist(), strict=True)]


def _packed(data: Any) -> str:
    """zlib in base64."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def _per_character(cells: Cells, short: str, text: str) -> float:
    values = cells.numbers.get(short)
    return float("nan") if values is None else float(values.sum() / len(text))


def _spans(xs: Sequence[float]) -> list[tuple[float, float]]:
    """Numbers as spans of half a step around them; neighbours join."""
    spans: list[tuple[float, float]] = []
    for x in xs:
        joins = bool(spans) and spans[-1][1] == x - 0.5
        spans.append((spans.pop()[0] if joins else x - 0.5, x + 0.5))
    return spans


# --- the frame ---


def frame(*, prefix: str = "", notes: str = "") -> Html:
    """The places that the reader fills, and its buttons.

    Args:
      prefix: of their ids, where a page has several readers.
      notes: HTML that stands below the text.
    """
    before, after = both("← previous", "← 上一回"), both("next →", "下一回 →")

    def turning(n: str, between: str) -> str:
        return (
            f'<nav class="bar no-print" id="{prefix}turning{n}">'
            f'<button type="button" id="{prefix}before{n}">{before}</button>{between}'
            f'<button type="button" id="{prefix}after{n}">{after}</button></nav>'
        )

    keys = both(
        "Keys: in the text the arrows move; n and p turn chapters; c or 1, 2, … choose colours.",
        "按键：文中方向键移动；n、p 翻回；c 或 1、2…… 换着色。",
    )
    hatch = both("In the list ▨ marks what was trained on.", "列表中 ▨ 表示曾用于训练。")
    chapters = f'<select id="{prefix}chapter" aria-label="chapter"></select>'
    return Html(f"""{turning("", chapters)}
<p class="muted no-print" id="{prefix}marked" hidden>{hatch}</p>
<div class="bar models no-print" id="{prefix}models" hidden>
<label for="{prefix}a">{both("model A", "模型甲")}</label><select id="{prefix}a"></select>
<label for="{prefix}b">{both("B", "乙")}</label><select id="{prefix}b"></select></div>
<div class="bar no-print" id="{prefix}colourings" role="group" aria-label="colours"></div>
<div class="reader"><section>
<h2 id="{prefix}place"></h2>
<div id="{prefix}warnings" role="status"></div>
<p class="muted" id="{prefix}facts"></p>
<div class="heat-key" id="{prefix}key"></div>
<div class="heat-text" id="{prefix}text" lang="zh" tabindex="0" role="group" aria-label="text" \
aria-describedby="{prefix}keys"></div>
{turning("2", "")}
{notes}</section>
<aside class="heat-panel idle" id="{prefix}panel" aria-live="polite">
<button type="button" class="heat-close" id="{prefix}close" aria-label="close">×</button>
<div id="{prefix}details"></div>
<p class="muted keys" id="{prefix}keys">{keys}</p>
</aside></div>
""")
