"""Sample pictures of the classes of a set, out of its archive."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stages.common.images import Pixels, decode, read_members
from stages.common.sets import SETS
from stages.common.splits import SplitTable, read_split

SAMPLES, SIDE, GAP = 4, 144, 8
"""Pictures of each class, their side, and the white between them, in pixels."""


def find_samples(set_name: str) -> tuple[Path, Path] | None:
    """Archive and split of a set, where both are there."""
    if set_name not in SETS:
        return None
    archive = Path("data/raw", set_name, SETS[set_name].archive)
    split = Path(f"data/splits/{set_name}.csv")
    return (archive, split) if archive.is_file() and split.is_file() else None


def choose_samples(table: SplitTable, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Names of each class's first SAMPLES images of train, on which nothing was scored."""
    return {
        name: [
            table.images[row]
            for row in np.flatnonzero((table.parts[0] == "train") & (table.labels == label))[
                :SAMPLES
            ]
        ]
        for label, name in enumerate(class_names)
    }


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
    return {name: side_by_side(images, found) for name, images in samples.items() if images}


def side_by_side(names: Sequence[str], images: Mapping[str, Pixels]) -> bytes:
    """A JPEG of images (SIDE, SIDE, 3), GAP pixels of white between them."""
    strip = Image.new("RGB", (len(names) * (SIDE + GAP) - GAP, SIDE), "white")
    for place, name in enumerate(names):
        strip.paste(Image.fromarray(images[name]), (place * (SIDE + GAP), 0))
    stream = io.BytesIO()
    strip.save(stream, "JPEG", quality=85)
    return stream.getvalue()
