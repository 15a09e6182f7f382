"""Scores of a classifier's probabilities, as pure functions of arrays.

In all of them `probabilities` has the shape (images, classes) with rows that sum to one, and
`truth` the shape (images,) with labels from 0.
"""

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating]
Labels = NDArray[np.integer]


def accuracy(probabilities: Probabilities, truth: Labels) -> float:
    """Share of images whose likeliest class is the true one."""
    return float(np.mean(probabilities.argmax(axis=1) == truth))


def confusion(predicted: Labels, truth: Labels, classes: int) -> NDArray[np.int64]:
    """Count the images by true class (row) and predicted class (column)."""
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def recall(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each true class that was found, from a confusion matrix; NaN for no images."""
    totals = counts.sum(axis=1)
    shares = np.full(len(counts), np.nan)
    np.divide(np.diag(counts), totals, out=shares, where=totals > 0)
    return shares


def precision(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each predicted class that was right, from a confusion matrix; NaN for none."""
    return recall(counts.T)


def mean_class_accuracy(probabilities: Probabilities, truth: Labels) -> float:
    """Mean of the classes' recalls, so that every class counts the same; absent ones are left out.

    The score of Nilsback and Zisserman, "Automated flower classification over a large number of
    classes" (2008).
    """
    counts = confusion(probabilities.argmax(axis=1), truth, probabilities.shape[1])
    return float(np.nanmean(recall(counts)))


def top_accuracy(probabilities: Probabilities, truth: Labels, count: int = 5) -> float:
    """Share of images whose true class is among the `count` likeliest; ties count against it."""
    own = probabilities[np.arange(len(truth)), truth]
    at_least_as_likely = (probabilities >= own[:, np.newaxis]).sum(axis=1)
    return float(np.mean(at_least_as_likely <= count))


def log_loss(probabilities: Probabilities, truth: Labels) -> float:
    """Mean of minus the natural logarithm of the true class's probability, in nats.

    Probabilities below the smallest step of float32 at 1 count as that step, 1.2e-7.
    """
    own = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.mean(np.log(np.maximum(own, np.finfo(np.float32).eps))))


def calibration_error(probabilities: Probabilities, truth: Labels, bins: int = 15) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, 0 to 1.

    Images are put into `bins` bins of equal width by their highest probability; the bins'
    differences between mean confidence and accuracy are averaged, weighted by images.
    Guo et al., "On calibration of modern neural networks" (2017), equation 3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(number, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def all_scores(probabilities: Probabilities, truth: Labels) -> dict[str, float]:
    """Every score by its name, rounded to six digits."""
    scores = {
        "accuracy": accuracy(probabilities, truth),
        "mean_class_accuracy": mean_class_accuracy(probabilities, truth),
        "top5_accuracy": top_accuracy(probabilities, truth),
        "log_loss": log_loss(probabilities, truth),
        "calibration_error": calibration_error(probabilities, truth),
    }
    return {name: round(score, 6) for name, score in scores.items()}
