"""The guide's recipe as a plain Keras script, for `scripts.bench` to time: VGG19 frozen inside.

    python -m scripts.plain_guide FOLDER --epochs 10 --dropout 0.3

FOLDER has `train` and `val`, with a folder of pictures for each class. The last line of the output
is JSON: the seconds of each epoch. With `--weights random` nothing is loaded; the time is the same.
"""

import argparse
import json
import time
from pathlib import Path

from stages.networks.keras_quiet import keras

SIZE = 224
BATCH = 32


class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the seconds that each epoch took, its validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Start the watch."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Stop the watch."""
        self.seconds.append(time.perf_counter() - self.started)


def classifier(classes: int, dropout: float, weights: str | None) -> keras.Model:
    """The network: random flips, VGG19 frozen, maximum pooling, one hidden layer."""
    vgg19 = keras.applications.VGG19(include_top=False, weights=weights)
    vgg19.trainable = False
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.RandomFlip("horizontal")(image)
    x = vgg19(keras.applications.vgg19.preprocess_input(x))
    x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dense(128, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(image, keras.layers.Dense(classes, activation="softmax")(x))


def main() -> None:
    """Read the pictures from the folder and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--weights", choices=["imagenet", "random"], default="imagenet")
    options = parser.parse_args()
    train, val = (
        keras.utils.image_dataset_from_directory(
            options.folder / part, image_size=(SIZE, SIZE), batch_size=BATCH, seed=42
        )
        for part in ("train", "val")
    )
    weights = None if options.weights == "random" else options.weights
    model = classifier(len(train.class_names), options.dropout, weights)
    model.compile(
        keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    watch = Stopwatch()
    model.fit(train, validation_data=val, epochs=options.epochs, callbacks=[watch], verbose=2)
    print(json.dumps({"epochs": watch.seconds}))


if __name__ == "__main__":
    main()
