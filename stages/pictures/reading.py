"""Reading the pictures of a set, out of archives and folders, and decoding them ahead of use."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv
from stages.common.progress import progress_bar
from stages.pictures.decoding import Crop, Pixels, decode
from stages.pictures.tars import BLOCK, LARGEST_PICTURE, read_forwards

LOADED_AT_ONCE = 32
"""Pictures that are decoded at a time."""


def read_members(table: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Read pictures of a set out of its archives and folder: (position in `names`, bytes).

    `table` is the set's data/raw/SET/pictures.csv. Each picture comes once, those of an archive in
    the archive's order; nothing is unpacked to the disk. Raises UserError where one is not there,
    or not as it was when the table was written.
    """
    rows = {row["image"]: row for row in read_csv(table)}
    root, set_name = table.absolute().parents[3], table.parent.name
    wanted: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        if name not in rows:
            raise UserError(f"{table} lists no {name}; run `dvc repro`")
        wanted.setdefault(rows[name]["archive"], []).append(position)
    for archive, positions in wanted.items():
        own = [names[position] for position in positions]
        if archive:
            found = read_tar(root / archive, [inside(archive, name) for name in own])
        else:
            found = read_files(root / "data/sets" / set_name, own)
        for place, data in found:
            if hashlib.sha256(data).hexdigest() != rows[own[place]]["sha256"]:
                where = picture_place(rows[own[place]], set_name)
                raise UserError(f"{where} has changed since it was listed; {list_anew(set_name)}")
            yield positions[place], data


def inside(archive: str, image: str) -> str:
    """A picture's name in its archive, which counts as unpacked where it lies."""
    above = PurePosixPath(*PurePosixPath(archive).parent.parts[3:])
    return PurePosixPath(image).relative_to(above).as_posix()


def picture_place(row: Mapping[str, str], set_name: str) -> str:
    """Where a picture of the table is, for errors."""
    if row["archive"]:
        return f"{row['image']} in {row['archive']}"
    return f"data/sets/{set_name}/{row['image']}"


def list_anew(set_name: str) -> str:
    """What to do where a picture is not as the table says.

    DVC looks at a file's bytes only where its size or time has changed, so it has to be forced.
    """
    return f"run `dvc repro --force --single-item collect@{set_name}`, then `dvc repro`"


def read_files(folder: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Read the files called `names` of a folder: (position in `names`, bytes)."""
    for position, name in enumerate(names):
        try:
            yield position, read_file(folder / name)
        except FileNotFoundError:
            raise UserError(
                f"{folder / name} is gone since it was listed; {list_anew(folder.name)}"
            ) from None
        except ValueError as error:
            raise UserError(f"{folder / name}: {error}; take it away") from None


def read_file(path: Path) -> bytes:
    """A file's bytes. Raises ValueError, in bounded memory, where they pass LARGEST_PICTURE."""
    with path.open("rb") as file:
        blocks = iter(lambda: file.read(BLOCK), b"")
        data = b"".join(islice(blocks, LARGEST_PICTURE // BLOCK + 2))
    if len(data) > LARGEST_PICTURE:
        raise ValueError(f"it has more than {LARGEST_PICTURE / 1e6:.0f} MB")
    return data


def read_tar(archive: Path, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """Stream the members called `names` out of a tar, compressed or not, as `read_members` does."""
    positions = {name: position for position, name in enumerate(names)}
    try:
        for member in read_forwards(archive):
            if not member.info.isfile():
                continue
            position = positions.pop(PurePosixPath(member.info.name).as_posix(), None)
            if position is not None:
                yield position, member.read()
            if not positions:
                return
    except ValueError as error:
        raise UserError(
            f"{archive} cannot be read ({error}); delete it and download again"
        ) from error
    missing = min(positions)
    raise UserError(f"{archive} lacks {missing} and {len(positions) - 1} more; download it again")


def decode_all(
    table: Path, names: Sequence[str], size: int, crop: Crop, batch_size: int
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
            row = next(row for row in read_csv(table) if row["image"] == names[position])
            where = picture_place(row, table.parent.name)
            raise UserError(f"{where} is not a readable picture: {error}") from error

    members = read_members(table, names)
    with ThreadPoolExecutor() as pool:
        ahead = pool.map(decode_one, islice(members, batch_size))
        while decoded := list(ahead):
            ahead = pool.map(decode_one, islice(members, batch_size))
            positions, images = zip(*decoded, strict=True)
            yield np.array(positions), np.stack(images)


def decode_rows(
    table: Path,
    names: Sequence[str],
    rows: NDArray[np.int64],
    size: int,
    crop: Crop,
    batch_size: int,
) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
    """As `decode_all`, of those of `names` alone that stand at `rows`, with their positions."""
    wanted = [names[row] for row in rows]
    for positions, images in decode_all(table, wanted, size, crop, batch_size):
        yield rows[positions], images


def load_pictures(table: Path, names: Sequence[str], size: int, crop: Crop) -> Pixels:
    """The pictures `names` of a set's table, in that order, shape (n, size, size, 3)."""
    pictures = np.zeros((len(names), size, size, 3), np.uint8)
    if not names:
        return pictures
    with progress_bar(total=len(names), desc="reading pictures", unit=" images") as bar:
        for positions, images in decode_all(table, names, size, crop, LOADED_AT_ONCE):
            pictures[positions] = images
            bar.update(len(positions))
    return pictures
