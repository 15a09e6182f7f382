"""Train the network of the set `demo` on drawn species that the set does not hold.

    python -m tools.train_demo_backbone

It sums over threads, so another run gives weights that differ slightly.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from stages.common.command_line import run
from stages.common.files import replacing
from stages.networks.demo_backbone import SIZE, feature_map, preprocess_input
from stages.networks.keras_quiet import keras
from stages.networks.model_files import weights_file
from stages.networks.pretrained import DEMO_WEIGHTS
from stages.sources.demo_flowers import COATS, SIDES, Species, images_of

SEED, SPECIES, IMAGES, EPOCHS = 2026, 120, 40, 14


def random_species(number: int) -> Species:
    """A species that depends on `number` alone; eight share colours, so that shapes are learned."""
    rng, palette = (np.random.default_rng([SEED, *key]) for key in ((number,), (number // 8, 0)))
    colours = ["#" + each.tobytes().hex() for each in palette.integers(0, 256, (7, 3), np.uint8)]
    round_or_fan = (360, rng.integers(4, 23)), (rng.integers(60, 220), rng.integers(3, 10))
    spread, petals = round_or_fan[rng.integers(5) // 4]
    traits: dict[str, Any] = {"spread": spread, "petals": petals, "mark": colours[6]}
    traits |= {"width": np.clip(spread / petals / 60 * rng.uniform(0.5, 1), 0.17, 1)}
    traits |= {"aim": rng.choice([-90, 90]), "colours": [colours[2:4], colours[4:6]]}
    centre = {"petals": 13, "shape": rng.choice(["oval", "strap"]), "colours": [colours[:2]]}
    centre |= {"width": rng.uniform(0.12, 0.5), "size": rng.uniform(0.12, 0.45)}
    centre["layers"] = rng.integers(1, 4)
    traits |= {"shape": rng.choice([*SIDES][:5]), "marking": rng.choice([*COATS])}
    traits |= {"layers": rng.integers(1, 4), "flowers": rng.choice([1, 1, 2, 3])}
    return Species(str(number), centre=[centre][: rng.integers(0, 4)], **traits)


def main(_: Sequence[str]) -> None:
    """Draw, train, and save."""
    keras.utils.set_random_seed(SEED)
    files = images_of([random_species(number) for number in range(SPECIES)], IMAGES, SEED)
    size = 2 * (SIZE * 8 // 7,)
    images = np.stack([np.asarray(Image.open(io.BytesIO(file)).resize(size)) for file in files])
    order = np.random.default_rng(SEED).permutation(len(images))  # The last tenth is held out.
    image = keras.Input((None, None, 3))
    backbone = keras.Model(image, feature_map(preprocess_input(image)))
    varied = [keras.layers.RandomCrop(SIZE, SIZE), keras.layers.RandomFlip("horizontal")]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(SPECIES, "softmax")]
    model = keras.Sequential([keras.Input(images.shape[1:]), *varied, backbone, *head])
    rate = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * len(images) * 9 // 10 // 64)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(keras.optimizers.AdamW(rate), loss, metrics=["accuracy"], jit_compile=False)
    labels = np.eye(SPECIES)[order // IMAGES]
    model.fit(images[order], labels, 64, EPOCHS, verbose=2, validation_split=0.1)
    with replacing(DEMO_WEIGHTS) as temporary:
        temporary.write_bytes(weights_file(backbone))


if __name__ == "__main__":
    run(main)
