"""Multinomial logistic regression on features of several views: the linear probe.

Arrays of features have the shape (images, views, width). Every view of an image is a row to train
on; a prediction is the average over the views. As in Kornblith, Shlens and Le, "Do better ImageNet
models transfer better?" (2019), appendix A.6, and Oquab et al., "DINOv2" (2023), section 7.
"""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

MAX_STEPS = 1000
TOLERANCE = 1e-5
"""Of the gradient, at which a search ends; scikit-learn's own, ten times that, ends too early."""

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Of a Dense layer: (width, classes) and (classes,)."""


def fit_logistic(
    features: Features, labels: Labels, strengths: Sequence[float], classes: int
) -> list[Weights]:
    """Weights for each of `strengths`, by L-BFGS, each search starting from the one before.

    A strength is scikit-learn's C: the loss is half the squared weights (of two classes, of their
    difference) plus C times the sum of the rows' losses. A class without a row gets no weights, and
    an offset that rules it out.
    """
    model = LogisticRegression(max_iter=MAX_STEPS, tol=TOLERANCE, warm_start=True)
    rows = features.reshape(-1, features.shape[2])
    every_view = np.repeat(labels, features.shape[1])
    found = []
    for number, strength in enumerate(strengths, 1):
        print(
            f"strength {strength:g}, {number} of {len(strengths)}: fitting {len(rows)} rows of "
            f"{rows.shape[1]} features, {classes} classes",
            flush=True,
        )
        model.C = strength
        start = perf_counter()
        # Its steps are short: of two threads each waits for the other, and on a busy machine a fit
        # takes ten times as long. One also adds in the same order whatever the number of cores.
        with threadpool_limits(1, "blas"):
            model.fit(rows, every_view)
        print(f"{model.n_iter_.max()} steps in {perf_counter() - start:.1f} s", flush=True)
        found.append(_all_classes(model, classes))
    return found


def _all_classes(model: LogisticRegression, classes: int) -> Weights:
    coefficients, offsets = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        # scikit-learn keeps one row for two classes: the second against the first.
        coefficients = np.vstack([-coefficients / 2, coefficients / 2])
        offsets = np.concatenate([-offsets / 2, offsets / 2])
    kernel = np.zeros((coefficients.shape[1], classes), np.float32)
    bias = np.full(classes, -100, np.float32)
    kernel[:, model.classes_], bias[model.classes_] = coefficients.T, offsets
    return kernel, bias


def predict_logistic(features: Features, weights: Weights) -> NDArray[np.float32]:
    """Probabilities (images, classes), averaged over the views."""
    return np.asarray(softmax(features @ weights[0] + weights[1], axis=2).mean(axis=1))


def choose_strength(
    choosing: tuple[Features, Labels],
    judging: tuple[Features, Labels],
    strengths: Sequence[float],
    classes: int,
) -> float:
    """The strength whose weights, learned from `choosing`, have the lowest loss on `judging`."""
    strengths = sorted(strengths)
    if len(strengths) == 1:
        return strengths[0]
    features, labels = judging
    losses = [
        log_loss(labels, predict_logistic(features, weights), labels=range(classes))
        for weights in fit_logistic(*choosing, strengths, classes)
    ]
    for strength, loss in zip(strengths, losses, strict=True):
        print(f"strength {strength:g}: loss {loss:.4f} on {len(labels)} images held out")
    return strengths[int(np.argmin(losses))]
