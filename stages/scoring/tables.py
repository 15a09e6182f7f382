"""What is written of the models' predictions: scores, and the rows of the tables behind the plots.

Pure functions of arrays: `probabilities` has the shape (images, classes), `truth` and predicted
labels the shape (images,), labels are from 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.scoring.scores import all_scores, confusion, mcnemar, precision, recall, reliability

PREDICTION_COLUMNS = ("image", "truth", "prediction", "probability", "truth_probability")
RELIABILITY_COLUMNS = ("confidence", "accuracy", "images")
CLASS_COLUMNS = (
    "class", "images", "head_recall", "head_precision", "finetuned_recall", "finetuned_precision"
)  # fmt: skip

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float32]


def prediction_rows(
    images: Sequence[str], truth: Labels, probabilities: Probabilities, classes: Sequence[str]
) -> list[list[str]]:
    """One row of PREDICTION_COLUMNS for each image, probabilities to six digits."""
    predicted = probabilities.argmax(axis=1)
    return [
        [image, classes[t], classes[p], f"{row[p]:.6f}", f"{row[t]:.6f}"]
        for image, t, p, row in zip(images, truth, predicted, probabilities, strict=True)
    ]


def class_rows(
    truth: Labels, head: Labels, finetuned: Labels, classes: Sequence[str]
) -> list[list[Any]]:
    """One row of CLASS_COLUMNS for each class; empty where nothing defines a figure."""
    images = np.bincount(truth, minlength=len(classes))
    columns: list[Sequence[Any]] = [classes, images.tolist()]
    for predicted in (head, finetuned):
        counts = confusion(predicted, truth, len(classes))
        columns += [
            ["" if np.isnan(score) else f"{score:.6f}" for score in scores]
            for scores in (recall(counts), precision(counts))
        ]
    return [list(row) for row in zip(*columns, strict=True)]


def reliability_rows(probabilities: Probabilities, truth: Labels) -> list[list[str]]:
    """One row of RELIABILITY_COLUMNS for each bin of confidence that holds an image."""
    return [
        [f"{confidence:.6f}", f"{accuracy:.6f}", str(images)]
        for confidence, accuracy, images in zip(*reliability(probabilities, truth), strict=True)
    ]


def gain_of_fine_tuning(head: Labels, finetuned: Labels, truth: Labels) -> dict[str, float]:
    """What fine-tuning gained, by the labels that both models predict.

    `gain` is a difference of accuracies, `p_value` that of McNemar's test; both to six digits.
    """
    test = mcnemar(head == truth, finetuned == truth)
    return {
        "gain": round((test.only_second_right - test.only_first_right) / len(truth), 6),
        "only_head_right": test.only_first_right,
        "only_finetuned_right": test.only_second_right,
        "p_value": round(test.p_value, 6),
    }


def score_models(
    head: Probabilities, finetuned: Probabilities, truth: Labels, facts: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The content of a metrics file: both models' scores, each with `facts`, and the comparison."""
    return {
        "head": {**all_scores(head, truth), **facts},
        "finetuned": {**all_scores(finetuned, truth), **facts},
        "comparison": gain_of_fine_tuning(head.argmax(axis=1), finetuned.argmax(axis=1), truth),
    }
