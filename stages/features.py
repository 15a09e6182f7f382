"""Extract pooled features of every image, in every view, with a frozen backbone.

    python -m stages.features --set flowers17 --backbone vgg19 --image_size native --crop center \
        --pooling avg --views plain mirror --precision auto --engine local

Images are streamed out of the archive; nothing is unpacked.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from stages.common.command_line import Parser, run
from stages.common.files import read_json, write_json
from stages.extraction.extract import (
    add_engine_option,
    add_image_options,
    extract_set,
    image_side,
    recipe,
)
from stages.extraction.forward import load_backbone
from stages.networks.backbones import BACKBONES, pooling_layer
from stages.networks.keras_quiet import keras
from stages.sources.sets import find_set


def parse(arguments: Sequence[str]) -> Namespace:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    add_image_options(parser)
    add_engine_option(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Parse the options and write the features and what they are."""
    options = parse(arguments)
    image_set = find_set(options.set)
    archive = Path("data/raw", image_set.name, image_set.archive)
    size = image_side(options)

    weights = Path(f"data/weights/{options.backbone}.weights.h5")
    backbone, precision = load_backbone(options.backbone, size, weights, options.precision)
    network = keras.Model(backbone.input, pooling_layer(options.pooling)(backbone.output))
    print(f"{image_set.images} images, {len(options.views)} views, {size} px, {precision}")

    path = Path("data/features", image_set.name, f"{options.backbone}.npy")
    made = recipe(options, precision, weights, f"features {options.pooling}")
    shape = network.output_shape[1:]
    extract_set(network, shape, "float32", image_set, options, made, path)
    write_json(
        path.with_suffix(".json"),
        {
            "set": image_set.name,
            "backbone": options.backbone,
            "images": read_json(archive.with_name("source.json")),
            "weights": read_json(Path(f"data/weights/{options.backbone}.json")),
            "features": {
                "image_size": size,
                "crop": options.crop,
                "views": options.views,
                "pooling": options.pooling,
                "precision": precision,
                "width": BACKBONES[options.backbone].width,
            },
        },
    )


if __name__ == "__main__":
    run(main)
