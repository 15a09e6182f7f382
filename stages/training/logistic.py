"""Multinomial logistic regression on features of several views: the linear probe.

Arrays of features have the shape (images, views, width). Every view of an image is a row to train
on; a prediction is the average over the views. As in Kornblith, Shlens and Le, "Do better ImageNet
models transfer better?" (2019), appendix A.6, and Oquab et al., "DINOv2" (2023), section 7.
"""

from collections.abc import Sequence
from itertools import count
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from stages.common.progress import progress_bar
from stages.scoring.scores import log_loss

MAX_STEPS = 1000
TOLERANCE = 1e-5
"""Of the gradient's largest entry, at which a search ends; ten times that ends too early."""
FIT_BAR = "{l_bar}{bar}| {postfix} [{elapsed}<{remaining}]"

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Of a Dense layer: (width, classes) and (classes,)."""
Values = NDArray[np.float64]


def loss_and_gradient(
    weights: Values,
    rows: Values,
    labels: Labels,
    strength: float,
) -> tuple[float, Values]:
    """The mean over rows (n, width) of minus the logarithm of the probability of their labels.

    With half the squared weights, over `strength` n, added. `weights` is (width + 1, classes), the
    offsets, which bear no penalty, last; the gradient is of the same shape.
    """
    images, own = len(rows), (np.arange(len(rows)), labels)
    kernel, bias = weights[:-1], weights[-1]
    scores = rows @ kernel + bias
    scores -= scores.max(axis=1, keepdims=True)
    own_scores = scores[own]
    shares = np.exp(scores, out=scores)
    totals = shares.sum(axis=1, keepdims=True)
    penalty = (kernel**2).sum() / (2 * strength)
    shares /= totals
    shares[own] -= 1
    loss = (np.log(totals).sum() - own_scores.sum() + penalty) / images
    shares /= images
    gradient = np.vstack([rows.T @ shares + kernel / (strength * images), shares.sum(axis=0)])
    return float(loss), gradient


def minimise(
    rows: Values,
    labels: Labels,
    strength: float,
    start: Values,
    desc: str,
) -> tuple[Values, int]:
    """The weights of the lowest loss by L-BFGS from `start` on, and the number of steps.

    Nobody knows beforehand how many steps it takes. What the bar shows is how far the gradient has
    fallen from its first size to TOLERANCE, by its logarithm.
    """
    sizes = list[float]()

    def objective(flat: Values) -> tuple[float, Values]:
        loss, gradient = loss_and_gradient(flat.reshape(start.shape), rows, labels, strength)
        sizes.append(float(np.abs(gradient).max()))
        return loss, gradient.ravel()

    # As scikit-learn has them, but for the tolerance.
    options: dict[str, Any] = {
        "maxiter": MAX_STEPS,
        "maxls": 50,
        "gtol": TOLERANCE,
        "ftol": 64 * np.finfo(float).eps,
    }
    steps = count(1)
    with progress_bar(total=1, desc=desc, bar_format=FIT_BAR, miniters=0, delay=1) as bar:

        def show(_: Values) -> None:
            bar.set_postfix_str(f"step {next(steps)}, at most {MAX_STEPS}", refresh=False)
            bar.update(share_done(sizes[0], min(sizes)) - bar.n)

        found = minimize(
            objective, start.ravel(), jac=True, method="L-BFGS-B", callback=show, options=options
        )
    return found.x.reshape(start.shape), int(found.nit)


def share_done(first: float, lowest: float) -> float:
    """How far a gradient has fallen from its first size to TOLERANCE, by its logarithm, 0 to 1."""
    if first <= TOLERANCE:
        return 1.0
    return float(np.log(first / max(lowest, TOLERANCE)) / np.log(first / TOLERANCE))


def fit_logistic(
    features: Features,
    labels: Labels,
    strengths: Sequence[float],
    classes: int,
) -> list[Weights]:
    """Weights for each of `strengths`, by L-BFGS, each search starting from the one before.

    A strength is scikit-learn's C: the loss is half the squared weights plus C times the sum of the
    rows' losses. A class without a row gets no weights, and an offset that rules it out.
    """
    rows = features.reshape(-1, features.shape[2]).astype(np.float64)
    present, places = np.unique(np.repeat(labels, features.shape[1]), return_inverse=True)
    weights: Values = np.zeros((rows.shape[1] + 1, len(present)))
    found = list[Weights]()
    for number, strength in enumerate(strengths, 1):
        print(
            f"strength {strength:g}, {number} of {len(strengths)}: fitting {len(rows)} rows of "
            f"{rows.shape[1]} features, {classes} classes",
            flush=True,
        )
        start = perf_counter()
        # Its steps are short: of two threads each waits for the other, and on a busy machine a fit
        # takes ten times as long. One also adds in the same order whatever the number of cores.
        with threadpool_limits(1, "blas"):
            weights, steps = minimise(rows, places, strength, weights, f"strength {strength:g}")
        print(f"{steps} steps in {perf_counter() - start:.1f} s", flush=True)
        kernel = np.zeros((rows.shape[1], classes), np.float32)
        bias = np.full(classes, -100, np.float32)
        kernel[:, present], bias[present] = weights[:-1], weights[-1]
        found.append((kernel, bias))
    return found


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
        log_loss(predict_logistic(features, each), labels)
        for each in fit_logistic(*choosing, strengths, classes)
    ]
    for strength, loss in zip(strengths, losses, strict=True):
        print(f"strength {strength:g}: loss {loss:.4f} on {len(labels)} images held out")
    return strengths[int(np.argmin(losses))]
