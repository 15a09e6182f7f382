"""What the report's tables and picture pages hold, worked out from what `evaluate` wrote."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.scoring.scores import mcnemar

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


def find_confusions(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[Confusion]:
    """The entries off the diagonal, largest count first, then share of the class, then name."""
    totals = matrix.sum(axis=1)
    pairs = [
        Confusion(classes[row], classes[column], int(matrix[row, column]), int(totals[row]))
        for row, column in np.argwhere(matrix)
        if row != column
    ]
    pairs.sort(key=lambda pair: (-pair.images, pair.total, pair.truth, pair.prediction))
    return pairs


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


def most_uncertain(predictions: Sequence[Prediction], most: int = 12) -> list[Prediction]:
    """The predictions of the lowest probability, right or wrong, that one first."""
    return sorted(predictions, key=lambda each: (each.probability, each.image))[:most]


def sample_classes(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """For each class a picture that is recognised, and its two most confident mistakes."""
    samples: dict[str, list[Prediction]] = {}
    for each in sample_right(predictions, most=len(predictions)):
        samples.setdefault(each.truth, [each])
    mistakes: dict[str, list[Prediction]] = {}
    for each in confident_mistakes(predictions, most=len(predictions)):
        mistakes.setdefault(each.truth, []).append(each)
    for name, wrong in mistakes.items():
        samples[name] = samples.get(name, []) + wrong[:2]
    return samples


def parse_reliability(rows: Sequence[Mapping[str, str]]) -> list[tuple[float, float, int]]:
    """Rows of a table of reliability: mean confidence, accuracy, images.

    Raises KeyError or ValueError for other tables.
    """
    return [(float(row["confidence"]), float(row["accuracy"]), int(row["images"])) for row in rows]


class Score(NamedTuple):
    """One figure: as text, its interval, its change against the head, whether it is the better."""

    text: str
    interval: str
    change: str
    best: bool


class Result(NamedTuple):
    """One line of the table of results."""

    model: str
    scores: list[Score]
    images: int
    repeats: int
    part: str
    protocol: str


def score_text(figures: Mapping[str, Any], name: str) -> str:
    """A figure, with its standard deviation where there are repeats."""
    spread = f"{name}_std"
    deviation = f" \N{PLUS-MINUS SIGN} {figures[spread]:.4f}" if spread in figures else ""
    return f"{figures[name]:.4f}{deviation}"


def interval_text(figures: Mapping[str, Any], name: str) -> str:
    """A figure's interval, empty where it has none."""
    if f"{name}_low" not in figures:
        return ""
    return f"{figures[f'{name}_low']:.3f}\N{EN DASH}{figures[f'{name}_high']:.3f}"


def compare_models(metrics: Mapping[str, Mapping[str, Any]]) -> list[Result]:
    """Lines for the head, and the fine-tuned model if any, from `metrics` (model: its figures)."""
    models = [model for model in MODELS if model in metrics]

    def score(model: str, name: str) -> Score:
        value, head = metrics[model][name], metrics["head"][name]
        others = [metrics[each][name] for each in models if each != model]
        best = all(value < each if name in LOWER_IS_BETTER else value > each for each in others)
        change = "" if model == "head" else f"{value - head:+.4f}".replace("-", "\N{MINUS SIGN}")
        figures = metrics[model]
        text, interval = score_text(figures, name), interval_text(figures, name)
        return Score(text, interval, change, best and len(models) > 1)

    return [
        Result(
            MODELS[model],
            [score(model, name) for name in SCORES],
            metrics[model]["images"],
            metrics[model].get("repeats", 1),
            metrics[model]["part"],
            metrics[model]["protocol"],
        )
        for model in models
    ]


def describe_comparison(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """What fine-tuning changed and whether that can be chance, in words; empty without it."""
    if "comparison" not in metrics:
        return ""
    test = metrics["comparison"]
    gain, p_value = test["gain"], test["p_value"]
    change = f"{'gains' if gain > 0 else 'loses'} {abs(gain):.4f}" if gain else "changes nothing"
    repeat = " in the first repeat" if "repeats" in metrics["head"] else ""
    return (
        f"Fine-tuning {change} in accuracy{repeat}. Images right with the head alone: "
        f"{test['only_head_right']}, with the fine-tuned model alone: "
        f"{test['only_finetuned_right']}. {chance_text(p_value)}"
    )


def chance_text(p_value: float, models: int = 2) -> str:
    """What the p-value of McNemar's test says, in words, of the best of `models` and another one.

    Among many models that are equally good some two differ as much as this more often than a given
    two do: the p-value is multiplied by the number of pairs, which is Bonferroni's correction.
    """
    pairs = math.comb(models, 2)
    p_value = min(1, pairs * p_value)
    share = "fewer than 0.1 %" if p_value < 0.001 else f"{100 * p_value:.1f} %"
    verdict = "it is real at the level of 5 %" if p_value < 0.05 else "it may be chance"
    alike = "neither were better" if pairs == 1 else f"none of the {models} were better"
    corrected = "" if pairs == 1 else f", for {pairs} pairs of models"
    return (
        f"If {alike}, a difference like this would come up in {share} of cases "
        f"(McNemar's test{corrected}), so {verdict}."
    )


def compare_with_best(runs: Mapping[str, Sequence[Prediction]]) -> list[str]:
    """The best of several models of a set against each other one, in words; from name: predictions.

    Models that did not predict the same images are left out.
    """
    right = {
        name: {each.image: each.right for each in sorted(predictions)}
        for name, predictions in runs.items()
    }
    best = max(right, key=lambda name: sum(right[name].values()))
    comparable = {name: each for name, each in right.items() if each.keys() == right[best].keys()}
    texts = []
    for name, other in comparable.items():
        if name == best:
            continue
        test = mcnemar(np.array([*right[best].values()]), np.array([*other.values()]))
        texts.append(
            f"{best} against {name}: images right with the first alone: {test.only_first_right}, "
            f"with the second alone: {test.only_second_right}. "
            f"{chance_text(test.p_value, len(comparable))}"
        )
    return texts


def find_reservations(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to know before quoting a run's figures: (a mark of two words, what it means)."""
    source = summary["images"]["source"]
    images = [] if source in ("published", "own") else [IMAGE_SOURCES[source]]
    weights = [RANDOM_WEIGHTS] if summary["weights"]["source"] == "random" else []
    count = summary["metrics"]["head"].get("unreadable")
    left_out = [("images missing", f"{count} of the set cannot be read and are in no part")]
    return images + weights + (left_out if count else [])


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
    """How each model does on one class, in their order; None where nothing defines the figure."""

    name: str
    images: int
    recalls: list[float | None]
    precisions: list[float | None]


def parse_classes(rows: Sequence[Mapping[str, str]], models: Sequence[str]) -> list[ClassRow]:
    """Rows of a table of classes, the lowest recall of the last of `models` first.

    Raises KeyError or ValueError for other tables.
    """

    def figure(text: str) -> float | None:
        value = float(text or "nan")
        return value if math.isfinite(value) else None

    def rank(row: ClassRow) -> tuple[float, str]:
        recall = row.recalls[-1]
        return (2.0 if recall is None else recall, row.name)

    parsed = [
        ClassRow(
            row["class"],
            int(row["images"]),
            [figure(row[f"{model}_recall"]) for model in models],
            [figure(row[f"{model}_precision"]) for model in models],
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
