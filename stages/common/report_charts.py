"""Geometry of the report's drawings: where lines, ticks and cells go inside an SVG picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 290, 190
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 10, 36
FEW_POINTS = 30
"""Up to so many points a line shows each of them as a dot."""
FEW_CLASSES = 30
"""Up to so many classes a confusion matrix has room for the counts."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in the picture and its text."""

    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name, its points in the picture, and its last value."""

    name: str
    points: list[tuple[float, float]]
    last: float

    @property
    def path(self) -> str:
        """The points as SVG's `polyline` takes them."""
        return " ".join(f"{x},{y}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """A line chart over epochs."""

    epochs: int
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    width: ClassVar[int] = WIDTH
    height: ClassVar[int] = HEIGHT
    left: ClassVar[int] = LEFT
    right: ClassVar[int] = WIDTH - RIGHT

    @property
    def dots(self) -> bool:
        """Whether the points are few enough to show each."""
        return self.epochs <= FEW_POINTS


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose `low` to `high`.

    Their step is the smallest with at most `most` steps between the ends.
    """
    rough = ((high - low) or abs(high) or 1) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, max(last, first + 1) + 1)]


def line_chart(epochs: Sequence[float], series: Mapping[str, Sequence[float]]) -> Chart | None:
    """A chart of `series` (name: a value for each epoch); None when there is no value to draw.

    Values that are not finite, as a diverging loss has them, are left out of their line.
    """
    finite = {
        name: [(x, y) for x, y in zip(epochs, values, strict=True) if math.isfinite(y)]
        for name, values in series.items()
    }
    values = [y for points in finite.values() for _, y in points]
    if not values:
        return None
    levels = round_ticks(min(values), max(values))
    first, last = epochs[0], max(epochs[-1], epochs[0] + 1)

    def across(x: float) -> float:
        return round(LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1)

    def down(y: float) -> float:
        share = (y - levels[0]) / (levels[-1] - levels[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    marks = [x for x in round_ticks(first, last) if x.is_integer() and first <= x <= epochs[-1]]
    return Chart(
        round(epochs[-1]),
        [Tick(across(x), f"{x:g}") for x in marks],
        [Tick(down(y), f"{y:g}") for y in levels],
        [
            Line(name, [(across(x), down(y)) for x, y in points], points[-1][1])
            for name, points in finite.items()
            if points
        ],
    )


@dataclass(frozen=True)
class Cell:
    """A confusion: images of class `truth` that were taken for class `prediction`."""

    x: float
    y: float
    truth: str
    prediction: str
    count: int
    total: int
    """All images of class `truth`."""

    @property
    def right(self) -> bool:
        """Whether the cell is on the diagonal."""
        return self.truth == self.prediction

    @property
    def share(self) -> float:
        """Of the images of class `truth`, from 0 to 1."""
        return self.count / self.total

    @property
    def opacity(self) -> float:
        """So that a single image still shows among many."""
        return round(0.2 + 0.8 * self.share, 2)


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix: a row for each true class, a column for each predicted one."""

    side: int
    """Of a cell, in pixels."""
    font: float
    margin: int
    """For the names on the left and above."""
    labels: list[Tick]
    grid: str
    cells: list[Cell]
    """Those that are not zero."""

    @property
    def counts(self) -> bool:
        """Whether a cell has room for its count."""
        return len(self.labels) <= FEW_CLASSES

    @property
    def size(self) -> int:
        """Width and height of the whole, in pixels."""
        return self.margin + len(self.labels) * self.side + 1


def heat_map(matrix: NDArray[np.int64], classes: Sequence[str]) -> HeatMap:
    """Place the confusion matrix, shape (classes, classes), of true by predicted class."""
    few = len(classes) <= FEW_CLASSES
    side, font = (26, 12.0) if few else (10, 8.5)
    margin = round(0.56 * font * max(len(name) for name in classes)) + 12
    end = margin + len(classes) * side
    places = [margin + side * number for number in range(len(classes) + 1)]
    lines = [place for number, place in enumerate(places) if few or number % 5 == 0]
    totals = matrix.sum(axis=1)
    return HeatMap(
        side,
        font,
        margin,
        [Tick(place + side / 2, name) for place, name in zip(places, classes, strict=False)],
        "".join(f"M{margin} {at}H{end}M{at} {margin}V{end}" for at in lines),
        [
            Cell(
                places[column],
                places[row],
                classes[row],
                classes[column],
                int(matrix[row, column]),
                int(totals[row]),
            )
            for row, column in np.argwhere(matrix)
        ],
    )
