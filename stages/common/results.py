"""What training leaves for the stages after it: its history and the probabilities it gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.files import replacing, write_csv

HISTORY_COLUMNS = ("accuracy", "loss", "val_accuracy", "val_loss")


def write_history(path: Path, history: Mapping[str, Sequence[float]]) -> None:
    """Write a training history, one row an epoch from 1, to six digits."""
    epochs = zip(*(history[column] for column in HISTORY_COLUMNS), strict=True)
    rows = [[epoch, *(f"{value:.6f}" for value in row)] for epoch, row in enumerate(epochs, 1)]
    write_csv(path, ["epoch", *HISTORY_COLUMNS], rows)


def history_path(set_name: str, backbone: str, model: str) -> Path:
    """Where the history of a set's and backbone's `model`, head or finetuned, is kept."""
    return Path(f"metrics/history/{set_name}-{backbone}-{model}.csv")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a .npy file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
