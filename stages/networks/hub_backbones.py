"""Vision transformers of KerasHub (https://keras.io/keras_hub), an optional extra: `make hub`.

KerasHub gives a sequence of tokens, and some of its networks hold all blocks in one layer. Here the
same layers stand one after the other, so that fine-tuning can begin at any block, and the output is
a feature map of a single place, which any pooling leaves as it is: the class token after the last
norm. Linear probes of these networks are trained on it (DINOv2's model card; of CLIP before its
projection, https://arxiv.org/abs/2103.00020, appendix A.3).

SigLIP is not among them: KerasHub 0.25 says of its tokens that there is one more than there is, so
that nothing can be trained on cached ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.common.command_line import UserError
from stages.networks.keras_quiet import keras

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


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images; stands where `keras.applications` has a module."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def preprocess_input(self, image: Any) -> Any:
        """RGB from 0..255, a Keras tensor, to (image / 255 - mean) / deviation."""
        scale = [1 / 255 / deviation for deviation in self.deviation]
        pairs = zip(self.mean, self.deviation, strict=True)
        offset = [-mean / deviation for mean, deviation in pairs]
        return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocess")(image)


IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of DINOv2: https://github.com/facebookresearch/dinov2, dinov2/data/transforms.py."""
HALF = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Of ViT: https://github.com/google-research/big_vision, value_range(-1, 1)."""
CLIP = Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Of CLIP: https://github.com/openai/CLIP, clip/clip.py."""

SMALL = {"num_layers": 12, "num_heads": 6, "hidden_dim": 384, "intermediate_dim": 1536}
"""ViT-Small of https://arxiv.org/abs/2012.12877, table 1."""
BASE = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
"""ViT-Base of https://arxiv.org/abs/2010.11929, table 1."""
DINOV2 = {"patch_size": 14, "position_embedding_shape": (518, 518)}
"""Positions are learnt at 518 px; KerasHub interpolates them to other sizes."""

VIT_BASE = {
    "model": "ViTBackbone",
    "preset": "vit_base_patch16_224_imagenet21k",
    "settings": {
        "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072,
        "patch_size": (16, 16),
    },
}  # fmt: skip
DINOV2_SMALL = {"model": "DINOV2Backbone", "preset": "dinov2_small", "settings": SMALL | DINOV2}
DINOV2_BASE = {"model": "DINOV2Backbone", "preset": "dinov2_base", "settings": BASE | DINOV2}
CLIP_BASE = {
    "model": "CLIPVisionEncoder",
    "preset": "clip_vit_base_patch16",
    "settings": BASE | {"patch_size": 16},
}


def VisionTransformer(  # noqa: N802, as keras.applications names its constructors
    model: str,
    preset: str,
    settings: Mapping[str, Any],
    input_tensor: Any,
    weights: str | None = None,
    include_top: bool = False,
) -> keras.Model:
    """A network of KerasHub, called as the constructors of keras.applications are.

    `model` is one of LAYERS, `settings` are its constructor's arguments, and `preset` is the name
    of its published weights, which are loaded unless `weights` is None. Its output is
    (batch, 1, 1, width). Raises UserError when KerasHub is not installed, and when the preset
    cannot be had or is of another network; ValueError for a classifier, which it has not.
    """
    if include_top:
        raise ValueError(f"{model} has no classifier. Received: include_top={include_top}")
    keras_hub = _import_keras_hub(preset)
    shape = input_tensor.shape[1:]
    network = getattr(keras_hub.models, model)(image_shape=shape, **settings)
    if weights is not None:
        published = _published(keras_hub, model, preset, shape)
        _check_same(network, published, preset)
        network.set_weights(published.get_weights())

    # New layers, as one that has been called before would lead back into KerasHub's own graph.
    values = input_tensor
    for source in LAYERS[model](network):
        config = readable(type(source).__name__, source.get_config())
        layer = type(source).from_config(config)
        values = layer(values)
        layer.set_weights(source.get_weights())
    values = keras.layers.Cropping1D((0, values.shape[1] - 1), name="class_token")(values)
    values = keras.layers.Reshape((1, 1, values.shape[-1]), name="features")(values)
    (image,) = keras.utils.get_source_inputs(input_tensor)
    return keras.Model(image, values)


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
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"KerasHub's preset {preset} could not be had ({reason}); it comes from kaggle.com: "
            "see to the network, set KAGGLEHUB_CACHE to a folder of kagglehub that holds it, or "
            "set weights to random"
        ) from error


def _check_same(network: Any, published: Any, preset: str) -> None:
    """Raise UserError where the registry describes another network than the preset holds."""
    mine, theirs = ({**each.get_config()} for each in (network, published))
    for key in mine.keys() - {"name", "trainable", "dtype"}:
        found, wanted = (tuple(x) if isinstance(x, list) else x for x in (theirs[key], mine[key]))
        if found != wanted:
            raise UserError(
                f"KerasHub's preset {preset} has {key} {found}, not {wanted} as "
                "stages/networks/backbones.py says; correct it there, or set weights to random"
            )
