"""What the report shows of a set: its pictures, its duplicates, and its runs side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

from stages.common.files import read_csv
from stages.pictures.table import PARTS
from stages.reporting.charts import Scale, round_scale
from stages.reporting.runs import RunView, read_run, reading
from stages.reporting.tables import compare_with_best

Rows = Sequence[Mapping[str, str]]
"""Of a table with a header line."""


@dataclass(frozen=True)
class Survey:
    """A set's pictures: how many there are of what, and how large they are."""

    images: int
    unreadable: list[str]
    damaged: list[str]
    """Images that are read although something of them is damaged."""
    sizes: dict[str, tuple[int, float, int]]
    """Of `width` and `height`: the smallest, the median and the largest, in pixels."""
    parts: dict[str, int]
    """How many images each part has."""
    counts: dict[str, Counter[str]]
    """The same of each class."""


@dataclass(frozen=True)
class SetView:
    """What the page shows of a set and of all its runs together."""

    name: str
    survey: Survey
    duplicates: list[Rows]
    runs: list[RunView]
    accuracies: Scale
    """Where the accuracies and their intervals go, in percent of the width of an axis."""
    comparisons: list[str]


def summarise_set(survey: Rows, split: Rows) -> Survey:
    """Numbers of a set, from the rows of the stages `survey` and `split`.

    Raises KeyError or ValueError for other tables.
    """
    sizes = {}
    for side in ("width", "height"):
        pixels = [int(row[side]) for row in survey if row[side]]
        sizes[side] = (min(pixels), median(pixels), max(pixels))
    counts: dict[str, Counter[str]] = {name: Counter() for name in sorted(classes_of(split))}
    for row in split:
        counts[row["class"]][row["part"]] += 1
    parts = Counter(row["part"] for row in split)
    return Survey(
        len(survey),
        [row["image"] for row in survey if not row["width"]],
        [row["image"] for row in survey if row["damaged"]],
        sizes,
        {part: parts[part] for part in PARTS if part in parts},
        counts,
    )


def group_duplicates(rows: Rows) -> list[Rows]:
    """Groups of images that show the same picture, from the rows of the stage `duplicates`.

    Those of two classes come first, as one of the names may be wrong, then in the set's order.
    Raises KeyError or ValueError for other tables.
    """
    ordered = sorted(rows, key=lambda row: int(row["group"]))
    groups = [list(members) for _, members in groupby(ordered, lambda row: row["group"])]
    return sorted(groups, key=lambda group: len(classes_of(group)) == 1)


def classes_of(rows: Rows) -> set[str]:
    """The classes of a table's rows."""
    return {row["class"] for row in rows}


def read_set(name: str, backbones: Sequence[str]) -> SetView:
    """Read what the stages wrote of a set and of its runs.

    Raises UserError for a file that is missing or cannot be used.
    """
    runs = [read_run(name, backbone) for backbone in backbones]
    with reading(Path(f"data/duplicates/{name}.csv")) as path:
        duplicates = group_duplicates(read_csv(path))
    with reading(Path(f"data/splits/{name}.csv")) as path:
        split = read_csv(path)
    with reading(Path(f"metrics/survey/{name}.csv")) as path:
        survey = summarise_set(read_csv(path), split)
    scores = [model.scores for run in runs for model in run.models]
    lowest = min(each["accuracy_low"] for each in scores)
    highest = max(each["accuracy_high"] for each in scores)
    last = {f"{run.backbone}, {run.models[-1].title}": run.models[-1].predictions for run in runs}
    accuracies = round_scale(lowest, highest, 0, 100)
    return SetView(name, survey, duplicates, runs, accuracies, compare_with_best(last))
