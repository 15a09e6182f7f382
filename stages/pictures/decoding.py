"""Decoding: the bytes of a picture to a square of RGB pixels."""

import io
from contextlib import suppress
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from stages.pictures.mending import PNG_MAGIC, mend

Crop = Literal["center", "none"]
CROPS: tuple[Crop, ...] = ("center", "none")
Pixels = NDArray[np.uint8]
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
"""What is read; Pillow knows more, but hands PostScript to another program."""

REMEDY = "save it with 8 bits a channel"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""For values of EXIF's orientation, how a picture is brought upright."""
SIDES_SWAPPED = (5, 6, 7, 8)
"""Those of them with width and height exchanged."""
STRIP = 256
"""Rows that are scaled at a time: the largest pictures have no room for two copies."""


class Picture(NamedTuple):
    """A picture as it is shown."""

    image: Image.Image
    """In RGB and upright; of a JPEG perhaps at a reduced scale."""
    width: int
    height: int
    """In pixels, at its own scale."""
    damage: str
    """What of the file cannot be read, though its pixels can; empty for a whole one."""


def decode(data: bytes, size: int, crop: Crop) -> Pixels:
    """Decode one picture in one of FORMATS to RGB, shape (size, size, 3), uint8.

    `center` takes the largest centred square, `none` squeezes the whole picture. Scaling is
    bilinear with antialiasing. A JPEG that is far larger is decoded at a reduced scale, never below
    twice the size. What is damaged is read as `read_picture` says, which raises ValueError.
    """
    image = read_picture(data, size).image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side) if crop == "center" else (0, 0, width, height)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def read_picture(data: bytes, size: int) -> Picture:
    """Read a picture in one of FORMATS that will be scaled to `size`.

    Damage that viewers pass over is passed over: broken Exif, in which case the picture is not
    turned, texts and profiles of PNG and JPEG that are broken or huge, and up to the last tenth of
    a JPEG (see `mend`). Raises ValueError, the same whatever `size` is, when the data are not a
    picture that can be read, of more than 178 million pixels, or of values whose black and white
    are not known (see `to_rgb`).
    """
    try:
        return load(data, size)
    except ValueError as error:
        reason = str(error)
    # Not in the block above, as the error keeps what was read: the largest have no room for both.
    for mended, damage in mend(data):
        with suppress(ValueError):
            return load(mended, size)._replace(damage=damage)
    raise ValueError(reason)


