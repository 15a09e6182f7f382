"""Building backbones, cutting them where fine-tuning begins, and saying which layers train.

Every network is built to take RGB images from 0 to 255: its own preprocessing is part of it.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from stages.common.command_line import UserError, first_line
from stages.networks import demo_backbone, hub_backbones
from stages.networks.keras_quiet import keras
from stages.networks.options import Pooling
from stages.networks.registry import Backbone, find_backbone


def preprocess(backbone: Backbone, images: Any) -> Any:
    """RGB images of 0 to 255, an array or a Keras tensor, as the network takes them."""
    if backbone.library == "keras_hub":
        scale = [1 / 255 / each for each in backbone.deviation]
        pairs = zip(backbone.mean, backbone.deviation, strict=True)
        offset = [-mean / each for mean, each in pairs]
        layer = keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocess")
        return layer(images)
    if backbone.library == "demo":
        return demo_backbone.preprocess_input(images)
    return application(backbone.module).preprocess_input(images)


def feature_map(
    backbone: Backbone, images: keras.KerasTensor, weights: str | None
) -> keras.KerasTensor:
    """What the network, without a classifier, makes of preprocessed images."""
    if backbone.library == "keras_hub":
        return hub_backbones.feature_map(backbone, images, weights)
    if backbone.library == "demo":
        return demo_backbone.feature_map(images)
    constructor = application(backbone.constructor)
    arguments = {**backbone.options, "include_top": False, "weights": weights}
    return constructor(**arguments, input_tensor=images).output


def application(name: str) -> Any:
    """What keras.applications has by a name. Raises UserError where it has nothing."""
    try:
        return getattr(keras.applications, name)
    except AttributeError:
        raise UserError(
            f"keras.applications has no {name!r}; correct it in stages/backbones.yaml"
        ) from None


def build(name: str, size: int, weights: str | None = None) -> keras.Model:
    """Build a backbone from images, (n, size, size, 3) from 0 to 255, to its last feature map.

    `weights` is what the Keras constructor takes: None for random ones by Keras's global seed,
    `imagenet` for the published ones. Preprocessing is part of the network. Raises UserError for a
    size that the network cannot take.
    """
    backbone = find_backbone(name)
    if size != backbone.size and not backbone.any_size:
        raise UserError(
            f"features.image_size {size} does not suit {name} (it has learnt a vector for each "
            f"position of one size); its own is {backbone.size}"
        )
    image = keras.Input((size, size, 3), name="image")
    try:
        features = feature_map(backbone, preprocess(backbone, image), weights)
    except ValueError as error:
        raise UserError(
            f"features.image_size {size} does not suit {name} ({first_line(error)}); "
            f"its own is {backbone.size}"
        ) from error
    # Named afterwards, as EfficientNetV2 chooses its preprocessing by the name that it is given.
    return keras.Model(image, features, name=name)


def load_weights(backbone: keras.Model, path: Path) -> None:
    """Load a `.weights.h5` file; raises UserError naming it when it does not fit the network."""
    try:
        backbone.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} does not fit {backbone.name} ({first_line(error)}); make it anew by "
            "`dvc repro --force weights`"
        ) from error


def pooling_layer(pooling: Pooling) -> keras.layers.Layer:
    """The layer that makes (n, features) of a feature map (n, height, width, features)."""
    layers = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
    return layers[pooling](name="pool", dtype="float32")


def first_unfrozen(backbone: keras.Model, unfreeze: str) -> int:
    """Position in `backbone.layers` of the first layer that fine-tuning trains.

    `unfreeze` is `auto` (the registry's layer), `all`, a number N (the last N layers), or a layer's
    name.
    Raises UserError for a name or number that the network does not have.
    """
    names = [layer.name for layer in backbone.layers]
    if unfreeze == "all":
        return 0
    if unfreeze == "auto":
        unfreeze = find_backbone(backbone.name).unfreeze
    if unfreeze.isdecimal() and int(unfreeze) <= len(names):
        return len(names) - int(unfreeze)
    if unfreeze in names:
        return names.index(unfreeze)
    near = ", ".join(get_close_matches(unfreeze, names, 3, 0)) or names[-1]
    raise UserError(
        f"finetune.unfreeze: {backbone.name} has no layer {unfreeze!r}; give auto, all, a number "
        f"of last layers up to {len(names)}, or a name such as {near}"
    )


def cut_before(backbone: keras.Model, position: int) -> keras.KerasTensor:
    """The last tensor before layer number `position` through which everything passes.

    All layers from `position` on lie between it and the network's output, so that what is above can
    be trained from its cached values. It may lie lower than the layer, where the network branches.
    """
    operations = backbone.operations
    order = {id(operation): number for number, operation in enumerate(operations)}
    last_use = [0] * len(operations)
    for number, operation in enumerate(operations):
        for tensor in keras.tree.flatten(operation.input):
            source = order[id(tensor._keras_history.operation)]
            last_use[source] = max(last_use[source], number)
    end = order[id(backbone.layers[position])]
    reach, cut = 0, operations[0]
    for number, operation in enumerate(operations[:end]):
        if reach <= number:
            cut = operation
        reach = max(reach, last_use[number])
    return cut.output


def cut_for(backbone: keras.Model, unfreeze: str, reads_pixels: bool) -> keras.KerasTensor | None:
    """The tensor whose values fine-tuning takes from the cache; None if nothing is unfrozen.

    Everything below it stays as it is. With `reads_pixels` it is the network's input.
    """
    unfrozen = range(first_unfrozen(backbone, unfreeze), len(backbone.layers))
    trained = [position for position in unfrozen if backbone.layers[position].weights]
    if not trained:
        return None
    return backbone.input if reads_pixels else cut_before(backbone, trained[0])


def freeze(
    backbone: keras.Model, unfreeze: str, batch_norm: Literal["frozen", "train"], momentum: float
) -> None:
    """Set which layers of the backbone train: those from `unfreeze` on.

    Batch norm is the exception: `frozen` uses its stored statistics everywhere, `train` trains
    it everywhere with `momentum`. What the registry says never trains does not.
    """
    position = first_unfrozen(backbone, unfreeze)
    never = find_backbone(backbone.name).never_trains
    for number, layer in enumerate(backbone.layers):
        layer.trainable = number >= position and layer.name not in never
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = batch_norm == "train"
            layer.momentum = momentum
