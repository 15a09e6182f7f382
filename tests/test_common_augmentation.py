import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common import augmentation
from stages.common.augmentation import augment
from stages.common.keras_quiet import keras
from stages.common.options import AUGMENTATIONS
from stages.common.training import make_repeatable

NAMES = [name for name in AUGMENTATIONS if name != "none"]


def pictures() -> NDArray[np.float32]:
    """Two noisy pictures with values over the whole range."""
    return np.random.default_rng(0).integers(256, size=(2, 24, 24, 3)).astype(np.float32)


def network(names: str, seed: int = 0) -> keras.Model:
    make_repeatable(seed)
    image = keras.Input((24, 24, 3))
    return keras.Model(image, augment(image, names))


def test_every_name_of_the_parameter_is_made_of_known_ones() -> None:
    assert {part for name in NAMES for part in name.split("+")} == {*augmentation.AUGMENTATIONS}


@pytest.mark.parametrize("names", NAMES)
def test_pictures_change_in_training_alone_and_stay_pictures(names: str) -> None:
    model, before = network(names), pictures()
    np.testing.assert_array_equal(model.predict_on_batch(before), before)
    seen = np.stack([np.asarray(model(before, training=True)) for _ in range(8)])
    assert np.isfinite(seen).all()
    assert seen.min() >= -1e-3
    assert seen.max() <= 255.001
    assert seen.dtype == np.float32
    assert all(not np.allclose(one, before, atol=1) for one in seen)
    assert not np.allclose(seen[0], seen[1], atol=1)


@pytest.mark.parametrize("names", NAMES)
def test_changes_are_drawn_by_the_seed(names: str) -> None:
    one, again, other = (
        np.asarray(network(names, seed)(pictures(), training=True)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_crop_shows_a_part_of_the_picture_larger() -> None:
    """Of a picture that brightens evenly from left to right, fewer of its shades are left."""
    shades = np.broadcast_to(np.linspace(0, 255, 24), (8, 24, 24)).astype(np.float32)
    batch = np.repeat(shades[..., np.newaxis], 3, axis=3)
    seen = np.asarray(network("crop")(batch, training=True))
    slopes = np.median(abs(np.diff(seen[:, 12, :, 0], axis=1)), axis=1) / (255 / 23)
    assert (slopes > 0.64).all()
    assert (slopes < 1.01).all()
    assert slopes.min() < 0.9


def test_colours_change_for_whole_pictures_by_a_fifth_or_so() -> None:
    batch = np.full((8, 24, 24, 3), 120, np.float32)
    seen = np.asarray(network("color")(batch, training=True))
    assert np.ptp(seen, axis=(1, 2)).max() < 1e-3
    means = seen.mean(axis=(1, 2, 3))
    assert np.ptp(means) > 5
    assert (abs(means / 120 - 1) < 0.5).all()
