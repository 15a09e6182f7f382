"""Running a frozen network over every image of a set, in every view, into one array file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import DTypeLike, NDArray

from stages.common.code import code_digests
from stages.common.command_line import UserError
from stages.common.files import sha256
from stages.common.progress import progress_bar
from stages.extraction.forward import BATCH_SIZE, Computed, compute_here, in_full_batches
from stages.extraction.kept import Kept
from stages.extraction.options import ExtractionOptions, ImageOptions
from stages.networks.devices import all_gpus
from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.registry import registry
from stages.pictures.readable import readable_rows
from stages.pictures.reading import decode_rows
from stages.pictures.table import read_table, table_path


def conditions(options: ImageOptions, precision: str, weights: Path, what: str) -> dict[str, Any]:
    """What decides the values of a picture besides its bytes and the view, on this machine.

    `what` says which of the network's values are taken.
    """
    return {
        "backbone": options.backbone,
        "registry": registry()[options.backbone],
        "weights": sha256(weights),
        "image_size": options.side,
        "crop": options.crop,
        "precision": precision,
        "values": what,
        "code": code_digests("stages.extraction.forward"),
        "versions": [each.__version__ for each in (keras, np, PIL, tensorflow)],
        "devices": [each.device_type for each in tensorflow.config.list_physical_devices()],
    }


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
    options: ExtractionOptions,
    decided_by: Mapping[str, Any],
    path: Path,
) -> None:
    """Write `network`'s values, of `shape`, of every image and view of a set to a .npy file.

    Without a network they are the pixels. Those that an earlier run under the same `conditions` has
    kept are not computed again. `path` is data/STAGE/SET/... Raises UserError as `extract` and
    `decode_all` do.
    """
    pictures, table = read_table(options.set), table_path(options.set)
    kept = Kept(
        Path("data/kept", path.parts[1], options.set, options.backbone),
        pictures.digests, options.views, decided_by, shape, dtype,
    )  # fmt: skip
    if options.engine == "ray" and network is not None:
        # Here, as Ray is not always installed.
        from stages.extraction.ray_extraction import compute_on_cluster

        compute = compute_on_cluster(network, table, pictures.images, options.crop, kept)
    else:
        at_once = BATCH_SIZE * all_gpus().num_replicas_in_sync
        compute = compute_here(
            (lambda images: images) if network is None else in_full_batches(network),
            lambda rows: decode_rows(
                table, pictures.images, rows, options.side, options.crop, at_once
            ),
            kept.lacking_views,
        )
    extract(compute, readable_rows(options.set), kept, path)
