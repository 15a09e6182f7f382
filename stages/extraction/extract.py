"""Running a frozen network over every image of a set, in every view, into one array file."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import DTypeLike, NDArray

from stages.common.code import code_digests
from stages.common.command_line import Parser, UserError, number, one_of
from stages.common.files import sha256
from stages.common.progress import progress_bar
from stages.extraction.forward import BATCH_SIZE, in_full_batches
from stages.extraction.kept import Kept
from stages.networks.backbones import BACKBONES, POOLINGS
from stages.networks.devices import all_gpus
from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.options import add_run_options
from stages.networks.precision import (
    PRECISIONS,
)
from stages.pictures.decoding import CROPS, Crop, Pixels
from stages.pictures.readable import readable_rows
from stages.pictures.reading import decode_all, decode_rows
from stages.pictures.views import VIEWS, see
from stages.sources.sets import ImageSet, picture_keys

MIN_SIDE, MAX_SIDE = 32, 1024


ENGINES = ("local", "ray")


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


def add_engine_option(parser: Parser) -> None:
    """Add `--engine`, which says where a network runs over a set."""
    parser.add_argument("--engine", type=_engine, required=True)


def _engine(text: str) -> str:
    engine = one_of(ENGINES, "engine")(text)
    if engine == "ray" and find_spec("ray") is None:
        raise argparse.ArgumentTypeError("ray is not installed; run `make ray`, or set it to local")
    return engine


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


def recipe(options: argparse.Namespace, precision: str, weights: Path, what: str) -> dict[str, Any]:
    """What decides the values of a picture besides its bytes and the view, on this machine.

    `what` says which of the network's values are taken.
    """
    return {
        "backbone": options.backbone,
        "weights": sha256(weights),
        "image_size": image_side(options),
        "crop": options.crop,
        "precision": precision,
        "values": what,
        "code": code_digests("stages.extraction.forward"),
        "versions": [each.__version__ for each in (keras, np, PIL, tensorflow)],
        "devices": [each.device_type for each in tensorflow.config.list_physical_devices()],
    }


Computed = Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]
"""Batches of images: their rows (n,), and in each view that is asked for their values (n, ...)."""


def compute_here(
    network: Callable[[Pixels], NDArray[Any]],
    read: Callable[[NDArray[np.int64]], Iterator[tuple[NDArray[np.int64], Pixels]]],
    kept: Kept,
) -> Callable[[NDArray[np.int64]], Computed]:
    """What `extract` computes by: `network` on this machine, in those views that `kept` lacks.

    `read` gives, for rows, batches of them: the rows (n,) and images (n, size, size, 3).
    """

    def compute(rows: NDArray[np.int64]) -> Computed:
        for positions, images in read(rows):
            views = kept.lacking_views(positions)
            yield positions, {view: network(see(images, view)) for view in views}

    return compute


def extract(
    compute: Callable[[NDArray[np.int64]], Computed],
    rows: NDArray[np.int64],
    kept: Kept,
    path: Path,
) -> None:
    """Write values of the images `rows` in every view of `kept` to `path`, a .npy file.

    `compute` is asked for those alone that `kept` lacks. Other rows are zeros. Memory does not
    grow. Raises UserError when a value does not fit the file's type.
    """
    lacking = rows[~kept.done[rows].all(axis=1)]
    print(f"{len(rows) - len(lacking)} images are known, {len(lacking)} are new", flush=True)
    with progress_bar(total=len(lacking), desc="running the network", unit=" images") as bar:
        for positions, computed in compute(lacking) if len(lacking) else ():
            for view, values in computed.items():
                column = kept.views.index(view)
                with np.errstate(over="ignore"):
                    kept.values[positions, column] = values.astype(kept.values.dtype)
                if not np.isfinite(kept.values[positions, column]).all():
                    raise UserError(
                        f"activations up to {np.abs(values).max():g} do not fit "
                        f"{kept.values.dtype} in {path}; set features.precision to float32"
                    )
                kept.mark(positions, column)
            bar.update(len(positions))
    kept.finish(path)


def extract_set(
    network: keras.Model | None,
    shape: Sequence[int],
    dtype: DTypeLike,
    image_set: ImageSet,
    options: argparse.Namespace,
    made: Mapping[str, Any],
    path: Path,
) -> None:
    """Write `network`'s values, of `shape`, of every image and view of a set to data/STAGE/...npy.

    Without a network they are the pixels. Those that an earlier run by the recipe `made` has kept
    are not computed again. Raises UserError as `extract` and `decode_all` do.
    """
    archive = Path("data/raw", image_set.name, image_set.archive)
    names, side = image_set.image_names, image_side(options)
    keys = picture_keys(image_set, archive.parent)
    folder = Path("data/kept", path.relative_to("data").with_suffix(""))
    kept = Kept(folder, keys, options.views, made, shape, dtype)
    if options.engine == "ray" and network is not None:
        # Here, as Ray is not always installed.
        from stages.extraction.ray_extraction import compute_on_cluster

        compute = compute_on_cluster(network, archive, names, options.crop, kept)
    else:
        at_once = BATCH_SIZE * all_gpus().num_replicas_in_sync
        compute = compute_here(
            (lambda images: images) if network is None else in_full_batches(network),
            lambda rows: decode_rows(archive, names, rows, side, options.crop, at_once),
            kept,
        )
    extract(compute, readable_rows(image_set.name), kept, path)
