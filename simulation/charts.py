"""Small charts as inline SVG: no script, no font, colours from the page's style sheet.

Every function returns one `<svg>` with an accessible name. Colours follow CSS classes (`fused`,
`global`, `alone`, anything else is grey), shapes differ too, so that no meaning hangs on colour.
Coordinates are CSS pixels of a drawing `WIDTH` wide; the same input gives the same bytes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup

WIDTH = 440
MINUS = "\u2212"
_LABEL, _RIGHT, _ROW = 128, 428, 23


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A named value with its 95 % interval; `low` and `high` may be NaN."""

    label: str
    kind: str
    mean: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Line:
    """A named curve: its estimates in the order of the shared x values."""

    label: str
    kind: str
    points: Sequence[Estimate]


@dataclass(frozen=True)
class _Axis:
    """Maps [low, high] of the data to [start, stop] of the drawing."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._warp(self.low), self._warp(self.high)
        share = (self._warp(value) - low) / ((high - low) or 1.0)
        return self.start + min(1.0, max(0.0, share)) * (self.stop - self.start)

    def _warp(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.log else value

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values inside the axis."""
        if self.log:
            return self._log_ticks(count)
        raw = (self.high - self.low) / count or 1.0
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * 0.999)
        first_tick = math.ceil(self.low / step - 1e-9)
        last_tick = math.floor(self.high / step + 1e-9)
        return [tick * step for tick in range(first_tick, last_tick + 1)]

    def _log_ticks(self, count: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = max(1, round((last - first) / count))
        for digits in ((1,), (1, 3), (1, 2, 5)):
            powers = range(first, last + 1, every)
            ticks = [d * 10.0**power for power in powers for d in digits]
            ticks = [tick for tick in ticks if self.low <= tick <= self.high]
            if len(ticks) >= min(count, 3):
                break
        return ticks


def interval_plot(rows: Sequence[Estimate], alt: str) -> Markup:
    """Return one row per estimate: its interval as a line, its mean as a mark and a number."""
    axis = _padded(*_extent(rows), _LABEL, _RIGHT - 46)
    height = _ROW * len(rows) + 26
    parts = [_x_grid(axis, 4, height - 22)]
    for num, row in enumerate(rows):
        y = 4 + _ROW * (num + 0.5)
        parts.append(_text(_LABEL - 10, y + 4, row.label, f"end {row.kind}"))
        if math.isfinite(row.low):
            parts.append(_line(axis(row.low), y, axis(row.high), y, f"whisker {row.kind}"))
        parts.append(_mark(axis(row.mean), y, row.kind))
        parts.append(_text(_RIGHT + 8, y + 4, number(row.mean), f"end value {row.kind}"))
    return _svg(height, alt, parts)


def silo_plot(rows: Sequence[tuple[str, Sequence[Estimate]]], alt: str) -> Markup:
    """Return one row per silo (or group of silos): a mark per system, joined by a thin line."""
    axis = _padded(*_extent([e for _, marks in rows for e in marks]), _LABEL, _RIGHT)
    height = _ROW * len(rows) + 26
    parts = [_x_grid(axis, 4, height - 22)]
    for num, (label, marks) in enumerate(rows):
        y = 4 + _ROW * (num + 0.5)
        seen = [e for e in marks if math.isfinite(e.mean)]
        parts.append(_text(_LABEL - 10, y + 4, label, "end", limit=17))
        if seen:
            span = [axis(e.mean) for e in seen]
            parts.append(_line(min(span), y, max(span), y, "stem"))
        parts.extend(_mark(axis(e.mean), y, e.kind) for e in seen)
    return _svg(height, alt, parts)


def gain_scatter(sizes: Sequence[float], gains: Sequence[float], alt: str) -> Markup:
    """Return one dot per silo: its customers (log scale) against what it gained."""
    height, bottom = 250, 212
    x = _Axis(max(1.0, 0.8 * min(sizes)), 1.2 * max(sizes), 50, _RIGHT, log=True)
    low, high = min(0.0, *gains), max(0.0, *gains)
    room = 0.06 * (high - low) or 0.05
    y = _Axis(low - room, high + room, bottom, 10)
    parts = [_y_grid(y, 50, _RIGHT, signed=True), _line(50, y(0), _RIGHT, y(0), "zero")]
    for tick in x.ticks():
        parts.append(_text(x(tick), bottom + 16, _count(tick), "middle tick"))
    parts.append(_text((50 + _RIGHT) / 2, height - 4, "customers of the silo", "middle tick"))
    for size, gain in zip(sizes, gains, strict=True):
        side = "fused" if gain >= 0 else "alone"
        parts.append(f'<circle class="dot {side}" cx="{x(size):.1f}" cy="{y(gain):.1f}" r="2.6"/>')
    return _svg(height, alt, parts)


def spectrum_plot(eigenvalues: Sequence[float], edge: float, alt: str) -> Markup:
    """Return positive eigenvalues by rank on log-log axes and the edge below which noise rules."""
    values = np.sort(np.asarray([v for v in eigenvalues if v > 0], dtype=float))[::-1]
    height, bottom = 250, 212
    top = max(float(values[0]) if len(values) else edge, edge) * 1.3
    y = _Axis(min(edge / 4, top / 10), top, bottom, 10, log=True)
    x = _Axis(1.0, max(2.0, float(len(values))), 50, _RIGHT, log=True)
    spaced = np.unique(np.geomspace(1, max(1, len(values)), 160).round().astype(int))
    ranks = [r for r in spaced.tolist() if r <= len(values) and values[r - 1] >= y.low]
    points = [(x(r), y(values[r - 1]), values[r - 1] > edge) for r in ranks]
    parts = [_y_grid(y, 50, _RIGHT), _line(50, y(edge), _RIGHT, y(edge), "edge")]
    parts.append(_text(_RIGHT, y(edge) - 6, "noise edge", "end edge-label"))
    parts.extend(
        f'<circle class="dot {"fused" if kept else "rest"}" cx="{px:.1f}" cy="{py:.1f}" r="2.6"/>'
        for px, py, kept in points
    )
    parts.extend(_text(x(t), bottom + 16, _count(t), "middle tick") for t in x.ticks())
    parts.append(_text((50 + _RIGHT) / 2, height - 4, "eigenvalue number", "middle tick"))
    return _svg(height, alt, parts)


def bar_plot(rows: Sequence[tuple[str, float, str]], alt: str) -> Markup:
    """Return one bar per (label, value >= 0, text beside it), drawn from zero."""
    axis = _Axis(0.0, max((value for _, value, _ in rows), default=1.0) or 1.0, _LABEL, 300)
    parts = []
    for num, (label, value, text) in enumerate(rows):
        top = 2 + _ROW * num
        width = max(1.0, axis(value) - _LABEL)
        parts.append(_text(_LABEL - 10, top + 15, label, "end", limit=17))
        parts.append(
            f'<rect class="bar" x="{_LABEL}" y="{top + 4}" width="{width:.1f}" height="14" rx="2"/>'
        )
        parts.append(_text(_LABEL + width + 7, top + 15, text, "value"))
    return _svg(_ROW * len(rows) + 4, alt, parts)


def line_plot(
    xs: Sequence[float], lines: Sequence[Line], references: Sequence[Estimate], alt: str
) -> Markup:
    """Return curves over `xs` (log scale) with intervals, and horizontal reference lines."""
    height, bottom, left, right = 310, 268, 44, 318
    low, high = _extent([e for line in lines for e in line.points] + list(references))
    y = _padded(low, high, bottom, 10)
    x = _Axis(min(xs) / 1.15, max(xs) * 1.3, left, right, log=True)
    parts = [_y_grid(y, left, right)]
    parts.extend(_text(x(value), bottom + 16, f"{value:g}", "middle tick") for value in xs)
    parts.append(_text((left + right) / 2, height - 6, "ε of the whole run", "middle tick"))
    for num, ref in enumerate(references):
        parts.append(_line(left, y(ref.mean), right, y(ref.mean), f"reference {ref.kind}"))
        if math.isfinite(ref.low):
            edge = right - 2 - 5 * num
            parts.append(_line(edge, y(ref.low), edge, y(ref.high), f"whisker {ref.kind} thin"))
    for num, line in enumerate(lines):
        parts.append(_curve(x, y, xs, line, 4.0 * (num - (len(lines) - 1) / 2)))
    ends = [(y(r.mean), r.label, r.kind) for r in references]
    ends += [(y(line.points[-1].mean), line.label, line.kind) for line in lines]
    ends.sort()
    for at, (_, label, kind) in zip(_spread([e[0] for e in ends], 14.0), ends, strict=True):
        parts.append(_text(right + 8, at + 4, label, f"value {kind}"))
    return _svg(height, alt, parts)


def number(value: float) -> str:
    """Return a quality for people: four decimals, a dash where there is none."""
    return f"{value:.4f}".replace("-", MINUS) if math.isfinite(value) else "—"


def _curve(x: _Axis, y: _Axis, xs: Sequence[float], line: Line, aside: float) -> str:
    """Return a curve moved `aside` pixels, so that intervals at one x do not hide each other."""
    pairs = [
        (x(at) + aside, e) for at, e in zip(xs, line.points, strict=True) if math.isfinite(e.mean)
    ]
    path = " ".join(f"{px:.1f},{y(e.mean):.1f}" for px, e in pairs)
    parts = [f'<polyline class="curve {line.kind}" points="{path}"/>']
    for px, e in pairs:
        if math.isfinite(e.low):
            parts.append(_line(px, y(e.low), px, y(e.high), f"whisker {line.kind}"))
        parts.append(_mark(px, y(e.mean), line.kind))
    return "".join(parts)


def _padded(low: float, high: float, start: float, stop: float) -> _Axis:
    """Return an axis a little longer than [low, high], but not below zero."""
    room = 0.06 * (high - low) or 0.05
    return _Axis(max(0.0, low - room), high + room, start, stop)


def _extent(estimates: Sequence[Estimate]) -> tuple[float, float]:
    ends = [v for e in estimates for v in (e.mean, e.low, e.high) if math.isfinite(v)]
    return min(ends, default=0.0), max(ends, default=1.0)


def _spread(ys: Sequence[float], gap: float) -> list[float]:
    """Return ascending positions close to the ascending `ys`, at least `gap` apart."""
    placed: list[list[float]] = []
    for y in ys:
        placed.append([y])
        while len(placed) > 1 and _first(placed[-1], gap) - _last(placed[-2], gap) < gap:
            placed[-2:] = [placed[-2] + placed[-1]]
    return [_first(group, gap) + gap * num for group in placed for num in range(len(group))]


def _first(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _last(group: Sequence[float], gap: float) -> float:
    return _first(group, gap) + gap * (len(group) - 1)


def _x_grid(axis: _Axis, top: float, bottom: float) -> str:
    parts = []
    for tick in axis.ticks(6):
        parts.append(_line(axis(tick), top, axis(tick), bottom, "grid"))
        parts.append(_text(axis(tick), bottom + 15, _short(tick), "middle tick"))
    return "".join(parts)


def _y_grid(axis: _Axis, left: float, right: float, *, signed: bool = False) -> str:
    parts = []
    for tick in axis.ticks():
        parts.append(_line(left, axis(tick), right, axis(tick), "grid"))
        plus = "+" if signed and tick > 0 else ""
        parts.append(_text(left - 7, axis(tick) + 4, plus + _short(tick), "end tick"))
    return "".join(parts)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    """Return a tick: three digits, no exponent, a true minus sign."""
    text = _count(value) if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004
    return text.replace("-", MINUS)


def _mark(x: float, y: float, kind: str) -> str:
    """Return a disc, for `global` a diamond, for `alone` a ring."""
    if kind == "global":
        corners = ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0))
        points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        return f'<polygon class="mark global" points="{points}"/>'
    return f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.4"/>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, css: str, *, limit: int = 40) -> str:
    short = text if len(text) <= limit else f"{text[: limit - 1]}…"
    whole = f"<title>{escape(text)}</title>" if short != text else ""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(short)}{whole}</text>'


def _svg(height: float, alt: str, parts: Iterable[str]) -> Markup:
    name = escape(alt)
    body = "".join(parts)
    return Markup(  # noqa: S704 (every text inside went through `escape`)
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}">{body}</svg>'
    )
