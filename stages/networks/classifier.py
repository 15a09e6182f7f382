"""The classifier: a backbone seen in views, pooled, and its head."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.common.files import release
from stages.networks.backbones import Pooling, pooling_layer
from stages.networks.keras_quiet import keras
from stages.pictures.views import is_mirrored, view_window

Normalize = Literal["none", "standard", "power"]


NORMALIZE: tuple[Normalize, ...] = ("none", "standard", "power")


BLOCK = 4096
"""Images whose features are looked at at once."""


ROOT_START = 1e-4
"""Added to a feature's size under the square root, which is finitely steep there."""


def build_head(
    widths: Sequence[int],
    normalize: Normalize,
    hidden: Sequence[int],
    dropout: float,
    classes: int,
) -> keras.Model:
    """The part that is trained from scratch: features (n, sum of widths) to probabilities.

    The features, of one backbone or of several side by side, are normalised as `normalize` says;
    then Dense layers of the widths `hidden` with relu, dropout before the last layer, softmax. With
    no hidden layer, dropout falls on the features.
    """
    features = keras.Input((sum(widths),), name="features")
    values = features
    if normalize == "power":
        ends = np.cumsum(widths)[:-1].tolist()
        blocks = keras.ops.split(values, ends, axis=1) if ends else [values]
        values = keras.ops.concatenate([power_normalized(block) for block in blocks], axis=1)
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
            values = apply_to_views(before, features, rows[start : start + BLOCK])
            values = values.reshape(-1, values.shape[2]).astype(np.float64)
            origin = values[0].copy() if origin is None else origin
            values -= origin
            count, total = count + len(values), total + values.sum(axis=0)
            squares = squares + np.square(values).sum(axis=0)
        mean = total / count
        layer.set_weights([origin + mean, squares / count - mean**2])


def apply_to_views(
    network: keras.Model, features: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What a network of features (n, width) gives for every view of `rows`: (rows, views, ...).

    Features are of the shape (images, views, width), and are looked at a block at a time.
    """
    values: Any = None
    for start in range(0, len(rows), BLOCK):
        shown = features[rows[start : start + BLOCK]]
        release(features)
        flat = np.asarray(network.predict_on_batch(shown.reshape(-1, shown.shape[2])))
        if values is None:
            values = np.empty((len(rows), shown.shape[1], *flat.shape[1:]), np.float32)
        values[start : start + len(shown)] = flat.reshape(*shown.shape[:2], *flat.shape[1:])
    return np.asarray(values)


def build_classifier(
    backbones: Sequence[keras.Model], pooling: Pooling, head: keras.Model, views: Sequence[str]
) -> keras.Model:
    """The whole classifier: RGB images (n, size, size, 3), 0 to 255, to probabilities.

    Sees each image in every one of `views` and averages the probabilities over them. The features
    of several backbones go into the head side by side; the model takes images at the largest of
    their sizes, and scales them down for the others. Its layers are called by the names of the
    backbones, `pool` and `head`.
    """
    pool = pooling_layer(pooling)
    image = keras.Input(max(each.input_shape[1:] for each in backbones), name="image")
    outputs = []
    for view in views:
        seen = seen_as(image, view)
        features = [pool(each(scaled(seen, each.input_shape[1]))) for each in backbones]
        together = features[0] if len(features) == 1 else keras.ops.concatenate(features, axis=1)
        outputs.append(head(together))
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


def scaled(images: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Images (n, height, width, 3), scaled to (n, side, side, 3) where they are of another size."""
    if images.shape[1] == side:
        return images
    return keras.ops.image.resize(images, (side, side), antialias=True)


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
