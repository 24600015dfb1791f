"""The plane of a chart: values to pixels, round ticks, labels that do not meet."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from hlm_jax.analysis.page.markup import Both, escape

_ROOM = 24  # pixels between two labels of an axis


class Plot(NamedTuple):
    """A rectangle of values and the drawing that it is mapped to, in pixels."""

    x0: float
    x1: float
    y0: float
    y1: float
    width: float
    height: float
    left: float = 64
    right: float = 16
    top: float = 14
    bottom: float = 46
    x_ticks: tuple[float, ...] = ()
    y_ticks: tuple[float, ...] = ()

    @classmethod
    def around(
        cls, xs: Sequence[float], ys: Sequence[float], width: int, height: int, pad: float = 0.0
    ) -> "Plot":
        """A plot that holds all these values, its y axis from a round number to a round number."""
        x0, x1 = _spread(xs, max(pad, 0.01))
        y0, y1 = _spread(ys, pad)
        y_ticks = nice_ticks(y0, y1, max(2, height // 60))
        x_ticks = [x for x in nice_ticks(x0, x1, max(2, width // 90)) if x0 <= x <= x1]
        left = 44 + max(text_width(_written(tick)) for tick in y_ticks)
        ends = (x0, x1, y_ticks[0], y_ticks[-1])
        return cls(*ends, width, height, left, x_ticks=tuple(x_ticks), y_ticks=tuple(y_ticks))

    def x(self, value: float) -> float:
        share = (value - self.x0) / (self.x1 - self.x0)
        return round(self.left + share * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        share = (value - self.y0) / (self.y1 - self.y0)
        return round(self.height - self.bottom - share * (self.height - self.bottom - self.top), 1)

    def axes(self, x_label: str, y_label: str) -> str:
        """Both axes with a grid, and a line at zero where the values have both signs."""
        end, middle = self.width - self.right, (self.top + self.height - self.bottom) / 2
        parts = []
        for tick in self.y_ticks:
            y = self.y(tick)
            kind = "zero" if tick == 0 and self.y0 < 0 else "grid"
            parts.append(
                f'<path class="{kind}" d="M{pixels(self.left)} {pixels(y)}H{pixels(end)}"/>'
            )
            parts.append(_tick(self.left - 8, y + 4, _written(tick), "end"))
        turn = f'transform="translate(15 {pixels(middle)}) rotate(-90)" text-anchor="middle"'
        parts.append(f"<text {turn}>{svg_text(y_label)}</text>")
        return "".join(parts) + self.x_axis(x_label, self.x_ticks)

    def x_axis(self, x_label: str, ticks: Sequence[float]) -> str:
        """The lower axis; ticks whose labels would meet are left out evenly."""
        base, end = self.height - self.bottom, self.width - self.right
        parts = [f'<path class="axis" d="M{pixels(self.left)} {pixels(base)}H{pixels(end)}"/>']
        widest = max((text_width(_written(tick)) for tick in ticks), default=0)
        apart = abs(self.x(ticks[1]) - self.x(ticks[0])) if len(ticks) > 1 else math.inf
        every = max(1, math.ceil((widest + _ROOM) / apart))
        for tick in ticks[::every]:
            x = self.x(tick)
            parts.append(f'<path class="axis" d="M{pixels(x)} {pixels(base)}v5"/>')
            parts.append(_tick(x, base + 19, _written(tick), "middle"))
        middle = (self.left + end) / 2
        label = f'x="{pixels(middle)}" y="{pixels(self.height - 6)}" text-anchor="middle"'
        return "".join(parts) + f"<text {label}>{svg_text(x_label)}</text>"


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round numbers, 1, 2 or 5 times a power of ten apart, that enclose both ends."""
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 1.0
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def svg_text(label: str) -> str:
    """A label inside an SVG text: both languages as spans of it."""
    if not isinstance(label, Both):
        return escape(label)
    english = f'<tspan class="en">{escape(label.english)}</tspan>'
    return f'{english}<tspan class="zh">{escape(label.chinese)}</tspan>'


def longest(label: str) -> str:
    """The longer language of a label."""
    return max((label.english, label.chinese), key=text_width) if isinstance(label, Both) else label


def text_width(text: str) -> float:
    """Pixels of a text in 13 px, estimated: a Chinese character is as wide as high."""
    return sum(13.0 if ord(c) >= 0x2E80 else 7.2 for c in text)


def _spread(values: Sequence[float], pad: float) -> tuple[float, float]:
    """The ends of the values with room beside them; one value alone gets room of its own."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(min(values)), float(max(values))
    room = (high - low) * pad or (abs(low) * 0.1 or 1.0 if high == low else 0.0)
    return low - room, high + room


def _written(tick: float) -> str:
    """Every digit of a round number."""
    return f"{tick:.12g}"


def _tick(x: float, y: float, text: str, anchor: str) -> str:
    place = f'x="{pixels(x)}" y="{pixels(y)}" text-anchor="{anchor}"'
    return f'<text class="tick" {place}>{escape(text)}</text>'


def pixels(value: float) -> str:
    """A coordinate with at most one digit after the point."""
    return f"{value:.1f}".removesuffix(".0")
