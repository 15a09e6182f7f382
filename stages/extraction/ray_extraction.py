"""Running a frozen network over a set's images on a Ray cluster, by Ray Data.

The set's rows go out in shards; a worker reads a shard's pictures by the set's table, which it sees
under the same path, and sends back their values; this machine writes them into their rows. They are
those of `compute_here`, byte for byte, where processors are of one kind. If a worker or its machine
is lost, Ray gives its shard to another.
"""

import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

# Before Ray is loaded, which would tell its makers of each run.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray
from ray.util.annotations import RayDeprecationWarning

from stages.common.command_line import UserError, first_line
from stages.extraction.forward import BATCH_SIZE, Computed, in_full_batches
from stages.extraction.kept import Kept
from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.model_files import load_model, save_model
from stages.pictures.decoding import Crop, Pixels
from stages.pictures.reading import decode_rows
from stages.pictures.views import see

SHARD = 128
"""Images that a worker gets at a time. It unpacks what is before them in the archive once more."""
RETRIES = 3
"""Times that a shard is given out again whose worker was lost."""


@lru_cache(maxsize=1)
def _network(model: ray.ObjectRef) -> Callable[[Pixels], NDArray[Any]]:
    """The network of a model file's bytes, which a worker builds once."""
    cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    tensorflow.config.threading.set_intra_op_parallelism_threads(max(1, int(cores)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.keras")
        path.write_bytes(ray.get(model))
        return in_full_batches(load_model(path))


def _see_shard(
    shard: dict[str, NDArray[np.int64]],
    model: list[ray.ObjectRef],
    table: Path,
    names: Sequence[str],
    crop: Crop,
    views: Sequence[str],
    side: int,
) -> Iterator[dict[str, NDArray[Any]]]:
    network = _network(model[0])
    for rows, images in decode_rows(table, names, shard["data"], side, crop, BATCH_SIZE):
        # Arrow knows no bfloat16.
        seen = {view: network(see(images, view)).astype(np.float32) for view in views}
        yield {"row": rows} | seen


def compute_on_cluster(
    network: keras.Model, table: Path, names: Sequence[str], crop: Crop, kept: Kept
) -> Callable[[NDArray[np.int64]], Computed]:
    """What `extract` computes by: `network` on the cluster, in those views that `kept` lacks.

    The cluster is the one that this machine is part of, or one of this machine alone that is
    started for this run. Raises UserError where there is none at RAY_ADDRESS, and where it fails.
    """

    def compute(rows: NDArray[np.int64]) -> Computed:
        resources, views = _connect(), kept.lacking_views(rows)
        model = [ray.put(_as_bytes(network))]
        with warnings.catch_warnings():
            # Its number of retries has no end, and no other argument sets one.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            seen = ray.data.from_numpy(np.split(rows, range(SHARD, len(rows), SHARD))).map_batches(
                _see_shard,
                batch_size=None,
                fn_args=(model, table.absolute(), names, crop, views, network.input_shape[1]),
                num_cpus=1,
                num_gpus=1 if "GPU" in resources else 0,
                ray_remote_args_fn=lambda: {"max_retries": RETRIES},
            )
        try:
            for batch in seen.iter_batches(batch_size=None):
                yield batch.pop("row"), batch
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, UserError):
                raise UserError(first_line(cause)) from error
            raise UserError(
                f"engine: ray failed on {table} ({first_line(cause)}); see to the cluster "
                "(`ray status`) and run again, which goes on, or set engine to local"
            ) from error

    return compute


def _connect() -> dict[str, float]:
    """Join or start the cluster; return its resources, such as `CPU`, by number."""
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        if "://" in address:
            raise ValueError("Ray Data needs a driver in the cluster, and so HOST:PORT")
        host, _, port = address.rpartition(":")
        if port.isdigit():
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(logging_level="ERROR", log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster that can be used at RAY_ADDRESS {address!r} ({first_line(error)}); "
            "see docs/machines.md, or set engine to local"
        ) from error
    resources: dict[str, float] = ray.cluster_resources()
    counts = (resources.get(name, 0) for name in ("CPU", "GPU"))
    print("Ray: {:g} processors and {:g} GPUs".format(*counts), flush=True)
    # There is a bar already, and an error is told once.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return resources


def _as_bytes(network: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.keras")
        save_model(network, path)
        return path.read_bytes()
