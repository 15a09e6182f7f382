"""Random crops of pictures and changes of their colours, for a network that trains on pixels."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.networks.keras_quiet import keras, tensorflow
from stages.networks.registry import find_backbone

LEAST_AREA = 0.3
"""Of a picture, the least share that a crop shows."""
LARGEST_ASPECT = 4 / 3
"""Of a crop, the most that its width exceeds its height by, and the other way round."""


def crop_side(backbone: str, side: int) -> int:
    """The side in pixels of random crops of pictures that are `side` wide.

    11/16 of it, as a crop shows things larger than the whole picture does, and to take half the
    time: Touvron et al., "Fixing the train-test resolution discrepancy" (2019). Where the backbone
    takes one size alone, that.
    """
    return side * 11 // 16 if find_backbone(backbone).any_size else side


class RandomCrop(keras.layers.Layer):  # type: ignore[misc]
    """Pictures (n, height, width, channels) to (n, side, side, channels).

    In training each picture is a part of it, of a random share of its area and a random aspect, as
    in Szegedy et al., "Going deeper with convolutions" (2015), section 6. In prediction it is the
    whole picture.
    """

    def __init__(self, side: int) -> None:
        super().__init__(name="random_crop", dtype="float32")
        self.side = side
        self.seeds = keras.random.SeedGenerator()

    def _uniform(self, count: Any, low: float, high: float) -> Any:
        return keras.random.uniform((count,), low, high, seed=self.seeds)

    def _boxes(self, count: Any) -> Any:
        # Top, left, bottom, right, as shares of the sides. A crop that is too wide or too high for
        # the picture is cut off there.
        ops = keras.ops
        area = self._uniform(count, LEAST_AREA, 1)
        widest = math.log(LARGEST_ASPECT)
        aspect = ops.exp(self._uniform(count, -widest, widest))
        width = ops.minimum(ops.sqrt(area * aspect), 1)
        height = ops.minimum(ops.sqrt(area / aspect), 1)
        top = self._uniform(count, 0, 1) * (1 - height)
        left = self._uniform(count, 0, 1) * (1 - width)
        return ops.stack([top, left, top + height, left + width], axis=1)

    def call(self, pictures: Any, training: bool = False) -> Any:
        """The pictures' crops, or with `training` off the pictures, scaled bilinearly."""
        count = keras.ops.shape(pictures)[0]
        whole = keras.ops.tile([[0.0, 0.0, 1.0, 1.0]], (count, 1))
        boxes = self._boxes(count) if training else whole
        size = (self.side, self.side)
        return tensorflow.image.crop_and_resize(pictures, boxes, keras.ops.arange(count), size)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(n, side, side, channels)."""
        return (shape[0], self.side, self.side, shape[3])


class ColorJitter(keras.layers.Layer):  # type: ignore[misc]
    """Pictures (n, height, width, 3) from 0 to 255, in training of other colours, each of its own.

    Brightness, contrast and saturation, one after the other, are multiplied by numbers drawn from
    1 - `share` to 1 + `share`: Howard, "Some improvements on deep convolutional neural network
    based image classification" (2013). In prediction pictures stay as they are.
    """

    def __init__(self, share: float) -> None:
        super().__init__(name="color_jitter", dtype="float32")
        self.share = share
        self.seeds = keras.random.SeedGenerator()

    def call(self, pictures: Any, training: bool = False) -> Any:
        """The pictures, with `training` in other colours."""
        if not training:
            return pictures
        pictures = pictures * self._factors(pictures)
        for axes_of_grey in ((1, 2, 3), 3):
            grey = keras.ops.mean(pictures, axis=axes_of_grey, keepdims=True)
            pictures = grey + (pictures - grey) * self._factors(pictures)
        return keras.ops.clip(pictures, 0, 255)

    def _factors(self, pictures: Any) -> Any:
        shape = (keras.ops.shape(pictures)[0], 1, 1, 1)
        return keras.random.uniform(shape, 1 - self.share, 1 + self.share, seed=self.seeds)


def augment(pictures: Any, side: int, color_jitter: float, training: bool | None = None) -> Any:
    """Random crops of `side` pixels, with a share of `color_jitter` above 0 in random colours."""
    crops = RandomCrop(side)(pictures, training=training)
    return ColorJitter(color_jitter)(crops, training=training) if color_jitter else crops


def random_crops(
    picture: NDArray[np.uint8], count: int, backbone: str, color_jitter: float, seed: int
) -> NDArray[np.uint8]:
    """Random crops of a picture (size, size, 3), as fine-tuning shows them `backbone`."""
    keras.utils.set_random_seed(seed)
    pictures = np.stack([picture] * count).astype(np.float32)
    crops = augment(pictures, crop_side(backbone, picture.shape[0]), color_jitter, training=True)
    return np.round(np.asarray(crops)).astype(np.uint8)
