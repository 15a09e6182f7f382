"""The classifier's parts, and model files whose bytes depend on the model alone."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.backbones import Pooling, pooling_layer
from stages.common.command_line import UserError
from stages.common.files import replacing
from stages.common.keras_quiet import keras


def build_head(width: int, hidden: Sequence[int], dropout: float, classes: int) -> keras.Sequential:
    """The part that is trained from scratch: features (n, width) to probabilities (n, classes).

    Dense layers of the widths `hidden` with relu, dropout before the last layer, softmax. With no
    hidden layer, dropout falls on the features.
    """
    layers = [keras.Input((width,), name="features")]
    layers += [keras.layers.Dense(units, activation="relu") for units in hidden]
    if dropout > 0:
        layers.append(keras.layers.Dropout(dropout))
    layers.append(keras.layers.Dense(classes, activation="softmax"))
    return keras.Sequential(layers, name="head")


def build_classifier(
    backbone: keras.Model, pooling: Pooling, head: keras.Sequential, views: Sequence[str]
) -> keras.Model:
    """The whole classifier: RGB images (n, size, size, 3), 0 to 255, to probabilities.

    Sees each image in every one of `views` and averages the probabilities over them. Its layers
    `backbone`, `pool` and `head` are the parts it is made of.
    """
    pool = pooling_layer(pooling)
    image = keras.Input(backbone.input_shape[1:], name="image")
    seen = {"plain": image, "mirror": keras.ops.flip(image, axis=2)}
    outputs = [head(pool(backbone(seen[view]))) for view in views]
    probabilities = outputs[0] if len(outputs) == 1 else keras.layers.average(outputs)
    return keras.Model(image, probabilities, name="classifier")


def flat_weights(model: keras.Model) -> NDArray[np.float32]:
    """All weights of a model, one after the other, shape (weights,)."""
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def set_flat_weights(model: keras.Model, values: NDArray[np.float32]) -> None:
    """Give a model the weights that `flat_weights` took from one of the same shape."""
    shapes = [weight.shape for weight in model.weights]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    parts = np.split(values, ends[:-1])
    model.set_weights([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file whose bytes depend on the model alone.

    Keras puts the date into metadata.json and into the archive's entries, and memory addresses
    into config.json as the identities of shared objects; here they are fixed or counted.
    """
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            parts = {name: archive.read(name) for name in sorted(archive.namelist())}
        metadata = json.loads(parts["metadata.json"]) | {"date_saved": "1980-01-01@00:00:00"}
        parts["metadata.json"] = json.dumps(metadata).encode()
        config = _number_shared_objects(json.loads(parts["config.json"]), {})
        parts["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, data in parts.items():
                archive.writestr(zipfile.ZipInfo(name), data)


def _number_shared_objects(value: Any, numbers: dict[int, int]) -> Any:
    if isinstance(value, list):
        return [_number_shared_objects(each, numbers) for each in value]
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(each, len(numbers))
            if key == "shared_object_id"
            else _number_shared_objects(each, numbers)
            for key, each in value.items()
        }
    return value


def load_model(path: Path) -> keras.Model:
    """Load a model file; it is data, and never runs code. Raises UserError when it cannot."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is not a model that can be loaded ({reason}); `dvc repro` makes it"
        ) from error
