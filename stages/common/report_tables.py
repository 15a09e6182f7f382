"""What the report's tables and picture pages hold, worked out from what `evaluate` wrote."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MODELS = {"head": "head", "finetuned": "fine-tuned"}
SCORES = {
    "accuracy": "Accuracy",
    "mean_class_accuracy": "Mean class accuracy",
    "top5_accuracy": "Top-5 accuracy",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
}
LOWER_IS_BETTER = {"log_loss", "calibration_error"}

RANDOM_WEIGHTS = (
    "random weights",
    "the backbone has learned nothing beforehand, so the figures show that the run works, no more",
)
IMAGE_SOURCES = {
    "mirror": (
        "mirror images",
        "the images come from a mirror and are not the published files, "
        "so the figures may differ from theirs",
    ),
    "generated": (
        "generated images",
        "the images are drawn by this project, not photographed, "
        "so the figures say nothing about real flowers",
    ),
}


class Prediction(NamedTuple):
    """What a model said of one image; both probabilities are from 0 to 1."""

    image: str
    truth: str
    prediction: str
    probability: float
    truth_probability: float

    @property
    def right(self) -> bool:
        """Whether the likeliest class is the true one."""
        return self.truth == self.prediction


def parse_predictions(rows: Sequence[Mapping[str, str]]) -> list[Prediction]:
    """Rows of a predictions table. Raises KeyError or ValueError for other tables."""
    return [
        Prediction(
            row["image"],
            row["truth"],
            row["prediction"],
            float(row["probability"]),
            float(row["truth_probability"]),
        )
        for row in rows
    ]


def count_confusions(
    predictions: Sequence[Prediction], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Images by true class (row) and predicted class (column), shape (classes, classes).

    Raises KeyError for a class that is not among `classes`.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for each in predictions:
        matrix[numbers[each.truth], numbers[each.prediction]] += 1
    return matrix


class Confusion(NamedTuple):
    """How many of the `total` images of class `truth` were taken for `prediction`."""

    truth: str
    prediction: str
    images: int
    total: int


def most_confused(
    matrix: NDArray[np.int64], classes: Sequence[str], most: int = 12
) -> list[Confusion]:
    """The largest entries off the diagonal, by count, then share of the class, then name."""
    totals = matrix.sum(axis=1)
    pairs = [
        Confusion(classes[row], classes[column], int(matrix[row, column]), int(totals[row]))
        for row, column in np.argwhere(matrix)
        if row != column
    ]
    pairs.sort(key=lambda pair: (-pair.images, pair.total, pair.truth, pair.prediction))
    return pairs[:most]


def sample_right(predictions: Sequence[Prediction], most: int = 12) -> list[Prediction]:
    """Some right predictions, drawn with a fixed seed.

    All images are shuffled and the first right ones taken, so that another model of the same split
    shows the same pictures as far as it has them right too.
    """
    ordered = sorted(predictions)
    shuffled = [ordered[place] for place in np.random.default_rng(0).permutation(len(ordered))]
    return [each for each in shuffled if each.right][:most]


def confident_mistakes(predictions: Sequence[Prediction], most: int = 12) -> list[Prediction]:
    """The wrong predictions of the highest probability, that one first."""
    wrong = [each for each in predictions if not each.right]
    return sorted(wrong, key=lambda each: (-each.probability, each.image))[:most]


class Score(NamedTuple):
    """One figure: as text, its change against the head, whether it is the better of the two."""

    text: str
    change: str
    best: bool


class Result(NamedTuple):
    """One line of the table of results."""

    model: str
    scores: list[Score]
    images: int
    part: str
    protocol: str


def compare_models(metrics: Mapping[str, Mapping[str, Any]]) -> list[Result]:
    """Lines for the head and the fine-tuned model from `metrics` (model: its figures)."""

    def score(model: str, name: str) -> Score:
        value, head = metrics[model][name], metrics["head"][name]
        others = [metrics[each][name] for each in MODELS if each != model]
        best = all(value < each if name in LOWER_IS_BETTER else value > each for each in others)
        change = "" if model == "head" else f"{value - head:+.4f}".replace("-", "\N{MINUS SIGN}")
        return Score(f"{value:.4f}", change, best)

    return [
        Result(
            title,
            [score(model, name) for name in SCORES],
            metrics[model]["images"],
            metrics[model]["part"],
            metrics[model]["protocol"],
        )
        for model, title in MODELS.items()
    ]


def find_reservations(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to know before quoting a run's figures: (a mark of two words, what it means)."""
    source = summary["images"]["source"]
    images = [] if source == "published" else [IMAGE_SOURCES[source]]
    return images + ([RANDOM_WEIGHTS] if summary["weights"]["source"] == "random" else [])


def group_reservations(
    runs: Mapping[str, Sequence[tuple[str, str]]],
) -> list[tuple[tuple[str, str], list[str]]]:
    """Each reservation once, with the names of the runs that it holds for, from run: its own."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, reservations in runs.items():
        for each in reservations:
            groups.setdefault(each, []).append(name)
    return list(groups.items())


@dataclass(frozen=True)
class ClassRow:
    """How the two models do on one class; None where nothing defines the figure."""

    name: str
    images: int
    head_recall: float | None
    head_precision: float | None
    finetuned_recall: float | None
    finetuned_precision: float | None

    @property
    def figures(self) -> list[float | None]:
        """The four figures in the table's order."""
        return [
            self.head_recall,
            self.finetuned_recall,
            self.head_precision,
            self.finetuned_precision,
        ]


def parse_classes(rows: Sequence[Mapping[str, str]]) -> list[ClassRow]:
    """Rows of a table of classes, the lowest recall of the fine-tuned model first.

    Raises KeyError or ValueError for other tables.
    """

    def figure(text: str) -> float | None:
        value = float(text or "nan")
        return value if math.isfinite(value) else None

    def rank(row: ClassRow) -> tuple[float, str]:
        return (2.0 if row.finetuned_recall is None else row.finetuned_recall, row.name)

    parsed = [
        ClassRow(
            row["class"],
            int(row["images"]),
            figure(row["head_recall"]),
            figure(row["head_precision"]),
            figure(row["finetuned_recall"]),
            figure(row["finetuned_precision"]),
        )
        for row in rows
    ]
    return sorted(parsed, key=rank)


def value_text(value: Any) -> str:
    """A value of YAML or JSON as a reader expects it: text bare, lists with commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        return ", ".join(value_text(each) for each in value)
    return json.dumps(value, ensure_ascii=False)


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Entries of nested mappings as (dotted name, text), in their order."""
    entries = []
    for name, each in value.items():
        if isinstance(each, Mapping):
            entries += flatten(each, f"{prefix}{name}.")
        else:
            entries.append((f"{prefix}{name}", value_text(each)))
    return entries


def group_parameters(params: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Parameters by section, those of no section first, under "general"."""
    general = {name: value for name, value in params.items() if not isinstance(value, Mapping)}
    sections = {name: value for name, value in params.items() if isinstance(value, Mapping)}
    return [(name, flatten(value)) for name, value in {"general": general, **sections}.items()]
