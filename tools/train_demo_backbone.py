"""Train the network of the set `demo` on drawn species that the set does not hold.

    python -m tools.train_demo_backbone

draws 200 random species, 50 pictures each, trains the network to tell them apart, and writes
stages/networks/demo_backbone.weights.h5 (1.5 MB). It took 22 minutes of processor time, 38 on
the clock of two cores shared with other work; accuracy on the held-out pictures was 0.897, of 200
species. With the default parameters (`make demo`) a head on the features then reaches 0.960 on the
stratified validation part of `demo`, and the fine-tuned model 0.967.
Training is seeded, but sums over threads, so another run gives weights that differ slightly.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.common.files import replacing
from stages.common.progress import progress_bar
from stages.networks import demo_backbone
from stages.networks.demo_backbone import SIZE, DemoBackbone, preprocess_input
from stages.networks.keras_quiet import keras, tensorflow
from stages.sources.demo_flowers import images_of, species_of

SEED = 2026
SPECIES = 200
IMAGES = 50
"""Of a species; every tenth one is held out."""
EPOCHS = 24
BATCH = 64
LEARNING_RATE = 2e-3
SMALLEST_CROP = 0.7
"""Least side of a training crop, as a part of the picture's."""
WEIGHTS = Path(demo_backbone.__file__).with_suffix(".weights.h5")


def drawn_images() -> NDArray[np.uint8]:
    """Pictures of the species to train on, (SPECIES * IMAGES, 128, 128, 3)."""
    species = species_of(SEED, SPECIES)
    files = progress_bar(
        images_of(species, IMAGES, SEED), desc="drawing", total=SPECIES * IMAGES, unit="image"
    )
    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


def batches(
    images: NDArray[np.uint8], labels: NDArray[np.float32], training: bool
) -> "tensorflow.data.Dataset":
    """Batches of pictures at the network's size and their labels; shuffled crops for training."""
    dataset = tensorflow.data.Dataset.range(len(images))
    if training:
        dataset = dataset.shuffle(len(images), SEED)
    all_images, all_labels = tensorflow.constant(images), tensorflow.constant(labels)

    def load(chosen: "tensorflow.Tensor") -> "tuple[tensorflow.Tensor, tensorflow.Tensor]":
        batch = tensorflow.gather(all_images, chosen)
        batch = varied(batch) if training else tensorflow.image.resize(batch, (SIZE, SIZE))
        return batch, tensorflow.gather(all_labels, chosen)

    return dataset.batch(BATCH).map(load).prefetch(2)


def varied(images: "tensorflow.Tensor") -> "tensorflow.Tensor":
    """A random crop of each picture, half of them mirrored, brightness and contrast varied."""
    count = tensorflow.shape(images)[0]

    def uniform(low: float, high: float, columns: int) -> "tensorflow.Tensor":
        return tensorflow.random.uniform((count, columns), low, high)

    side = uniform(SMALLEST_CROP, 1, 1) * uniform(0.95, 1, 2)
    corner = (1 - side) * uniform(0, 1, 2)
    boxes = tensorflow.concat([corner, corner + side], 1)
    crops = tensorflow.image.crop_and_resize(images, boxes, tensorflow.range(count), (SIZE, SIZE))
    crops = tensorflow.image.random_flip_left_right(crops)
    gain, shift = uniform(0.8, 1.2, 1), uniform(-20, 20, 1)
    crops = crops * gain[:, :, None, None] + shift[:, :, None, None]
    return tensorflow.clip_by_value(crops, 0, 255)


def classifier(backbone: "keras.Model") -> "keras.Model":
    """The network with a linear classifier on its averaged features, compiled."""
    x = keras.layers.GlobalAveragePooling2D()(backbone.output)
    x = keras.layers.Dropout(0.2, seed=SEED)(x)
    model = keras.Model(backbone.inputs, keras.layers.Dense(SPECIES, activation="softmax")(x))
    steps = EPOCHS * -(-SPECIES * IMAGES * 9 // 10 // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=LEARNING_RATE, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def main() -> None:
    """Draw, train, and save."""
    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((SIZE, SIZE, 3))
    backbone = DemoBackbone(input_tensor=preprocess_input(inputs))
    images = drawn_images()
    number = np.arange(len(images))
    labels = np.eye(SPECIES, dtype=np.float32)[number // IMAGES]
    held_out = number % 10 == 9
    classifier(backbone).fit(
        batches(images[~held_out], labels[~held_out], training=True),
        validation_data=batches(images[held_out], labels[held_out], training=False),
        epochs=EPOCHS,
        verbose=2,
    )
    with replacing(WEIGHTS) as temporary:
        backbone.save_weights(temporary)


if __name__ == "__main__":
    main()
