"""The backbones: networks of `keras.applications` and KerasHub, without their classifier.

To add one, add a line to BACKBONES; tests/networks/test_backbones.py checks it. Every network is
built to take RGB images from 0 to 255: its own `preprocess_input` is part of it.

The first EfficientNet is not among them: Keras builds it with one scaling layer more when it loads
the ImageNet weights, so that the weights stage's file does not say all about it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from stages.common.command_line import UserError, first_line
from stages.networks import demo_backbone
from stages.networks import hub_backbones as hub
from stages.networks.keras_quiet import keras

apps = keras.applications

Pooling = Literal["avg", "max"]
POOLINGS: tuple[Pooling, ...] = ("avg", "max")


@dataclass(frozen=True)
class Backbone:
    """One network: how to build it, its facts, and where fine-tuning begins by default."""

    constructor: Callable[..., keras.Model]
    module: ModuleType | hub.Preprocessing
    """What holds the network's `preprocess_input`."""
    size: int
    """Side of the square input it was trained on, in pixels."""
    width: int
    """Number of features after pooling."""
    unfreeze: str
    """First layer that fine-tuning trains, unless told otherwise."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the constructor."""
    any_size: bool = True
    """Whether it takes other sizes; False where it has learnt a vector for each position."""
    never_trains: tuple[str, ...] = ()
    """Names of layers that fine-tuning leaves as they are, wherever it begins."""


BACKBONES = {
    "vgg16": Backbone(apps.VGG16, apps.vgg16, 224, 512, "block5_conv1"),
    "vgg19": Backbone(apps.VGG19, apps.vgg19, 224, 512, "block5_conv1"),
    "inception_v3": Backbone(apps.InceptionV3, apps.inception_v3, 299, 2048, "mixed8"),
    "xception": Backbone(apps.Xception, apps.xception, 299, 2048, "block13_sepconv1_act"),
    "resnet50": Backbone(apps.ResNet50, apps.resnet50, 224, 2048, "conv5_block1_1_conv"),
    "resnet50_v2": Backbone(apps.ResNet50V2, apps.resnet_v2, 224, 2048, "conv5_block1_preact_bn"),
    "inception_resnet_v2": Backbone(
        apps.InceptionResNetV2, apps.inception_resnet_v2, 299, 1536, "mixed_7a"
    ),
    "mobilenet": Backbone(apps.MobileNet, apps.mobilenet, 224, 1024, "conv_dw_12"),
    "mobilenet_v2": Backbone(apps.MobileNetV2, apps.mobilenet_v2, 224, 1280, "block_13_expand"),
    "mobilenet_v2_035": Backbone(
        apps.MobileNetV2, apps.mobilenet_v2, 224, 1280, "block_13_expand", {"alpha": 0.35}
    ),
    "mobilenet_v3_large": Backbone(
        apps.MobileNetV3Large, apps.mobilenet_v3, 224, 960, "expanded_conv_12_expand"
    ),
    "densenet121": Backbone(apps.DenseNet121, apps.densenet, 224, 1024, "conv5_block1_0_bn"),
    "efficientnet_v2_b0": Backbone(
        apps.EfficientNetV2B0, apps.efficientnet_v2, 224, 1280, "block6a_expand_conv"
    ),
    "efficientnet_v2_s": Backbone(
        apps.EfficientNetV2S, apps.efficientnet_v2, 384, 1280, "block6a_expand_conv"
    ),
    "convnext_tiny": Backbone(
        apps.ConvNeXtTiny, apps.convnext, 224, 768, "convnext_tiny_downsampling_block_2"
    ),
    "nasnet_mobile": Backbone(
        apps.NASNetMobile, apps.nasnet, 224, 1056, "adjust_conv_projection_12"
    ),
    # KerasHub's; the last two of twelve blocks are unfrozen.
    "vit_base": Backbone(
        hub.VisionTransformer,
        hub.HALF,
        224,
        768,
        "tranformer_block_11",
        hub.VIT_BASE,
        any_size=False,
    ),
    "dinov2_small": Backbone(
        hub.VisionTransformer,
        hub.IMAGENET,
        224,
        384,
        "layers_10",
        hub.DINOV2_SMALL,
        never_trains=("embeddings",),
    ),
    "dinov2_base": Backbone(
        hub.VisionTransformer,
        hub.IMAGENET,
        224,
        768,
        "layers_10",
        hub.DINOV2_BASE,
        never_trains=("embeddings",),
    ),
    "clip_base": Backbone(
        hub.VisionTransformer, hub.CLIP, 224, 768, "encoder_block_10", hub.CLIP_BASE, any_size=False
    ),
    "demo_backbone": Backbone(demo_backbone.DemoBackbone, demo_backbone, 96, 256, "block2_out"),
}
"""Every backbone by its name in params.yaml."""

SHIPPED_WEIGHTS = {"demo_backbone": Path("stages/networks/demo_backbone.weights.h5")}
"""Pretrained weights that the repository holds; all others are Keras's to get."""


def build(name: str, size: int, weights: str | None = None) -> keras.Model:
    """Build a backbone from images, (n, size, size, 3) from 0 to 255, to its last feature map.

    `weights` is what the Keras constructor takes: None for random ones by Keras's global seed,
    `imagenet` for the published ones. Preprocessing is part of the network. Raises UserError for a
    size that the network cannot take.
    """
    backbone = BACKBONES[name]
    if size != backbone.size and not backbone.any_size:
        raise UserError(
            f"features.image_size {size} does not suit {name} (it has learnt a vector for each "
            f"position of one size); its own is {backbone.size}"
        )
    image = keras.Input((size, size, 3), name="image")
    try:
        network = backbone.constructor(
            include_top=False,
            weights=weights,
            input_tensor=backbone.module.preprocess_input(image),
            **backbone.options,
        )
    except ValueError as error:
        raise UserError(
            f"features.image_size {size} does not suit {name} ({first_line(error)}); "
            f"its own is {backbone.size}"
        ) from error
    # Named afterwards, as EfficientNetV2 chooses its preprocessing by the name that it is given.
    return keras.Model(image, network.output, name=name)


def load_weights(backbone: keras.Model, path: Path) -> None:
    """Load a `.weights.h5` file; raises UserError naming it when it does not fit the network."""
    try:
        backbone.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise UserError(
            f"{path} does not fit {backbone.name} ({reason}); make it anew by "
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
        unfreeze = BACKBONES[backbone.name].unfreeze
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
    never = BACKBONES[backbone.name].never_trains
    for number, layer in enumerate(backbone.layers):
        layer.trainable = number >= position and layer.name not in never
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = batch_norm == "train"
            layer.momentum = momentum
