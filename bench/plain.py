"""The recipes of the guide and of the article as plain Keras scripts, for `bench` to time.

    python -m bench.plain guide FOLDER --epochs 10
    python -m bench.plain article ARCHIVE --epochs 2

FOLDER has `train` and `val`, with a folder of pictures for each class; ARCHIVE (.tgz) holds such a
folder's content. The weights are random, as the time does not depend on them. The last line of the
output is JSON: the seconds of each epoch, its validation included.
"""

import argparse
import io
import json
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageOps

BATCH = 32
GUIDE_SIZE = 224
ARTICLE_SIZE = 250
LAST_LAYERS = 50
MOMENTUM = 0.9

layers = keras.layers


def guide_network(classes: int) -> keras.Model:
    """The guide's: random flips, VGG19 frozen, maximum pooling, one hidden layer."""
    vgg19 = keras.applications.VGG19(include_top=False, weights=None)
    vgg19.trainable = False
    image = keras.Input((GUIDE_SIZE, GUIDE_SIZE, 3))
    x = layers.RandomFlip("horizontal")(image)
    x = vgg19(keras.applications.vgg19.preprocess_input(x))
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(128, activation="relu")(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax")(x))


def article_network(classes: int) -> keras.Model:
    """The article's: InceptionV3, of which the last layers and every batch normalisation train."""
    image = keras.Input((ARTICLE_SIZE, ARTICLE_SIZE, 3))
    preprocessed = keras.applications.inception_v3.preprocess_input(image)
    inception = keras.applications.InceptionV3(
        include_top=False, weights=None, pooling="avg", input_tensor=preprocessed
    )
    for layer in inception.layers[:-LAST_LAYERS]:
        layer.trainable = isinstance(layer, layers.BatchNormalization)
    for layer in inception.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    output = layers.Dense(classes, activation="softmax")(inception.output)
    return keras.Model(image, output)


def pictures(
    archive: Path, part: str, classes: list[str]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Batches of a part's pictures, (n, size, size, 3), and their labels, in archive order.

    The archive is read from its start in every epoch, as the article's script does.
    """
    images, targets = [], []
    size = (ARTICLE_SIZE, ARTICLE_SIZE)
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is None or Path(member.name).parts[0] != part:
                continue
            picture = Image.open(io.BytesIO(file.read())).convert("RGB")
            images.append(np.asarray(ImageOps.fit(picture, size), np.float32))
            targets.append(classes.index(Path(member.name).parent.name))
            if len(images) == BATCH:
                yield np.stack(images), np.array(targets)
                images, targets = [], []
    if images:
        yield np.stack(images), np.array(targets)


def guide(folder: Path) -> tuple[keras.Model, keras.optimizers.Optimizer, list[Any]]:
    """The guide's network, its optimizer, and the data sets to train on and to validate on."""
    train, val = (
        keras.utils.image_dataset_from_directory(
            folder / part, image_size=(GUIDE_SIZE, GUIDE_SIZE), batch_size=BATCH, seed=42
        )
        for part in ("train", "val")
    )
    return guide_network(len(train.class_names)), keras.optimizers.Adam(1e-3), [train, val]


def article(archive: Path) -> tuple[keras.Model, keras.optimizers.Optimizer, list[Any]]:
    """The same of the article."""
    with tarfile.open(archive) as tar:
        classes = sorted({Path(each.name).parent.name for each in tar if each.isfile()})
    size = (ARTICLE_SIZE, ARTICLE_SIZE)
    signature = (tf.TensorSpec((None, *size, 3), tf.float32), tf.TensorSpec((None,), tf.int64))
    datasets = [
        tf.data.Dataset.from_generator(
            partial(pictures, archive, part, classes), output_signature=signature
        ).prefetch(2)
        for part in ("train", "val")
    ]
    return article_network(len(classes)), keras.optimizers.Adamax(1e-2), datasets


def main() -> None:
    """Read the pictures and train."""
    recipes = {"guide": guide, "article": article}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=[*recipes])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    model, optimizer, (train, val) = recipes[options.recipe](options.pictures)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    seconds = []
    for _ in range(options.epochs):
        started = time.perf_counter()
        model.fit(train, validation_data=val, verbose=2)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"epochs": seconds}))


if __name__ == "__main__":
    main()
