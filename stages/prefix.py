"""Compute, once for every image and view, the part of the network that fine-tuning leaves as it is.

    python -m stages.prefix --set flowers17 --backbone vgg19 --unfreeze auto --batch_norm frozen \
        --augment none --image_size native --crop center --pooling avg --views plain mirror \
        --precision auto --engine local

Writes the activations at the cut. Where batch norm trains, or pictures are augmented, nothing under
it is constant, so the cut is the input and what is written is the decoded pixels. With
`--unfreeze 0` nothing is to be trained, and the file is empty.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.common.arrays import write_array
from stages.common.command_line import Parser, run
from stages.common.files import write_json


def main(arguments: Sequence[str]) -> None:
    """Compute the activations if anything is unfrozen, else write an empty file."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--unfreeze", required=True)
    options, _ = parser.parse_known_args(arguments)
    if options.unfreeze == "0":
        print("nothing is unfrozen: there is no prefix to compute")
        path = Path(f"data/prefix/{options.set}/{options.backbone}.npy")
        write_array(path, np.empty(0, np.float16))
        write_json(path.with_suffix(".json"), {"unfreeze": options.unfreeze})
        return
    # Here, as TensorFlow takes seconds to load.
    from stages.extraction.activations import cache_activations

    cache_activations(arguments)


if __name__ == "__main__":
    run(main)
