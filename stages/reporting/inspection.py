"""What the report shows of a set's pictures and of what a network gets to see of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Survey:
    """A set's pictures: how many there are of what, and how large they are."""

    images: int
    unreadable: list[str]
    sizes: list[tuple[str, int, float, int]]
    """Of `width` and `height`: the smallest, the median and the largest, in pixels."""
    parts: list[str]
    counts: list[tuple[str, list[int]]]
    """For each class, how many images each of `parts` has; of the first repeat."""
    totals: list[int]
    doubled: int
    """Images that have a duplicate."""


def summarise_set(
    survey: Sequence[Mapping[str, str]], split: Sequence[Mapping[str, str]], doubled: int
) -> Survey:
    """Numbers of a set, from the rows of the stages `survey` and `split`.

    Raises KeyError or ValueError for other tables.
    """
    readable = [row for row in survey if row["width"]]
    sides = {side: [int(row[side]) for row in readable] for side in ("width", "height")}
    counted = Counter((row["class"], row["part"]) for row in split)
    parts = [part for part in PARTS if any(part == each for _, each in counted)]
    names = list(dict.fromkeys(row["class"] for row in split))
    counts = [(name, [counted[name, part] for part in parts]) for name in sorted(names)]
    return Survey(
        len(survey),
        [row["image"] for row in survey if not row["width"]],
        [(name, min(each), median(each), max(each)) for name, each in sides.items() if each],
        parts,
        counts,
        [sum(each[place] for _, each in counts) for place in range(len(parts))],
        doubled,
    )


@dataclass(frozen=True)
class Values:
    """What goes into a network: range, mean, and a bar for each bin of the histogram."""

    low: float
    high: float
    mean: float
    bars: list[float]
    """Heights in percent of the highest."""


@dataclass(frozen=True)
class Inspection:
    """What the stage `inspect` found of a set and backbone."""

    facts: Mapping[str, Any]
    values: Values

    @property
    def files(self) -> list[str]:
        """The stage's pictures."""
        described = [*self.facts["pictures"], *self.facts["views"]]
        return [each["file"] for each in described] + list(self.facts["augmented"])


@dataclass(frozen=True)
class Explanation:
    """A picture of the stage `explain`: what was predicted, and where the model looks."""

    image: str
    truth: str
    prediction: str
    probability: float
    files: list[str]
    """The picture, what speaks for the prediction, and for the truth if that is another."""


def parse_explanations(facts: Sequence[Mapping[str, Any]]) -> list[Explanation]:
    """The stage's facts.json. Raises KeyError or TypeError for something else."""
    return [
        Explanation(
            each["image"], each["truth"], each["prediction"], each["probability"], each["files"]
        )
        for each in facts
    ]


def parse_inspection(facts: Mapping[str, Any]) -> Inspection:
    """The stage's facts.json. Raises KeyError or TypeError for something else."""
    given = facts["values"]
    highest = max(given["counts"])
    bars = [round(100 * count / highest, 1) for count in given["counts"]]
    values = Values(given["low"], given["high"], given["mean"], bars)
    inspection = Inspection(facts, values)
    if not (inspection.files and {"classifier", "plausible", "image_size", "crop"} <= set(facts)):
        raise KeyError("classifier")
    return inspection
