"""Get a backbone's weights: Keras's own, KerasHub's, the mirror's, or random ones.

    python -m stages.weights --backbone vgg19 --weights imagenet --seed 42

Writes `data/weights/BACKBONE.weights.h5` and, beside it, where they came from.
"""

import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.common.command_line import Parser, any_seed, one_of, run
from stages.common.files import replacing, sha256, write_json
from stages.common.progress import say
from stages.networks.backbones import BACKBONES, SHIPPED_WEIGHTS, build
from stages.networks.keras_downloads import keras_downloads
from stages.networks.keras_quiet import keras


def get_weights(name: str, weights: str, seed: int) -> tuple[keras.Model, dict[str, Any]]:
    """Build the backbone with the weights asked for, and say where they came from.

    Raises UserError when a file can be had neither from the mirror nor from the network.
    """
    size = BACKBONES[name].size
    if weights == "random":
        keras.utils.set_random_seed(seed)
        return build(name, size), {"source": "random", "seed": seed}
    if name in SHIPPED_WEIGHTS:
        backbone = build(name, size)
        backbone.load_weights(SHIPPED_WEIGHTS[name])
        return backbone, {"source": "demo", "sha256": sha256(SHIPPED_WEIGHTS[name])}
    if "preset" in BACKBONES[name].options:
        backbone = build(name, size, "imagenet")
        preset = BACKBONES[name].options["preset"]
        return backbone, {"source": "keras_hub", "preset": preset, "version": version("keras-hub")}
    with keras_downloads() as downloads:
        backbone = build(name, size, "imagenet")
    return backbone, downloads[-1]


def weights_file(network: keras.Model) -> bytes:
    """The content of the file that `network.save_weights` would write.

    It is made in memory, as HDF5 ends the process by a segmentation fault where the disk is full.
    """
    from keras.src.saving.saving_lib import H5IOStore, _save_state

    file = io.BytesIO()
    store = H5IOStore(file, mode="w")
    _save_state(network, store, None, inner_path="", visited_saveables=set())
    store.close()
    return file.getvalue()


def main(arguments: Sequence[str]) -> None:
    """Parse the options and write the weights and their source."""
    parser = Parser(__doc__)
    parser.add_argument("--backbone", type=one_of([*BACKBONES], "backbone"), required=True)
    parser.add_argument(
        "--weights", type=one_of(["imagenet", "random"], "choice of weights"), required=True
    )
    parser.add_argument("--seed", type=any_seed, required=True)
    options = parser.parse_args(arguments)

    say(f"building {options.backbone}")
    backbone, source = get_weights(options.backbone, options.weights, options.seed)
    print(f"{options.backbone}: {source['source']} weights")
    path = Path(f"data/weights/{options.backbone}.weights.h5")
    content = weights_file(backbone)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    write_json(path.with_name(f"{options.backbone}.json"), source)


if __name__ == "__main__":
    run(main)
