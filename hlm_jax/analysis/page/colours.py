"""Values of a text as colours behind it: scales of classes, their palettes, a coloured passage.

A scale has few classes with stated borders, so that its legend can be read exactly. The palettes
are safe for colour-blind readers: one hue that darkens, or blue against orange. Every class has a
text colour of its own with a contrast of at least 4.5 in both themes (tests/test_heatmap.py).
"""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from hlm_jax.analysis.page.markup import Both, Html, both, escape, plain

_INK = {"light": "#1b1a18", "dark": "#ecebe6"}
_PAPER = {"light": "#fdfcf9", "dark": "#16181b"}
# Backgrounds from the lowest class to the highest; "" is the paper, a colour with * has the ink of
# the other theme.
PALETTES: dict[str, dict[str, tuple[str, ...]]] = {
    "heat": {
        "light": ("", "#fff1cf", "#ffdfa0", "#ffc56e", "#f9a24b", "#ec7f37", "#d9602b"),
        "dark": ("", "#33270f", "#503708", "#744a05", "#945605", "#e08a2b*", "#ffc27a*"),
    },
    "rank": {
        "light": ("#dbeee4", "#f6e08c", "#f2a65a", "#c08ad6"),
        "dark": ("#16302a", "#5a4a00", "#9c5210", "#d9a8f0*"),
    },
    "entropy": {
        "light": ("", "#e2f3ee", "#c0e6da", "#95d4c1", "#67bfa6", "#3fa68a"),
        "dark": ("", "#12302a", "#174a40", "#1b6656", "#36b596*", "#8fe3cb*"),
    },
    "copied": {
        "light": ("", "#e3e6fa", "#bfc6f3", "#98a2ec", "#8a7fe0"),
        "dark": ("", "#262a4d", "#3a3f80", "#5358b0", "#b8b5ff*"),
    },
    "difference": {
        "light": ("#5aa5e0", "#9cccf2", "#d6ebfb", "", "#ffe6c4", "#fdc27e", "#f09540"),
        "dark": ("#7cc0ff*", "#1f6299", "#173a57", "", "#553408", "#8f5406", "#ffb35c*"),
    },
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """Classes of a value and how they are shown.

    Attributes:
      label, note: what is shown, and how to read it, in both languages.
      palette: a name of PALETTES.
      edges: the lowest values of the second class to the last.
      names: of the classes, for the legend.
    """

    label: Both
    note: Both
    palette: str
    edges: tuple[float, ...]
    names: tuple[str, ...]

    def classes(self, values: Iterable[float]) -> np.ndarray:
        """The class of every value, int [values]; -1 where the value is not finite."""
        array = np.asarray(list(values), dtype=float)
        return np.where(np.isfinite(array), np.searchsorted(self.edges, array, side="right"), -1)


def _between(edges: tuple[float, ...], unit: str = "") -> tuple[str, ...]:
    words = [f"{edge:g}" for edge in edges]
    inner = (f"{low}–{high}" for low, high in itertools.pairwise(words))
    return (f"< {words[0]}{unit}", *inner, f"≥ {words[-1]}{unit}")


BITS = (2, 4, 6, 8, 10, 13)
ENTROPY = (2, 4, 6, 8, 9)
COPIED = (5, 10, 15, 30)
DIFFERENCE = (-4, -2, -0.5, 0.5, 2, 4)
_SIGNED = ("< −4", "−4 … −2", "−2 … −½", "−½ … ½", "½ … 2", "2 … 4", "≥ 4")
SCALES = {
    "bits": Scale(
        both("bits", "惊异度（比特）"),
        both(
            "Surprisal: what this unit costs the model, in bits. More is less expected.",
            "惊异度：模型为这一单位付出的比特数，越大越出乎意料。",
        ),
        "heat",
        BITS,
        _between(BITS),
    ),
    "rank": Scale(
        both("rank", "名次"),
        both(
            "How many guesses the model would have needed, as in GLTR.",
            "模型要猜到第几个才猜中（与 GLTR 相同的分级）。",
        ),
        "rank",
        (11, 101, 1001),
        ("≤ 10", "≤ 100", "≤ 1000", "> 1000"),
    ),
    "entropy": Scale(
        both("entropy", "熵"),
        both(
            "What the model expected to pay here, in bits: how open the place was to it.",
            "模型在此处预期付出的比特数：此处有多少可能。",
        ),
        "entropy",
        ENTROPY,
        _between(ENTROPY),
    ),
    "copied": Scale(
        both("copied", "与训练文本重合"),
        both(
            "Length in characters of the longest stretch over it that the training text has too "
            "(a chapter that was trained on is held against the others).",
            "包含此处、且见于训练文本的最长片段有几个字（训练过的各回只与其他各回相比）。",
        ),
        "copied",
        COPIED,
        ("< 5", "5–9", "10–14", "15–29", "≥ 30"),
    ),
    "ngram": Scale(
        both("minus 5-gram", "减去五元模型"),
        both(
            "Bits of the model minus bits of the character 5-gram. Blue: the model is better.",
            "模型的比特数减去五元字模型的比特数；蓝色：模型更好。",
        ),
        "difference",
        DIFFERENCE,
        _SIGNED,
    ),
    "difference": Scale(
        both("A minus B", "甲减乙"),
        both(
            "Bits of the first model minus bits of the second, over the shortest stretches at "
            "whose ends both have a border. Blue: the first is better.",
            "第一个模型的比特数减去第二个的，按两者分界都重合的最短片段计算；蓝色：第一个更好。",
        ),
        "difference",
        DIFFERENCE,
        _SIGNED,
    ),
}


def colours(palette: str, theme: str) -> list[tuple[str, str]]:
    """(background, text) of every class; `theme` is "light" or "dark"."""
    other = {"light": "dark", "dark": "light"}[theme]
    return [
        (shade.rstrip("*") or _PAPER[theme], _INK[theme if not shade.endswith("*") else other])
        for shade in PALETTES[palette][theme]
    ]


def style() -> str:
    """CSS: a class `palette-number` for every class of every palette, in both themes."""
    light, dark = (_variables(theme) for theme in ("light", "dark"))
    rules = "".join(
        f".{name}-{i}{{background:var(--{name}-{i});color:var(--{name}-{i}i)}}\n"
        for name in PALETTES
        for i in range(len(PALETTES[name]["light"]))
    )
    return (
        f":root{{{light}}}\n"
        f'@media (prefers-color-scheme:dark){{:root:not([data-theme="light"]){{{dark}}}}}\n'
        f':root[data-theme="dark"]{{{dark}}}\n'
        f'@media print{{:root,:root[data-theme],:root:not([data-theme="light"]){{{light}}}}}\n'
        # The sign of a difference is seen without colours too.
        f".difference-0,.difference-1,.difference-2{{text-decoration:underline 1px}}\n{rules}"
    )


def passage(units: Iterable[tuple[str, float, str]], scale: Scale, *, legend: bool = True) -> Html:
    """A coloured passage without a script, for notebooks and reports.

    Its colours are those of the light theme and stand in the elements themselves: it needs no style
    sheet, and can be read on any background.

    Args:
      units: (text, value, tooltip) of every piece of the text, in order.
      scale: of SCALES, or another.
      legend: shows the classes above the text.
    """
    units = list(units)
    pairs = colours(scale.palette, "light")
    parts = []
    for (text, _, tip), kind in zip(units, scale.classes(v for _, v, _ in units), strict=True):
        title = f' title="{escape(tip)}"' if tip else ""
        parts.append(
            f"<span{title}{_inline(pairs[kind] if kind >= 0 else None)}>{escape(text)}</span>"
        )
    ink, paper = _INK["light"], _PAPER["light"]
    box = f"background:{paper};color:{ink};padding:.6em .9em;border-radius:.3em"
    above = ""
    if legend:
        keys = zip(scale.names, pairs, strict=True)
        shown = " ".join(f"<span{_inline(pair)}>&nbsp;{escape(n)}&nbsp;</span>" for n, pair in keys)
        small, label = "font-size:.85em;margin-bottom:.5em", escape(plain(scale.label))
        above = f'<div style="{small}">{label}: {shown}</div>'
    flow = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9"
    return Html(f'<div style="{box}">{above}<div style="{flow}">{"".join(parts)}</div></div>')


def _inline(pair: tuple[str, str] | None) -> str:
    return f' style="background:{pair[0]};color:{pair[1]}"' if pair else ""


def _variables(theme: str) -> str:
    return "".join(
        f"--{name}-{i}:{paper};--{name}-{i}i:{ink};"
        for name in PALETTES
        for i, (paper, ink) in enumerate(colours(name, theme))
    )
