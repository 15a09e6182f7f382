"""The upper layers of a network, from the cut up: what fine-tuning trains."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.networks.augmentation import augment, crop_side
from stages.networks.backbones import build, cut_for, freeze
from stages.networks.classifier import set_flat_weights, with_dropout
from stages.networks.keras_quiet import keras
from stages.networks.model_files import load_model
from stages.networks.options import reads_pixels
from stages.networks.precision import (
    choose_precision,
    keep_slow_layers_in_float32,
    set_precision,
)
from stages.training.distribution import share_batch_norm
from stages.training.recipe import UpperLayers


def above_the_cut(
    backbone: keras.Model, pool: keras.layers.Layer, head: keras.Model, upper: UpperLayers
) -> keras.Model:
    """The network from the values that the prefix stage cached to the classifier's probabilities.

    Made of layers of `backbone`, which it shares, and of pooling and head.
    """
    cut = cut_for(backbone, upper.unfreeze, reads_pixels(upper.batch_norm, upper.augment))
    return keras.Model(cut, head(pool(backbone.output)))


def take_apart(
    head_model: Path, head: NDArray[np.float32], upper: UpperLayers
) -> tuple[keras.Model, keras.Model, keras.Model]:
    """The classifier with weights `head`, a copy of its backbone to train, and what trains it.

    The copy computes in the precision asked for; the classifier stays in float32. Where pictures
    are cropped at random, the copy is made for the crops' size, and what trains it crops.
    """
    classifier = load_model(head_model)
    set_flat_weights(classifier.get_layer("head"), head)
    source = classifier.get_layer(upper.backbone)
    crops = upper.augment == "crop"
    set_precision(choose_precision(upper.precision))
    side = source.input_shape[1]
    backbone = build(upper.backbone, crop_side(upper.backbone, side) if crops else side)
    set_precision("float32")
    keep_slow_layers_in_float32(backbone)
    backbone.set_weights(source.get_weights())
    for each in (source, backbone):
        freeze(each, upper.unfreeze, upper.batch_norm, upper.batch_norm_momentum)
    share_batch_norm(backbone)
    trained_head = with_dropout(classifier.get_layer("head"), upper.dropout)
    network = above_the_cut(backbone, classifier.get_layer("pool"), trained_head, upper)
    if crops:
        pictures = keras.Input(source.input_shape[1:])
        seen = augment(pictures, backbone.input_shape[1], upper.color_jitter)
        network = keras.Model(pictures, network(seen))
    return classifier, backbone, network


def put_together(classifier: keras.Model, backbone: keras.Model, upper: UpperLayers) -> keras.Model:
    """The classifier's own layers from the cut up, after it was given the trained backbone."""
    own = classifier.get_layer(upper.backbone)
    own.set_weights(backbone.get_weights())
    return above_the_cut(own, classifier.get_layer("pool"), classifier.get_layer("head"), upper)
