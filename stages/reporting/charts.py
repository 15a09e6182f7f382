"""Geometry of the report's drawings: where lines, ticks and cells go inside an SVG picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

WIDTH, HEIGHT = 290, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 36
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
class Bin:
    """Images of about the same stated probability, placed in a reliability diagram."""

    x: float
    y: float
    top: float
    """Of the bar that shows the bin's share of the images."""
    confidence: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class ReliabilityDiagram:
    """Accuracy over stated probability, both 0 to 1; on the diagonal they are the same."""

    ticks: list[tuple[Tick, Tick]]
    """Along x and along y."""
    bins: list[Bin]
    width: ClassVar[int] = WIDTH
    height: ClassVar[int] = HEIGHT
    left: ClassVar[int] = LEFT
    right: ClassVar[int] = WIDTH - RIGHT
    top: ClassVar[int] = TOP
    bottom: ClassVar[int] = HEIGHT - BOTTOM

    @property
    def path(self) -> str:
        """The points as SVG's `polyline` takes them."""
        return " ".join(f"{each.x},{each.y}" for each in self.bins)


BAR_SHARE = 0.35
"""Height of the highest bar of a reliability diagram, as a share of the diagram's."""


def reliability_diagram(bins: Sequence[tuple[float, float, int]]) -> ReliabilityDiagram:
    """Place bins of (mean confidence, accuracy, images)."""

    def across(share: float) -> float:
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def down(share: float) -> float:
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    most = max((images for *_, images in bins), default=1)
    return ReliabilityDiagram(
        [(Tick(across(x), f"{x:g}"), Tick(down(x), f"{x:g}")) for x in (0, 0.25, 0.5, 0.75, 1)],
        [
            Bin(across(x), down(y), down(BAR_SHARE * images / most), x, y, images)
            for x, y, images in bins
        ],
    )


@dataclass(frozen=True)
class Interval:
    """A figure and its interval, and where they go, in percent of the width of an axis."""

    name: str
    figure: float
    low: float
    high: float
    at: float
    start: float
    width: float


@dataclass(frozen=True)
class IntervalChart:
    """Intervals one under the other, on an axis from `first` to `last`."""

    first: float
    last: float
    intervals: list[Interval]


def interval_chart(rows: Sequence[tuple[str, float, float, float]]) -> IntervalChart:
    """Place rows of (name, figure, low, high) on one axis.

    The axis reaches from the round number below the lowest to the one above the highest.
    """
    levels = round_ticks(min(row[2] for row in rows), max(row[3] for row in rows))
    first, last = levels[0], levels[-1]

    def percent(value: float) -> float:
        return round(100 * (value - first) / (last - first), 2)

    placed = [
        Interval(name, figure, low, high, percent(figure), percent(low),
                 round(percent(high) - percent(low), 2))
        for name, figure, low, high in rows
    ]  # fmt: skip
    return IntervalChart(first, last, placed)


@dataclass(frozen=True)
class Cell:
    """A confusion: images of class `truth` that were taken for class `prediction`."""

    row: int
    column: int
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
    orders: list[tuple[str, str]]
    """Ways of ordering the classes: what it is called, and their numbers with spaces between."""

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
    orders = class_orders(matrix, classes)
    return HeatMap(
        side,
        font,
        margin,
        [Tick(place + side / 2, name) for place, name in zip(places, classes, strict=False)],
        "".join(f"M{margin} {at}H{end}M{at} {margin}V{end}" for at in lines),
        [
            Cell(
                int(row),
                int(column),
                places[column],
                places[row],
                classes[row],
                classes[column],
                int(matrix[row, column]),
                int(totals[row]),
            )
            for row, column in np.argwhere(matrix)
        ],
        [(name, " ".join(map(str, order))) for name, order in orders.items()],
    )


def class_orders(matrix: NDArray[np.int64], classes: Sequence[str]) -> dict[str, list[int]]:
    """Orders of the classes of a confusion matrix, by what they are called."""
    numbers = range(len(classes))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return {
        "as in the set": list(numbers),
        "by name": sorted(numbers, key=lambda each: classes[each].lower()),
        "worst first": sorted(numbers, key=lambda each: float(shares[each, each])),
        "confused ones together": group_confused(shares),
    }


def group_confused(shares: NDArray[np.float64]) -> list[int]:
    """Classes so ordered that those taken for each other lie together.

    `shares`, shape (classes, classes), are confusions as shares of the true class. The leaves of an
    average linkage, in the order of Bar-Joseph et al., "Fast optimal leaf ordering for hierarchical
    clustering" (2001).
    """
    if len(shares) < 3:
        return list(range(len(shares)))
    distances = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances), "average", optimal_ordering=True)
    return [int(each) for each in leaves_list(tree)]
