"""Images: out of the archive, into squares of pixels, seen in several views."""

import hashlib
import io
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.common.command_line import UserError
from stages.common.files import read_csv

Crop = Literal["center", "none"]
CROPS: tuple[Crop, ...] = ("center", "none")

Pixels = NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
"""What is read; Pillow knows more, but hands PostScript to another program."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
"""Names by which pictures in a folder are known, in upper case too."""

# Pillow warns of 89 million pixels, which telephones take, and refuses twice as many.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

ZOOM = 0.75
"""Side of the part of a picture that a zoomed view shows, as a share of the picture's side."""

_PLACES = {
    "zoom": (0.5, 0.5),
    "top_left": (0, 0),
    "top_right": (0, 1),
    "bottom_left": (1, 0),
    "bottom_right": (1, 1),
}
VIEWS = ("plain", "mirror", *(f"{place}{end}" for place in _PLACES for end in ("", "_mirror")))
"""What can be shown of a picture: all of it, its middle, its corners, and all that mirrored."""


def view_window(view: str, side: int) -> tuple[int, int, int]:
    """Top, left and side, in pixels, of what a view shows of a square picture."""
    down, right = _PLACES.get(view.removesuffix("_mirror"), (0, 0))
    shown = round(ZOOM * side) if view.removesuffix("_mirror") in _PLACES else side
    return round(down * (side - shown)), round(right * (side - shown)), shown


def is_mirrored(view: str) -> bool:
    """Whether a view is flipped from left to right."""
    return view.endswith("mirror")


def see(images: Pixels, view: str) -> Pixels:
    """Images (n, side, side, 3) in one of VIEWS, scaled up to the same shape, bilinearly."""
    side = images.shape[1]
    top, left, shown = view_window(view, side)
    if shown < side:
        # Cut first: a box given to `resize` would let in what lies beside it, the model does not.
        windows = images[:, top : top + shown, left : left + shown]
        size, how = (side, side), Image.Resampling.BILINEAR
        scaled = [Image.fromarray(window).resize(size, how) for window in windows]
        images = np.stack([np.asarray(image) for image in scaled])
    return images[:, :, ::-1] if is_mirrored(view) else images


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB; what is transparent lies on white."""
    if image.mode.startswith("I;16"):
        # Pillow would cut off all above 255.
        grey = np.asarray(image)
        nearest = (grey // 257 + (grey % 257 > 128)).astype(np.uint8)
        return Image.fromarray(nearest).convert("RGB")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def decode(data: bytes, size: int, crop: Crop) -> Pixels:
    """Decode one picture in one of FORMATS to RGB, shape (size, size, 3), uint8.

    `center` takes the largest centred square, `none` squeezes the whole picture. Scaling is
    bilinear with antialiasing. A JPEG that is far larger is decoded at a reduced scale, never below
    twice the size. Raises ValueError when the data are not a picture that can be read, or one of
    more than 178 million pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            file.draft("RGB", (2 * size, 2 * size))
            # In place, as a copy of the largest picture takes 0.7 GB.
            ImageOps.exif_transpose(file, in_place=True)
            image = to_rgb(file)
    except UnidentifiedImageError as error:
        raise ValueError(f"not a picture in {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow raises whatever it stumbles on in a broken file.
        raise ValueError(str(error) or repr(error)) from error
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side) if crop == "center" else (0, 0, width, height)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


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
