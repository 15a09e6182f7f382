import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.backbones import Pooling, build, pooling_layer
from stages.common.command_line import UserError
from stages.common.keras_quiet import keras
from stages.common.models import (
    build_classifier,
    build_head,
    flat_weights,
    load_model,
    save_model,
    set_flat_weights,
)

SIZE, CLASSES = 32, 3
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh_session() -> Iterator[None]:
    """The same layer names whatever ran before."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()


def classifier(views: Sequence[str] = ("plain",), pooling: Pooling = "avg") -> keras.Model:
    backbone = build("demo_backbone", SIZE)
    return build_classifier(backbone, pooling, build_head(256, [5], 0.3, CLASSES), views)


def images(count: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(count, SIZE, SIZE, 3), dtype=np.uint8)


def kinds(head: keras.Sequential) -> list[tuple[str, float]]:
    """Each layer's kind, and its width or rate."""
    return [
        (type(layer).__name__, layer.units if hasattr(layer, "units") else layer.rate)
        for layer in head.layers
    ]


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
    hidden: list[int], dropout: float, wanted: list[tuple[str, float]]
) -> None:
    head = build_head(6, hidden, dropout, CLASSES)
    assert kinds(head) == wanted
    dense = [layer for layer in head.layers if hasattr(layer, "units")]
    activations = [layer.activation.__name__ for layer in dense]
    assert activations == ["relu"] * len(hidden) + ["softmax"]
    assert (head.input_shape, head.output_shape) == ((None, 6), (None, CLASSES))
    assert head.name == "head"


def test_flat_weights_go_into_a_model_of_the_same_shape() -> None:
    one, other = (build_head(4, [3], 0.5, 2) for _ in range(2))
    values = flat_weights(one)
    assert values.shape == (4 * 3 + 3 + 3 * 2 + 2,)
    set_flat_weights(other, values)
    features = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(one(features), other(features))


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
    backbone, head = build("demo_backbone", SIZE), build_head(256, [], 0, CLASSES)
    single = build_classifier(backbone, "avg", head, ["plain"])
    double = build_classifier(backbone, "avg", head, ["plain", "mirror"])
    mirror = build_classifier(backbone, "avg", head, ["mirror"])
    batch = images()
    plain, mirrored = (single.predict_on_batch(each) for each in (batch, batch[:, :, ::-1]))
    assert not np.allclose(plain, mirrored, rtol=1e-4)
    np.testing.assert_allclose(mirror.predict_on_batch(batch), mirrored, rtol=1e-5)
    np.testing.assert_allclose(double.predict_on_batch(batch), (plain + mirrored) / 2, rtol=1e-5)


def test_a_saved_model_comes_back_with_its_parts(tmp_path: Path) -> None:
    model, path = classifier(["plain", "mirror"]), tmp_path / "models" / "head.keras"
    save_model(model, path)
    read = load_model(path)
    np.testing.assert_array_equal(read.predict_on_batch(images()), model.predict_on_batch(images()))
    names = [layer.name for layer in model.get_layer("demo_backbone").layers]
    assert [layer.name for layer in read.get_layer("demo_backbone").layers] == names
    assert read.get_layer("head").layers[1].rate == 0.3
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
        "import sys, pathlib; from tests.test_common_models import *; "
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
