from pathlib import Path

import numpy as np
import pytest

from stages.networks import demo_backbone as module
from stages.networks.demo_backbone import feature_map, preprocess_input
from stages.networks.keras_quiet import keras

WEIGHTS = Path(module.__file__).with_suffix(".weights.h5")


def piped() -> keras.Model:
    """The network as the pipeline builds it."""
    inputs = keras.Input((96, 96, 3), name="image")
    return keras.Model(inputs, feature_map(preprocess_input(inputs)))


def test_preprocessing_maps_bytes_to_minus_one_to_one() -> None:
    found = preprocess_input(np.array([0.0, 127.5, 255.0, 51.0]))
    np.testing.assert_allclose(found, [-1.0, 0.0, 1.0, -0.6])


def test_preprocessing_becomes_part_of_the_network() -> None:
    keras.utils.set_random_seed(0)
    network, images = piped(), np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3))
    inputs = keras.Input((96, 96, 3))
    bare = keras.Model(inputs, feature_map(inputs))
    bare.set_weights(network.get_weights())
    assert network.inputs[0].name == "image"
    np.testing.assert_allclose(network(images), bare(images / 127.5 - 1), atol=1e-4)


def test_output_has_256_features() -> None:
    assert piped().output_shape == (None, 6, 6, 256)


@pytest.mark.parametrize("cut", ["stem", "block1_out", "block2_out", "block3_out", "block4_out"])
def test_network_can_be_cut_at_a_block(cut: str) -> None:
    network = piped()
    position = [layer.name for layer in network.layers].index(cut)
    upper = keras.Model(network.get_layer(cut).output, network.output)
    # The input layer stands for everything up to the cut: nothing goes round it.
    assert len(upper.layers) == len(network.layers) - position


def test_shipped_weights_are_small_and_fit() -> None:
    assert WEIGHTS.stat().st_size <= 3_000_000
    network = piped()
    before = network.get_weights()
    network.load_weights(WEIGHTS)
    changed = [not np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True)]
    assert all(changed)
