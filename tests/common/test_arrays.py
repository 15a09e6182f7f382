from pathlib import Path

import numpy as np
import pytest

from stages.common.arrays import write_array
from stages.training.history import HISTORY_COLUMNS, write_history


def test_a_history_has_a_row_an_epoch_from_1(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = {
        "val_loss": [0.25, 1 / 3],
        "val_accuracy": [0.5, 1],
        "loss": [2.0, 1e-9],
        "accuracy": [0, 0.75],
    }
    write_history(path, history)
    assert path.read_text() == (
        "epoch,accuracy,loss,val_accuracy,val_loss\n"
        "1,0.000000,2.000000,0.500000,0.250000\n"
        "2,0.750000,0.000000,1.000000,0.333333\n"
    )


def test_what_was_not_measured_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    nothing = [float("nan")]
    history = {"accuracy": [0.5], "loss": [1.0], "val_accuracy": nothing, "val_loss": nothing}
    write_history(path, history)
    assert path.read_text().splitlines()[1:] == ["1,0.500000,1.000000,,"]


def test_slices_are_parts_of_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(path, {column: [0] * 5 for column in HISTORY_COLUMNS}, slices=4)
    epochs = [line.split(",")[0] for line in path.read_text().splitlines()]
    assert epochs == ["epoch", "0.25", "0.5", "0.75", "1", "1.25"]


def test_an_empty_history_keeps_its_header(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(path, {column: [] for column in HISTORY_COLUMNS})
    assert path.read_text() == "epoch,accuracy,loss,val_accuracy,val_loss\n"


def test_columns_of_different_lengths_are_an_error(tmp_path: Path) -> None:
    history = {column: [0.5] for column in HISTORY_COLUMNS} | {"loss": [0.5, 0.4]}
    with pytest.raises(ValueError, match="longer"):
        write_history(tmp_path / "history.csv", history)
    assert list(tmp_path.iterdir()) == []


def test_probabilities_come_back_and_their_bytes_are_stable(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "first.npy", tmp_path / "second.npy"
    probabilities = np.array([[0.25, 0.75], [1, 0]], np.float32)
    for path in (first, second):
        write_array(path, probabilities)
    assert first.read_bytes() == second.read_bytes()
    read = np.load(first)
    np.testing.assert_array_equal(read, probabilities)
    assert read.dtype == np.float32
