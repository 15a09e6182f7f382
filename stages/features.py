"""Extract pooled features of every image, in every view, with a frozen backbone.

    python -m stages.features --set flowers17 --backbone vgg19 --image_size native --crop center \
        --pooling avg --views plain mirror --precision auto --engine local

Writes `data/features/SET/BACKBONE.npy`, shape (images, views, features), and beside it how they
were made. Images are streamed out of the archive; nothing is unpacked.
"""

from collections.abc import Sequence
from pathlib import Path

from stages.common.command_line import Parser, run
from stages.common.files import read_json, write_json
from stages.extraction.options import ExtractionOptions, add_extraction_options
from stages.networks.registry import find_backbone
from stages.pictures.table import table_path


def parse(arguments: Sequence[str]) -> ExtractionOptions:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    add_extraction_options(parser)
    return ExtractionOptions(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str]) -> None:
    """Parse the options and write the features and what they are."""
    options = parse(arguments)
    # Here, as TensorFlow takes seconds to load: wrong options are told before.
    from stages.extraction.extract import conditions, extract_set
    from stages.extraction.forward import load_backbone
    from stages.networks.backbones import pooling_layer
    from stages.networks.keras_quiet import keras

    weights = Path(f"data/weights/{options.backbone}.weights.h5")
    backbone, precision = load_backbone(options.backbone, options.side, weights, options.precision)
    network = keras.Model(backbone.input, pooling_layer(options.pooling)(backbone.output))
    print(f"{len(options.views)} views, {options.side} px, {precision}")

    path = Path("data/features", options.set, f"{options.backbone}.npy")
    decided_by = conditions(options, precision, weights, f"features {options.pooling}")
    shape = network.output_shape[1:]
    extract_set(network, shape, "float32", options, decided_by, path)
    write_json(
        path.with_suffix(".json"),
        {
            "set": options.set,
            "backbone": options.backbone,
            "images": read_json(table_path(options.set).with_name("source.json")),
            "weights": read_json(Path(f"data/weights/{options.backbone}.json")),
            "features": {
                "image_size": options.side,
                "crop": options.crop,
                "views": options.views,
                "pooling": options.pooling,
                "precision": precision,
                "width": find_backbone(options.backbone).width,
            },
        },
    )


if __name__ == "__main__":
    run(main)
