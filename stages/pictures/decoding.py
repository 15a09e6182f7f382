"""Decoding: the bytes of a picture to a square of RGB pixels."""

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Crop = Literal["center", "none"]


CROPS: tuple[Crop, ...] = ("center", "none")


Pixels = NDArray[np.uint8]


FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
"""What is read; Pillow knows more, but hands PostScript to another program."""


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
