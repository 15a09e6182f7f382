"""Find pictures that a set holds more than once, whole or nearly so.

    python -m stages.duplicates --set flowers17 --distance 4

Writes `data/duplicates/SET.csv`, a row for each image that has a partner: image, class, group (the
number, from 1, of the group's first image in the set), and its nearest partner: kind (exact or
near), partner, distance. Partners need not be of one class: the same picture under two names is a
doubt about a label, and must not stand on both sides of a split either.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import Parser, number, run
from stages.common.files import write_csv
from stages.common.progress import progress_bar
from stages.pictures.duplicates import (
    Hashes,
    Pairs,
    difference_hash,
    find_pairs,
    nearest_partners,
    number_groups,
)
from stages.pictures.readable import readable_rows
from stages.pictures.reading import decode_all
from stages.pictures.table import read_table, table_path

SIDE = 128
"""Pictures are compared as squares of so many pixels."""
BATCH_SIZE = 64
MAX_DISTANCE = 16
"""Beyond it most pairs share nothing, and there are millions of them."""
COLUMNS = ("image", "class", "group", "kind", "partner", "distance")


def read_hashes(table: Path, names: Sequence[str]) -> tuple[Hashes, NDArray[np.str_]]:
    """Difference hash and SHA-256 of the pixels of every picture, each of shape (images,).

    Both are of the whole picture squeezed into a square of SIDE pixels. Raises UserError when
    one of `names` cannot be had or is not a picture.
    """
    hashes = np.zeros(len(names), np.uint64)
    digests = np.zeros(len(names), "<U64")
    with progress_bar(total=len(names), desc="comparing pictures", unit=" images") as bar:
        for positions, images in decode_all(table, names, SIDE, "none", BATCH_SIZE):
            for position, image in zip(positions, images, strict=True):
                hashes[position] = difference_hash(image)
                digests[position] = hashlib.sha256(image.tobytes()).hexdigest()
            bar.update(len(positions))
    return hashes, digests


def main(arguments: Sequence[str]) -> None:
    """Parse the options, hash every picture, write the table of duplicates."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--distance", type=number(int, 0, MAX_DISTANCE), required=True)
    options = parser.parse_args(arguments)

    table = read_table(options.set)
    names, classes = table.images, table.classes
    readable = readable_rows(options.set)
    hashes, digests = read_hashes(table_path(options.set), [names[row] for row in readable])
    found = find_pairs(hashes, options.distance)
    exact = digests[found.first] == digests[found.second]
    pairs = Pairs(readable[found.first], readable[found.second], found.distance)
    groups = number_groups(pairs, len(names))
    rows = [
        (names[image], classes[image], groups[image], "exact" if same else "near", names[partner],
         distance)
        for image, partner, distance, same in nearest_partners(pairs, exact)
    ]  # fmt: skip
    write_csv(
        Path(f"data/duplicates/{options.set}.csv"),
        COLUMNS,
        sorted(rows, key=lambda row: int(row[2])),
    )
    doubts = sum(classes[a] != classes[b] for a, b in zip(pairs.first, pairs.second, strict=True))
    print(
        f"{options.set}: {len(rows)} images in {len({row[2] for row in rows})} groups; "
        f"{exact.sum()} pairs are exact, {doubts} of two classes"
    )


if __name__ == "__main__":
    run(main)
