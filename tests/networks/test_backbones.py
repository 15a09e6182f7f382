from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.networks.backbones import (
    build,
    cut_before,
    cut_for,
    first_unfrozen,
    freeze,
    load_weights,
    pooling_layer,
)
from stages.networks.keras_quiet import keras
from stages.networks.registry import find_backbone, registry

SIZE = 96
PREPARING = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)

# What the red, green and blue of an image of 10, 100, 200 become. The four families of
# keras.applications, worked by hand:
#   caffe: blue, green, red, less 103.939, 116.779, 123.68
#   tf: x / 127.5 - 1
#   torch: (x / 255 - mean) / deviation, with ImageNet's 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225
#   EfficientNetV2-S: x / 128 - 1
#   CLIP: as torch, with 0.48145466, 0.4578275, 0.40821073 and 0.26862954, 0.26130258, 0.27577711
COLOUR = (10, 100, 200)
CAFFE = (96.061, -16.779, -113.68)
TF = (-0.921569, -0.215686, 0.568627)
TORCH = (-1.946656, -0.285014, 1.681394)
BY_128 = (-0.921875, -0.21875, 0.5625)
CLIP = (-1.646279, -0.251320, 1.363793)
PREPROCESSED = {
    "vgg16": CAFFE,
    "vgg19": CAFFE,
    "inception_v3": TF,
    "xception": TF,
    "resnet50": CAFFE,
    "resnet50_v2": TF,
    "inception_resnet_v2": TF,
    "mobilenet": TF,
    "mobilenet_v2": TF,
    "mobilenet_v2_035": TF,
    "mobilenet_v3_large": TF,
    "densenet121": TORCH,
    "efficientnet_v2_b0": TORCH,
    "efficientnet_v2_s": BY_128,
    "convnext_tiny": TORCH,
    "nasnet_mobile": TF,
    "vit_base": TF,
    "dinov2_small": TORCH,
    "dinov2_base": TORCH,
    "clip_base": CLIP,
    "demo_backbone": TF,
}
needs_keras_hub = pytest.mark.skipif(find_spec("keras_hub") is None, reason="needs `make hub`")


def params() -> list[Any]:
    """Every backbone's name; those of KerasHub are skipped where it is not installed."""
    return [
        pytest.param(
            name, marks=needs_keras_hub if find_backbone(name).library == "keras_hub" else ()
        )
        for name in registry()
    ]