def load(data: bytes, size: int) -> Picture:
    """As `read_picture`, but for what is damaged beyond its Exif. Raises ValueError as it does."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            return upright(file, data, size)
    except UnidentifiedImageError as error:
        if data.startswith(tuple(TiffImagePlugin.PREFIXES)):
            raise ValueError(f"a TIFF that is broken or of an unknown kind; {REMEDY}") from error
        raise ValueError(f"not a picture in {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow raises whatever it stumbles on in a broken file.
        raise ValueError(str(error) or repr(error)) from error


def upright(file: ImageFile.ImageFile, data: bytes, size: int) -> Picture:
    """The picture of a file that is open, of which nothing is read yet but its header."""
    width, height = file.size
    reduced = file.draft("RGB", (2 * size, 2 * size)) is not None
    bits, inverted = bits_per_channel(file, data), is_inverted(file)
    # This turns a TIFF, and takes its orientation away.
    file.load()
    orientation, damage = read_orientation(file)
    if orientation in TURNS:
        # In place, as a copy of the largest picture takes 0.7 GB.
        file.im = file.im.transpose(TURNS[orientation])
        file._size = file.im.size
    if not reduced:
        width, height = file.size
    elif orientation in SIDES_SWAPPED:
        width, height = height, width
    scale_transparent_colour(file, bits)
    return Picture(to_rgb(file, bits, inverted), width, height, damage)


def read_orientation(file: Image.Image) -> tuple[int, str]:
    """EXIF's orientation of an opened picture, and what is damaged in it, if anything is.

    It is 1, upright, where there is none or Exif cannot be read.
    """
    broken = "its Exif data cannot be read"
    with suppress(Exception):  # As in `load`.
        orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
        exif = file.info.get("exif")
        return orientation, "" if exif is None or exif_fits(exif) else broken
    return 1, broken


def exif_fits(exif: bytes) -> bool:
    """Whether a block of Exif has a header and the whole of its first directory."""
    tiff = exif.removeprefix(b"Exif\0\0")
    if tiff[:2] not in (b"II", b"MM"):
        return False
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    start = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[start : start + 2], order)
    return start >= 8 and start + 2 + 12 * entries <= len(tiff)


def bits_per_channel(file: Image.Image, data: bytes) -> int:
    """Bits that a file says each of its values has."""
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        return int(max(file.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    return data[24] if data.startswith(PNG_MAGIC) else 8


def scale_transparent_colour(file: Image.Image, bits: int) -> None:
    """Bring a PNG's transparent colour to the 8 bits that Pillow brings its pixels to."""
    colour = file.info.get("transparency")
    if file.mode == "L" and bits in (2, 4):
        file.info["transparency"] = colour and colour * (255 // (2**bits - 1))
    if file.mode == "RGB" and bits == 16 and isinstance(colour, tuple):
        file.info["transparency"] = tuple(each >> 8 for each in colour)


def is_inverted(file: Image.Image) -> bool:
    """Whether a file's zero is white and Pillow leaves it so, as it does beyond 8 bits."""
    return (
        isinstance(file, TiffImagePlugin.TiffImageFile)
        and file.mode[0] in "IF"
        and file.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    )


def to_rgb(image: Image.Image, bits: int = 8, inverted: bool = False) -> Image.Image:
    """An image of any mode as 8-bit RGB; what is transparent lies on white.

    `bits` are those that its file says each value has, `inverted` whether zero is white. Raises
    ValueError for values of which nobody can say what is white: grey integers beyond 16 bits,
    floats that leave 0 to 1, and 16-bit colours of which 12 bits at most are used.
    """
    if image.mode[0] in "IF":
        return grey_to_rgb(image, bits, inverted)
    if bits == 16 and looks_black(image):
        raise ValueError(f"of its 16 bits a channel at most 12 are used; {REMEDY}")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def looks_black(image: Image.Image) -> bool:
    """Whether the colours of 16 bits, of which Pillow keeps the upper 8, all are below 12 bits.

    A black shape that is drawn by its transparency alone is none of them.
    """
    counts = np.reshape(image.histogram(), (-1, 256))
    colours = counts[:3] if image.mode == "RGBA" else counts
    shape = counts[:, 16:].any() and not colours[:, 1:].any()
    return not (shape or colours[:, 16:].any())


def grey_to_rgb(image: Image.Image, bits: int, inverted: bool) -> Image.Image:
    """Grey integers or floats of more than 8 bits, of the modes I, I;16 and F, as 8-bit RGB.

    Floats from 0 to 1 are parts of white. For integers see `white_level`. Raises ValueError for
    others.
    """
    width, height = image.size
    strips = [(0, top, width, min(top + STRIP, height)) for top in range(0, height, STRIP)]
    ranges = [(values.min(), values.max()) for values in map(np.asarray, map(image.crop, strips))]
    low, high = min(each for each, _ in ranges), max(each for _, each in ranges)
    if image.mode != "F":
        white = white_level(int(low), int(high), bits)
    elif all(least >= 0 and most <= 1 for least, most in ranges):  # Not so where one is no number.
        white = 1
    else:
        raise ValueError(f"its values are floats, and not from 0 to 1; {REMEDY}")
    grey = np.empty((height, width), np.uint8)
    for box in strips:
        values = np.asarray(image.crop(box))
        shades = np.floor(values * np.float64(255 / white) + 0.5)
        if inverted:
            shades = 255 - shades
        # A colour, the only one that a PNG of 16 bits can make transparent.
        shades[values == image.info.get("transparency", -1)] = 255
        grey[box[1] : box[3]] = shades
    return Image.fromarray(grey).convert("RGB")


def white_level(low: int, high: int, bits: int) -> int:
    """The value that is white in a grey picture whose values go from `low` to `high`.

    Below 16 bits the file says it. Cameras, microscopes and scanners put 8, 10 or 12 bits into 16
    or 32 as they are, and no file says so. But a picture with nothing brighter than a sixteenth of
    white is black to the eye, so white is the highest value of the fewest of 8, 10, 12 and 16 bits
    that hold all values. Raises ValueError for values that 16 bits do not hold.
    """
    for each in (bits,) if bits < 16 else (8, 10, 12, 16):
        if low >= 0 and high < 2**each:
            return int(2**each) - 1
    raise ValueError(f"its values, {low} to {high}, are not those of 8 to 16 bits; {REMEDY}")
