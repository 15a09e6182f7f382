"""Sample pictures of the classes of a set, of its own."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stages.pictures.decoding import Pixels, decode
from stages.pictures.reading import read_members
from stages.pictures.splits import SplitTable, read_split
from stages.pictures.table import table_path

SAMPLES, SIDE = 4, 144
"""Pictures of each class, and their side in pixels."""


def find_samples(model: Path, set_name: str) -> tuple[Path, Path] | None:
    """Tables of pictures and split of a set, where both are by models/SET/BACKBONE/`model`."""
    above = model.absolute().parents
    root = above[min(3, len(above) - 1)]
    table = table_path(set_name, root)
    split = root / f"data/splits/{set_name}.csv"
    return (table, split) if table.is_file() and split.is_file() else None


def choose_samples(table: SplitTable, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Names of each class's first SAMPLES images of train, on which nothing was scored.

    Of a group of duplicates there is one at most.
    """
    chosen = {}
    for label, name in enumerate(class_names):
        rows = np.flatnonzero((table.parts == "train") & (table.labels == label))
        _, firsts = np.unique(table.groups[rows], return_index=True)
        chosen[name] = [table.images[row] for row in rows[np.sort(firsts)[:SAMPLES]]]
    return chosen


def read_samples(table: Path, split: Path, class_names: Sequence[str]) -> dict[str, bytes]:
    """A JPEG for each class that train has images of: its samples side by side.

    Raises UserError where a picture cannot be had, and ValueError where one cannot be read.
    """
    samples = choose_samples(read_split(split), class_names)
    wanted = [image for images in samples.values() for image in images]
    found = {
        wanted[position]: decode(data, SIDE, "center")
        for position, data in read_members(table, wanted)
    }
    return {
        name: side_by_side([found[image] for image in images])
        for name, images in samples.items()
        if images
    }


def side_by_side(images: Sequence[Pixels]) -> bytes:
    """A JPEG of images of one height."""
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(images, axis=1)).save(stream, "JPEG", quality=85)
    return stream.getvalue()
