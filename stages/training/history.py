"""The history of a training: its figures epoch by epoch."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

from stages.common.files import write_csv

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
