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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.common.command_line import Parser, number, run
from stages.common.files import write_csv
from stages.common.progress import progress_bar
from stages.pictures.decoding import Pixels
from stages.pictures.readable import readable_rows
from stages.pictures.reading import decode_all
from stages.sources.sets import find_set, read_labels

SIDE = 128
"""Pictures are compared as squares of so many pixels."""
BATCH_SIZE = 64
MAX_DISTANCE = 16
"""Beyond it most pairs share nothing, and there are millions of them."""
COLUMNS = ("image", "class", "group", "kind", "partner", "distance")

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


class Pairs(NamedTuple):
    """Pairs of images by their positions, `first` below `second`; each array has shape (pairs,)."""

    first: Numbers
    second: Numbers
    distance: Numbers
    """Bits, from 0 to 64, in which the two hashes differ."""


def difference_hash(image: Pixels) -> int:
    """64-bit difference hash (dHash; N. Krawetz, "Kind of Like That", 2013) of RGB pixels.

    The picture, shape (height, width, 3), is shrunk to 9 x 8 grey pixels; each bit says whether a
    pixel is brighter than its left neighbour. It hardly changes with size, compression and
    brightness, and changes with cropping. Lanczos, as softer filters blur neighbours into each
    other: with the bilinear one, distance 4 joins 43 pairs of different classes of oxford102.
    """
    grey = np.asarray(Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def find_pairs(hashes: Hashes, distance: int) -> Pairs:
    """All pairs whose hashes, shape (images,), differ in at most `distance` bits."""
    found = []
    for position, each in enumerate(hashes):
        bits = np.bitwise_count(hashes[position + 1 :] ^ each)
        near = np.flatnonzero(bits <= distance)
        found.append([np.full(len(near), position), position + 1 + near, bits[near]])
    first, second, bits = np.concatenate(found, axis=1, dtype=np.int64)
    return Pairs(first, second, bits)


def number_groups(pairs: Pairs, images: int) -> Numbers:
    """Group of every image, shape (images,): the number, from 1, of the group's first image.

    Images that are joined by pairs, directly or through others, are one group.
    """
    links = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), (images, images))
    _, group = connected_components(links, directed=False)
    _, first = np.unique(group, return_index=True)
    return np.asarray(first[group] + 1)


def nearest_partners(pairs: Pairs, exact: NDArray[np.bool_]) -> Numbers:
    """Nearest partner of every image that has one.

    `exact`, shape (pairs,), says which pairs are the same pixels; these go before others of the
    same distance. Shape (images with a partner, 4), a row each, in the order of the images:
    position, partner's position, distance, 1 for exact or 0.
    """
    there = np.stack([pairs.first, pairs.second, pairs.distance, exact], axis=1)
    both = np.concatenate([there, there[:, [1, 0, 2, 3]]])
    ordered = both[np.lexsort((both[:, 1], -both[:, 3], both[:, 2], both[:, 0]))]
    _, nearest = np.unique(ordered[:, 0], return_index=True)
    return np.asarray(ordered[nearest])


def read_hashes(archive: Path, names: Sequence[str]) -> tuple[Hashes, NDArray[np.str_]]:
    """Difference hash and SHA-256 of the pixels of every picture, each of shape (images,).

    Both are of the whole picture squeezed into a square of SIDE pixels. Raises UserError when the
    archive lacks one of `names` or one is not a picture.
    """
    hashes = np.zeros(len(names), np.uint64)
    digests = np.zeros(len(names), "<U64")
    with progress_bar(total=len(names), desc="comparing pictures", unit=" images") as bar:
        for positions, images in decode_all(archive, names, SIDE, "none", BATCH_SIZE):
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

    image_set = find_set(options.set)
    raw = Path("data/raw", image_set.name)
    names = image_set.image_names
    classes = [image_set.class_names[label] for label in read_labels(image_set, raw)]
    readable = readable_rows(image_set.name)
    hashes, digests = read_hashes(raw / image_set.archive, [names[row] for row in readable])
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
        Path(f"data/duplicates/{image_set.name}.csv"),
        COLUMNS,
        sorted(rows, key=lambda row: int(row[2])),
    )
    doubts = sum(classes[a] != classes[b] for a, b in zip(pairs.first, pairs.second, strict=True))
    print(
        f"{image_set.name}: {len(rows)} images in {len({row[2] for row in rows})} groups; "
        f"{exact.sum()} pairs are exact, {doubts} of two classes"
    )


if __name__ == "__main__":
    run(main)
