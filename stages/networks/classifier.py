"""The classifier: a backbone seen in views, pooled, and its head."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.files import release
from stages.networks.backbones import pooling_layer
from stages.networks.keras_quiet import keras
from stages.networks.options import Normalize, Pooling
from stages.pictures.views import is_mirrored, view_window

BLOCK = 4096
"""Images whose features are looked at at once."""


ROOT_START = 1e-4
"""Added to a feature's size under the square root, which is finitely steep there."""


def build_head(
    width: int,
    normalize: Normalize,
    hidden: Sequence[int],
    dropout: float,
    classes: int,
) -> keras.Model:
    """The part that is trained from scratch: features (n, width) to probabilities.

    The features are normalised as `normalize` says; then Dense layers of the widths `hidden` with
    relu, dropout before the last layer, softmax. With no hidden layer, dropout falls on the
    features.
    """
    features = keras.Input((width,), name="features")
    values = features
    if normalize == "power":
        values = power_normalized(values)
    if normalize != "none":
        values = keras.layers.BatchNormalization(
            center=False, scale=False, trainable=False, name="standardize"
        )(values)
    for units in hidden:
        values = keras.layers.Dense(units, activation="relu")(values)
    if dropout > 0:
        values = keras.layers.Dropout(dropout)(values)
    outputs = keras.layers.Dense(classes, activation="softmax", name="classes")(values)
    return keras.Model(features, outputs, name="head")


def power_normalized(features: keras.KerasTensor) -> keras.KerasTensor:
    """Features (n, width) with the square root of their size, scaled to a mean square of 1.

    Evens out features of which a few are far larger than the rest. Perronnin, Sanchez and Mensink,
    "Improving the Fisher kernel for large-scale image classification" (2010), sections 3.1 and 3.2;
    a small number keeps the root's slope finite at zero.
    """
    size = keras.ops.sqrt(keras.ops.abs(features) + ROOT_START) - ROOT_START**0.5
    unit = keras.layers.UnitNormalization()(keras.ops.sign(features) * size)
    return unit * features.shape[1] ** 0.5


def adapt_head(head: keras.Model, features: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
    """Let the head standardise by mean and variance over `rows` of features (images, views, n).

    Memory does not grow with the number of rows.
    """
    names = [layer.name for layer in head.layers]
    if "standardize" in names:
        layer = head.get_layer("standardize")
        before = keras.Model(head.input, layer.input)
        # Sums of differences from some row, without which the variance would be one of two large
        # numbers' difference.
        origin: Any = None
        count, total, squares = 0, np.zeros(1), np.zeros(1)
        for start in range(0, len(rows), BLOCK):
            block = features[rows[start : start + BLOCK]]
            release(features)
            values = np.asarray(before.predict_on_batch(block.reshape(-1, block.shape[2])))
            values = values.astype(np.float64)
            origin = values[0].copy() if origin is None else origin
            values -= origin
            count, total = count + len(values), total + values.sum(axis=0)
            squares = squares + np.square(values).sum(axis=0)
        mean = total / count
        layer.set_weights([origin + mean, squares / count - mean**2])


def build_classifier(
    backbone: keras.Model, pooling: Pooling, head: keras.Model, views: Sequence[str]
) -> keras.Model:
    """The whole classifier: RGB images (n, size, size, 3), 0 to 255, to probabilities.

    Sees each image in every one of `views` and averages the probabilities over them. Its layers are
    called by the name of the backbone, `pool` and `head`.
    """
    pool = pooling_layer(pooling)
    image = keras.Input(backbone.input_shape[1:], name="image")
    outputs = [head(pool(backbone(seen_as(image, view)))) for view in views]
    probabilities = outputs[0] if len(outputs) == 1 else keras.layers.average(outputs)
    return keras.Model(image, probabilities, name="classifier")


def seen_as(images: keras.KerasTensor, view: str) -> keras.KerasTensor:
    """Images (n, side, side, 3) in a view, as `stages.pictures.images.see` shows it."""
    side = images.shape[1]
    top, left, shown = view_window(view, side)
    if shown < side:
        window = images[:, top : top + shown, left : left + shown]
        images = keras.ops.image.resize(window, (side, side))
    return keras.ops.flip(images, axis=2) if is_mirrored(view) else images


def with_dropout(head: keras.Model, rate: float) -> keras.Model:
    """A head whose layers are those of `head`, with dropout of `rate` before its last layer."""
    last = head.get_layer("classes")
    before = last.input
    if isinstance(before._keras_history.operation, keras.layers.Dropout):
        before = before._keras_history.operation.input
    kept = keras.layers.Dropout(rate)(before) if rate else before
    return keras.Model(head.input, last(kept), name="head")


def apply_temperature(head: keras.Model, temperature: float) -> None:
    """Divide what a head's softmax is taken of by `temperature`."""
    layer = head.get_layer("classes")
    layer.set_weights([weight / temperature for weight in layer.get_weights()])


def flat_weights(model: keras.Model) -> NDArray[np.float32]:
    """All weights of a model, one after the other, shape (weights,)."""
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def set_flat_weights(model: keras.Model, values: NDArray[np.float32]) -> None:
    """Give a model the weights that `flat_weights` took from one of the same shape."""
    shapes = [weight.shape for weight in model.weights]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    parts = np.split(values, ends[:-1])
    model.set_weights([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])
