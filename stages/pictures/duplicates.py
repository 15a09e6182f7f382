"""Duplicates: which pictures of a set show the same, by their hashes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.pictures.decoding import Pixels

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
