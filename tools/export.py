"""Export a trained model for use without Keras, and check that it still says the same.

    python -m tools.export models/flowers17/vgg19 --format tflite
    python -m tools.export models/flowers17/vgg19/head.keras --format onnx --output rose.onnx

A tool, not a stage of the pipeline. What is exported takes RGB images, float32 from 0 to 255, of
shape (n, size, size, 3), and gives probabilities: preprocessing and the average over the views are
inside. The names of the classes are beside it, one a line. Nothing is written where the two models
disagree on pictures.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import Parser, UserError, first_line, one_of, run
from stages.common.files import read_json, replacing
from stages.common.progress import progress_bar, say
from stages.pictures.decoding import Pixels, decode
from stages.pictures.splits import read_split
from tools.classifier import find_model
from tools.samples import find_samples

# What loads TensorFlow is imported where it is used: it takes seconds, and wrong options are told
# before.
if TYPE_CHECKING:
    from stages.networks.keras_quiet import keras

PICTURES = 200
MIN_SAME = 0.995
"""Least share of pictures whose likeliest class must be the same."""
MAX_DIFFERENCE = 0.01
"""Of two probabilities of one picture and class; other orders of summation make 1e-6."""

Probabilities = NDArray[np.float32]
Predict = Callable[[NDArray[np.float32]], Probabilities]
"""From images (n, size, size, 3), 0 to 255, to probabilities (n, classes)."""


def export_as(name: str) -> Callable[["keras.Model", Path], None]:
    """What writes a model in a format that Keras itself exports to."""
    return lambda model, path: model.export(path, format=name, verbose=False)


def load_saved_model(path: Path) -> Predict:
    """What the folder gives for images."""
    from stages.networks.keras_quiet import tensorflow

    model = tensorflow.saved_model.load(str(path))  # Its function does not keep it alive.
    return lambda images: np.asarray(model.serve(images))


def convert_to_tflite(model: "keras.Model", path: Path) -> None:
    """Write a float32 file for LiteRT, which was called TensorFlow Lite."""
    from stages.networks.keras_quiet import tensorflow

    with TemporaryDirectory() as folder:
        model.export(folder, format="tf_saved_model", verbose=False)
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
        path.write_bytes(converter.convert())


def load_tflite(path: Path) -> Predict:
    """What the file gives for images, on all cores."""
    from stages.networks.keras_quiet import tensorflow

    runner = tensorflow.lite.Interpreter(
        str(path), num_threads=os.cpu_count()
    ).get_signature_runner()
    (given,), (wanted,) = runner.get_input_details(), runner.get_output_details()
    return lambda images: np.asarray(runner(**{given: images})[wanted])


def load_onnx(path: Path) -> Predict:
    """What the file gives for images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


@dataclass(frozen=True)
class Format:
    """A format that a model can be exported to."""

    ending: str
    """Of the name, after that of the model."""
    convert: Callable[["keras.Model", Path], None]
    load: Callable[[Path], Predict]
    packages: tuple[str, ...] = ()
    """What it needs beside TensorFlow; the extra of pyproject.toml has the format's name."""


FORMATS = {
    "tflite": Format(".tflite", convert_to_tflite, load_tflite),
    "saved_model": Format("_saved_model", export_as("tf_saved_model"), load_saved_model),
    "onnx": Format(".onnx", export_as("onnx"), load_onnx, ("onnxruntime", "tf2onnx")),
}


def pictures_for(model: Path, size: int) -> tuple[Pixels, str]:
    """Pictures, (n, size, size, 3), for a model file models/SET/BACKBONE/NAME, and what they are.

    The first of the part that the set's split reports, where archive and split are there; else
    drawn flowers.
    """
    from stages.pictures.reading import load_pictures
    from stages.sources.demo_flowers import DEMO_SEED, SPECIES, image_of

    files = find_samples(model, model.absolute().parents[1].name)
    if files:
        pictures, split = files
        table = read_split(split)
        rows = np.flatnonzero(table.parts == table.reported_part)[:PICTURES]
        names = [table.images[row] for row in rows]
        images = load_pictures(pictures, names, size, "center")
        part = table.reported_part
        return images, f"first {len(names)} pictures of {part} of {pictures.parent.name}"
    drawn = [image_of(SPECIES[n % len(SPECIES)], DEMO_SEED, n) for n in range(PICTURES)]
    decoded = np.stack([decode(data, size, "center") for data in drawn])
    return decoded, f"{PICTURES} drawn flowers, as the set's archive and split are not there"


