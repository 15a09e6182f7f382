"""What `scripts.bench` makes of its measurements: medians, spreads, verdicts, tables."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

Measured = Mapping[str, float]
"""What one repeat measured: seconds, images a second or gigabytes, by name."""


class Goal(NamedTuple):
    """The range, both ends included, in which a median is to lie."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def text(self) -> str:
        """For the reader."""
        if self.low == -math.inf:
            return f"at most {self.high:g}"
        return (
            f"at least {self.low:g}" if self.high == math.inf else f"{self.low:g} to {self.high:g}"
        )


class Line(NamedTuple):
    """A line of the result: a measurement, or where `over` is given its ratio to that one."""

    name: str
    unit: str
    value: str
    over: str | None = None
    goal: Goal | None = None
    whole_set: bool = False
    """Whether the goal is one for the whole set, and says nothing of a part of it."""


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest of at least one value."""
    return median(values), min(values), max(values)


def scaled_seconds(
    process: float, epochs: Sequence[float], counted: int, images: float = 1
) -> float:
    """Seconds that a training of `counted` epochs takes, from one of fewer epochs and images.

    `process` is the seconds of the whole short run, `epochs` those of each of its epochs. The last
    epoch stands for each of the `counted`, `images` times as long; what is not an epoch, and what
    the first one took more than the last (the building of the graph), is counted once, as it is.
    """
    once = process - sum(epochs) + max(0, epochs[0] - epochs[-1])
    return once + counted * images * epochs[-1]


def marginal_seconds(sizes: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Seconds for each further image between one size and the next; start-up cancels out."""
    return [
        (seconds[i + 1] - seconds[i]) / (sizes[i + 1] - sizes[i]) for i in range(len(sizes) - 1)
    ]


def summarize(
    lines: Sequence[Line], repeats: Sequence[Measured], whole_set: bool
) -> list[dict[str, Any]]:
    """Median, spread and verdict of each line that the repeats have values for.

    A ratio is taken within each repeat. `whole_set` says whether goals of the whole set apply.
    """
    found = []
    for line in lines:
        names = [name for name in (line.value, line.over) if name]
        values = [
            each[line.value] / (each[line.over] if line.over else 1)
            for each in repeats
            if all(name in each for name in names)
        ]
        if not values:
            continue
        middle, low, high = spread(values)
        entry: dict[str, Any] = {"name": line.name, "unit": line.unit, "median": middle}
        entry |= {"least": low, "greatest": high, "repeats": len(values)}
        if line.goal and (whole_set or not line.whole_set):
            met = line.goal.low <= middle <= line.goal.high
            entry |= {"goal": line.goal.text, "verdict": "met" if met else "missed"}
        found.append(entry)
    return found


def digits(value: float) -> str:
    """A number to three digits, without an exponent."""
    places = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(6, max(0, places))}f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as lines with aligned columns, all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def result_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """The table of `summarize`'s entries."""
    rows = [["", "median", "unit", "spread", "goal", ""]]
    for each in entries:
        ends = f"{digits(each['least'])} .. {digits(each['greatest'])}"
        between = ends if each["repeats"] > 1 else "one run"
        goal = [each.get("goal", ""), each.get("verdict", "")]
        rows.append([each["name"], digits(each["median"]), each["unit"], between, *goal])
    return table(rows)


def goal_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """The entries that have a goal as a table in Markdown; empty where none has."""
    held = [each for each in entries if "goal" in each]
    rows = [
        f"| {each['name']} | {each['goal']} | {digits(each['median'])} {each['unit']} "
        f"({digits(each['least'])} to {digits(each['greatest'])}) | {each['verdict']} |"
        for each in held
    ]
    return "\n".join(
        ["| what | goal | median (spread) | |", "|---|---|---|---|", *rows] if rows else []
    )


def comparison_table(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> str:
    """How the medians that both results have changed, in percent of the old one.

    A change within the spreads of the two is marked as such.
    """
    before = {each["name"]: each for each in old}
    rows = [["", "before", "now", "change", ""]]
    for now in new:
        then = before.get(now["name"])
        if then is None or then["unit"] != now["unit"] or then["median"] == 0:
            continue
        change = f"{100 * (now['median'] / then['median'] - 1):+.1f} %"
        overlap = now["least"] <= then["greatest"] and then["least"] <= now["greatest"]
        note = "within the spread" if overlap else ""
        rows.append([now["name"], digits(then["median"]), digits(now["median"]), change, note])
    return table(rows)
