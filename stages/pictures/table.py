"""The table of a set's pictures, data/raw/SET/pictures.csv: all that stages know of a set.

The stage `collect` writes it, a row a picture, in the set's order: image (its name in the set),
class, label (from 0), sha256 (of its bytes) and archive (the tar that it is in, or nothing where it
is a file of its own below data/sets/SET). Then a column for each published split, such as
`official` or `ordered`, that holds train, val or test; where a split has several folds, further
ones are called `official_2`, `official_3`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv, write_csv

COLUMNS = ("image", "class", "label", "sha256", "archive")
PARTS = ("train", "val", "test")

Labels = NDArray[np.int64]
Parts = NDArray[np.str_]
"""Shape (pictures,): one of PARTS for each."""


@dataclass(frozen=True)
class PictureTable:
    """The pictures of a set, in its order; every sequence has an entry a picture."""

    images: Sequence[str]
    labels: Labels
    class_names: Sequence[str]
    """By label."""
    digests: Sequence[str]
    archives: Sequence[str]
    splits: Mapping[str, Sequence[Parts]] = field(default_factory=dict)
    """The folds of each published split."""

    @property
    def classes(self) -> list[str]:
        """The class of each picture."""
        return [self.class_names[label] for label in self.labels]


def table_path(set_name: str, root: Path = Path()) -> Path:
    """Where the table of a set is, below the project's folder `root`."""
    return root / "data/raw" / set_name / "pictures.csv"


def write_table(path: Path, table: PictureTable) -> None:
    """Write the table of a set."""
    columns = list(COLUMNS)
    values: list[Sequence[object]] = [
        table.images, table.classes, table.labels.tolist(), table.digests, table.archives
    ]  # fmt: skip
    for name, folds in table.splits.items():
        columns += [name, *(f"{name}_{number}" for number in range(2, len(folds) + 1))]
        values += [fold.tolist() for fold in folds]
    write_csv(path, columns, zip(*values, strict=True))


def read_table(set_name: str) -> PictureTable:
    """The pictures of a set. Raises UserError where there is no table of them."""
    path = table_path(set_name)
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro collect@{set_name}`")
    rows = read_csv(path)
    splits: dict[str, list[Parts]] = {}
    for column in list(rows[0])[len(COLUMNS) :]:
        parts = np.array([row[column] for row in rows])
        splits.setdefault(re.sub(r"_\d+$", "", column), []).append(parts)
    return PictureTable(
        [row["image"] for row in rows],
        np.array([int(row["label"]) for row in rows]),
        [name for _, name in sorted({(int(row["label"]), row["class"]) for row in rows})],
        [row["sha256"] for row in rows],
        [row["archive"] for row in rows],
        splits,
    )
