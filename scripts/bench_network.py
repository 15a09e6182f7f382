"""What a benchmark measures inside a process of its own: limits, and where features spend time.

    python -m scripts.bench_network forward --backbone vgg19 --size 224 --batches 4
    python -m scripts.bench_network matrix
    python -m scripts.bench_network features --set flowers17 --backbone vgg19 ...

The last line of the output is JSON. The options of `features` are those of the stage.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from stages import features
from stages.common.command_line import Parser, run
from stages.extraction import extract
from stages.extraction.forward import BATCH_SIZE
from stages.networks.backbones import build, pooling_layer
from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.precision import set_precision
from stages.pictures import decoding
from stages.pictures import reading as images
from stages.sources.sets import SETS

SIDE = 2048
"""Of the square matrices that are multiplied."""
LEAST_SECONDS = 1.0
"""For how long matrices are multiplied."""


def forward_speed(backbone: str, size: int, batches: int) -> dict[str, float]:
    """Images a second of the frozen network and its pooling alone, by precision.

    The batch is prepared once, as the tensor that the network takes.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, size, size, 3), dtype=np.uint8)
    speeds = {}
    for precision in ("float32", "bfloat16"):
        keras.utils.clear_session()
        set_precision(precision)
        trunk = build(backbone, size)
        network = keras.Model(trunk.input, pooling_layer("avg")(trunk.output))
        forward = tensorflow.function(lambda batch, network=network: network(batch, training=False))
        batch = tensorflow.constant(pixels, tensorflow.float32)
        forward(batch).numpy()
        started = time.perf_counter()
        for _ in range(batches):
            forward(batch).numpy()
        speeds[precision] = batches * BATCH_SIZE / (time.perf_counter() - started)
    return speeds


def matrix_speed() -> dict[str, float]:
    """Billions of floating point operations a second of a large matrix product, by precision."""
    speeds = {}
    for precision in ("float32", "bfloat16"):
        matrix = tensorflow.cast(tensorflow.random.normal((SIDE, SIDE)), precision)
        product = tensorflow.function(lambda a: tensorflow.reduce_sum(tensorflow.matmul(a, a)))
        product(matrix).numpy()
        started, count = time.perf_counter(), 0
        while (seconds := time.perf_counter() - started) < LEAST_SECONDS:
            product(matrix).numpy()
            count += 1
        speeds[precision] = count * 2 * SIDE**3 / seconds / 1e9
    return speeds


class Clock:
    """Adds up seconds by name, over all threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lock = Lock()

    def add(self, name: str, seconds: float) -> None:
        """Add to a name's seconds."""
        with self.lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def timed(
        self, name: str, function: Callable[..., Any], now: Callable[[], float] = time.perf_counter
    ) -> Callable[..., Any]:
        """The function, timed by the clock `now`."""

        def call(*arguments: Any, **options: Any) -> Any:
            started = now()
            try:
                return function(*arguments, **options)
            finally:
                self.add(name, now() - started)

        return call

    def timed_iterator(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        """The items, with the time that each takes to come."""
        following = self.timed(name, lambda: next(items, None))
        while (item := following()) is not None:
            yield item


def features_parts(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds of the features stage by part, run as it is with clocks in its places.

    `forward` and `wait` (for decoded pictures) are parts of the loop's wall time, `loop`. `read`,
    `decode` and `resize` go on beside them: `read` in wall time, the others in that of processors.
    `rest` is the loop's wall time after the first batch, which builds the graph, and `rest_images`
    the images of it.
    """
    # Else nothing would be left to compute where the stage has run before.
    shutil.rmtree("data/kept", ignore_errors=True)
    clock = Clock()
    ends: list[tuple[float, int]] = []

    def compute_here(network: Callable[..., Any], read: Callable[..., Any], kept: Any) -> Any:
        def counted(rows: Any) -> Iterator[Any]:
            for positions, pixels in clock.timed_iterator("wait", read(rows)):
                yield positions, pixels
                ends.append((time.perf_counter(), len(positions)))

        return computed_by(clock.timed("forward", network), counted, kept)

    computed_by = extract.compute_here
    read, resize, decode = images.read_members, Image.Image.resize, decoding.decode
    with (
        mock.patch.object(extract, "compute_here", compute_here),
        mock.patch.object(extract, "extract", clock.timed("loop", extract.extract)),
        mock.patch.object(
            images, "read_members", lambda *given: clock.timed_iterator("read", read(*given))
        ),
        mock.patch.object(images, "decode", clock.timed("decode", decode, time.thread_time)),
        mock.patch.object(Image.Image, "resize", clock.timed("resize", resize, time.thread_time)),
    ):
        features.main(arguments)
    seconds = clock.seconds
    seconds["decode"] -= seconds["resize"]
    seconds["write"] = seconds["loop"] - seconds["forward"] - seconds["wait"]
    seconds["rest"] = ends[-1][0] - ends[0][0]
    return seconds | {"rest_images": sum(count for _, count in ends[1:])}


def decode_speed(set: str, size: int) -> dict[str, float]:  # noqa: A002
    """Images a second of reading, decoding and scaling a set's images, on all cores."""
    image_set = SETS[set]
    archive = Path("data/raw", set, image_set.archive)
    started = time.perf_counter()
    for _ in images.decode_all(archive, image_set.image_names, size, "center", BATCH_SIZE):
        pass
    return {"decode": image_set.images / (time.perf_counter() - started)}


def main(arguments: Sequence[str]) -> None:
    """Measure what the first word says and print it as JSON."""
    what, *others = arguments
    parser = Parser(__doc__)
    parser.add_argument("--backbone")
    parser.add_argument("--set")
    parser.add_argument("--size", type=int)
    parser.add_argument("--batches", type=int)
    if what == "features":
        result = features_parts(others)
    else:
        given = vars(parser.parse_args(others))
        measures: dict[str, Callable[..., dict[str, float]]] = {
            "forward": forward_speed,
            "matrix": matrix_speed,
            "decode": decode_speed,
        }
        result = measures[what](
            **{name: value for name, value in given.items() if value is not None}
        )
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run(main)
