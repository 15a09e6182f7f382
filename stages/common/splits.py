"""Reading of the table that the split stage writes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.files import read_csv


@dataclass(frozen=True)
class SplitTable:
    """Name, label (from 0), group and part of every image of a set, in the set's order."""

    images: list[str]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    """Shape (images,): images of the same picture have the same number."""
    parts: NDArray[np.str_]
    """Shape (repeats, images): `train`, `val` or `test` in each repeat's split."""

    @property
    def reported_part(self) -> str:
        """The part whose figures are reported: `test` where the protocol has one, else `val`."""
        return "test" if "test" in self.parts else "val"


def part_columns(repeats: int) -> list[str]:
    """Names of the columns that hold the parts: `part`, `part_2`, `part_3`, ..."""
    return ["part", *(f"part_{number}" for number in range(2, repeats + 1))]


def read_split(path: Path) -> SplitTable:
    """Read `data/splits/SET.csv`."""
    rows = read_csv(path)
    return SplitTable(
        [row["image"] for row in rows],
        np.array([int(row["label"]) for row in rows]),
        np.array([int(row["group"]) for row in rows]),
        np.array([[row[column] for row in rows] for column in rows[0] if column[:4] == "part"]),
    )
