"""Running a frozen network over every image of a set, in every view, into one array file."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stages.common.backbones import BACKBONES, POOLINGS, build, load_weights
from stages.common.command_line import Parser, UserError, number, one_of
from stages.common.files import release, replacing, reserve
from stages.common.images import CROPS, VIEWS, Crop, Pixels, decode_all, see
from stages.common.keras_quiet import keras, tensorflow
from stages.common.options import add_run_options
from stages.common.precision import (
    PRECISIONS,
    Precision,
    choose_precision,
    choose_training_precision,
    set_precision,
)
from stages.common.progress import progress_bar, say

MIN_SIDE, MAX_SIDE = 32, 1024
BATCH_SIZE = 32
"""Images a step; larger ones were no faster on CPUs, and take more memory."""


def add_image_options(parser: Parser) -> None:
    """Add `--set`, `--backbone` and what the section `features` of params.yaml holds."""
    add_run_options(parser)
    parser.add_argument("--image_size", type=_side, required=True)
    parser.add_argument("--crop", type=one_of(CROPS, "features.crop"), required=True)
    parser.add_argument("--pooling", type=one_of(POOLINGS, "features.pooling"), required=True)
    parser.add_argument(
        "--views", type=one_of(VIEWS, "view in features.views"), nargs="+", required=True
    )
    parser.add_argument("--precision", type=one_of(PRECISIONS, "features.precision"), required=True)


def _side(text: str) -> str | int:
    return text if text in ("native", "larger") else int(number(int, MIN_SIDE, MAX_SIDE)(text))


def image_side(options: argparse.Namespace) -> int:
    """Side of the square images in pixels.

    `native` is the size the backbone was trained on, `larger` 8/7 of that where it takes other
    sizes: networks trained on random crops see objects larger than they are in a
    centred crop, and do better when that is made up for. Touvron et al., "Fixing the train-test
    resolution discrepancy" (2019), section 3.
    """
    backbone = BACKBONES[options.backbone]
    if options.image_size == "larger" and backbone.any_size:
        return round(backbone.size * 8 / 7)
    return backbone.size if isinstance(options.image_size, str) else int(options.image_size)


def load_pictures(archive: Path, names: Sequence[str], size: int, crop: Crop) -> Pixels:
    """The pictures `names` of an archive, in that order, shape (n, size, size, 3)."""
    pictures = np.zeros((len(names), size, size, 3), np.uint8)
    if not names:
        return pictures
    with progress_bar(total=len(names), desc="reading pictures", unit=" images") as bar:
        for positions, images in decode_all(archive, names, size, crop, BATCH_SIZE):
            pictures[positions] = images
            bar.update(len(positions))
    return pictures


def load_backbone(name: str, size: int, weights: Path, asked: Precision) -> tuple[keras.Model, str]:
    """Build the backbone in the precision that `asked` comes to, with the weights of a file.

    Returns the network and the precision. Raises UserError when the file does not fit.
    """
    say(f"building {name}")
    # What it comes to for most networks; building one takes up to two seconds.
    likely = choose_training_precision(asked)
    set_precision(likely)
    backbone = build(name, size)
    precision = choose_precision(asked, backbone)
    if precision != likely:
        # Keras numbers unnamed layers by session; `finetune.unfreeze` may name one of them.
        keras.utils.clear_session()
        set_precision(precision)
        backbone = build(name, size)
    load_weights(backbone, weights)
    return backbone, precision


def one_graph(network: keras.Model) -> Callable[[Pixels], NDArray[Any]]:
    """What the network gives for images (n, size, size, 3), by one graph for every n.

    Keras builds a second one for the last batch where that is smaller: seconds with large networks.
    """
    images = tensorflow.TensorSpec(network.input_shape, "uint8")
    forward = tensorflow.function(
        lambda images: network(images, training=False), input_signature=[images]
    )
    return lambda images: np.asarray(forward(images))


def extract(
    network: Callable[[Pixels], NDArray[Any]],
    batches: Iterator[tuple[NDArray[np.int64], Pixels]],
    count: int,
    views: Sequence[str],
    dtype: DTypeLike,
    path: Path,
) -> None:
    """Write `network`'s values of every image in every view to `path`, a .npy file.

    `batches` gives positions (n,) and images (n, size, size, 3); the file's shape is
    (count, views, ...), its rows in the order of the positions; those without one are zeros. Memory
    does not grow with `count`. Raises UserError when a value does not fit `dtype`, and at the first
    batch OSError when the disk has no room for the file.
    """
    array = None
    with replacing(path) as temporary, progress_bar(total=count, unit=" images") as bar:
        for positions, images in batches:
            values = np.stack([network(see(images, view)) for view in views], axis=1)
            if array is None:
                array = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                    temporary, mode="w+", dtype=dtype, shape=(count, *values.shape[1:])
                )
                reserve(temporary)
            with np.errstate(over="ignore"):
                array[positions] = values.astype(dtype)
            if not np.isfinite(array[positions]).all():
                raise UserError(
                    f"activations up to {np.abs(values).max():g} do not fit {np.dtype(dtype)} in "
                    f"{path}; set features.precision to float32"
                )
            release(array)
            bar.update(len(positions))
        if array is not None:
            array.flush()
