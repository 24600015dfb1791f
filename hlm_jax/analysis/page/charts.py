"""Charts as inline SVG: curves, points and bars.

A chart is a figure with a legend in HTML and one drawing, named for screen readers, with tooltips.
Its colours are classes of page.css; form or dash tells the series apart where colour does not.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from hlm_jax.analysis.page.axes import Plot, longest, nice_ticks, pixels, svg_text, text_width
from hlm_jax.analysis.page.markup import Html, both, escape, number, plain

COLOURS = 7  # .s0 to .s6 of page.css
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 3", "4 2", "1 4")
MOST_STOPS = 30  # links of a chart that the Tab key reaches one by one


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    hatched: Sequence[tuple[float, float]] = (),
    hatched_label: str = both("trained on", "训练所用"),
    links: Mapping[float, str] | None = None,
    names: Mapping[float, str] | None = None,
    marks: Mapping[float, str] | None = None,
    caption: str = "",
    width: int = 900,
    height: int = 320,
) -> Html:
    """Curves over a common x axis, as SVG.

    Args:
      series: points (x, y) of every curve, by its label; y that is not finite leaves a gap.
      hatched: spans (from, to) of x that lie under a hatching, and its label in the legend.
      links: the address that a click at this x opens.
      names: a name of this x for the tooltip, such as a chapter's title.
      marks: a dashed vertical line with this label at x, for milestones.
      caption: stands below.
    """
    points = [p for curve in series.values() for p in curve if np.isfinite(p[1])]
    spans = [x for span in hatched for x in span]
    plot = Plot.around([*(x for x, _ in points), *spans], [y for _, y in points], width, height)
    parts = [plot.axes(x_label, y_label), _hatching(plot, hatched), _milestones(plot, marks or {})]
    for index, (label, curve) in enumerate(series.items()):
        parts.append(_curve(plot, index, plain(label), curve, names or {}))
    parts.append(_click_areas(plot, series, links or {}, names or {}))
    entries = [(label, _key_line(index)) for index, label in enumerate(series)]
    if hatched:
        entries.append((hatched_label, _key_hatch()))
    summary = f"{plain(y_label)} / {plain(x_label)}: {', '.join(map(plain, series))}"
    return _chart(plot, "".join(parts), entries, summary, caption)


def scatter(
    points: Sequence[tuple[float, float, str, str]],
    *,
    x_label: str,
    y_label: str,
    links: Mapping[str, str] | None = None,
    label_points: bool = True,
    diagonal: bool = False,
    width: int = 900,
    height: int = 520,
) -> Html:
    """Points (x, y, label, group) as SVG; colour and form tell the group.

    Labels stand where they meet no other; every point has its label as a tooltip.

    Args:
      links: the address that a click on the point with this label opens.
      diagonal: draws the line x = y, for two measures of one kind.
    """
    points = [p for p in points if np.isfinite(p[0]) and np.isfinite(p[1])]
    groups = list(dict.fromkeys(group for *_, group in points))
    plot = Plot.around([p[0] for p in points], [p[1] for p in points], width, height, pad=0.04)
    parts = [plot.axes(x_label, y_label)]
    if diagonal:
        low, high = max(plot.x0, plot.y0), min(plot.x1, plot.y1)
        ends = f'x1="{plot.x(low)}" y1="{plot.y(low)}" x2="{plot.x(high)}" y2="{plot.y(high)}"'
        parts.append(f'<line class="axis" {ends}/>' if low < high else "")
    for x, y, label, group in points:
        tip = f"{plain(label)}: {number(x)}, {number(y)} ({plain(group)})"
        shape = _marker(plot.x(x), plot.y(y), groups.index(group), tip)
        parts.append(_linked(shape, (links or {}).get(label)))
    if label_points:
        parts.append(_point_labels(plot, points))
    entries = [(group, _marker(12, 0, index, "")) for index, group in enumerate(groups)]
    summary = f"{plain(y_label)} / {plain(x_label)}: {len(points)} points"
    return _chart(plot, "".join(parts), entries if len(groups) > 1 else [], summary)


def bars(
    rows: Sequence[tuple[str, float]],
    *,
    x_label: str,
    groups: Sequence[str] = (),
    width: int = 900,
) -> Html:
    """Horizontal bars from zero, one a row (label, value), the first on top, as SVG.

    Args:
      groups: the labels of the negative and of the positive side, for the legend.
    """
    rows = [(label, value) for label, value in rows if np.isfinite(value)]
    values = [value for _, value in rows] or [0.0]
    room = min(max((text_width(plain(label)) for label, _ in rows), default=0) + 16, width * 0.4)
    ticks = nice_ticks(min(0, *values, 0), max(0, *values, 0), 6)
    plot = Plot(ticks[0], ticks[-1], 0, max(len(rows), 1), width, 22 * len(rows) + 60, left=room)
    parts = [plot.x_axis(x_label, ticks)]
    for index, (label, value) in enumerate(rows):
        y, start = 8 + 22 * index, plot.x(0)
        x, end = min(start, plot.x(value)), abs(plot.x(value) - start)
        tip = f"<title>{escape(plain(label))}: {number(value)}</title>"
        parts.append(
            f'<rect class="fill s{int(value > 0)}" x="{pixels(x)}" y="{y}" width="{pixels(end)}" '
            f'height="16">{tip}</rect>'
            f'<text x="{pixels(room - 8)}" y="{y + 13}" text-anchor="end">{svg_text(label)}</text>'
        )
    top, bottom = 2, plot.height - plot.bottom
    parts.append(f'<path class="zero" d="M{pixels(plot.x(0))} {top}V{bottom}"/>')
    entries = [(label, _key_box(index)) for index, label in enumerate(groups)]
    return _chart(plot, "".join(parts), entries, f"{plain(x_label)}: {len(rows)} bars")


def _chart(
    plot: Plot, inside: str, legend: Sequence[tuple[str, str]], summary: str, caption: str = ""
) -> Html:
    """The figure: the legend above, the drawing below, which scrolls where the screen is narrow."""
    keys = "".join(
        f'<span class="key"><svg width="26" height="14" viewBox="0 -7 26 14" aria-hidden="true">'
        f"{drawing}</svg>{escape(label)}</span>"
        for label, drawing in legend
    )
    above = f'<div class="legend">{keys}</div>' if keys else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    size = f'viewBox="0 0 {pixels(plot.width)} {pixels(plot.height)}"'
    least = f"min-width:{pixels(plot.width * 0.72)}px"
    role = "group" if "<a " in inside else "img"  # what is in an image cannot be reached
    return Html(
        f'<figure>{above}<div class="scroll"><svg class="chart" {size} style="{least}" '
        f'role="{role}" aria-label="{escape(summary)}">{inside}</svg></div>{below}</figure>'
    )


def _curve(
    plot: Plot,
    index: int,
    label: str,
    curve: Sequence[tuple[float, float]],
    names: Mapping[float, str],
) -> str:
    """One curve: its line, broken at gaps, and a dot with a tooltip at every point."""
    path, begun = [], False
    for x, y in curve:
        if np.isfinite(y):
            path.append(f"{'L' if begun else 'M'}{pixels(plot.x(x))} {pixels(plot.y(y))}")
        begun = bool(np.isfinite(y))
    dash = f' stroke-dasharray="{_DASHES[index % COLOURS]}"' if _DASHES[index % COLOURS] else ""
    line = f'<path class="curve stroke s{index % COLOURS}"{dash} d="{"".join(path)}"/>'
    if len(curve) > 400:
        return line
    dots = []
    for x, y in curve:
        if np.isfinite(y):
            name = plain(names[x]) if x in names else number(x)
            tip = f"{name} · {label}: {number(y)}"
            dots.append(_marker(plot.x(x), plot.y(y), index, tip, size=3.2))
    return line + "".join(dots)


def _hatching(plot: Plot, spans: Sequence[tuple[float, float]]) -> str:
    if not spans:
        return ""
    shapes = "".join(
        f'<rect x="{pixels(plot.x(max(a, plot.x0)))}" y="{pixels(plot.top)}" '
        f'width="{pixels(max(plot.x(min(b, plot.x1)) - plot.x(max(a, plot.x0)), 1))}" '
        f'height="{pixels(plot.height - plot.bottom - plot.top)}"/>'
        for a, b in spans
    )
    # Drawings on one page share names: this one is made of what it holds.
    name = f"hatch-{hashlib.sha256(shapes.encode()).hexdigest()[:8]}"
    size = 'width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"'
    line = '<path class="hatch" d="M0 0V7"/>'
    return f'<pattern id="{name}" {size}>{line}</pattern><g fill="url(#{name})">{shapes}</g>'


def _milestones(plot: Plot, marks: Mapping[float, str]) -> str:
    """Dashed lines; a label that would meet the one before moves a line down."""
    parts, ends = [], [-math.inf] * 4
    for value, label in sorted(marks.items()):
        x, width = plot.x(value), text_width(longest(label)) + 10
        turned = x + width > plot.width
        start = x - width if turned else x
        row = next((i for i, end in enumerate(ends) if end <= start), len(ends) - 1)
        ends[row] = start + width
        line = f"M{pixels(x)} {pixels(plot.top)}V{pixels(plot.height - plot.bottom)}"
        place = f'x="{pixels(x - 5 if turned else x + 5)}" y="{pixels(plot.top + 12 + 15 * row)}"'
        anchor = f'text-anchor="{"end" if turned else "start"}"'
        parts.append(f'<path class="mark" d="{line}"/>')
        parts.append(f'<text class="halo" {place} {anchor}>{svg_text(label)}</text>')
    return "".join(parts)


def _click_areas(
    plot: Plot,
    series: Mapping[str, Sequence[tuple[float, float]]],
    links: Mapping[float, str],
    names: Mapping[float, str],
) -> str:
    """A column around every linked x that a click, a tap or the Enter key opens.

    It covers the dots, so its tooltip has the values of all curves. Beyond MOST_STOPS links the
    Tab key passes them by.
    """
    xs = sorted(links)
    reach = min((b - a for a, b in itertools.pairwise(xs)), default=1) / 2
    values = [(plain(label), dict(curve)) for label, curve in series.items()]
    top, height = plot.top, plot.height - plot.bottom - plot.top
    parts = []
    for x in xs:
        left, right = max(x - reach, plot.x0), min(x + reach, plot.x1)
        name = plain(names[x]) if x in names else number(x)
        tip = "\n".join([name, *(f"{label}: {number(ys[x])}" for label, ys in values if x in ys)])
        start, width = plot.x(left), plot.x(right) - plot.x(left)
        area = (
            f'<rect class="column" x="{pixels(start)}" y="{pixels(top)}" width="{pixels(width)}" '
            f'height="{pixels(height)}" data-x="{number(x)}"><title>{escape(tip)}</title></rect>'
        )
        stop = ' tabindex="-1"' if len(xs) > MOST_STOPS else ""
        parts.append(_linked(area, links[x], f' aria-label="{escape(name)}"{stop}'))
    return "".join(parts)


def _point_labels(plot: Plot, points: Sequence[tuple[float, float, str, str]]) -> str:
    """Labels beside their points, each where it meets neither a point nor a label before it."""
    taken = [(plot.x(x) - 5, plot.y(y) - 5, plot.x(x) + 5, plot.y(y) + 5) for x, y, *_ in points]
    parts = []
    for x, y, label, _ in points[:400]:
        cx, cy, width = plot.x(x), plot.y(y), text_width(longest(label))
        places = ((cx + 7, cy - 7), (cx - 7 - width, cy - 7), (cx - width / 2, cy - 21))
        for left, top in (*places, (cx - width / 2, cy + 7)):
            box = (left, top, left + width, top + 14)
            inside = left >= plot.left and box[2] <= plot.width and top >= 0
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                place = f'x="{pixels(left)}" y="{pixels(top + 11)}"'
                parts.append(f'<text class="halo" {place}>{svg_text(label)}</text>')
                break
    return "".join(parts)


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _marker(x: float, y: float, index: int, tip: str, size: float = 4.5) -> str:
    """A dot whose form and colour tell the group: circle, square, triangle, diamond, ring."""
    s, form = size, index % 5
    colour = f"{'hollow' if form in (1, 4) else 'fill'} s{index % COLOURS}"
    title = f"<title>{escape(tip)}</title>" if tip else ""
    a, b, c, d = pixels(x - s), pixels(x + s), pixels(y - s), pixels(y + s)
    if form in (0, 4):
        place = f'cx="{pixels(x)}" cy="{pixels(y)}" r="{pixels(s)}"'
        return f'<circle class="{colour}" {place}>{title}</circle>'
    up, low = pixels(y - s * 1.3), pixels(y + s * 1.3)
    path = {
        1: f"M{a} {c}H{b}V{d}H{a}Z",
        2: f"M{pixels(x)} {c}L{b} {d}H{a}Z",
        3: f"M{pixels(x)} {up}L{b} {pixels(y)}L{pixels(x)} {low}L{a} {pixels(y)}Z",
    }[form]
    return f'<path class="{colour}" d="{path}">{title}</path>'


def _linked(shape: str, address: str | None, attributes: str = "") -> str:
    return shape if address is None else f'<a href="{escape(address)}"{attributes}>{shape}</a>'


def _key_line(index: int) -> str:
    dash = f' stroke-dasharray="{_DASHES[index % COLOURS]}"' if _DASHES[index % COLOURS] else ""
    line = f'<path class="curve stroke s{index % COLOURS}"{dash} d="M0 0H26"/>'
    return f"{line}{_marker(13, 0, index, '', size=3.2)}"


def _key_hatch() -> str:
    return '<path class="hatch" d="M2 6L14 -6M9 6L21 -6M16 6L26 -4M0 1L7 -6"/>'


def _key_box(index: int) -> str:
    return f'<rect class="fill s{index}" x="4" y="-6" width="16" height="12"/>'
