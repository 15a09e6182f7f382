import numpy as np
import pytest
from numpy.typing import NDArray

from stages.networks.augmentation import (
    LARGEST_ASPECT,
    LEAST_AREA,
    ColorJitter,
    RandomCrop,
    augment,
    crop_side,
)
from stages.networks.keras_quiet import keras
from stages.training.fit import make_repeatable

SIDE = 33


def crops(pictures: NDArray[np.float32], seed: int = 0, side: int = 24) -> NDArray[np.float32]:
    make_repeatable(seed)
    return np.asarray(RandomCrop(side)(pictures, training=True))


def gradients(count: int = 400) -> NDArray[np.float32]:
    """Pictures whose first channel is the column, from 0 to 1, and whose second one is the row."""
    columns, rows = np.meshgrid(*[np.linspace(0, 1, SIDE, dtype=np.float32)] * 2)
    one = np.stack([columns, rows, np.zeros_like(rows)], axis=2)
    return np.repeat(one[np.newaxis], count, axis=0)


def test_in_training_a_crop_is_a_rectangle_of_the_picture() -> None:
    """Its columns and rows are evenly spaced, and the same over its height and width."""
    seen = crops(gradients())
    assert seen.shape == (400, 24, 24, 3)
    assert seen.dtype == np.float32
    for channel, axis in ((0, 1), (1, 2)):
        places = seen[..., channel]
        assert np.ptp(places, axis=axis).max() < 1e-5
        steps = np.diff(places.mean(axis=axis), axis=1)
        assert np.ptp(steps, axis=1).max() < 1e-5
        assert (steps > 0).all()
    assert (seen[..., 2] == 0).all()


def test_area_aspect_and_place_are_drawn_over_their_ranges() -> None:
    seen = crops(gradients())
    left, right = seen[:, 0, 0, 0], seen[:, 0, -1, 0]
    top, bottom = seen[:, 0, 0, 1], seen[:, -1, 0, 1]
    width, height = right - left, bottom - top
    area, aspect = width * height, width / height
    # What is too wide or too high is cut off, so that the area may be less, but no aspect is wider.
    assert area.min() > LEAST_AREA / LARGEST_ASPECT
    assert area.min() < LEAST_AREA + 0.05
    assert area.max() > 0.9
    assert aspect.max() < LARGEST_ASPECT + 1e-3
    assert aspect.min() > 1 / LARGEST_ASPECT - 1e-3
    assert aspect.max() > 1.3
    assert aspect.min() < 1 / 1.3
    # Over the room there is, the place is even: quarters hold a quarter each, by 400 draws.
    for low, size in ((left, width), (top, height)):
        free = size < 0.95
        shares = np.histogram(low[free] / (1 - size[free]), bins=4, range=(-1e-3, 1.001))[0]
        assert (abs(shares / free.sum() - 0.25) < 0.08).all()


def test_in_prediction_the_picture_is_whole() -> None:
    seen = np.asarray(RandomCrop(17)(gradients(2)))
    np.testing.assert_allclose(seen, gradients(2)[:, ::2, ::2], atol=1e-6)


@pytest.mark.parametrize("seed", [1, 2])
def test_crops_are_drawn_by_the_seed_and_anew_each_time(seed: int) -> None:
    np.testing.assert_array_equal(crops(gradients(3), seed), crops(gradients(3), seed))
    assert not np.array_equal(crops(gradients(3), seed), crops(gradients(3), seed + 2))
    layer = RandomCrop(24)
    one, other = (np.asarray(layer(gradients(3), training=True)) for _ in range(2))
    assert not np.array_equal(one, other)


def test_a_network_knows_the_crops_size() -> None:
    image = keras.Input((SIDE, SIDE, 3))
    assert RandomCrop(24)(image).shape == (None, 24, 24, 3)


def test_crops_are_smaller_than_the_pictures_where_the_backbone_takes_them() -> None:
    assert crop_side("mobilenet", 256) == 176
    assert crop_side("vit_base", 224) == 224


def halves(count: int = 400) -> NDArray[np.float32]:
    """Pictures of two colours, whose channels are 100, 110, 150 and 80, 100, 60."""
    one = np.array([[[100, 110, 150], [80, 100, 60]]], np.float32)
    return np.repeat(one[np.newaxis], count, axis=0)


def jittered(share: float, seed: int = 0) -> NDArray[np.float32]:
    make_repeatable(seed)
    return np.asarray(ColorJitter(share)(halves(), training=True))


def test_brightness_contrast_and_saturation_change_by_factors_of_their_own() -> None:
    """Each can be worked out from a jittered picture of two colours.

    The mean of all values is 100 and only brightness moves it; the halves' greys, 120 and 80, are
    20 from it, times brightness and contrast; blue is 30 above the first grey, times all three.
    """
    seen = jittered(0.3)
    greys = seen.mean(axis=3)[:, 0]
    brightness = seen.mean(axis=(1, 2, 3)) / 100
    contrast = (greys[:, 0] - greys[:, 1]) / 40 / brightness
    saturation = (seen[:, 0, 0, 2] - greys[:, 0]) / 30 / brightness / contrast
    for factor in (brightness, contrast, saturation):
        assert 0.7 - 1e-4 < factor.min() < 0.71
        assert 1.29 < factor.max() < 1.3 + 1e-4
        assert abs(factor.mean() - 1) < 0.03
    assert abs(np.corrcoef([brightness, contrast, saturation]) - np.eye(3)).max() < 0.15


def test_colours_stay_in_range_and_follow_the_seed() -> None:
    seen = jittered(0.9)
    assert seen.min() == 0
    assert seen.max() == 255
    np.testing.assert_array_equal(jittered(0.9), seen)
    assert not np.array_equal(jittered(0.9, seed=1), seen)


def test_in_prediction_colours_stay() -> None:
    np.testing.assert_array_equal(ColorJitter(0.9)(halves()), halves())
    np.testing.assert_array_equal(augment(gradients(2), SIDE, 0.9), gradients(2))


def test_jitter_leaves_the_crops_where_they_are() -> None:
    make_repeatable(0)
    plain = np.asarray(augment(gradients(3), 24, 0, training=True))
    make_repeatable(0)
    changed = np.asarray(augment(gradients(3), 24, 1e-6, training=True))
    np.testing.assert_allclose(plain, changed, atol=1e-4)
    make_repeatable(0)
    assert abs(np.asarray(augment(gradients(3), 24, 0.5, training=True)) - plain).max() > 0.05
