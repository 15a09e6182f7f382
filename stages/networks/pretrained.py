"""Pretrained weights of a backbone, from wherever they are, or random ones in their place."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.common.files import sha256
from stages.networks.backbones import build
from stages.networks.keras_downloads import keras_downloads
from stages.networks.keras_quiet import keras
from stages.networks.registry import find_backbone

DEMO_WEIGHTS = Path(__file__).with_name("demo_backbone.weights.h5")
"""Of the demo's network, which the repository holds; all others are Keras's to get."""


def get_weights(name: str, weights: str, seed: int) -> tuple[keras.Model, dict[str, Any]]:
    """Build the backbone with the weights asked for, and say where they came from.

    Raises UserError when a file can be had neither from the mirror nor from the network.
    """
    entry = find_backbone(name)
    if weights == "random":
        keras.utils.set_random_seed(seed)
        record = {"source": "random", "seed": seed, "terms": "random numbers"}
        return build(name, entry.size), record
    if entry.library == "demo":
        backbone = build(name, entry.size)
        backbone.load_weights(DEMO_WEIGHTS)
        source: dict[str, Any] = {"source": "demo", "sha256": sha256(DEMO_WEIGHTS)}
    elif entry.library == "keras_hub":
        backbone = build(name, entry.size, "imagenet")
        source = {"source": "keras_hub", "preset": entry.preset, "version": version("keras-hub")}
    else:
        with keras_downloads() as downloads:
            backbone = build(name, entry.size, "imagenet")
        source = dict(downloads[-1])
    return backbone, source | ({"terms": entry.terms} if entry.terms else {})
