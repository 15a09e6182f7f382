"""ImageNet's 1000 classes: a backbone with its own classifier, and what it calls our flowers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.progress import progress_bar
from stages.networks.backbones import application, load_weights
from stages.networks.keras_downloads import keras_downloads
from stages.networks.keras_quiet import keras
from stages.networks.registry import find_backbone

PLAUSIBLE = {"daisy": 985, "oxeye daisy": 985, "artichoke": 944}
"""Class of a set: the ImageNet class that shows the same. ImageNet's only other flower that is
named so, yellow lady's slipper (986), is in none of the sets."""

CLASSES = 1000
BATCH_SIZE = 32


def download_imagenet_network(name: str) -> keras.Model:
    """The whole network as published: preprocessed images (n, size, size, 3) to (n, 1000).

    Raises UserError when the weights can be had neither from the mirror nor from the network.
    """
    with keras_downloads():
        return _whole_network(name, "imagenet")


def load_imagenet_network(name: str, weights: Path) -> keras.Model:
    """The same network, with the weights of a file."""
    network = _whole_network(name, None)
    load_weights(network, weights)
    return network


def _whole_network(name: str, weights: str | None) -> keras.Model:
    entry = find_backbone(name)
    return application(entry.constructor)(**entry.options, include_top=True, weights=weights)


def class_names() -> list[str]:
    """Names of the 1000 classes. Raises UserError where Keras's list of them cannot be had."""
    with keras_downloads():
        decoded = keras.applications.imagenet_utils.decode_predictions(np.eye(CLASSES), top=1)
    return [name.replace("_", " ") for ((_, name, _),) in decoded]


def classify(
    network: keras.Model, values: NDArray[np.float32], known: Sequence[str]
) -> list[dict[str, Any]]:
    """The likeliest of ImageNet's classes, whose names are `known`, for each image.

    And its probability, to four digits.
    """
    with progress_bar(total=len(values), desc="ImageNet's classifier", unit=" images") as bar:
        shown = keras.callbacks.LambdaCallback(
            on_predict_batch_end=lambda batch, **_: bar.update(
                min(BATCH_SIZE, len(values) - batch * BATCH_SIZE)
            )
        )
        given = network.predict(values, batch_size=BATCH_SIZE, verbose=0, callbacks=[shown])
    return [
        {"class": known[row.argmax()], "probability": round(float(row.max()), 4)} for row in given
    ]


def count_plausible(
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    known: Sequence[str],
    plain: Sequence[Mapping[str, Any]],
    preprocessed: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """For each class of a set that ImageNet knows too, how many images are called by it.

    `labels`, and both lists of predictions, are of the same images; `known` as for `classify`.
    """
    counts = []
    for label, name in enumerate(class_names):
        if name in PLAUSIBLE:
            imagenet, own = known[PLAUSIBLE[name]], np.flatnonzero(labels == label)
            count: dict[str, Any] = {"label": label, "imagenet": imagenet, "images": len(own)}
            for key, given in (("plain", plain), ("preprocessed", preprocessed)):
                count[key] = sum(given[image]["class"] == imagenet for image in own)
            counts.append({**count, "class": name})
    return counts
