"""A small network for the set `demo`, so that the whole pipeline runs without a download.

A residual network (He et al. 2016, https://arxiv.org/abs/1512.03385) of 0.35 million parameters
for 96 x 96 px. Its weights, demo_backbone.weights.h5, come from tools/train_demo_backbone.py,
which trains on other drawn species than those of the set.
"""

from typing import Any

from stages.networks.keras_quiet import keras

layers = keras.layers

SIZE = 96
"""Native height and width, in pixels."""
WIDTHS = (16, 48, 96, 192)
"""Channels of the four blocks, at a half, a quarter, an eighth and a sixteenth of the size.

Multiples of 16, as other widths take twice the time on a CPU.
"""
FEATURES = 256


def preprocess_input(x: Any) -> Any:
    """RGB from 0..255 to -1..1; an array or a Keras tensor."""
    return x / 127.5 - 1.0


def feature_map(x: Any) -> Any:
    """Preprocessed images to (batch, height / 16, width / 16, 256), with random weights.

    The network can be cut after `stem` and after `block1_out` to `block4_out`.
    """
    x = _convolution(x, WIDTHS[0], "stem", strides=2)
    for number, width in enumerate(WIDTHS, start=1):
        x = _block(x, width, f"block{number}", strides=1 if number == 1 else 2)
    return _convolution(x, FEATURES, "features", kernel=1)


def _convolution(x: Any, width: int, name: str, kernel: int = 3, strides: int = 1) -> Any:
    x = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False, name=f"{name}_conv")(
        x
    )
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=name)(x)


def _block(x: Any, width: int, name: str, strides: int) -> Any:
    """Two convolutions beside a shortcut; the shortcut is projected where the shape changes."""
    shortcut = x
    if strides > 1:
        shortcut = layers.AveragePooling2D(2, padding="same", name=f"{name}_shortcut_pool")(x)
        shortcut = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_shortcut_conv")(shortcut)
        shortcut = layers.BatchNormalization(name=f"{name}_shortcut_bn")(shortcut)
    x = _convolution(x, width, f"{name}_1", strides=strides)
    x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_2_bn")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_out")(x)
