"""Model files: their bytes depend on the model alone, Keras reads them, and they are data."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.networks.backbones import build
from stages.networks.classifier import adapt_head
from stages.networks.keras_quiet import keras
from stages.networks.model_files import load_model, save_model, weights_file
from tests.networks.test_classifier import SIZE, classifier, features, images, kinds
from tests.tiny_set import ROOT


@pytest.fixture(autouse=True)
def fresh_session() -> Iterator[None]:
    """The same layer names whatever ran before."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()


def test_a_saved_model_is_loaded_by_keras_alone(tmp_path: Path) -> None:
    """In a process and a folder that know nothing of the project."""
    model = classifier(["plain", "mirror"], "max")
    adapt_head(model.get_layer("head"), features(width=256), np.arange(9))
    save_model(model, tmp_path / "head.keras")
    batch = images().astype(np.float32)
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
        "import sys, pathlib; from tests.networks.test_model_files import *; "
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


def values_of(file: Path) -> dict[str, list[float]]:
    """All arrays of an HDF5 file by their paths in it."""
    found = {}
    with h5py.File(file) as content:
        content.visititems(
            lambda name, each: (
                found.update({name: np.ravel(each).tolist()})
                if isinstance(each, h5py.Dataset)
                else None
            )
        )
    return found


@pytest.mark.parametrize("name", ["backbone", "classifier"])
def test_weights_made_in_memory_are_those_that_keras_writes(tmp_path: Path, name: str) -> None:
    network = {"backbone": build("demo_backbone", SIZE), "classifier": classifier()}[name]
    network.save_weights(tmp_path / "keras.weights.h5")
    (tmp_path / "own.weights.h5").write_bytes(weights_file(network))
    own = values_of(tmp_path / "own.weights.h5")
    assert len(own) > 3
    assert own == values_of(tmp_path / "keras.weights.h5")
    assert weights_file(network) == weights_file(network)
