"""The article's recipe as a plain Keras script, for `scripts.bench` to time: fine-tuning.

    python -m scripts.plain_article ARCHIVE LABELS --epochs 2

A generator reads the archive (.tgz) from its start in every epoch, crops and scales each picture,
and hands out those of the part; LABELS is a table `image,label,part` such as the split stage
writes. The last line of the output is JSON: the seconds of each epoch. With `--weights random`
nothing is loaded; the time is the same.
"""

import argparse
import csv
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from scripts.plain_guide import Stopwatch
from stages.networks.keras_quiet import keras, tensorflow

SIZE = 250
BATCH = 32
LAST_LAYERS = 50
MOMENTUM = 0.9


def pictures(
    archive: Path, labels: dict[str, int]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Batches of pictures, (n, SIZE, SIZE, 3), and their labels, in the archive's order."""
    images, targets = [], []
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name in labels else None
            if file is None:
                continue
            picture = Image.open(io.BytesIO(file.read())).convert("RGB")
            images.append(np.asarray(ImageOps.fit(picture, (SIZE, SIZE)), np.float32))
            targets.append(labels[member.name])
            if len(images) == BATCH:
                yield np.stack(images), np.array(targets)
                images, targets = [], []
    if images:
        yield np.stack(images), np.array(targets)


def dataset(archive: Path, labels: dict[str, int]) -> "tensorflow.data.Dataset":
    """The generator as a dataset."""
    signature = (
        tensorflow.TensorSpec((None, SIZE, SIZE, 3), tensorflow.float32),
        tensorflow.TensorSpec((None,), tensorflow.int64),
    )
    return tensorflow.data.Dataset.from_generator(
        lambda: pictures(archive, labels), output_signature=signature
    ).prefetch(2)


def classifier(classes: int, weights: str | None) -> keras.Model:
    """The network, of which the last layers and every batch normalisation train."""
    image = keras.Input((SIZE, SIZE, 3))
    inception = keras.applications.InceptionV3(
        include_top=False,
        weights=weights,
        pooling="avg",
        input_tensor=keras.applications.inception_v3.preprocess_input(image),
    )
    for layer in inception.layers[:-LAST_LAYERS]:
        layer.trainable = isinstance(layer, keras.layers.BatchNormalization)
    for layer in inception.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    output = keras.layers.Dense(classes, activation="softmax")(inception.output)
    return keras.Model(image, output)


def main() -> None:
    """Read the labels and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--weights", choices=["imagenet", "random"], default="imagenet")
    options = parser.parse_args()
    parts: dict[str, dict[str, int]] = {"train": {}, "val": {}}
    with options.labels.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            parts[row["part"]][row["image"]] = int(row["label"])
    classes = 1 + max(label for part in parts.values() for label in part.values())
    model = classifier(classes, None if options.weights == "random" else options.weights)
    model.compile(
        keras.optimizers.Adamax(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    watch = Stopwatch()
    model.fit(
        dataset(options.archive, parts["train"]),
        validation_data=dataset(options.archive, parts["val"]),
        epochs=options.epochs,
        callbacks=[watch],
        verbose=2,
    )
    print(json.dumps({"epochs": watch.seconds}))


if __name__ == "__main__":
    main()
