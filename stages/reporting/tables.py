"""What the report's tables, texts and cards hold, worked out from what `evaluate` wrote."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.scoring.scores import confusion, mcnemar

MODELS = {"head": "head", "finetuned": "fine-tuned"}
SCORES = {
    "accuracy": "Accuracy",
    "mean_class_accuracy": "Mean class accuracy",
    "top5_accuracy": "Top-5 accuracy",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
}

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
    truth = np.array([numbers[each.truth] for each in predictions])
    predicted = np.array([numbers[each.prediction] for each in predictions])
    return confusion(predicted, truth, len(classes))


class Confusion(NamedTuple):
    """How many of the `total` images of class `truth` were taken for `prediction`."""

    truth: str
    prediction: str
    images: int
    total: int
    row: int
    """The number of `truth` in the set."""
    column: int
    """The number of `prediction`."""

    @property
    def right(self) -> bool:
        """Whether the two are the same class."""
        return self.row == self.column


def find_confusions(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[Confusion]:
    """The entries that are not zero, largest count first, then share of the class, then name."""
    totals = matrix.sum(axis=1)
    found = [
        Confusion(
            classes[row], classes[column], int(matrix[row, column]), int(totals[row]), row, column
        )
        for row, column in np.argwhere(matrix).tolist()
    ]
    return sorted(found, key=lambda each: (-each.images, each.total, *each))


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


def describe_comparison(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """What fine-tuning changed and whether that can be chance, in words."""
    test = metrics["comparison"]
    gain, p_value = test["gain"], test["p_value"]
    change = f"{'gains' if gain > 0 else 'loses'} {abs(gain):.4f}" if gain else "changes nothing"
    return (
        f"Fine-tuning {change} in accuracy. Images right with the head alone: "
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


def sort_classes(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Rows of a table of classes, the lowest recall of the fine-tuned model first.

    Last are the classes that have none, as no image of theirs was scored. Raises KeyError or
    ValueError for other tables.
    """
    return sorted(rows, key=lambda row: (float(row["finetuned_recall"] or 2), row["class"]))


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
