"""Reading the pictures of a set, out of archives and folders, and decoding them ahead of use."""

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv
from stages.pictures.decoding import Crop, Pixels, decode

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
"""Names by which pictures in a folder are known, in upper case too."""


def read_members(archive: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Stream the images called `names` out of a set's archive: (position in `names`, bytes).

    They come in the archive's order, each once. Nothing is unpacked to the disk. The archive may
    be data/raw/NAME/pictures.csv, which lists the pictures of data/own/NAME. Raises UserError when
    the archive cannot be read to its end or lacks one of them.
    """
    if archive.suffix == ".csv":
        return read_listed(archive, names)
    return read_tar(archive, names)


def read_listed(table: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Read the pictures called `names` of those that `table` lists, as `read_members` does.

    Raises UserError where one is not as it was when it was listed.
    """
    rows = {row["image"]: row for row in read_csv(table)}
    folder = own_folder(table)
    wanted: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        if name not in rows:
            raise UserError(f"{table} lists no {name}; run `dvc repro`")
        wanted.setdefault(rows[name]["archive"], []).append(position)
    for archive, positions in wanted.items():
        own = [names[position] for position in positions]
        above = PurePosixPath(archive).parent
        inside = [PurePosixPath(name).relative_to(above).as_posix() for name in own]
        found = read_tar(folder / archive, inside) if archive else read_files(folder, own)
        for place, data in found:
            if hashlib.sha256(data).hexdigest() != rows[own[place]]["sha256"]:
                raise UserError(
                    f"{folder / own[place]} has changed since it was listed; run `dvc repro` again"
                )
            yield positions[place], data


def own_folder(table: Path) -> Path:
    """The folder data/own/NAME whose pictures the table data/raw/NAME/pictures.csv lists."""
    return table.parents[2] / "own" / table.parent.name


def read_files(folder: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Read the files called `names` of a folder: (position in `names`, bytes)."""
    for position, name in enumerate(names):
        try:
            yield position, (folder / name).read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"{folder / name} is gone since it was listed; run `dvc repro` again"
            ) from None


def read_tar(archive: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Stream the members called `names` out of a tar, compressed or not, as `read_members` does."""
    positions = {name: position for position, name in enumerate(names)}
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                position = (
                    positions.pop(PurePosixPath(member.name).as_posix(), None)
                    if member.isfile()
                    else None
                )
                file = tar.extractfile(member) if position is not None else None
                if position is not None and file is not None:
                    yield position, file.read()
                if not positions:
                    return
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"{archive} cannot be read ({error}); delete it and download again"
        ) from error
    missing = min(positions)
    raise UserError(f"{archive} lacks {missing} and {len(positions) - 1} more; download it again")


def decode_all(
    archive: Path, names: Sequence[str], size: int, crop: Crop, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
    """Decode the members called `names` on all cores, ahead of their use.

    Yields batches: positions in `names`, shape (n,), and images, shape (n, size, size, 3), with n
    at most `batch_size`. Raises UserError naming the member that is not a picture.
    """

    def decode_one(item: tuple[int, bytes]) -> tuple[int, Pixels]:
        position, data = item
        try:
            return position, decode(data, size, crop)
        except ValueError as error:
            own = archive.suffix == ".csv"
            where = (
                own_folder(archive) / names[position] if own else f"{names[position]} in {archive}"
            )
            raise UserError(f"{where} is not a readable picture: {error}") from error

    members = read_members(archive, names)
    with ThreadPoolExecutor() as pool:
        ahead = pool.map(decode_one, islice(members, batch_size))
        while decoded := list(ahead):
            ahead = pool.map(decode_one, islice(members, batch_size))
            positions, images = zip(*decoded, strict=True)
            yield np.array(positions), np.stack(images)


def decode_rows(
    archive: Path,
    names: Sequence[str],
    rows: NDArray[np.int64],
    size: int,
    crop: Crop,
    batch_size: int,
) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
    """As `decode_all`, of those of `names` alone that stand at `rows`, with their positions."""
    wanted = [names[row] for row in rows]
    for positions, images in decode_all(archive, wanted, size, crop, batch_size):
        yield rows[positions], images
