"""ImageNet's 1000 classes: a backbone with its own classifier, and what it may call our flowers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.networks.backbones import BACKBONES
from stages.networks.keras_downloads import keras_downloads
from stages.networks.keras_quiet import keras

PLAUSIBLE = {"daisy": 985, "oxeye daisy": 985, "artichoke": 944}
"""Class of a set: the ImageNet class that shows the same. ImageNet's only other flower that is
named so, yellow lady's slipper (986), is in none of the sets."""

CLASSES = 1000


def has_classifier(name: str) -> bool:
    """Whether Keras publishes the backbone `name` with a classifier for ImageNet."""
    backbone = BACKBONES[name]
    return backbone.constructor.__module__.startswith("keras.") and "preset" not in backbone.options


def load_classifier(name: str) -> keras.Model:
    """The whole network as published: preprocessed images (n, size, size, 3) to (n, 1000).

    Raises UserError when the weights can be had neither from the mirror nor from the network.
    """
    backbone = BACKBONES[name]
    with keras_downloads():
        return backbone.constructor(include_top=True, weights="imagenet", **backbone.options)


def class_names() -> Sequence[str]:
    """Names of the 1000 classes; their numbers where Keras's list of names cannot be had."""
    try:
        with keras_downloads():
            decoded = keras.applications.imagenet_utils.decode_predictions(np.eye(CLASSES), top=1)
    except UserError:
        return [f"class {number}" for number in range(CLASSES)]
    return [name.replace("_", " ") for ((_, name, _),) in decoded]


def preprocess(name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images (n, size, size, 3) as the backbone's `preprocess_input` passes them on."""
    values = images.astype(np.float32)  # A copy, as some of these functions work in place.
    return np.asarray(BACKBONES[name].module.preprocess_input(values), np.float32)