@pytest.fixture(scope="module", params=params())
def network(request: pytest.FixtureRequest) -> Iterator[keras.Model]:
    """Every backbone with random weights, one after the other."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    backbone = find_backbone(request.param)
    yield build(request.param, SIZE if backbone.any_size else backbone.size)
    keras.utils.clear_session()


@pytest.fixture
def demo() -> keras.Model:
    """The smallest backbone."""
    return build("demo_backbone", SIZE)


def random_image(size: int = SIZE) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)).astype(np.float32)


def test_names_and_width_are_the_registrys(network: keras.Model) -> None:
    assert network.name in registry()
    assert network.input_shape[1:] in {(SIZE, SIZE, 3), (224, 224, 3)}
    assert len(network.output_shape) == 4
    assert network.output_shape[-1] == find_backbone(network.name).width


def test_preprocessing_is_part_of_the_network(network: keras.Model) -> None:
    first = next(layer for layer in network.layers if not isinstance(layer, PREPARING))
    prepare = keras.Model(network.input, first.input)
    image = np.broadcast_to(np.array(COLOUR, np.float32), (1, *network.input_shape[1:]))
    prepared = np.asarray(prepare(image))
    wanted = np.broadcast_to(PREPROCESSED[network.name], prepared.shape)
    np.testing.assert_allclose(prepared, wanted, rtol=1e-4, atol=1e-5)


def test_cut_below_the_default_layer_parts_the_network(network: keras.Model) -> None:
    position = first_unfrozen(network, "auto")
    assert network.layers[position].name == find_backbone(network.name).unfreeze
    cut = cut_before(network, position)
    lower, upper = keras.Model(network.input, cut), keras.Model(cut, network.output)
    above = {id(layer) for layer in upper.layers}
    assert all(id(layer) in above for layer in network.layers[position:])
    # Fine-tuning trains a part of the network: neither all nor nothing.
    assert 0 < upper.count_params() < network.count_params()
    assert lower.count_params() > 0

    image = random_image(network.input_shape[1])
    whole = np.asarray(network(image))
    assert np.ptp(whole) > 0
    np.testing.assert_allclose(upper(lower(image)), whole, rtol=1e-5)


@pytest.mark.parametrize("position", [0, 1, 5, 12, 20, 30, 43])
def test_a_cut_anywhere_parts_the_network(demo: keras.Model, position: int) -> None:
    cut = cut_before(demo, position)
    lower, upper = keras.Model(demo.input, cut), keras.Model(cut, demo.output)
    above = {id(layer) for layer in upper.layers}
    assert all(id(layer) in above for layer in demo.layers[max(position, 1) :])
    image = random_image()
    np.testing.assert_allclose(upper(lower(image)), demo(image), rtol=1e-5)


def test_a_cut_lies_as_high_as_branches_allow() -> None:
    """input -> a -> (b, c) -> add -> d: below b, c and add it is a's output, below d add's."""
    image = keras.Input((4,))
    dense = {name: keras.layers.Dense(4, name=name) for name in "abcd"}
    a = dense["a"](image)
    joined = keras.layers.Add(name="add")([dense["b"](a), dense["c"](a)])
    network = keras.Model(image, dense["d"](joined))
    names = [layer.name for layer in network.layers]
    cuts = {name: cut_before(network, names.index(name)) for name in ("a", "b", "c", "add", "d")}
    assert cuts["a"] is network.input
    assert all(cuts[name] is a for name in ("b", "c", "add"))
    assert cuts["d"] is joined


def test_where_pixels_are_read_nothing_is_cut_off(demo: keras.Model) -> None:
    assert cut_for(demo, "auto", reads_pixels=True) is demo.input


def test_the_cut_lies_below_the_first_unfrozen_layer_with_weights(demo: keras.Model) -> None:
    """The default, `block2_out`, has none, so its output can be cached."""
    frozen = cut_for(demo, "auto", reads_pixels=False)
    assert frozen is demo.get_layer("block2_out").output


@pytest.mark.parametrize("reads_pixels", [True, False])
def test_with_nothing_unfrozen_there_is_no_cut(demo: keras.Model, reads_pixels: bool) -> None:
    assert cut_for(demo, "0", reads_pixels) is None


def test_unfreezing_begins_at_auto_a_number_or_a_name(demo: keras.Model) -> None:
    layers = demo.layers
    assert layers[first_unfrozen(demo, "auto")].name == "block2_out"
    assert layers[first_unfrozen(demo, "block3_1_conv")].name == "block3_1_conv"
    assert layers[first_unfrozen(demo, "1")] is layers[-1]
    assert first_unfrozen(demo, "3") == len(layers) - 3
    assert first_unfrozen(demo, "0") == len(layers)
    assert first_unfrozen(demo, str(len(layers))) == 0


@pytest.mark.parametrize("unfreeze", ["1000", "-1", "1.5", "", "None"])
def test_a_number_that_the_network_has_not_is_refused(demo: keras.Model, unfreeze: str) -> None:
    with pytest.raises(UserError, match=f"has no layer {unfreeze!r}.* up to {len(demo.layers)}"):
        first_unfrozen(demo, unfreeze)


def test_an_unknown_layer_is_answered_with_near_ones(demo: keras.Model) -> None:
    with pytest.raises(UserError, match=r"finetune\.unfreeze: demo_backbone .*block2_1_conv"):
        first_unfrozen(demo, "block2_1_konv")


def batch_norms(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    kind = keras.layers.BatchNormalization
    return [layer for layer in network.layers if isinstance(layer, kind)]


def test_frozen_batch_norm_trains_nowhere(demo: keras.Model) -> None:
    freeze(demo, "block4_1_conv", "frozen", 0.9)
    trained = {layer.name for layer in demo.layers if layer.trainable}
    names = [layer.name for layer in demo.layers]
    upper = set(names[names.index("block4_1_conv") :])
    assert trained == upper - {layer.name for layer in batch_norms(demo)}
    assert "block4_1_conv" in trained
    assert "block3_1_conv" not in trained


def test_training_batch_norm_trains_everywhere_with_its_momentum(demo: keras.Model) -> None:
    freeze(demo, "block4_1_conv", "train", 0.75)
    assert all(layer.trainable and layer.momentum == 0.75 for layer in batch_norms(demo))
    assert not demo.get_layer("block3_1_conv").trainable
    assert demo.get_layer("block4_1_conv").trainable


@pytest.mark.parametrize(("batch_norm", "moves"), [("frozen", False), ("train", True)])
def test_batch_norms_statistics_move_only_where_it_trains(
    demo: keras.Model, batch_norm: Any, moves: bool
) -> None:
    freeze(demo, "auto", batch_norm, 0.75)
    first = batch_norms(demo)[0]
    before = np.array(first.moving_mean)
    demo(random_image(), training=True)
    assert np.array_equal(np.array(first.moving_mean), before) is not moves


def test_freezing_anew_forgets_the_last_time(demo: keras.Model) -> None:
    freeze(demo, "block1_1_conv", "train", 0.75)
    freeze(demo, "0", "frozen", 0.9)
    assert not demo.trainable_variables


def test_pooling() -> None:
    feature_map = np.array([[[[1, 10], [2, 20]], [[3, 30], [6, 0]]]], np.float32)
    np.testing.assert_array_equal(pooling_layer("avg")(feature_map), [[3, 15]])
    np.testing.assert_array_equal(pooling_layer("max")(feature_map), [[6, 30]])


def test_pooling_is_in_float32_whatever_the_network_computes_in() -> None:
    half = keras.ops.cast(np.full((1, 64, 64, 1), 257.0), "bfloat16")
    assert pooling_layer("avg").dtype_policy.name == "float32"
    assert np.asarray(pooling_layer("avg")(half)).dtype == np.float32


def test_weights_load_into_another_build(demo: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "demo.weights.h5"
    demo.save_weights(path)
    other = build("demo_backbone", 64)
    load_weights(other, path)
    for found, wanted in zip(other.get_weights(), demo.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_weights_that_do_not_fit_are_named(demo: keras.Model, tmp_path: Path) -> None:
    rubbish, other = tmp_path / "rubbish.weights.h5", tmp_path / "other.weights.h5"
    rubbish.write_bytes(b"no weights")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(other)
    for path in (rubbish, other, tmp_path / "missing.weights.h5"):
        with pytest.raises(UserError, match=f"{path.name} does not fit demo_backbone") as caught:
            load_weights(demo, path)
        assert "\n" not in str(caught.value)


def test_a_size_that_the_network_cannot_take_is_named() -> None:
    with pytest.raises(UserError, match=r"features.image_size 32 does not suit inception_v3 .*299"):
        build("inception_v3", 32)
