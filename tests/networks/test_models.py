import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.common.command_line import UserError
from stages.networks import classifier as classifier_module
from stages.networks.backbones import Pooling, build, pooling_layer
from stages.networks.classifier import (
    NORMALIZE,
    Normalize,
    adapt_head,
    apply_to_views,
    build_classifier,
    build_head,
    flat_weights,
    scaled,
    seen_as,
    set_flat_weights,
)
from stages.networks.keras_quiet import keras
from stages.networks.model_files import load_model, save_model
from stages.pictures.views import VIEWS, see

SIZE, CLASSES = 32, 3
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh_session() -> Iterator[None]:
    """The same layer names whatever ran before."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()


def classifier(
    views: Sequence[str] = ("plain",), pooling: Pooling = "avg", normalize: Normalize = "power"
) -> keras.Model:
    head = build_head([256], normalize, [5], 0.3, CLASSES)
    return build_classifier([build("demo_backbone", SIZE)], pooling, head, views)


def images(count: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(count, SIZE, SIZE, 3), dtype=np.uint8)


def kinds(head: keras.Model) -> list[tuple[str, float]]:
    """Each Dense and Dropout layer's kind, and its width or rate."""
    return [
        (type(layer).__name__, layer.units if hasattr(layer, "units") else layer.rate)
        for layer in head.layers
        if isinstance(layer, keras.layers.Dense | keras.layers.Dropout)
    ]


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize(
    ("hidden", "dropout", "wanted"),
    [
        ([], 0, [("Dense", 3)]),
        ([], 0.5, [("Dropout", 0.5), ("Dense", 3)]),
        ([8], 0, [("Dense", 8), ("Dense", 3)]),
        ([8], 0.3, [("Dense", 8), ("Dropout", 0.3), ("Dense", 3)]),
        ([8, 4], 0.3, [("Dense", 8), ("Dense", 4), ("Dropout", 0.3), ("Dense", 3)]),
    ],
)
def test_heads_have_the_layers_asked_for(
    hidden: list[int], dropout: float, wanted: list[tuple[str, float]], normalize: Normalize
) -> None:
    head = build_head([4, 2], normalize, hidden, dropout, CLASSES)
    assert kinds(head) == wanted
    dense = [layer for layer in head.layers if hasattr(layer, "units")]
    activations = [layer.activation.__name__ for layer in dense]
    assert activations == ["relu"] * len(hidden) + ["softmax"]
    assert (head.input_shape, head.output_shape) == ((None, 6), (None, CLASSES))
    assert head.name == "head"


def features(images: int = 20, views: int = 2, width: int = 5) -> NDArray[np.float32]:
    """Features from 0, each larger than the last."""
    values = np.random.default_rng(0).random((images, views, width)) * np.arange(1, width + 1)
    return values.astype(np.float32)


