"""The images that a benchmark runs on: the mirror's, or generated ones of the same size."""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stages.common.command_line import UserError
from stages.common.files import replacing, sha256
from stages.sources.mirror import VARIABLE
from stages.sources.sets import SETS

NEIGHBOUR = Path("../shared/mirror")
SIDES = (500, 667)
"""Height and width, in pixels, of generated pictures; the published ones are 500 on one side."""
GRAIN = 4
"""Side, in pixels, of the noise in generated pictures, which sets the size of their files."""


def mirror() -> Path | None:
    """The folder of FLOWERS_MIRROR, or the neighbour's where it is there.

    Raises UserError where the variable names no folder.
    """
    value = os.environ.get(VARIABLE)
    if value and not Path(value).is_dir():
        raise UserError(f"{VARIABLE}={value} is no folder; give a folder, or unset {VARIABLE}")
    folder = Path(value).resolve() if value else NEIGHBOUR.resolve()
    return folder if folder.is_dir() else None


def generated_picture(number: int) -> bytes:
    """A JPEG of colours that blend, with noise: about as many bytes as a photograph of its size."""
    rng = np.random.default_rng(number)
    height, width = SIDES
    pixels = np.zeros((height, width, 3), np.int16)
    for across, least, most in ((12, 0, 200), (width // GRAIN, 0, 55)):
        shape = (across * height // width, across, 3)
        small = Image.fromarray(rng.integers(least, most, shape, dtype=np.uint8))
        pixels += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def members_of(archive: Path, set_name: str) -> Iterator[bytes]:
    """The set's pictures out of its archive, in the set's order where the archive has it."""
    names = set(SETS[set_name].image_names)
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name in names else None
            if file is not None:
                yield file.read()


def pictures(set_name: str, count: int) -> tuple[Iterable[bytes], str]:
    """`count` pictures spread over a set's classes, and what they are.

    They are every n-th one of the mirror's archive, generated where there is none.
    """
    folder, image_set = mirror(), SETS[set_name]
    archive = folder / image_set.archive if folder else None
    if archive is None or not archive.is_file():
        sides = " x ".join(map(str, SIDES))
        return map(generated_picture, range(count)), f"{count} generated pictures of {sides} px"
    wanted = {number * image_set.images // count for number in range(count)}
    chosen = (data for n, data in enumerate(members_of(archive, set_name)) if n in wanted)
    return chosen, f"{count} of {image_set.images} pictures of the mirror's {image_set.archive}"


def write_archive(path: Path, pattern: str, images: Iterable[bytes]) -> None:
    """Write pictures as a .tar.gz, named by their number from 1, and its digest beside it."""
    with (
        replacing(path) as temporary,
        tarfile.open(temporary, "w:gz", compresslevel=1) as archive,
    ):
        for number, data in enumerate(images, 1):
            info = tarfile.TarInfo(pattern.format(number))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    line = f"{sha256(path)}  {path.name}\n"
    sums = path.with_name("SHA256SUMS")
    sums.write_text((sums.read_text("utf-8") if sums.exists() else "") + line, "utf-8")


def unpack(archive: Path, rows: Iterable[tuple[str, str, str]], folder: Path) -> None:
    """Unpack pictures into `folder`/part/class/; `rows` gives image, class and part of each."""
    places = {image: folder / part / name for image, name, part in rows}
    with tarfile.open(archive) as tar:
        for member in tar:
            place, file = places.get(member.name), tar.extractfile(member)
            if place is not None and file is not None:
                place.mkdir(parents=True, exist_ok=True)
                (place / Path(member.name).name).write_bytes(file.read())
