"""The forward pass of a frozen network.

This module and what it imports, decoding and views among it, decide the values of a picture.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.progress import say
from stages.networks.backbones import build, load_weights
from stages.networks.devices import all_gpus, on_each_device
from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.options import Precision
from stages.networks.precision import choose_precision, set_precision
from stages.pictures.decoding import Pixels
from stages.pictures.views import see

BATCH_SIZE = 32
"""Images a step; larger ones were no faster on CPUs, and take more memory."""


MAX_OUTPUT = 160 * 2**20
"""Bytes, in float32, that a layer may give for the images that a network sees at once. The first
layers of a VGG would need four times as much for a whole batch, most networks less."""


def load_backbone(name: str, size: int, weights: Path, asked: Precision) -> tuple[keras.Model, str]:
    """Build the backbone in the precision that `asked` comes to, with the weights of a file.

    Returns the network and the precision. Raises UserError when the file does not fit.
    """
    say(f"building {name}")
    # What it comes to for most networks; building one takes up to two seconds.
    likely = choose_precision(asked)
    set_precision(likely)
    with all_gpus().scope():
        backbone = build(name, size)
    precision = choose_precision(asked, backbone)
    if precision != likely:
        # Keras numbers unnamed layers by session; `finetune.unfreeze` may name one of them.
        keras.utils.clear_session()
        set_precision(precision)
        with all_gpus().scope():
            backbone = build(name, size)
    load_weights(backbone, weights)
    return backbone, precision


def images_at_once(network: keras.Model) -> int:
    """BATCH_SIZE, or so often half of it that no layer gives more than MAX_OUTPUT bytes."""
    values = max(
        int(np.prod(output.shape[1:]))
        for layer in network.layers
        for output in keras.tree.flatten(layer.output)
    )
    count = BATCH_SIZE
    while count > 1 and 4 * count * values > MAX_OUTPUT:
        count //= 2
    return count


def with_constant_weights(network: keras.Model) -> Callable[[Any], Any]:
    """`network` with its weights as constants, for use in a graph.

    TensorFlow then multiplies batch norm into the convolutions before it: values differ in the last
    digits, and come sooner.
    """
    groups = [
        [variable.numpy() for variable in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    ]

    def forward(images: Any) -> Any:
        weights = ([tensorflow.constant(values) for values in group] for group in groups)
        return network.stateless_call(*weights, images, training=False)[0]

    return forward


def in_full_batches(network: keras.Model) -> Callable[[Pixels], NDArray[Any]]:
    """What the network gives for images (n, size, size, 3).

    It always sees the same number of images, some of them black if need be. So one graph serves
    all, where Keras would build a second one for the last batch; and an image's values do not
    depend on how many others come with it: kernels for other numbers of rows add in another order.
    Where there are several GPUs, each sees that number at a time.
    """
    # Constants take memory, and gain nothing but this.
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in network.layers):
        forward = with_constant_weights(network)
    else:
        forward = partial(network, training=False)
    count = images_at_once(network)
    images = tensorflow.TensorSpec((count, *network.input_shape[1:]), "uint8")
    graph = tensorflow.function(forward, input_signature=[images])
    strategy = all_gpus()
    run, step = on_each_device(graph, strategy), count * strategy.num_replicas_in_sync

    def see_all(images: Pixels) -> NDArray[Any]:
        values = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            batch = np.zeros((step, *images.shape[1:]), np.uint8)
            batch[: len(part)] = part
            values.append(run(batch)[: len(part)])
        return np.concatenate(values)

    return see_all


Computed = Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]
"""Batches of images: their rows (n,), and in each view that is asked for their values (n, ...)."""


def compute_here(
    network: Callable[[Pixels], NDArray[Any]],
    read: Callable[[NDArray[np.int64]], Iterator[tuple[NDArray[np.int64], Pixels]]],
    lacking: Callable[[NDArray[np.int64]], list[str]],
) -> Callable[[NDArray[np.int64]], Computed]:
    """What `extract` computes by: `network` on this machine, in the views that are `lacking`.

    `lacking` gives the views that some of the rows of a batch lack, `read` batches of rows: the
    rows (n,) and images (n, size, size, 3).
    """

    def compute(rows: NDArray[np.int64]) -> Computed:
        for positions, images in read(rows):
            views = lacking(positions)
            yield positions, {view: network(see(images, view)) for view in views}

    return compute