def measure(predict: Predict, images: Pixels, name: str) -> tuple[Probabilities, float]:
    """Probabilities of each picture, seen one at a time, and the median of the milliseconds."""
    probabilities, times = [], []
    for image in progress_bar(images, desc=name, unit=" images"):
        batch = image[np.newaxis].astype(np.float32)
        start = perf_counter()
        probabilities.append(predict(batch))
        times.append(perf_counter() - start)
    return np.concatenate(probabilities), 1000 * float(np.median(times))


def agreement(original: Probabilities, exported: Probabilities) -> tuple[float, float]:
    """Largest difference of two probabilities, and the share of images of the same top-1."""
    same = original.argmax(axis=1) == exported.argmax(axis=1)
    return float(np.abs(original - exported).max()), float(same.mean())


def check(difference: float, same: float, output: Path) -> None:
    """Raise UserError where the exported model does not say what the original says."""
    # Written so that a difference which is not a number fails.
    if not (difference <= MAX_DIFFERENCE and same >= MIN_SAME):
        raise UserError(
            f"{output} is not written: probabilities differ from the model's by up to "
            f"{difference:.3g}, of which {MAX_DIFFERENCE} is allowed, and the likeliest class is "
            f"the same for {same:.1%} of the pictures, not {MIN_SAME:.1%}; try another --format"
        )


def megabytes(path: Path) -> float:
    """Size of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def choose_output(asked: Path | None, model: Path, name: str) -> Path:
    """Where to write; raises UserError for a place that may hold something else."""
    ending = FORMATS[name].ending
    output = asked or model.with_name(model.stem + ending)
    if name != "saved_model" and output.suffix != ending:
        raise UserError(f"--output {output} is to end in {ending} for --format {name}")
    if output.is_dir() != (name == "saved_model") and output.exists():
        raise UserError(f"--output {output} is there and no {name}; choose another name")
    if output.is_dir() and not (output / "saved_model.pb").is_file():
        raise UserError(f"--output {output} is a folder of something else; choose another name")
    return output


def one_a_line(labels: Sequence[str]) -> str:
    """Labels as lines, so that their number is that of the class: breaks within are blanks."""
    return "".join(f"{' '.join(label.splitlines())}\n" for label in labels)


def export(source: Path, output: Path, name: str) -> None:
    """Convert the model file `source`, compare the two on pictures, and put it under `output`."""
    from stages.networks.keras_quiet import quiet_stderr
    from stages.networks.model_files import load_model

    say(f"loading {source}")
    model, kind = load_model(source), FORMATS[name]
    images, description = pictures_for(source, model.input_shape[1])
    classes = read_json(source.with_name("classes.json"))
    print(f"{source} to {name}: {description}", flush=True)
    first = images[:1].astype(np.float32)
    model.predict_on_batch(first)  # The first call compiles, here and below.
    original, model_time = measure(model.predict_on_batch, images, "original")
    say(f"converting to {name}")
    with replacing(output) as temporary:
        try:
            with quiet_stderr():
                kind.convert(model, temporary)
                predict = kind.load(temporary)
                predict(first)
        except Exception as error:  # Converters raise whatever they stumble on.
            raise UserError(
                f"{source} cannot be converted to {name} ({first_line(error)[:150]}); "
                "try another --format"
            ) from error
        exported, export_time = measure(predict, images, name)
        difference, same = agreement(original, exported)
        check(difference, same, output)
        size = megabytes(temporary)
    labels = output.with_name(f"{output.stem}.labels.txt")
    with replacing(labels) as temporary:
        temporary.write_text(one_a_line(classes), "utf-8", newline="\n")
    print(f"probabilities differ by {difference:.1e} at most, same top-1 {same:.2%}")
    print(f"{'':>12}{'size':>12}{'time per image, median, one at a time':>42}")
    for row, space, time in (
        ("original", megabytes(source), model_time),
        (name, size, export_time),
    ):
        print(f"{row:>12}{space:>9.1f} MB{time:>39.1f} ms")
    print(f"wrote {output} and {labels.name}")


def require_packages(name: str) -> None:
    """Raise UserError where what a format needs is not installed."""
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format {name} needs {' and '.join(missing)}, not installed here; get it by "
            f"`make {name}`, or by `pip install '.[{name}]'` without the pins"
        )


def main(arguments: Sequence[str]) -> None:
    """Parse the options, and export unless they cannot be followed."""
    parser = Parser(__doc__, "(see `python -m tools.export --help`)")
    parser.add_argument("model", type=Path, help="a .keras file, or a folder models/SET/BACKBONE")
    parser.add_argument("--format", type=one_of([*FORMATS], "format"), required=True)
    parser.add_argument("--output", type=Path, help="default: beside the model")
    options = parser.parse_args(arguments)
    require_packages(options.format)
    model = find_model(options.model)
    output = choose_output(options.output, model, options.format)
    export(model, output, options.format)


if __name__ == "__main__":
    run(main)
