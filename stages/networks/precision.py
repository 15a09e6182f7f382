"""Which arithmetic a network runs in: the one that pays on this machine, or the one asked for.

Measured on CPUs with bfloat16 instructions, dense convolutions run 1.6 to 7 times as fast in
bfloat16, while networks of depthwise convolutions run no faster or slower. The choice is a rule and
not a stopwatch, so that a repeated run makes the same one.
"""

from pathlib import Path
from typing import Literal

from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.options import Precision

CPU_FLAGS = {"amx_bf16", "avx512_bf16"}
FIRST_BFLOAT16_GPU = (8, 0)


def machine_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the first GPU, or without one the CPU, has bfloat16 instructions."""
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        details = tensorflow.config.experimental.get_device_details(gpu)
        return bool(details.get("compute_capability", (0, 0)) >= FIRST_BFLOAT16_GPU)
    return cpuinfo.exists() and not CPU_FLAGS.isdisjoint(cpuinfo.read_text("utf-8").split())


def choose_precision(
    asked: Precision, network: keras.Model | None = None
) -> Literal["float32", "bfloat16"]:
    """What `asked` comes to for this network on this machine; without a network, for training.

    `auto` is bfloat16 where the machine has it and the network no depthwise convolution. The upper
    layers that fine-tuning trains gain by it beside those too.
    """
    if asked != "auto":
        return asked
    dense = network is None or not any(_is_depthwise(layer) for layer in network.layers)
    return "bfloat16" if dense and machine_has_bfloat16() else "float32"


def _is_depthwise(layer: keras.layers.Layer) -> bool:
    depthwise = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    # ConvNeXt's are ordinary convolutions in groups of one channel.
    return isinstance(layer, depthwise) or getattr(layer, "groups", 1) > 1


def keep_slow_layers_in_float32(network: keras.Model) -> None:
    """Where a network has depthwise convolutions, have dense ones alone compute in bfloat16.

    On CPUs the others lose by it: the gradient of a depthwise convolution of stride 2 takes ten
    times as long as in float32, and what works on each value by itself is emulated.
    """
    layers = keras.layers
    if any(isinstance(layer, layers.DepthwiseConv2D) for layer in network.layers):
        for layer in network.layers:
            if not isinstance(layer, layers.Conv2D):
                layer.dtype_policy = "float32"


def set_precision(precision: Literal["float32", "bfloat16"]) -> None:
    """Make layers built from now on compute in `precision`; variables stay float32."""
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    keras.config.set_dtype_policy(policy)
