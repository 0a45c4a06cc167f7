"""Small charts as inline SVG; colours come from the page, every text is escaped."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from .losses import CLEAR, HONEST, SERVER

_WIDTH, _HEIGHT = 560, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 400, 12, 196
_COLOURS = 4
_TITLES = {SERVER: "server + t silos", HONEST: "all honest", CLEAR: "masking broken"}


def spending_plot(lines: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> str:
    """Return the share of the budget spent over time, one step line per (silo, points)."""
    times = [point[0] for _, points in lines for point in points]
    first, last = min(times), max(times)
    top = max(1.0, *(point[1] for _, points in lines for point in points))
    parts = [_grid(top, "{:.0%}")]
    parts.append(_line(_LEFT, _y(1.0, top), _RIGHT, _y(1.0, top), "limit"))
    for time, anchor in ((first, ""), (last, "end")):
        day = datetime.fromtimestamp(time, UTC)
        parts.append(
            _text(_x(time, first, last), _BOTTOM + 18, f"{day:%F %H:%M}", f"tick {anchor}")
        )
    for num, (silo, points) in enumerate(lines):
        path, before = [], _y(0.0, top)
        for time, share in points:
            x, y = _x(time, first, last), _y(share, top)
            path += [f"{x:.1f},{before:.1f}", f"{x:.1f},{y:.1f}"]
            before = y
        parts.append(f'<polyline class="line c{num % _COLOURS}" points="{" ".join(path)}"/>')
        if num < 10:  # noqa: PLR2004 (more names than fit)
            parts.append(_text(_RIGHT + 10, 24 + 16 * num, silo, f"c{num % _COLOURS}"))
    return _svg("share of the budget spent over time, by silo", parts)


def loss_plot(lines: Mapping[str, Sequence[float | None]]) -> str:
    """Return epsilon against the number of silos that know a customer, a line per trust."""
    known = [value for values in lines.values() for value in values if value is not None]
    top = max(known, default=1.0) * 1.05 or 1.0
    count = max(len(values) for values in lines.values())
    parts = [_grid(top, "{:.3g}")]
    for k in range(1, count + 1):
        label = "1 silo" if k == 1 else str(k)
        parts.append(_text(_x(k, 1, count), _BOTTOM + 18, label, "tick middle"))
    ends: list[tuple[float, str, int]] = []
    for num, (who, values) in enumerate(lines.items()):
        spots = [
            (_x(k, 1, count), _y(value, top))
            for k, value in enumerate(values, start=1)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline class="line c{num}" points="{path}"/>')
        parts += [f'<circle class="c{num}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in spots]
        if spots:
            ends.append((spots[-1][1], _TITLES[who], num))
    at = -99.0
    for y, title, num in sorted(ends):
        at = max(y, at + 15)
        parts.append(_text(_RIGHT + 12, at + 4, title, f"c{num}"))
    return _svg("epsilon by the number of silos that know a customer", parts)


def bound_plot(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a bar per attack that gives an epsilon: the claim, and what was found in it."""
    bars = [r for r in results if _is_epsilon(r)][:20]
    if not bars:
        return ""
    top = max(max(r["value"], r["claim_epsilon"]) for r in bars) * 1.05 or 1.0
    parts = []
    for num, row in enumerate(bars):
        y = 8 + 26 * num
        claim, found = (340 * max(row[n], 0.0) / top for n in ("claim_epsilon", "value"))
        css = "beyond" if row["value"] > row["claim_epsilon"] else "bound"
        name = f"{row.get('attack')}, {row.get('target')}"
        parts.append(_text(166, y + 13, name if len(name) < 27 else f"{name[:26]}…", "end"))  # noqa: PLR2004
        parts.append(
            f'<rect class="claim" x="176" y="{y}" width="{claim:.1f}" height="18" rx="2"/>'
        )
        parts.append(
            f'<rect class="{css}" x="176" y="{y + 5}" width="{max(found, 1):.1f}" height="8"/>'
        )
        parts.append(_text(182 + max(claim, found), y + 13, f"{row['value']:.2f}", "tick"))
    return _svg("what attacks found beside the claim", parts, 26 * len(bars) + 14)


def _is_epsilon(row: Mapping[str, Any]) -> bool:
    numbers = all(isinstance(row.get(name), int | float) for name in ("value", "claim_epsilon"))
    return numbers and row.get("estimate") != "rate"


def _grid(top: float, form: str) -> str:
    parts = []
    for step in range(5):
        value = top * step / 4
        y = _y(value, top)
        parts.append(_line(_LEFT, y, _RIGHT, y, "grid"))
        parts.append(_text(_LEFT - 7, y + 4, form.format(value), "tick end"))
    return "".join(parts)


def _x(value: float, first: float, last: float) -> float:
    return _LEFT + (value - first) / ((last - first) or 1.0) * (_RIGHT - _LEFT)


def _y(value: float, top: float) -> float:
    return _BOTTOM - max(value, 0.0) / top * (_BOTTOM - _TOP)


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(alt: str, parts: Sequence[str], height: int = _HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(alt)}">'
        f"{''.join(parts)}</svg>"
    )
