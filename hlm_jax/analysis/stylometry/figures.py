"""Pictures of counts as PNG: trees, components, curves, bars. Needs no model and no display.

Labels may hold Chinese. matplotlib's own font has none; a CJK font of the system is used where
there is one, and where there is none numbers stand in place of the characters.
"""

import functools
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from hlm_jax.analysis.tables import replacing

if TYPE_CHECKING:  # a cold import of matplotlib takes seconds
    from matplotlib.figure import Figure

A, B, OTHER, TEXT = "#4878a8", "#c44e52", "#555555", "#222222"
COLOURS = (A, B, "#55a868", "#8172b3", "#ccb974", "#64b5cd")
# Names of files of fonts that may have Chinese characters, the better ones first.
_FONTS = (
    *("notosanscjk", "notosanssc", "sourcehansans", "wqy", "pingfang", "hiragino", "heiti"),
    *("msyh", "simhei", "simsun", "songti", "droidsansfallback", "notoserifcjk", "uming", "ukai"),
    "arialuni",
)
_SAMPLE = "宝玉笑道著，。"
P = ParamSpec("P")


@functools.cache
def cjk_font() -> str | None:
    """The name of a font of the system that has Chinese characters, registered with matplotlib."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    files = font_manager.findSystemFonts()
    places = {re.sub(r"[^a-z]", "", Path(file).stem.lower()): file for file in sorted(files)}
    for known in _FONTS:
        alike = [name for name in places if name.startswith(known)]
        for name in sorted(alike, key=lambda name: "regular" not in name):
            try:
                font = FT2Font(places[name])
                if all(font.get_char_index(ord(character)) for character in _SAMPLE):
                    font_manager.fontManager.addfont(places[name])
                    return font.family_name
            except (OSError, RuntimeError):
                continue  # a damaged font
    return None


def shown(names: Sequence[str]) -> list[str]:
    """Names as labels: as they are, or their places 1, 2, … where no font has their characters."""
    if cjk_font() or all(ord(c) < 0x2E80 for name in names for c in name):
        return list(names)
    _tell()
    return [str(i) for i in range(1, len(names) + 1)]


@functools.cache
def _tell() -> None:
    warnings.warn(
        "no font with Chinese characters was found, such as Noto Sans CJK: numbers stand for them",
        stacklevel=3,
    )


def drawable(text: str) -> str:
    """A title without the characters that no font has."""
    return text if cjk_font() else "".join(c for c in text if ord(c) < 0x2E80).strip()


def _fonts() -> Any:
    """A context in which text falls back to the CJK font; it leaves matplotlib's settings alone."""
    import matplotlib as mpl

    return mpl.rc_context({"font.family": ["DejaVu Sans", *filter(None, [cjk_font()])]})


