"""Compute, once for every image and view, the part of the network that fine-tuning leaves as it is.

    python -m stages.prefix --set flowers17 --backbone vgg19 --unfreeze auto --batch_norm frozen \
        --augment none --image_size native --crop center --pooling avg --views plain mirror \
        --precision auto --engine local

Writes the folder `data/prefix/SET/BACKBONE`: facts.json, whose entry `values` says what is in
values.npy. `activations` are those at the cut. Where batch norm trains, or pictures are augmented,
nothing under it is constant, so the cut is the input, and the values are `pixels`. Where nothing is
to be trained, they are `none`, and there is no values.npy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.command_line import Parser, run
from stages.common.files import write_json
from stages.extraction.options import ExtractionOptions, add_extraction_options
from stages.networks.options import Augment, BatchNorm, add_unfreeze_options, reads_pixels


@dataclass(frozen=True)
class Options(ExtractionOptions):
    """What the stage is asked for; see params.yaml."""

    unfreeze: str
    batch_norm: BatchNorm
    augment: Augment


def parse(arguments: Sequence[str]) -> Options:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    add_extraction_options(parser)
    add_unfreeze_options(parser)
    return Options(**vars(parser.parse_args(arguments)))


def cache_values(options: Options, folder: Path) -> dict[str, Any]:
    """Write the values at the cut to values.npy; return facts.json's entries on them."""
    # Here, as TensorFlow takes seconds to load.
    from stages.extraction.extract import conditions, extract_set
    from stages.extraction.forward import load_backbone
    from stages.networks.backbones import cut_for
    from stages.networks.keras_quiet import keras

    weights = Path(f"data/weights/{options.backbone}.weights.h5")
    backbone, precision = load_backbone(options.backbone, options.side, weights, options.precision)
    cut = cut_for(backbone, options.unfreeze, reads_pixels(options.batch_norm, options.augment))
    if cut is None:
        return {"values": "none"}
    pixels = cut is backbone.input
    dtype = "uint8" if pixels else "float32" if options.precision == "float32" else "float16"
    if pixels:
        print("fine-tuning reads pictures, not activations: each step runs the whole network")
    print(
        f"{len(options.views)} views, {options.side} px, {precision}; "
        f"a map of {cut.shape[1:]} of each, as {dtype}"
    )
    network = None if pixels else keras.Model(backbone.input, cut)
    what = "pixels" if pixels else f"activations below {options.unfreeze}"
    decided_by = conditions(options, precision, weights, f"{what} as {dtype}")
    path = folder / "values.npy"
    extract_set(network, cut.shape[1:], dtype, options, decided_by, path)
    return {"values": what.split()[0], "views": options.views, "precision": precision}


def main(arguments: Sequence[str]) -> None:
    """Parse the options and write the values at the cut, where there is one, and what they are."""
    options = parse(arguments)
    folder = Path("data/prefix", options.set, options.backbone)
    facts = {"values": "none"} if options.unfreeze == "0" else cache_values(options, folder)
    if facts["values"] == "none":
        (folder / "values.npy").unlink(missing_ok=True)
        print("nothing is unfrozen: there is no prefix to compute")
    write_json(folder / "facts.json", facts)


if __name__ == "__main__":
    run(main)
