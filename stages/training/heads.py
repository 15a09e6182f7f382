"""Training of heads on cached features."""

from collections.abc import Callable, Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray

from stages.networks.classifier import BLOCK
from stages.networks.keras_quiet import keras
from stages.pictures.splits import Rows
from stages.scoring.scores import log_loss
from stages.training.fit import fit
from stages.training.history import HISTORY_COLUMNS, History
from stages.training.logistic import choose_strength, fit_logistic
from stages.training.prediction import predict
from stages.training.recipe import Recipe

Features = NDArray[np.float32]
"""Shape (images, views, width)."""
Labels = NDArray[np.int64]
NewHead = Callable[[NDArray[np.int64]], keras.Model]
"""Makes an untrained head that standardises by the rows it is given."""


def train_mlp(
    new_head: NewHead,
    features: Features,
    labels: Labels,
    rows: Rows,
    recipe: Recipe,
    seed: int,
) -> tuple[list[keras.Model], History]:
    """Train heads by gradient descent; return them and the first one's history.

    The first one has learned from `rows.final`, the last one from `rows.choosing`, so that it can
    be judged by `rows.judging`; where the two are the same there is one head.
    """
    trainings = [(rows.final, rows.shown)]
    if not np.array_equal(rows.choosing, rows.final):
        trainings.append((rows.choosing, rows.judging))
    heads = [new_head(train) for train, _ in trainings]
    histories = [
        fit(head, features, labels, each, recipe, seed)
        for head, each in zip(heads, trainings, strict=True)
    ]
    return heads, histories[0]


def train_logistic(
    new_head: NewHead,
    features: Features,
    labels: Labels,
    rows: Rows,
    strengths: Sequence[float],
) -> tuple[list[keras.Model], History]:
    """Fit heads by logistic regression; return as `train_mlp` does, with one entry of history."""

    def normalized(head: keras.Model, images: NDArray[np.int64]) -> Features:
        before = keras.Model(head.input, head.get_layer("classes").input)
        return predict(before.predict_on_batch, features, images, features.shape[1], BLOCK)

    choosing, final = new_head(rows.choosing), new_head(rows.final)
    classes = final.output_shape[1]

    strength = choose_strength(
        (normalized(choosing, rows.choosing), labels[rows.choosing]),
        (normalized(choosing, rows.judging), labels[rows.judging]),
        strengths,
        classes,
    )
    trainings = [(final, rows.final)]
    if not np.array_equal(rows.choosing, rows.final):
        trainings.append((choosing, rows.choosing))
    for head, train in trainings:
        (weights,) = fit_logistic(normalized(head, train), labels[train], [strength], classes)
        head.get_layer("classes").set_weights(weights)
    history: History = {column: [nan] for column in HISTORY_COLUMNS}
    for prefix, images in (("", rows.final), ("val_", rows.shown)):
        if len(images):
            given = predict(final.predict_on_batch, features, images, features.shape[1]).mean(
                axis=1
            )
            right = given.argmax(axis=1) == labels[images]
            loss = log_loss(given, labels[images])
            history[f"{prefix}accuracy"], history[f"{prefix}loss"] = [right.mean()], [loss]
    return [head for head, _ in trainings], history