def _drawn(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """A function that draws, inside the context of fonts."""

    @functools.wraps(draw)
    def inside(*args: P.args, **named: P.kwargs) -> "Figure":
        with _fonts():
            return draw(*args, **named)

    return inside


def new_figure(width: float, height: float) -> "Figure":
    """A figure in inches at 120 dots each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: str | Path) -> Path:
    """Writes a PNG in one go.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(path)
    with replacing(path) as partial, _fonts():  # ticks are made late
        figure.savefig(partial, format="png")
    return path


def _plain(axes: Any, **labels: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(**labels)


def _legend(figure: "Figure", groups: Sequence[str], colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    present = [name for name in colours if name in groups]
    if len(present) > 1:
        marks = [
            Line2D([], [], color=colours[name], marker="o", linestyle="", label=name)
            for name in present
        ]
        figure.legend(handles=marks, frameon=False, ncols=len(marks), loc="outside upper right")


def colours_of(groups: Iterable[str]) -> dict[str, str]:
    """A colour for each group, in the order in which they come; grey for "other"."""
    names = list(dict.fromkeys(group for group in groups if group != "other"))
    return {n: COLOURS[i % len(COLOURS)] for i, n in enumerate(names)} | {"other": OTHER}


@_drawn
def tree(
    linkage: np.ndarray, labels: Sequence[str], groups: Sequence[str], title: str, x_label: str
) -> "Figure":
    """A dendrogram from left to right, a leaf's label in the colour of its group.

    Args:
      linkage: scipy's, [N - 1, 4].
      labels, groups: of the leaves, [N].
    """
    from scipy.cluster.hierarchy import dendrogram

    figure = new_figure(9, 1.2 + 0.13 * len(labels))
    axes = figure.subplots()
    drawn = dendrogram(
        linkage,
        orientation="left",
        labels=list(labels),
        ax=axes,
        color_threshold=0,
        above_threshold_color=OTHER,
        leaf_font_size=7,
    )
    colours = colours_of(groups)
    for tick, leaf in zip(axes.get_yticklabels(), drawn["leaves"], strict=True):
        tick.set_color(colours[groups[leaf]])
    _plain(axes, xlabel=x_label, title=title)
    axes.spines["left"].set_visible(False)
    _legend(figure, groups, colours)
    return figure


@_drawn
def map_of_texts(
    scores_NK: np.ndarray,
    explained_K: np.ndarray,
    labels: Sequence[str],
    groups: Sequence[str],
    loadings_FK: np.ndarray,
    names: Sequence[str],
    title: str,
    *,
    most: int = 24,
) -> "Figure":
    """Texts on the first two components, and beside them the features with the longest arrows."""
    figure = new_figure(13, 6.6)
    left, right = figure.subplots(1, 2)
    colours = colours_of(groups)
    left.scatter(*scores_NK.T[:2], s=0)
    for (x, y), label, group in zip(scores_NK[:, :2], labels, groups, strict=True):
        left.text(x, y, label, color=colours[group], fontsize=8, ha="center", va="center")
    _legend(figure, groups, colours)
    axis = [f"component {k + 1} ({explained_K[k]:.1%} of the variance)" for k in range(2)]
    _plain(left, xlabel=axis[0], ylabel=axis[1], title=title)
    longest = np.argsort(-np.hypot(*loadings_FK.T[:2]))[:most]
    texts = shown(names)
    pulls = "what pulls there" if texts == list(names) else "what pulls there (ranks of features)"
    right.scatter(*loadings_FK[longest].T[:2], s=0)
    for f in longest:
        x, y = loadings_FK[f, :2]
        right.plot([0, x], [0, y], color="#dddddd", linewidth=0.8, zorder=0)
        right.text(x, y, texts[f], fontsize=11, color=TEXT, ha="center", va="center")
    _plain(right, xlabel="component 1", ylabel="component 2", title=pulls)
    for axes in (left, right):
        axes.margins(0.08)
        axes.axhline(0, color="#cccccc", linewidth=0.6, zorder=0)
        axes.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
    return figure


@_drawn
def along_the_book(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    milestones: Sequence[float],
    *,
    x_label: str,
    y_label: str,
    title: str,
    zero: bool = False,
) -> "Figure":
    """Curves over the chapters with upright lines at the milestones.

    Args:
      curves: {name: (x, y)}.
      zero: draw a line at 0.
    """
    figure = new_figure(11, 4.2)
    axes = figure.subplots()
    for (name, (x, y)), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(x, y, color=colour, linewidth=1.2, label=name)
    for place in milestones:
        axes.axvline(place, color=OTHER, linestyle="--", linewidth=1)
    if zero:
        axes.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)
    if len(curves) > 1:
        axes.legend(frameon=False)
    _plain(axes, xlabel=x_label, ylabel=y_label, title=title)
    return figure


@_drawn
def opposed_bars(
    sides: Mapping[str, Sequence[tuple[str, float]]], *, x_label: str, title: str
) -> "Figure":
    """Two columns of bars from 1 on, towards 2 and towards 0: the strongest above.

    Args:
      sides: {side: [(name, value)]}: the side with values above 1, then that with values below.
    """
    most = max((len(rows) for rows in sides.values()), default=0)
    figure = new_figure(9, 1.2 + 0.24 * max(1, most))
    halves = figure.subplots(1, 2)
    for axes, (side, rows), colour in zip(halves, sides.items(), (A, B), strict=True):
        axes.set_title(side)
        if not rows:
            axes.set_axis_off()
            continue
        places = np.arange(len(rows))
        axes.barh(places, [value - 1 for _, value in rows], left=1, color=colour, height=0.7)
        axes.set_yticks(places, shown([name for name, _ in rows]), fontsize=11)
        axes.invert_yaxis()
        if colour == B:
            axes.invert_xaxis()
        _plain(axes, xlabel=x_label)
    figure.suptitle(title)
    return figure


@_drawn
def dispersion(
    rows: Mapping[str, Sequence[float]],
    rates: Mapping[str, Sequence[float]],
    borders: Sequence[float],
    numbers: Sequence[int],
    *,
    title: str,
) -> "Figure":
    """Where words stand in a book: a stroke for every hit, and below the rate of every chapter.

    Args:
      rows: {word: places in characters from the book's beginning}.
      rates: {word: occurrences per 10,000 characters of each chapter}.
      borders: the chapters' beginnings and the book's end in characters, [chapters + 1].
      numbers: of the chapters.
    """
    figure = new_figure(12, 2.6 + 0.55 * len(rows))
    above, below = figure.subplots(2, 1, height_ratios=[0.5 * len(rows) + 0.2, 2], sharex=True)
    names = shown(list(rows))
    for k, border in enumerate(borders):
        above.axvline(border, color="#dddddd", linewidth=0.6, zorder=0)
        if k < len(numbers) and k % 2:  # every other chapter a shade darker
            below.axvspan(border, borders[k + 1], color="#f2f2f2", zorder=0)
    for k, ((_, places), colour) in enumerate(zip(rows.items(), _cycle(), strict=False)):
        many = len(places) > 500
        above.vlines(
            places, k - 0.4, k + 0.4, color=colour, linewidth=0.8 - 0.5 * many, alpha=1 - 0.3 * many
        )
    above.set_yticks(range(len(rows)), names, fontsize=11)
    above.set_ylim(len(rows) - 0.5, -0.5)
    above.tick_params(left=False, bottom=False)
    above.set_title(drawable(title))
    above.spines[["top", "right", "left", "bottom"]].set_visible(False)
    for name, (_, values), colour in zip(names, rates.items(), _cycle(), strict=False):
        below.stairs(values, borders, baseline=None, color=colour, linewidth=1.3, label=name)
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 10**9) if len(numbers) <= 24 * n)
    middles = (np.array(borders[1:]) + np.array(borders[:-1])) / 2
    kept = [k for k, n in enumerate(numbers) if every == 1 or n % every == 0]
    below.set_xticks(middles[kept], [str(numbers[k]) for k in kept])
    below.set_xlim(borders[0], borders[-1])
    below.set_ylim(bottom=0)
    if len(rows) > 1:
        below.legend(frameon=False, ncols=len(rows))
    _plain(below, xlabel="chapter", ylabel="per 10,000\ncharacters")
    return figure


def _cycle() -> Iterable[str]:
    while True:
        yield from COLOURS
