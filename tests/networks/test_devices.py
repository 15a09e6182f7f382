import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.files import read_csv
from stages.networks import devices
from stages.networks.devices import all_gpus, gpus, on_each_device
from stages.networks.keras_quiet import keras, tensorflow
from stages.training.distribution import share_batch_norm
from tests.stages.test_finetune import HISTORY
from tests.stages.test_head import MODEL
from tests.tiny_set import ROOT
from tests.virtual_devices import DEVICES

TOLERANCE = 1e-5
"""Of the largest number of an array; float32 has seven digits."""


def on_virtual_devices(what: str, folder: Path) -> None:
    """Run a command of tests/virtual_devices.py in a process of its own."""
    command = [sys.executable, "-m", "tests.virtual_devices", what, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results of training and of extraction."""
    folder = tmp_path_factory.mktemp("functions")
    on_virtual_devices("functions", folder)
    return folder


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results of longer trainings."""
    folder = tmp_path_factory.mktemp("more")
    on_virtual_devices("more", folder)
    return folder


@pytest.fixture(scope="module")
def stages_ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the stages ran on one device and on two."""
    folder = tmp_path_factory.mktemp("stages")
    on_virtual_devices("stages", folder)
    return folder


def results(file: Path, how: str) -> dict[str, NDArray[Any]]:
    """The results of one way of running, by name."""
    with np.load(file) as found:
        return {
            name.removeprefix(f"{how}/"): found[name]
            for name in found.files
            if name.startswith(f"{how}/")
        }


def assert_same(
    found: dict[str, NDArray[Any]], wanted: dict[str, NDArray[Any]], tolerance: float = TOLERANCE
) -> None:
    """Fail where an array differs by more than the tolerance."""
    assert found.keys() == wanted.keys()
    assert len(wanted) > 4
    for name, values in wanted.items():
        limit = tolerance * np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=0, atol=limit, err_msg=name)


def test_without_several_gpus_nothing_is_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (0, 1):
        listed = ["a GPU"] * count
        monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda _, gpu=listed: gpu)
        assert len(gpus()) == count
        assert all_gpus() is tensorflow.distribute.get_strategy()
    layer = keras.layers.BatchNormalization()
    share_batch_norm(keras.Sequential([keras.Input((2,)), layer]))
    assert not layer.synchronized
    double = on_each_device(lambda batch: 2 * batch, all_gpus())
    assert double(np.arange(3)).tolist() == [0, 2, 4]


def test_several_gpus_are_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, ...]] = []
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind] * 3)
    monkeypatch.setattr("tensorflow.distribute.MirroredStrategy", taken.append)
    devices._strategy_of.cache_clear()
    all_gpus()
    devices._strategy_of.cache_clear()
    assert taken == [("GPU:0", "GPU:1", "GPU:2")]


def test_training_on_several_devices_is_that_on_one(functions: Path) -> None:
    """Also where devices have unequal shares of a batch, and batch norm trains."""
    found = results(functions / "trainings.npz", "several")
    assert found.pop("copies") == DEVICES
    assert_same(found, results(functions / "trainings.npz", "one"))


def test_a_model_trained_on_several_devices_is_read_without_them(functions: Path) -> None:
    found = results(functions / "trainings.npz", "several")
    model = keras.saving.load_model(functions / "several.keras")
    for number, weight in enumerate(model.get_weights()):
        np.testing.assert_array_equal(weight, found[f"weight {number}"])


def test_each_device_has_a_part_of_a_batch_in_order(functions: Path) -> None:
    found = results(functions / "extractions.npz", "several")
    wanted = np.repeat(np.arange(DEVICES), 2)
    np.testing.assert_array_equal(found["device numbers"], wanted)


def test_each_device_has_the_weights_of_a_backbone(functions: Path) -> None:
    assert results(functions / "extractions.npz", "several")["copies"] == DEVICES


@pytest.mark.parametrize("layer", ["BatchNormalization", "ReLU"])
def test_several_devices_extract_the_bytes_of_one(functions: Path, layer: str) -> None:
    one, several = (results(functions / "extractions.npz", how) for how in ("one", "several"))
    assert one[layer].std() > 0
    assert several[layer].tobytes() == one[layer].tobytes()


@pytest.mark.soak
def test_a_killed_training_goes_on_and_ends_the_same(more: Path) -> None:
    undisturbed = results(more / "interrupted.npz", "undisturbed")
    assert_same(results(more / "interrupted.npz", "several"), undisturbed, tolerance=0)


@pytest.mark.soak
def test_a_killed_training_goes_on_on_another_number_of_devices(more: Path) -> None:
    undisturbed = results(more / "interrupted.npz", "undisturbed")
    assert_same(results(more / "interrupted.npz", "one"), undisturbed)


@pytest.mark.soak
def test_a_device_without_an_image_does_no_harm(more: Path) -> None:
    found, wanted = (results(more / "few_images.npz", how) for how in ("several", "one"))
    assert_same(found, wanted)


@pytest.mark.soak
def test_only_rounding_tells_several_devices_from_one(more: Path) -> None:
    """Of the whole network with its batch norm, which makes rounding in float32 grow."""
    found, wanted = (results(more / "in_float64.npz", how) for how in ("several", "one"))
    assert_same(found, wanted, tolerance=1e-9)


@pytest.mark.soak
@pytest.mark.parametrize(
    "file",
    ["data/features/tiny/demo_backbone.npy", "data/prefix/tiny/demo_backbone/values.npy"],
)
def test_stages_extract_the_same_on_several_devices(stages_ran: Path, file: str) -> None:
    one, several = ((stages_ran / how / file).read_bytes() for how in ("one", "several"))
    assert one == several


def fine_tuned(folder: Path) -> dict[str, NDArray[Any]]:
    """The variables of the fine-tuned model in a folder, its history and its probabilities."""
    model = keras.saving.load_model(folder / MODEL / "finetuned.keras")
    history = read_csv(folder / HISTORY)
    assert [row["epoch"] for row in history] == ["1", "2"]
    return {each.path: each.numpy() for each in model.variables} | {
        "history": np.array([list(map(float, row.values())) for row in history]),
        "probabilities": np.load(folder / MODEL / "finetuned_probabilities.npy"),
    }


@pytest.mark.soak
def test_the_stage_fine_tunes_on_several_devices_as_on_one(stages_ran: Path) -> None:
    assert_same(fine_tuned(stages_ran / "several"), fine_tuned(stages_ran / "one"))