def into_dense(head: keras.Model, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What reaches the head's first Dense layer."""
    dense = next(layer for layer in head.layers if isinstance(layer, keras.layers.Dense))
    return np.asarray(keras.Model(head.input, dense.input).predict_on_batch(values))


def power(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed square roots, smoothed at zero, in rows of mean square 1."""
    roots = np.sign(values) * (np.sqrt(abs(values) + 1e-4) - 0.01)
    return np.asarray(roots / np.sqrt((roots**2).mean(axis=1, keepdims=True)))


def test_without_normalisation_the_features_come_as_they_are() -> None:
    head, values = build_head([5], "none", [], 0, CLASSES), features()
    adapt_head(head, values, np.arange(4))
    np.testing.assert_array_equal(into_dense(head, values[:, 0]), values[:, 0])


@pytest.mark.parametrize("widths", [[5], [3, 2], [2, 2, 1]])
@pytest.mark.parametrize("normalize", ["standard", "power"])
def test_features_are_normalised_by_the_rows_that_train(
    normalize: Normalize, widths: list[int]
) -> None:
    """Each backbone's block by itself for the power, every feature by all views of the rows."""
    head, values, rows = build_head(widths, normalize, [4], 0, CLASSES), features(), np.arange(7)
    values[0, 0] *= -1
    adapt_head(head, values, rows)
    flat = values.reshape(-1, 5).copy()
    if normalize == "power":
        blocks = np.split(flat, np.cumsum(widths)[:-1], axis=1)
        flat[:] = np.hstack([power(block) for block in blocks])
    train = flat[: 7 * 2]
    wanted = (flat - train.mean(axis=0)) / np.sqrt(train.var(axis=0) + 1e-3)
    found = into_dense(head, values.reshape(-1, 5))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("images", [1, 3, 4, 5, 9])
def test_features_are_looked_at_block_by_block(
    images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far from zero, where float32 has few digits left for the spread."""
    monkeypatch.setattr(classifier_module, "BLOCK", 4)
    rng = np.random.default_rng(0)
    values = (1000 + rng.normal(size=(12, 2, 5))).astype(np.float32)
    rows = rng.permutation(12)[:images]
    head = build_head([5], "standard", [], 0, CLASSES)
    adapt_head(head, values, rows)
    shown = values[rows].reshape(-1, 5).astype(np.float64)
    mean, variance = head.get_layer("standardize").get_weights()
    np.testing.assert_allclose(mean, shown.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(variance, shown.var(axis=0), rtol=1e-5)
    found = apply_to_views(head, values, rows)
    assert found.shape == (images, 2, CLASSES)
    whole = head.predict_on_batch(values[rows].reshape(-1, 5))
    np.testing.assert_allclose(found.reshape(-1, CLASSES), whole, rtol=1e-5)


def test_a_feature_that_never_varies_stays_finite() -> None:
    head, values = build_head([5], "standard", [], 0, CLASSES), np.ones((4, 1, 5), np.float32)
    adapt_head(head, values, np.arange(4))
    np.testing.assert_allclose(into_dense(head, values[:, 0]), 0, atol=1e-5)


def test_the_power_of_no_features_has_a_finite_slope() -> None:
    """Fine-tuning trains the backbone through it, and whole images may leave all features at 0."""
    tensorflow = pytest.importorskip("tensorflow")
    head = build_head([3, 2], "power", [], 0, CLASSES)
    values = tensorflow.constant([[0.0, 0, 0, 0, 0], [0, 3, 1, 2, 1]])
    with tensorflow.GradientTape() as tape:
        tape.watch(values)
        loss = head(values)[:, 0]
    slopes = np.asarray(tape.gradient(loss, values))
    assert np.isfinite(slopes).all()
    assert (slopes[1] != 0).any()


def test_only_dense_layers_of_a_head_train() -> None:
    head = build_head([5], "power", [4], 0.3, CLASSES)
    before = [np.array(weight) for weight in head.non_trainable_variables]
    head(features()[:, 0], training=True)
    names = [variable.path.split("/")[-1] for variable in head.trainable_variables]
    assert names == ["kernel", "bias"] * 2
    standardize = head.get_layer("standardize").get_weights()
    assert len(standardize) == 2
    for found, wanted in zip(standardize, before[:2], strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_flat_weights_go_into_a_model_of_the_same_shape(normalize: Normalize) -> None:
    one, other = (build_head([2, 3], normalize, [3], 0.5, 2) for _ in range(2))
    adapt_head(one, features(), np.arange(20))
    values = flat_weights(one)
    assert values.shape == ((0 if normalize == "none" else 5 + 5) + 5 * 3 + 3 + 3 * 2 + 2,)
    set_flat_weights(other, values)
    batch = features()[:, 0]
    np.testing.assert_array_equal(one(batch), other(batch))


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_a_classifier_is_its_parts_one_after_the_other(pooling: Pooling) -> None:
    model = classifier(pooling=pooling)
    parts = [model.get_layer(name) for name in ("demo_backbone", "pool", "head")]
    assert type(parts[1]) is type(pooling_layer(pooling))
    batch = images()
    values = keras.ops.cast(batch, "float32")
    for part in parts:
        values = part(values)
    found = model.predict_on_batch(batch)
    np.testing.assert_allclose(found, values, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_a_classifier_averages_over_its_views() -> None:
    backbones = [build("demo_backbone", SIZE)]
    head = build_head([256], "power", [], 0, CLASSES)
    single = build_classifier(backbones, "avg", head, ["plain"])
    double = build_classifier(backbones, "avg", head, ["plain", "mirror"])
    mirror = build_classifier(backbones, "avg", head, ["mirror"])
    batch = images()
    plain, mirrored = (single.predict_on_batch(each) for each in (batch, batch[:, :, ::-1]))
    assert not np.allclose(plain, mirrored, rtol=1e-4)
    np.testing.assert_allclose(mirror.predict_on_batch(batch), mirrored, rtol=1e-5)
    np.testing.assert_allclose(double.predict_on_batch(batch), (plain + mirrored) / 2, rtol=1e-5)


@pytest.mark.parametrize("view", VIEWS[1:])
def test_a_classifier_sees_what_the_features_were_extracted_from(view: str) -> None:
    batch = images()
    picture = keras.Input((SIZE, SIZE, 3))
    shown = keras.Model(picture, seen_as(picture, view)).predict_on_batch(batch)
    # Pillow rounds pixels once for each direction.
    np.testing.assert_allclose(shown, see(batch, view), atol=1 + 1e-3)


def small_backbone(name: str, size: int, width: int) -> keras.Model:
    image = keras.Input((size, size, 3), name="image")
    return keras.Model(image, keras.layers.Conv2D(width, 3)(image), name=name)


def test_a_classifier_of_several_backbones_puts_their_features_side_by_side() -> None:
    backbones = [small_backbone("one", SIZE, 4), small_backbone("other", SIZE, 2)]
    head = build_head([4, 2], "power", [], 0, CLASSES)
    model = build_classifier(backbones, "avg", head, ["plain", "mirror"])
    batch = images().astype(np.float32)
    wanted = [
        head(np.hstack([np.asarray(each(view)).mean(axis=(1, 2)) for each in backbones]))
        for view in (batch, batch[:, :, ::-1])
    ]
    np.testing.assert_allclose(model.predict_on_batch(batch), np.mean(wanted, axis=0), rtol=1e-4)
    assert model.get_layer("one") is backbones[0]
    assert model.get_layer("other") is backbones[1]


def large_images() -> NDArray[np.float32]:
    return np.random.default_rng(0).integers(256, size=(3, 64, 64, 3)).astype(np.float32)


def test_images_are_scaled_down_as_pillow_does_it() -> None:
    """Which smooths them too."""
    large = large_images()
    wanted = [
        np.asarray(Image.fromarray(each).resize((32, 32), Image.Resampling.BILINEAR))
        for each in large.astype(np.uint8)
    ]
    np.testing.assert_allclose(scaled(large, 32), wanted, atol=1)
    assert scaled(large, 64) is large


@pytest.mark.parametrize("sizes", [(64, 32), (32, 64)])
def test_images_of_the_largest_size_are_scaled_down_for_the_others(sizes: tuple[int, int]) -> None:
    backbones = [
        small_backbone(name, size, 2) for name, size in zip(("one", "other"), sizes, strict=True)
    ]
    head, large = build_head([2, 2], "none", [], 0, CLASSES), large_images()
    model = build_classifier(backbones, "max", head, ["plain"])
    assert model.input_shape == (None, 64, 64, 3)
    maps = [
        np.asarray(each(scaled(large, size))) for each, size in zip(backbones, sizes, strict=True)
    ]
    wanted = head(np.hstack([each.max(axis=(1, 2)) for each in maps]))
    np.testing.assert_allclose(model.predict_on_batch(large), wanted, rtol=1e-4)


def test_a_saved_model_of_two_backbones_needs_nothing_of_the_project(tmp_path: Path) -> None:
    """Loaded by Keras alone, in a process and a folder that know nothing of the project."""
    backbones = [small_backbone("one", 64, 4), small_backbone("other", SIZE, 2)]
    head = build_head([4, 2], "power", [5], 0.3, CLASSES)
    adapt_head(head, features(width=6), np.arange(9))
    model = build_classifier(backbones, "max", head, ["plain", "mirror"])
    save_model(model, tmp_path / "head.keras")
    batch = large_images()
    np.save(tmp_path / "images.npy", batch)
    program = (
        "import keras, numpy; model = keras.saving.load_model('head.keras'); "
        "numpy.save('found.npy', model.predict_on_batch(numpy.load('images.npy')))"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, model.predict_on_batch(batch), rtol=1e-4, atol=1e-6)


def test_a_saved_model_comes_back_with_its_parts(tmp_path: Path) -> None:
    model, path = classifier(["plain", "mirror"]), tmp_path / "models" / "head.keras"
    save_model(model, path)
    read = load_model(path)
    np.testing.assert_array_equal(read.predict_on_batch(images()), model.predict_on_batch(images()))
    names = [layer.name for layer in model.get_layer("demo_backbone").layers]
    assert [layer.name for layer in read.get_layer("demo_backbone").layers] == names
    assert kinds(read.get_layer("head")) == kinds(model.get_layer("head"))
    assert not read.get_layer("head").get_layer("standardize").trainable
    assert [entry.name for entry in path.parent.iterdir()] == ["head.keras"]


def test_a_saved_model_needs_nothing_of_the_project(tmp_path: Path) -> None:
    save_model(classifier(["plain", "mirror"]), tmp_path / "head.keras")
    with zipfile.ZipFile(tmp_path / "head.keras") as archive:
        config = archive.read("config.json").decode()
    modules = set(re.findall(r'"module": (\S+?)[,}]', config))
    assert '"keras.layers"' in modules
    assert all(module == "null" or module.startswith('"keras') for module in modules)
    assert "stages" not in config


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first.keras", tmp_path / "second.keras"
    save_model(classifier(), first)
    program = (
        "import sys, pathlib; from tests.networks.test_models import *; "
        "keras.utils.set_random_seed(0); "
        "save_model(classifier(), pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, second], cwd=ROOT, check=True)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"1980-01-01" in archive.read("metadata.json")


def test_shared_layers_stay_shared(tmp_path: Path) -> None:
    """One Dense object that stands twice in the configuration is one again after reading."""
    dense = keras.layers.Dense(2)
    one = keras.Input((2,), name="one")
    model = keras.Model(one, keras.layers.Concatenate()([dense(one), dense(dense(one))]))
    save_model(model, tmp_path / "shared.keras")
    read = load_model(tmp_path / "shared.keras")
    assert len(read.weights) == 2
    values = np.array([[1, 2]], np.float32)
    np.testing.assert_array_equal(read.predict_on_batch(values), model.predict_on_batch(values))


@pytest.mark.parametrize("data", [b"", b"no model", b"PK\x05\x06" + bytes(18), None])
def test_what_is_no_model_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "head.keras"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"head\.keras is not a model .*`dvc repro`") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "head.keras"
    save_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"head\.keras is not a model"):
        load_model(path)


def test_a_model_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.keras"
    ran = keras.layers.Lambda(lambda values: values * 2, output_shape=(2,))
    keras.Sequential([keras.Input((2,)), ran]).save(path)
    with pytest.raises(UserError, match=r"head\.keras is not a model"):
        load_model(path)
