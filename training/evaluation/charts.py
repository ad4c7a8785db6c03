"""Small charts as inline SVG, coloured by the page's style sheet, so that they follow light and dark."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

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
        parts.append(f'<text class="s{index} key" x="{_LEFT + 10 + 120 * index}" y="{_TOP + 12}">{name}</text>')
    return _svg(parts)


def reliability(bins: Sequence[tuple[float, float, float]]) -> Markup:
    """Accuracy over confidence, from (mean confidence, accuracy, share) rows; area grows with the share of answers."""
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    diagonal = f'<line class="ideal" x1="{frame.x(0)}" y1="{frame.y(0)}" x2="{frame.x(1)}" y2="{frame.y(1)}"/>'
    dots = "".join(
        f'<circle cx="{frame.x(confidence):.1f}" cy="{frame.y(accuracy):.1f}" r="{3 + 14 * share**0.5:.1f}"/>'
        for confidence, accuracy, share in bins
    )
    return _svg([frame.axes("confidence"), diagonal, f'<g class="s0 bubbles">{dots}</g>'])


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
