"""Small charts as inline SVG, coloured by the page's style sheet, so that they follow light and dark."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from bundle.measures import Bin

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 460, 240, 46, 12, 12, 34

Points = Sequence[tuple[float, float]]


def lines(series: Mapping[str, Points], x_label: str, y_range: tuple[float, float]) -> Markup:
    """One polyline per name; the class `s0`, `s1`… of each gives its colour."""
    xs = [x for points in series.values() for x, _ in points]
    frame = _Frame((min(xs), max(*xs, min(xs) + 1)), y_range)
    parts = [frame.axes(x_label)]
    for index, (name, points) in enumerate(series.items()):
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        dots = "".join(f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.5"/>' for x, y in points)
        parts.append(f'<g class="s{index}"><polyline points="{path}"/>{dots}</g>')
        parts.append(_key(index, name))
    return _svg(parts)


def reliability(series: Mapping[str, Sequence[Bin]]) -> Markup:
    """Accuracy over confidence, one colour a name; a dot's area grows with the share of answers that it stands for."""
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    diagonal = f'<line class="ideal" x1="{frame.x(0)}" y1="{frame.y(0)}" x2="{frame.x(1)}" y2="{frame.y(1)}"/>'
    parts = [frame.axes("confidence"), diagonal]
    for index, (name, bins) in enumerate(series.items()):
        dots = "".join(
            f'<circle cx="{frame.x(row.confidence):.1f}" cy="{frame.y(row.accuracy):.1f}" '
            f'r="{3 + 14 * row.share**0.5:.1f}"/>'
            for row in bins
        )
        parts += [f'<g class="s{index} bubbles">{dots}</g>', _key(index, name)]
    return _svg(parts)


def risk_coverage(curve: Points, chosen: tuple[float, float] | None) -> Markup:
    """Risk over coverage as (coverage, risk) rows; `chosen` is the point of the threshold."""
    worst = max(risk for _, risk in [*curve, *filter(None, [chosen])])
    frame = _Frame((0.0, 1.0), (0.0, max(worst * 1.15, 0.01)))
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in curve)
    parts = [frame.axes("coverage"), f'<g class="s0"><polyline points="{path}"/></g>', _key(0, "risk")]
    if chosen is not None:
        x, y = frame.x(chosen[0]), frame.y(chosen[1])
        parts.append(f'<line class="ideal" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{frame.y(0):.1f}"/>')
        parts.append(f'<g class="s1"><circle cx="{x:.1f}" cy="{y:.1f}" r="5"/></g>{_key(1, "the threshold")}')
    return _svg(parts)


def _key(index: int, name: str) -> str:
    return f'<text class="s{index} key" x="{_LEFT + 10 + 120 * index}" y="{_TOP + 12}">{name}</text>'


class _Frame:
    """Data coordinates to the drawing's."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self._x_range, self._y_range = x_range, y_range

    def x(self, value: float) -> float:
        low, high = self._x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str) -> str:
        return "".join(
            [
                *(self._row(value) for value in _ticks(*self._y_range)),
                *(self._text(value) for value in _ticks(*self._x_range)),
                f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 2}" text-anchor="middle">{x_label}</text>',
            ]
        )

    def _row(self, value: float) -> str:
        y = self.y(value)
        line = f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        return f'{line}<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'

    def _text(self, value: float) -> str:
        return f'<text x="{self.x(value):.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{value:g}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Four or five round numbers in the range."""
    step = next(
        size * 10.0**power for power in range(-4, 9) for size in (1, 2, 5) if (high - low) / (size * 10.0**power) <= 5
    )
    first = -(-low // step)
    return [round((first + index) * step, 6) for index in range(7) if (first + index) * step <= high + 1e-9]


def _svg(parts: Sequence[str]) -> Markup:
    return Markup(f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>')  # noqa: S704 - made of numbers and fixed names
