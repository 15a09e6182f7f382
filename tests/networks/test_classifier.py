from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.networks import classifier as classifier_module
from stages.networks.backbones import build, pooling_layer
from stages.networks.classifier import (
    adapt_head,
    build_classifier,
    build_head,
    flat_weights,
    seen_as,
    set_flat_weights,
    with_dropout,
)
from stages.networks.keras_quiet import keras
from stages.networks.options import NORMALIZE, Normalize, Pooling
from stages.pictures.views import VIEWS, see
from stages.training.prediction import predict

SIZE, CLASSES = 32, 3


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
    head = build_head(256, normalize, [5], 0.3, CLASSES)
    return build_classifier(build("demo_backbone", SIZE), pooling, head, views)


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
    head = build_head(6, normalize, hidden, dropout, CLASSES)
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
    head, values = build_head(5, "none", [], 0, CLASSES), features()
    adapt_head(head, values, np.arange(4))
    np.testing.assert_array_equal(into_dense(head, values[:, 0]), values[:, 0])


@pytest.mark.parametrize("normalize", ["standard", "power"])
def test_features_are_normalised_by_the_rows_that_train(normalize: Normalize) -> None:
    """Every feature by all views of the rows."""
    head, values, rows = build_head(5, normalize, [4], 0, CLASSES), features(), np.arange(7)
    values[0, 0] *= -1
    adapt_head(head, values, rows)
    flat = values.reshape(-1, 5).copy()
    if normalize == "power":
        flat[:] = power(flat)
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
    head = build_head(5, "standard", [], 0, CLASSES)
    adapt_head(head, values, rows)
    shown = values[rows].reshape(-1, 5).astype(np.float64)
    mean, variance = head.get_layer("standardize").get_weights()
    np.testing.assert_allclose(mean, shown.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(variance, shown.var(axis=0), rtol=1e-5)
    found = predict(head.predict_on_batch, values, rows, 2, 4)
    assert found.shape == (images, 2, CLASSES)
    whole = head.predict_on_batch(values[rows].reshape(-1, 5))
    np.testing.assert_allclose(found.reshape(-1, CLASSES), whole, rtol=1e-5)


def test_a_feature_that_never_varies_stays_finite() -> None:
    head, values = build_head(5, "standard", [], 0, CLASSES), np.ones((4, 1, 5), np.float32)
    adapt_head(head, values, np.arange(4))
    np.testing.assert_allclose(into_dense(head, values[:, 0]), 0, atol=1e-5)


def test_the_power_of_no_features_has_a_finite_slope() -> None:
    """Fine-tuning trains the backbone through it, and whole images may leave all features at 0."""
    tensorflow = pytest.importorskip("tensorflow")
    head = build_head(5, "power", [], 0, CLASSES)
    values = tensorflow.constant([[0.0, 0, 0, 0, 0], [0, 3, 1, 2, 1]])
    with tensorflow.GradientTape() as tape:
        tape.watch(values)
        loss = head(values)[:, 0]
    slopes = np.asarray(tape.gradient(loss, values))
    assert np.isfinite(slopes).all()
    assert (slopes[1] != 0).any()


def test_only_dense_layers_of_a_head_train() -> None:
    head = build_head(5, "power", [4], 0.3, CLASSES)
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
    one, other = (build_head(5, normalize, [3], 0.5, 2) for _ in range(2))
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
    backbone = build("demo_backbone", SIZE)
    head = build_head(256, "power", [], 0, CLASSES)
    single = build_classifier(backbone, "avg", head, ["plain"])
    double = build_classifier(backbone, "avg", head, ["plain", "mirror"])
    mirror = build_classifier(backbone, "avg", head, ["mirror"])
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


@pytest.mark.parametrize("before", [0, 0.3])
@pytest.mark.parametrize("hidden", [[], [5]])
@pytest.mark.parametrize("rate", [0, 0.6])
def test_dropout_is_put_before_the_last_layer_in_place_of_what_is_there(
    before: float, hidden: list[int], rate: float
) -> None:
    head = build_head(5, "power", hidden, before, CLASSES)
    adapt_head(head, features(), np.arange(20))
    changed = with_dropout(head, rate)
    dense = [("Dense", width) for width in [*hidden, CLASSES]]
    assert kinds(changed) == [*dense[:-1], *([("Dropout", rate)] if rate else []), dense[-1]]
    # What has weights is the same object, so that what one learns the other knows.
    mine, theirs = ([each for each in model.layers if each.weights] for model in (changed, head))
    assert list(map(id, mine)) == list(map(id, theirs))
    assert changed.name == head.name
    values = features()[:, 0]
    found = changed.predict_on_batch(values)
    np.testing.assert_array_equal(found, head.predict_on_batch(values))
    trained = changed(values, training=True)
    assert np.allclose(trained, found, atol=1e-6) is not bool(rate)


def test_dropout_leaves_the_head_that_it_was_made_of_as_it_was() -> None:
    head = build_head(5, "power", [5], 0.3, CLASSES)
    layers = [layer.name for layer in head.layers]
    with_dropout(head, 0.6)
    assert [layer.name for layer in head.layers] == layers
    assert ("Dropout", 0.3) in kinds(head)
