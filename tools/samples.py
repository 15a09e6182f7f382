"""Sample pictures of the classes of a set, out of its archive."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stages.common.command_line import UserError
from stages.pictures.decoding import Pixels, decode
from stages.pictures.reading import read_members
from stages.pictures.splits import SplitTable, read_split
from stages.sources.sets import find_set

SAMPLES, SIDE = 4, 144
"""Pictures of each class, and their side in pixels."""


def find_samples(model: Path, set_name: str) -> tuple[Path, Path] | None:
    """Archive and split of a set, where both are in the folder of models/SET/BACKBONE/`model`."""
    above = model.absolute().parents
    root = above[min(3, len(above) - 1)]
    try:
        archive = root / "data/raw" / set_name / find_set(set_name, root).archive
    except UserError:
        return None
    split = root / f"data/splits/{set_name}.csv"
    return (archive, split) if archive.is_file() and split.is_file() else None


def choose_samples(table: SplitTable, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Names of each class's first SAMPLES images of train, on which nothing was scored.

    Of a group of duplicates there is one at most.
    """
    chosen = {}
    for label, name in enumerate(class_names):
        rows = np.flatnonzero((table.parts[0] == "train") & (table.labels == label))
        _, firsts = np.unique(table.groups[rows], return_index=True)
        chosen[name] = [table.images[row] for row in rows[np.sort(firsts)[:SAMPLES]]]
    return chosen


def read_samples(archive: Path, split: Path, class_names: Sequence[str]) -> dict[str, bytes]:
    """A JPEG for each class that train has images of: its samples side by side.

    Raises UserError where the archive cannot be read, and ValueError for a picture in it.
    """
    samples = choose_samples(read_split(split), class_names)
    wanted = [image for images in samples.values() for image in images]
    found = {
        wanted[position]: decode(data, SIDE, "center")
        for position, data in read_members(archive, wanted)
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
