"""What the prefix stage does where something is unfrozen.

Apart from it, as the stage loads TensorFlow only then.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.common.arrays import write_array
from stages.common.command_line import Parser
from stages.common.files import read_json, write_json
from stages.extraction.extract import (
    add_engine_option,
    add_image_options,
    extract_set,
    image_side,
    recipe,
)
from stages.extraction.forward import load_backbone
from stages.networks.backbones import cut_for
from stages.networks.keras_quiet import keras
from stages.networks.options import add_unfreeze_options, reads_pixels
from stages.sources.sets import find_set


def cache_activations(arguments: Sequence[str]) -> None:
    """Parse the options and write the activations at the cut and what they are."""
    parser = Parser(None)
    add_image_options(parser)
    add_engine_option(parser)
    add_unfreeze_options(parser)
    options = parser.parse_args(arguments)
    image_set = find_set(options.set)
    archive = Path("data/raw", image_set.name, image_set.archive)
    size = image_side(options)
    path = Path("data/prefix", image_set.name, f"{options.backbone}.npy")

    weights = Path(f"data/weights/{options.backbone}.weights.h5")
    backbone, precision = load_backbone(options.backbone, size, weights, options.precision)
    cut = cut_for(backbone, options.unfreeze, reads_pixels(options))
    if cut is None:
        print("what is unfrozen has no weights: there is no prefix to compute")
        write_array(path, np.empty(0, np.float16))
    else:
        pixels = cut is backbone.input
        dtype = "uint8" if pixels else "float32" if options.precision == "float32" else "float16"
        if pixels:
            print("fine-tuning reads pictures, not activations: each step runs the whole network")
        print(
            f"{image_set.images} images, {len(options.views)} views, {size} px, {precision}; "
            f"a map of {cut.shape[1:]} of each, as {dtype}"
        )
        network = None if pixels else keras.Model(backbone.input, cut)
        what = "pixels" if pixels else f"activations below {options.unfreeze}"
        made = recipe(options, precision, weights, f"{what} as {dtype}")
        extract_set(network, cut.shape[1:], dtype, image_set, options, made, path)
    write_json(
        path.with_suffix(".json"),
        {
            "images": read_json(archive.with_name("source.json")),
            "weights": read_json(Path(f"data/weights/{options.backbone}.json")),
            "image_size": size,
            "crop": options.crop,
            "views": options.views,
            "precision": precision,
            "unfreeze": options.unfreeze,
            "batch_norm": options.batch_norm,
            "augment": options.augment,
        },
    )
