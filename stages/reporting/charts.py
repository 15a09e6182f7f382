"""Geometry of the report's drawings: where values go, and orders of a confusion matrix's classes.

The templates draw: into line charts and reliability diagrams 290 wide and 190 high.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

ACROSS, DOWN = (44, 282), (154, 10)
"""From where to where the axes of a drawing go."""


@dataclass(frozen=True)
class Scale:
    """An axis: its values from `first` to `last` lie between the places `start` and `end`."""

    first: float
    last: float
    start: float
    end: float
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """The place of a value."""
        share = (value - self.first) / (self.last - self.first)
        return round(self.start + share * (self.end - self.start), 2)


SHARES = [Scale(0, 1, *ends, (0, 0.25, 0.5, 0.75, 1)) for ends in (ACROSS, DOWN)]
"""Both axes of a reliability diagram."""


@dataclass(frozen=True)
class Chart:
    """A line chart over epochs."""

    x: Scale
    y: Scale
    lines: dict[str, list[tuple[float, float]]]
    """From name: the values along both axes."""


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose `low` to `high`.

    Their step is the smallest with at most `most` steps between the ends.
    """
    rough = ((high - low) or abs(high) or 1) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, max(last, first + 1) + 1)]


def round_scale(low: float, high: float, start: float, end: float) -> Scale:
    """A scale from the round number below `low` to the one above `high`."""
    ticks = round_ticks(low, high)
    return Scale(ticks[0], ticks[-1], start, end, ticks)


def line_chart(epochs: Sequence[float], series: Mapping[str, Sequence[float]]) -> Chart | None:
    """A chart of `series` (name: a value for each epoch, of which there are two at least).

    Values that are not finite, as a diverging loss has them, are left out of their line, and None
    is the chart when there is no other.
    """
    finite = {
        name: [(x, y) for x, y in zip(epochs, values, strict=True) if math.isfinite(y)]
        for name, values in series.items()
    }
    values = [y for points in finite.values() for _, y in points]
    if not values:
        return None
    first, last = epochs[0], epochs[-1]
    marks = [x for x in round_ticks(first, last) if x.is_integer() and first <= x <= last]
    return Chart(
        Scale(first, last, *ACROSS, marks),
        round_scale(min(values), max(values), *DOWN),
        {name: points for name, points in finite.items() if points},
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
