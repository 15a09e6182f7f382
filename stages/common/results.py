"""What training leaves for the stages after it: its history and the probabilities it gives."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError, first_line
from stages.common.files import replacing, write_csv

History = dict[str, list[float]]
"""Figures of a training by name, each with an entry an epoch; NaN where nothing was measured."""

HISTORY_COLUMNS = ("accuracy", "loss", "val_accuracy", "val_loss")


def write_history(path: Path, history: Mapping[str, Sequence[float]], slices: int = 1) -> None:
    """Write a training history, one row an epoch from 1, to six digits; empty where it is NaN.

    With `slices` above 1 each row is so small a part of an epoch.
    """
    entries = zip(*(history[column] for column in HISTORY_COLUMNS), strict=True)
    rows = [
        [f"{number / slices:g}", *("" if isnan(value) else f"{value:.6f}" for value in entry)]
        for number, entry in enumerate(entries, 1)
    ]
    write_csv(path, ["epoch", *HISTORY_COLUMNS], rows)


def history_path(set_name: str, backbone: str, model: str) -> Path:
    """Where the history of a set's and backbone's `model`, head or finetuned, is kept."""
    return Path(f"metrics/history/{set_name}-{backbone}-{model}.csv")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a .npy file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def read_array(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """The array of numbers of a .npy file, or with `mmap_mode` a view of the file.

    Raises UserError for anything else, objects above all: to read them would be to run them.
    """
    try:
        return np.asanyarray(np.load(path, mmap_mode, allow_pickle=False))
    except (EOFError, ValueError) as error:
        raise UserError(
            f"{path} is no array of numbers ({first_line(error)}); delete it and run `dvc repro`"
        ) from None
