"""Files that users have: finding pictures, reading them as the pipeline reads a set's."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np

from stages.pictures.decoding import Crop, Pixels, decode
from stages.pictures.reading import SUFFIXES


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as they are named, and the pictures in folders and their folders, sorted by name.

    What is hidden inside a folder is left out, and what SUFFIXES does not list. Raises OSError
    where a folder cannot be read.
    """

    def stop(error: OSError) -> NoReturn:
        raise error

    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = []
        for folder, folders, names in os.walk(path, onerror=stop):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside += [
                Path(folder, name)
                for name in names
                if name.lower().endswith(SUFFIXES) and not name.startswith(".")
            ]
        found += sorted(inside)
    return found


def read_picture(path: Path, size: int, crop: Crop) -> Pixels:
    """A file's picture as `decode` gives it. Raises ValueError, saying what is wrong with it."""
    try:
        return decode(path.read_bytes(), size, crop)
    except OSError as error:
        raise ValueError(error.strerror) from error


def read_pictures(
    paths: Sequence[Path],
    size: int,
    crop: Crop,
    batch_size: int,
    failed: Callable[[Path, ValueError], None],
) -> Iterator[tuple[list[Path], Pixels]]:
    """Read pictures on all cores, in batches: paths, and images of shape (n, size, size, 3).

    They come in the order of `paths`, with n from 1 to `batch_size`. A file that cannot be read is
    left out, and `failed` is called with it and with the reason.
    """

    def read(path: Path) -> Pixels | ValueError:
        try:
            return read_picture(path, size, crop)
        except ValueError as error:
            return error

    # A thread a core and no more, as one picture can take half a gigabyte.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), batch_size):
            batch, images = [], []
            for path, found in zip(
                paths[start : start + batch_size],
                pool.map(read, paths[start : start + batch_size]),
                strict=True,
            ):
                if isinstance(found, ValueError):
                    failed(path, found)
                else:
                    batch.append(path)
                    images.append(found)
            if batch:
                yield batch, np.stack(images)


def printable(path: Path) -> str:
    """A path for people to read: what cannot be printed is shown as a replacement character."""
    return "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(path)
    )
