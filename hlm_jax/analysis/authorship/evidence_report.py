"""The evidence in report.html: bars, tables, and texts coloured by their bits."""

import itertools

import numpy as np

from hlm_jax.analysis import page
from hlm_jax.analysis.authorship import Ratios
from hlm_jax.analysis.authorship.evidence import Passage, one_sided, passages, pieces
from hlm_jax.analysis.authorship.study import Study
from hlm_jax.analysis.page import both, colours, escape

_EDGES = (-6.0, -3.0, -1.0, 1.0, 3.0, 6.0)  # bits of a character; the classes of the colours
_NAMES = ("≤ −6", "−6 … −3", "−3 … −1", "−1 … 1", "1 … 3", "3 … 6", "≥ 6")
_SMOOTH = 5  # characters over which a colour is averaged
STYLE = """
.evidence { font-family: var(--serif); line-height: 1.9; white-space: pre-wrap; }
.columns { display: grid; gap: 0 2rem; }
.columns { grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
details { margin: .6rem 0; } summary { cursor: pointer; }
""" + colours.style()


def evidence_part(study: Study, shown: Ratios) -> str:
    """HTML: characters, pieces and passages that speak for each side, and two whole texts.

    Args:
      shown: ratios of the question, with detail.
    """
    strings, is_a, names = study.strings, study.texts.is_a, study.texts.names
    parts: list[str] = [_alone(study)]
    groups = [both(f"speaks for {name}", f"支持 {name}") for name in reversed(names)]
    for_a, for_b = pieces(strings, shown.detail, is_a, size=1, top=15)
    bars = [(piece.text, piece.bits) for piece in [*for_a, *reversed(for_b)]]
    label = both("summed bits", "合计比特")
    parts.append(page.bars(bars, x_label=label, groups=groups))
    head = [both("piece", "片段"), both("bits", "比特"), both("texts", "回数")]
    head += [both(f"per 10,000 in {name}", f"{name} 每万字") for name in names]
    tables = []
    for_a, for_b = pieces(strings, shown.detail, is_a, size=2, top=30)
    for group, rows in ((groups[1], for_a), (groups[0], for_b)):
        cells = [
            [
                piece.text,
                round(piece.bits),
                piece.texts,
                f"{piece.rate_a:.1f} ± {piece.deviation_a:.1f}",
                f"{piece.rate_b:.1f} ± {piece.deviation_b:.1f}",
            ]
            for piece in rows
        ]
        tables.append(f"<div><h3>{group}</h3>{page.table(head, cells)}</div>")
    parts.append(f'<div class="columns">{"".join(tables)}</div>')
    keys = " ".join(
        f'<span class="difference-{k}">&nbsp;{escape(words)}&nbsp;</span>'
        for k, words in enumerate(_NAMES)
    )
    note = both(
        f"Colours: bits of a character for {names[0]} (orange) or for {names[1]} (blue), averaged "
        f"over {_SMOOTH} characters.",
        f"颜色：每字支持 {names[0]}（橙）或 {names[1]}（蓝）的比特数，取 {_SMOOTH} 字平均。",
    )
    parts.append(f"<h3>{both('Passages', '段落')}</h3><p>{note}<br>{keys}</p>")
    highest, lowest = passages(shown.detail)
    for group, found in ((groups[1], highest), (groups[0], lowest)):
        parts.append(f"<h3>{group}</h3>")
        parts += [_passage(study, shown, passage) for passage in found]
    toward = np.where(is_a, shown.ratio, -shown.ratio)
    for side in (is_a, ~is_a):
        place = int(np.argmin(np.where(side, toward, np.inf)))
        name = _title(study, place)
        words = both(
            f"The whole of {name}, the least typical of its side",
            f"{name} 全文，本边最不典型的一回",
        )
        coloured = _coloured(strings[place], shown.detail[place])
        body = f'<div class="evidence">{coloured}</div>'
        parts.append(f"<details><summary>{words}</summary>{body}</details>")
    return "".join(parts)


def _alone(study: Study) -> str:
    """The characters of one side only, and what they may be."""
    lists = []
    for name, alone in zip(
        study.texts.names, one_sided(study.strings, study.texts.is_a), strict=True
    ):
        words = "、".join(f"{escape(c)} {count}" for c, count, _ in alone) or "–"
        lists.append(f"<li>{escape(name)}: {words}</li>")
    note = both(
        "Characters that stand on one side only may be an edition's, or a digital text's, and not "
        "an author's. They are, with their occurrences:",
        "只见于一边的字可能属于版本或电子文本，而不属于作者。这些字及次数如下：",
    )
    return f"<p>{note}</p><ul>{''.join(lists)}</ul>"


def _title(study: Study, place: int) -> str:
    chapter = study.texts.chapters[place]
    return f"{chapter.number} {chapter.heading}"[:44]


def _passage(study: Study, shown: Ratios, passage: Passage) -> str:
    text = study.strings[passage.place]
    span = slice(passage.start, passage.end)
    title = escape(f"{_title(study, passage.place)}: {passage.bits:+.0f} bits")
    coloured = _coloured(text[span], shown.detail[passage.place][span])
    return f'<p class="muted">{title}</p><div class="evidence">{coloured}</div>'


def _coloured(text: str, costs: np.ndarray) -> str:
    """The text with a class of colour for every run of one class."""
    window = np.ones(_SMOOTH)
    near = np.convolve(costs, window, "same") / np.convolve(np.ones(len(costs)), window, "same")
    kinds = np.searchsorted(_EDGES, near, side="right")
    borders = [0, *(np.flatnonzero(np.diff(kinds)) + 1), len(text)]
    return "".join(
        f'<span class="difference-{kinds[start]}">{escape(text[start:end])}</span>'
        for start, end in itertools.pairwise(borders)
        if end > start
    )
