"""Files that users have: finding pictures, reading them as the pipeline reads a set's."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.pictures.decoding import Crop, Pixels, decode
from stages.pictures.names import Kind, kind_by_name, list_folder
from stages.pictures.reading import read_file


def find_pictures(paths: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """Files as they are named, and the pictures in folders and their folders, sorted by name.

    And what else the folders hold, with the reason why it is left out. Raises OSError where a
    folder cannot be read.
    """
    found, left_out = [], {}
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = []
        for name, kind in list_folder(path).items():
            # Of a picture that cannot be read, such as a link that leads nowhere, reading tells.
            broken = kind is Kind.BROKEN and kind_by_name(name) is Kind.PICTURE
            if broken or kind in (Kind.PICTURE, Kind.LARGE):
                inside.append(path / name)
            elif kind is not Kind.FOLDER:
                left_out[str(path / name)] = kind.value
        found += sorted(inside)
    return found, left_out


def read_picture(path: Path, size: int, crop: Crop) -> Pixels:
    """A file's picture as `decode` gives it. Raises ValueError, saying what is wrong with it."""
    try:
        return decode(read_file(path), size, crop)
    except OSError as error:
        raise ValueError(error.strerror) from error
    except ValueError as error:
        if kind_by_name(path.name) is Kind.FOREIGN:
            raise ValueError(f"{error}; convert it by `mogrify -format jpg FILE`") from error
        raise


def read_pictures(
    paths: Sequence[Path], size: int, crop: Crop, batch_size: int
) -> Iterator[list[tuple[Path, Pixels | ValueError]]]:
    """Read pictures on all cores, in batches: each path with its picture, or what is wrong with it.

    They come in the order of `paths`, each picture as `decode` gives it.
    """

    def read(path: Path) -> Pixels | ValueError:
        try:
            return read_picture(path, size, crop)
        except ValueError as error:
            return error

    # A thread a core and no more, as one picture can take half a gigabyte.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            yield list(zip(batch, pool.map(read, batch), strict=True))
