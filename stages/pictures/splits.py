"""Reading of the split stage's table, and which of its images train and which judge choices."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv

UNREADABLE = "unreadable"
"""In place of a part: the image cannot be read, and is in none."""
SLICES = 5
"""One in so many images of train judges choices where val is the part reported."""


@dataclass(frozen=True)
class SplitTable:
    """Name, label (from 0), group and part of every image of a set, in the set's order."""

    images: list[str]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    """Shape (images,): images of the same picture have the same number."""
    parts: NDArray[np.str_]
    """Shape (images,): `train`, `val`, `test` or UNREADABLE."""
    class_names: list[str]
    """By label."""

    @property
    def reported_part(self) -> str:
        """The part whose figures are reported: `test` where the protocol has one, else `val`."""
        return "test" if "test" in self.parts else "val"

    @property
    def unreadable(self) -> int:
        """How many images are left out, as they cannot be read."""
        return int((self.parts == UNREADABLE).sum())


@dataclass(frozen=True)
class Rows:
    """Rows of a set's images by what they are for, shape (n,) each."""

    choosing: NDArray[np.int64]
    """Trained on while something is being chosen: a strength, or a temperature."""
    judging: NDArray[np.int64]
    """What the choice is judged by, in `choosing` never."""
    final: NDArray[np.int64]
    """Trained on once nothing is left to choose."""
    shown: NDArray[np.int64]
    """Val where it does not train: scored for the history, chosen by never; may be empty."""


def read_split(path: Path) -> SplitTable:
    """Read `data/splits/SET.csv`."""
    rows = read_csv(path)
    return SplitTable(
        [row["image"] for row in rows],
        np.array([int(row["label"]) for row in rows]),
        np.array([int(row["group"]) for row in rows]),
        np.array([row["part"] for row in rows]),
        [name for _, name in sorted({(int(row["label"]), row["class"]) for row in rows})],
    )


def choose_rows(table: SplitTable, refit: bool, seed: int) -> Rows:
    """Who trains and who judges, so that no image that is reported chooses anything.

    With test and val, val judges what learns from train. With one of them, which is reported, a
    stratified fifth of train, its groups of duplicates unbroken, judges what learns from the rest,
    but for images of a class that would have none there.
    The final training takes train, and val too where test is reported and `refit` is true.
    Raises UserError when train is too small to be sliced.
    """
    train, val = (np.flatnonzero(table.parts == part) for part in ("train", "val"))
    if table.reported_part == "test" and len(val):
        final = np.union1d(train, val) if refit else train
        return Rows(train, val, final, np.setdiff1d(val, final))
    # Here, as the stages that only read a split would spend most of their time on importing it.
    from sklearn.model_selection import StratifiedGroupKFold

    # Fewer slices where no class has so many pictures.
    count = min(SLICES, int(np.bincount(table.labels[train]).max()))
    slices = StratifiedGroupKFold(max(2, count), shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            # Of classes with fewer pictures than slices, which are dealt with below.
            warnings.simplefilter("ignore", UserWarning)
            dealt = list(slices.split(train, table.labels[train], table.groups[train]))
        for kept, held_out in dealt:
            known = np.isin(table.labels[train[held_out]], table.labels[train[kept]])
            if known.any():
                judging = train[held_out[known]]
                return Rows(np.setdiff1d(train, judging), judging, train, val)
        raise ValueError("no class would have a picture on both sides")
    except ValueError as error:
        raise UserError(
            f"{len(train)} images of train are too few to hold some out ({error}); add pictures, "
            "so that a class has two there at least that are not duplicates"
        ) from error
