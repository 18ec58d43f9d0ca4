"""Plots as inline SVG. Colours are CSS variables of the page, so they follow light and dark."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from holdfast.witness.check.latency import KMS_TIMEOUT, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

# A phone's width is about the drawing's own, so its letters are readable there; elsewhere it grows a little.
WIDTH, HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 14, 36
_QUANTILES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999)


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name, a CSS class that gives its colour, and points (x, seconds)."""

    name: str
    css: str
    points: tuple[tuple[float, float], ...]


def percentile_curve(seconds: Sequence[float], title: str) -> str:
    """Latency over the share of calls, which is spread towards 100 %."""
    ordered = sorted(seconds)
    shares = [q for q in _QUANTILES if q == 0 or len(ordered) * (1 - q) >= 1]
    last = (_nines(shares[-1]) + 0.4, ordered[-1])
    points = (*((_nines(q), percentile(ordered, q)) for q in shares), last)
    ticks = [(_nines(q), f"{q * 100:g}") for q in (0.0, 0.5, 0.9, 0.99, 0.999) if q in shares]
    return _lines(title, [Series("latency", "a", points)], [*ticks, (last[0], "max")], "% of calls within")


def load_curve(series: Sequence[Series], title: str) -> str:
    """Latency over the request rate."""
    rates = sorted({x for line in series for x, _ in line.points})
    ticks: list[tuple[float, str]] = []
    for rate in rates:
        if not ticks or rate - ticks[-1][0] > rates[-1] * 0.12:
            ticks.append((rate, f"{rate:,.0f}"))
    return _lines(title, series, ticks, "requests/s")


def histogram(seconds: Sequence[float], title: str) -> str:
    """How many calls took how long, in buckets that double every fourth."""
    edges = [0.0001 * 2 ** (n / 2) for n in range(32)]
    counts = [0] * (len(edges) + 1)
    for value in seconds:
        counts[bisect_left(edges, value)] += 1
    return bars(counts, edges, title)


def bars(counts: Sequence[int], edges: Sequence[float], title: str) -> str:
    """A histogram from counts; `edges` are the buckets' upper ones, with one bucket more for the rest."""
    used = [index for index, count in enumerate(counts) if count] or [0]
    first, last = max(0, used[0] - 1), min(len(counts) - 1, max(used[-1] + 1, used[0] + 5))
    width = (WIDTH - _LEFT - _RIGHT) / (last - first + 1)
    top = max(counts[first : last + 1]) or 1
    body = [_grid_line(0, "0"), _grid_line(1, f"{top:,}")]
    for index in range(first, last + 1):
        height = counts[index] / top * (HEIGHT - _TOP - _BOTTOM)
        late = index >= len(edges) or edges[index] > KMS_TIMEOUT * 1.05
        x, y = _LEFT + (index - first) * width, HEIGHT - _BOTTOM - height
        label = (
            f"{counts[index]:,} calls up to {_ms(edges[index])} ms"
            if index < len(edges)
            else f"{counts[index]:,} more"
        )
        body.append(
            f'<rect class="{"late" if late else "bar"}" x="{x + 0.5:.1f}" y="{y:.1f}" '
            f'width="{max(width - 1, 1):.1f}" '
            f'height="{height:.1f}"><title>{label}</title></rect>'
        )
    every = max(1, math.ceil((last - first + 1) / 7))
    body += [
        _x_label(_LEFT + (index - first + 1) * width, _ms(edges[index]))
        for index in range(first, min(last + 1, len(edges)), every)
    ]
    return _svg(title, [*body, _x_title("ms, up to"), '<text x="2" y="205">calls</text>'])


def budget_bar(parts: Sequence[tuple[str, str, float]], title: str) -> str:
    """One bar of 250 ms with the parts of a call on a new connection: name, CSS class, seconds."""
    total = sum(seconds for _, _, seconds in parts)
    span = max(KMS_TIMEOUT, total)
    scale = (WIDTH - 20) / span
    x, body = 10.0, []
    body.append(f'<rect class="track" x="10" y="26" width="{WIDTH - 20}" height="22" rx="3"/>')
    for name, css, seconds in parts:
        width = max(seconds * scale, 0.8)
        body.append(
            f'<rect class="fill-{css}" x="{x:.1f}" y="26" width="{width:.1f}" height="22">'
            f"<title>{escape(name)}: {_ms(seconds)} ms</title></rect>"
        )
        x += width
    limit = 10 + KMS_TIMEOUT * scale
    body.append(f'<line class="limit" x1="{limit:.1f}" x2="{limit:.1f}" y1="20" y2="54"/>')
    body.append(f'<text class="end" x="{min(limit, WIDTH - 10):.1f}" y="15">250 ms</text>')
    body.append(f'<text x="10" y="15">{_ms(total)} ms</text>')
    return _svg(title, body, height=60) + _legend(
        [(f"{name} {_ms(seconds)} ms", css) for name, css, seconds in parts]
    )


def _lines(title: str, series: Sequence[Series], ticks: Sequence[tuple[float, str]], x_title: str) -> str:
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    x_low, x_span = min(xs), (max(xs) - min(xs)) or 1.0
    y_low = 10 ** math.floor(math.log10(max(min(ys), 1e-5)))
    y_high = 10 ** math.ceil(math.log10(max(*ys, KMS_TIMEOUT) * 1.05))

    def at_x(x: float) -> float:
        return _LEFT + (x - x_low) / x_span * (WIDTH - _LEFT - _RIGHT - 8) + 4

    def share_y(y: float) -> float:
        return math.log(max(y, y_low) / y_low) / math.log(y_high / y_low)

    decade, body = y_low, []
    while decade <= y_high * 1.01:
        body.append(_grid_line(share_y(decade), _ms(decade)))
        decade *= 10
    limit = _y(share_y(KMS_TIMEOUT))
    body.append(f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{limit:.1f}" y2="{limit:.1f}"/>')
    body.append(f'<text class="limit-text" x="{_LEFT + 4}" y="{limit - 4:.1f}">250 ms: KMS gives up</text>')
    for line in series:
        places = [(at_x(x), _y(share_y(y)), x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
        body.append(f'<polyline class="line-{line.css}" points="{path}"/>')
        body += [
            f'<circle class="fill-{line.css}" cx="{x:.1f}" cy="{y:.1f}" r="2.5">'
            f"<title>{escape(line.name)}: {_ms(value)} ms</title></circle>"
            for x, y, _, value in places
        ]
    body += [_x_label(at_x(x), text) for x, text in ticks]
    legend = _legend([(line.name, line.css) for line in series]) if len(series) > 1 else ""
    return _svg(title, [*body, _x_title(x_title), '<text x="2" y="205">ms</text>']) + legend


def _svg(title: str, body: Sequence[str], height: int = HEIGHT) -> str:
    inner = "".join(body)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{inner}</svg>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<span><i class="back-{css}"></i>{escape(name)}</span>' for name, css in entries)
    return f'<div class="legend">{items}</div>'


def _grid_line(share: float, text: str) -> str:
    y = _y(share)
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="end" x="{_LEFT - 5}" y="{y + 4:.1f}">{text}</text>'
    )


def _x_label(x: float, text: str) -> str:
    return f'<text class="middle" x="{min(x, WIDTH - 20):.1f}" y="{HEIGHT - _BOTTOM + 14}">{text}</text>'


def _x_title(text: str) -> str:
    return f'<text class="end" x="{WIDTH - _RIGHT}" y="{HEIGHT - 5}">{text}</text>'


def _y(share: float) -> float:
    return _TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM)


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _ms(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"  # noqa: PLR2004 (digits)
