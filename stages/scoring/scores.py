"""Scores of a classifier's probabilities, as pure functions of arrays.

In all of them `probabilities` has the shape (images, classes) with rows that sum to one, and
`truth` the shape (images,) with labels from 0.
"""

from statistics import NormalDist
from typing import NamedTuple

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
    return float(-np.log(np.maximum(own, np.finfo(np.float32).eps)).mean())


class Reliability(NamedTuple):
    """How often a model is right that says so: an entry for each bin that holds an image."""

    confidence: NDArray[np.float64]
    """Mean of the highest probabilities, 0 to 1."""
    accuracy: NDArray[np.float64]
    images: NDArray[np.int64]


def reliability(probabilities: Probabilities, truth: Labels, bins: int = 15) -> Reliability:
    """Confidence and accuracy in `bins` bins of equal width by the highest probability.

    What the reliability diagrams of Guo et al., "On calibration of modern neural networks" (2017),
    section 2, show.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(number, minlength=bins)
    used = images > 0
    means = [
        np.bincount(number, weights=each, minlength=bins)[used] / images[used]
        for each in (confidence, right)
    ]
    return Reliability(means[0], means[1], images[used])


def calibration_error(probabilities: Probabilities, truth: Labels, bins: int = 15) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, 0 to 1.

    The differences in the bins of `reliability`, averaged with their images as weights.
    Guo et al. (2017), equation 3.
    """
    each = reliability(probabilities, truth, bins)
    return float(np.average(np.abs(each.accuracy - each.confidence), weights=each.images))


def wilson_interval(right: int, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for an accuracy of `right` of `images` images, 0 to 1.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927). The same
    as scipy.stats.binomtest gives, whose import takes longer than all scores do.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = right / images, 1 + z**2 / images
    center = (share + z**2 / (2 * images)) / scale
    half = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / scale
    low = 0.0 if right == 0 else float(center - half)
    return low, 1.0 if right == images else float(center + half)


def mean_class_interval(
    counts: NDArray[np.int64], confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval for the mean of the classes' recalls, 0 to 1.

    `counts` is a confusion matrix; classes without images are left out. Images are drawn again
    within their class, so that the number right of a class is binomial; the seed is fixed. A class
    that is all right (or all wrong) stays so, which makes the interval too narrow where there are
    few images a class: that of a model without a mistake has no width.
    Efron and Tibshirani, "An introduction to the bootstrap" (1993), chapters 8 and 13.
    """
    images = counts.sum(axis=1)
    images, shares = images[images > 0], recall(counts)[images > 0]
    drawn = np.random.default_rng(0).binomial(images, shares, size=(resamples, len(images)))
    means = (drawn / images).mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


class PairedTest(NamedTuple):
    """How many images only one of two models has right, and whether that can be chance.

    `p_value`, above 0 to 1: how often a split at least as uneven comes up where neither is better.
    """

    only_first_right: int
    only_second_right: int
    p_value: float


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> PairedTest:
    """Test whether two models differ in accuracy; both arrays have the shape (images,).

    Where neither is better, an image that only one of them has right is either's with a chance of
    one half: the exact form of McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages" (1947). Without such an image the p-value is 1.
    """
    first = int(np.sum(first_right & ~second_right))
    second = int(np.sum(second_right & ~first_right))
    # In whole numbers, as many of these fractions lie halfway between two of six digits.
    images, tail, ways = first + second, 0, 1
    for count in range(min(first, second) + 1):
        tail += ways
        ways = ways * (images - count) // (count + 1)
    return PairedTest(first, second, min(1.0, 2 * tail / 2**images))


def all_scores(probabilities: Probabilities, truth: Labels) -> dict[str, float]:
    """Every score by its name, with the 95 % intervals of both accuracies (`_low`, `_high`).

    To six digits.
    """
    predicted = probabilities.argmax(axis=1)
    low, high = wilson_interval(int(np.sum(predicted == truth)), len(truth))
    class_low, class_high = mean_class_interval(confusion(predicted, truth, probabilities.shape[1]))
    scores = {
        "accuracy": accuracy(probabilities, truth),
        "accuracy_low": low,
        "accuracy_high": high,
        "mean_class_accuracy": mean_class_accuracy(probabilities, truth),
        "mean_class_accuracy_low": class_low,
        "mean_class_accuracy_high": class_high,
        "top5_accuracy": top_accuracy(probabilities, truth),
        "log_loss": log_loss(probabilities, truth),
        "calibration_error": calibration_error(probabilities, truth),
    }
    return {name: round(score, 6) for name, score in scores.items()}
