"""Fine-tuning: a training of the upper layers, and the one that chooses a temperature for it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.progress import say
from stages.networks.classifier import apply_temperature
from stages.networks.devices import all_gpus
from stages.networks.keras_quiet import keras
from stages.pictures.splits import Rows
from stages.training import calibration
from stages.training.batches import Values
from stages.training.calibration import choose_temperature
from stages.training.fit import fit, make_repeatable
from stages.training.history import History
from stages.training.prediction import predict
from stages.training.recipe import Recipe, UpperLayers
from stages.training.upper_layers import put_together, take_apart

Labels = NDArray[np.int64]
Trained = tuple[keras.Model, keras.Model, History]
"""A classifier, its layers from the cut up, and the history of their training."""


def fine_tune(
    upper: UpperLayers,
    recipe: Recipe,
    head_model: Path,
    heads: NDArray[np.float32],
    values: Values,
    labels: Labels,
    rows: Rows,
    views: int,
    calibrate: bool,
    seed: int,
    states: Path,
) -> tuple[keras.Model, NDArray[np.float32], History]:
    """The fine-tuned classifier, its probabilities of every image, and the history of training.

    `heads` are the weights of the head to begin with, shape (1 or 2, weights): of what learned from
    `rows.final` and last of what learned from `rows.choosing`. With `calibrate`, a training of its
    own on the latter chooses the temperature. `values` are those at the cut, shape (images, views,
    ...); predictions are averaged over the first `views`. Checkpoints go into the folder `states`.
    """

    def trained(head: NDArray[np.float32], watched: tuple[Labels, Labels], name: str) -> Trained:
        make_repeatable(seed)
        say(f"loading {head_model}, and building {upper.backbone} to train")
        with all_gpus().scope():
            classifier, backbone, network = take_apart(head_model, head, upper)
        history = fit(network, values, labels, watched, recipe, seed, states / name)
        return classifier, put_together(classifier, backbone, upper), history

    def temperature_of(network: keras.Model) -> float:
        judged = predict(network.predict_on_batch, values, rows.judging, views)
        return choose_temperature(judged, labels[rows.judging])

    temperature, unseen = 1.0, np.array_equal(rows.choosing, rows.final)
    if calibrate and not unseen and len(rows.judging) >= calibration.FEWEST:
        print("training without those held out, for the temperature", flush=True)
        temperature = temperature_of(
            trained(heads[-1], (rows.choosing, rows.judging), "calibration")[1]
        )
    classifier, network, history = trained(heads[0], (rows.final, rows.shown), "final")
    if calibrate and unseen:
        temperature = temperature_of(network)
    apply_temperature(classifier.get_layer("head"), temperature)
    given = predict(network.predict_on_batch, values, np.arange(len(values)), views)
    return classifier, given.mean(axis=1), history
