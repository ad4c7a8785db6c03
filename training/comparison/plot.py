"""A comparison as one chart: accuracy with its interval on an axis, and beside it what it cost."""

import math
from collections.abc import Sequence
from html import escape

from training.comparison import table
from training.comparison.records import Result, Row

_LEFT, _AXIS, _RIGHT, _TOP, _LINE = 275, 360, 230, 40, 30  # px
_COLUMNS = (("time", 20), ("trained", 95), ("ONNX", 170))  # px right of the axis
_STYLE = """
svg { background: #fbfaf7; font: 13px system-ui, sans-serif; } text { fill: #22261f; } .soft { fill: #6b7066; }
.grid { stroke: #e4e2da; } .mark { stroke: #2f7d4f; fill: #2f7d4f; stroke-width: 2; }
@media (prefers-color-scheme: dark) { svg { background: #151714; } text { fill: #e6e8e1; } .soft { fill: #9aa093; }
.grid { stroke: #333830; } .mark { stroke: #6cc48f; fill: #6cc48f; } }
"""


def svg(rows: Sequence[Row]) -> str:
    """A file of its own, without anything from outside; what failed has its line and no mark."""
    low = _lowest(rows)
    width, height = _LEFT + _AXIS + _RIGHT, _TOP + _LINE * len(rows) + 30
    parts = [_axis(low, height), *(_line(row, _TOP + _LINE * (at + 0.5), low) for at, row in enumerate(rows))]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>Validation accuracy of each candidate with its 95 % interval</title><style>{_STYLE}</style>"
        f"{''.join(parts)}</svg>\n"
    )


def _lowest(rows: Sequence[Row]) -> float:
    """Where the axis begins: the tenth below the lowest interval, so that near results can be told apart."""
    lows = [row.result.top1_interval[0] for row in rows if row.result is not None]
    return min(math.floor(min(lows, default=0.0) * 10) / 10, 0.9)


def _x(share: float, low: float) -> float:
    return _LEFT + (share - low) / (1 - low) * _AXIS


def _axis(low: float, height: float) -> str:
    steps = round((1 - low) * 10)
    ticks = [low + index / 10 for index in range(0, steps + 1, 1 if steps <= 5 else 2)]
    lines = [
        f'<line class="grid" x1="{_x(tick, low):.1f}" x2="{_x(tick, low):.1f}" y1="{_TOP}" y2="{height - 30}"/>'
        f'<text class="soft" x="{_x(tick, low):.1f}" y="{height - 12}" text-anchor="middle">{tick:.1f}</text>'
        for tick in ticks
    ]
    heads = [_text(_LEFT + _AXIS + place, _TOP - 14, name, "soft") for name, place in _COLUMNS]
    return "".join([*lines, _text(_LEFT, _TOP - 14, "accuracy on validation photos", "soft"), *heads])


def _line(row: Row, y: float, low: float) -> str:
    name = _text(12, y + 4, f"{row.candidate.backbone} {table.strategy(row)}", "")
    if row.result is None:
        return name + _text(_LEFT + 8, y + 4, "failed", "soft")
    costs = (
        table.duration(row.result.seconds),
        table.count(row.result.trainable),
        table.megabytes(row.result.onnx_bytes),
    )
    texts = [_text(_LEFT + _AXIS + place, y + 4, cost, "") for (_, place), cost in zip(_COLUMNS, costs, strict=True)]
    return "".join([name, _mark(row.result, y, low), *texts])


def _mark(result: Result, y: float, low: float) -> str:
    left, right = (_x(end, low) for end in result.top1_interval)
    return (
        f'<g class="mark"><line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>'
        f'<circle cx="{_x(result.top1, low):.1f}" cy="{y}" r="5"/></g>'
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'
