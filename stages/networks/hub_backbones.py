"""Vision transformers of KerasHub (https://keras.io/keras_hub), an optional extra: `make hub`.

KerasHub gives a sequence of tokens, and some of its networks hold all blocks in one layer. Here the
same layers stand one after the other, so that fine-tuning can begin at any block, and the output is
a feature map of a single place, which any pooling leaves as it is: the class token after the last
norm. Linear probes of these networks are trained on it (DINOv2's model card; of CLIP before its
projection, https://arxiv.org/abs/2103.00020, appendix A.3).
"""

from collections.abc import Callable, Mapping
from typing import Any

from stages.common.command_line import UserError, first_line
from stages.networks.keras_quiet import keras
from stages.networks.registry import Backbone

LAYERS: dict[str, Callable[[Any], list[keras.layers.Layer]]] = {
    "ViTBackbone": lambda network: [
        network.layers[1], *network.layers[2].encoder_layers, network.layers[2].layer_norm
    ],
    "DINOV2Backbone": lambda network: [
        network.embeddings, *network.encoder.layers, network.layernorm
    ],
    "CLIPVisionEncoder": lambda network: network.layers[1:],
}  # fmt: skip
"""The layers of each of KerasHub's networks in the order of their use."""

UNREADABLE = {
    "ViTPatchingAndEmbedding": {"num_patches", "num_positions"},
    "ViTEncoderBlock": {"key_dim"},
}
"""What KerasHub 0.25 writes into a layer's configuration and refuses when it reads it again."""


def feature_map(
    backbone: Backbone, images: keras.KerasTensor, weights: str | None
) -> keras.KerasTensor:
    """Preprocessed images to (batch, 1, 1, width), by a network of KerasHub.

    Its published weights are loaded unless `weights` is None. Raises UserError when KerasHub is not
    installed, and when the preset cannot be had or is of another network.
    """
    model, preset = backbone.constructor, backbone.preset
    keras_hub = _import_keras_hub(preset)
    shape = images.shape[1:]
    network = getattr(keras_hub.models, model)(image_shape=shape, **backbone.options)
    if weights is not None:
        published = _published(keras_hub, model, preset, shape)
        _check_same(network, published, preset)
        network.set_weights(published.get_weights())

    # New layers, as one that has been called before would lead back into KerasHub's own graph.
    values = images
    for source in LAYERS[model](network):
        config = readable(type(source).__name__, source.get_config())
        layer = type(source).from_config(config)
        values = layer(values)
        layer.set_weights(source.get_weights())
    values = keras.layers.Cropping1D((0, values.shape[1] - 1), name="class_token")(values)
    return keras.layers.Reshape((1, 1, values.shape[-1]), name="features")(values)


def readable(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's configuration without what its class refuses to read."""
    refused = UNREADABLE.get(class_name, set())
    return {key: value for key, value in config.items() if key not in refused}


def _import_keras_hub(preset: str) -> Any:
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(
            f"the network {preset} needs KerasHub, which is not there ({error}); install it by "
            "`make hub`, or take another of `backbones`"
        ) from error
    return keras_hub


def _published(keras_hub: Any, model: str, preset: str, shape: tuple[int, ...]) -> Any:
    """The network with the weights of a preset, which KerasHub downloads from Kaggle and keeps."""
    try:
        if model == "CLIPVisionEncoder":  # Its presets are of the model of images and text.
            return keras_hub.models.CLIPBackbone.from_preset(preset).vision_encoder
        return getattr(keras_hub.models, model).from_preset(preset, image_shape=shape)
    except Exception as error:
        raise UserError(
            f"KerasHub's preset {preset} could not be had ({first_line(error)}); it comes from "
            "kaggle.com: see to the network, set KAGGLEHUB_CACHE to a folder of kagglehub that "
            "holds it, or set weights to random"
        ) from error


def _check_same(network: Any, published: Any, preset: str) -> None:
    """Raise UserError where the registry describes another network than the preset holds."""
    mine, theirs = ({**each.get_config()} for each in (network, published))
    for key in mine.keys() - {"name", "trainable", "dtype"}:
        found, wanted = (tuple(x) if isinstance(x, list) else x for x in (theirs[key], mine[key]))
        if found != wanted:
            raise UserError(
                f"KerasHub's preset {preset} has {key} {found}, not {wanted} as "
                "stages/backbones.yaml says; correct it there, or set weights to random"
            )
