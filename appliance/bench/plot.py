"""The sweep as a picture: an SVG of four small plots over the number of clients, light or dark as its reader is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

Runs = Sequence[Mapping[str, Any]]
Lines = tuple[tuple[str, str], ...]
"""Each the name of a figure and what to call it."""

PLOTS: tuple[tuple[str, Lines], ...] = (
    ("Output tokens per second", (("output_throughput", "all clients together"),)),
    ("Time to first token, ms", (("median_ttft_ms", "median"), ("p99_ttft_ms", "p99"))),
    ("Inter-token latency, ms", (("median_itl_ms", "median"), ("p99_itl_ms", "p99"))),
    ("End-to-end latency, ms", (("median_e2el_ms", "median"), ("p99_e2el_ms", "p99"))),
)
WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 46, 40
HEAD = 56
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #525c68 } .title { font-size: 14px; font-weight: 600; fill: #14181d }
.ground { fill: #fff } .grid { stroke: #d9dfe5 } path { fill: none; stroke-width: 2 } .a { stroke: #0a666d }
.b { stroke: #6a46c2; stroke-dasharray: 6 4 } .dot.a { fill: #0a666d } .dot.b { fill: #6a46c2; stroke-dasharray: none }
@media (prefers-color-scheme: dark) { text { fill: #a0abb7 } .title { fill: #e9edf2 } .ground { fill: #0d1014 }
.grid { stroke: #2b343e } .a { stroke: #5cc8cd } .b { stroke: #b7a2fa }
.dot.a { fill: #5cc8cd } .dot.b { fill: #b7a2fa } }
"""


def svg(runs: Runs, *, title: str) -> str:
    """`runs` are those of one sweep, in the order of their concurrency."""
    panels = "".join(
        f'<g transform="translate({WIDTH * (number % 2)} {HEAD + HEIGHT * (number // 2)})">{_panel(runs, *plot)}</g>'
        for number, plot in enumerate(PLOTS)
    )
    width, height = 2 * WIDTH, HEAD + 2 * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f'<rect class="ground" width="{width}" height="{height}"/>'
        f'<text class="title" x="20" y="32">{escape(title)}</text>{panels}</svg>\n'
    )


def _panel(runs: Runs, title: str, lines: Lines) -> str:
    top = _ceiling(max((run[name] for run in runs for name, _ in lines), default=0.0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(runs) - 1)

    def y(value: float) -> float:
        return TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = y(share * top)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{share * top:g}</text>')
    for number, run in enumerate(runs):
        where = f'x="{LEFT + number * step:.1f}" y="{HEIGHT - BOTTOM + 18}"'
        parts.append(f'<text {where} text-anchor="middle">{run["max_concurrency"]}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">clients</text>')
    for (name, called), kind in zip(lines, "ab", strict=False):
        points = [(LEFT + number * step, y(run[name])) for number, run in enumerate(runs)]
        parts.append(f'<path class="{kind}" d="M' + "L".join(f"{px:.1f} {py:.1f}" for px, py in points) + '"/>')
        parts += [f'<circle class="dot {kind}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points]
        key = LEFT + (0 if kind == "a" else 150)
        parts.append(f'<path class="{kind}" d="M{key} 33h22"/><text x="{key + 28}" y="37">{escape(called)}</text>')
    return "".join(parts)


def _ceiling(most: float) -> float:
    """A round number at or above the largest value."""
    if most <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= most * 0.999)
