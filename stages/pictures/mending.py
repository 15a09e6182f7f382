"""Mending: the bytes of a damaged JPEG or PNG, without what keeps a decoder from its pixels."""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

END = b"\xff\xd9"
START_OF_SCAN = 0xDA
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG's markers that tell a picture's size and components."""
APPLICATION = {*range(0xE0, 0xF0), 0xFE}
"""JPEG's markers of what stands beside the pixels: Exif, profiles, comments."""
ADOBE = 0xEE
"""That of them which tells how colours are meant."""
MARKER = re.compile(rb"\xff[\x02-\xcf\xda-\xfe]")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MISSING = 0.1
"""The part of a JPEG that may be missing at its end."""
FILLER = bytes(range(1, 255)) * 4
"""Bytes that stand for any pixels, and end none."""


def mend(data: bytes) -> Iterator[tuple[bytes, str]]:
    """Readings of a picture that cannot be decoded as it is, each with what is damaged.

    They go from what loses least. First without what stands beside the pixels: texts, profiles, and
    last Exif. Then a JPEG is ended where it breaks off, if it is nearly whole (see `nearly_whole`).
    Nothing is made of other formats.
    """
    if data.startswith(PNG_MAGIC):
        yield png_without_metadata(data), "what it holds beside the pixels cannot be read"
    if data.startswith(b"\xff\xd8"):
        with_exif, bare = (jpeg_without_metadata(data, exif) for exif in (True, False))
        for each in (with_exif, bare):
            yield each, "what it holds beside the pixels cannot be read"
        if nearly_whole(bare):
            for each in (data, with_exif, bare):
                yield each.rstrip(b"\xff") + END, "its end is missing"


def png_without_metadata(data: bytes) -> bytes:
    """A PNG's header, palette, transparency, pixels and Exif, of which a broken one is left out."""
    parts, at = [PNG_MAGIC], len(PNG_MAGIC)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        whole = zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big") == data[end - 4 : end]
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND") or (kind in (b"tRNS", b"eXIf") and whole):
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment of a JPEG; a scan's pixels are between two of them."""
    at = 2
    while (found := MARKER.search(data, at)) and found.end() + 2 <= len(data):
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        yield data[found.start() + 1], found.start(), at


def jpeg_without_metadata(data: bytes, exif: bool) -> bytes:
    """A JPEG without comments and application data before its pixels, but for Adobe's and Exif."""
    parts = [data[:2]]
    for marker, start, end in jpeg_segments(data):
        if marker == START_OF_SCAN:
            parts.append(data[start:])
            break
        is_exif = data[start + 4 : start + 10] == b"Exif\0\0"
        if marker not in APPLICATION or marker == ADOBE or (exif and is_exif):
            parts.append(data[start:end])
    return b"".join(parts)


def nearly_whole(data: bytes) -> bool:
    """Whether a JPEG that breaks off holds all but its last tenth.

    All its scans must have begun, and of the last one at most MISSING may lack: what is below the
    first pixel that changes with what is put at the end.
    """
    begun = data.rstrip(b"\xff")
    with suppress(Exception):  # Pillow raises whatever it stumbles on in a broken file.
        if all_scans_begun(data):
            changed = (quarter(begun + END) != quarter(begun + FILLER + END)).ravel()
            return not changed.any() or bool(changed.argmax() >= (1 - MISSING) * changed.size)
    return False


def quarter(data: bytes) -> NDArray[np.uint8]:
    """A JPEG at a quarter of its size, shape (height, width, ...)."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as file:
        width, height = file.size
        file.draft(None, (max(width // 4, 1), max(height // 4, 1)))
        return np.asarray(file)


def all_scans_begun(data: bytes) -> bool:
    """Whether the scans of a JPEG give each component all 64 coefficients to their last bit."""
    missing: dict[int, set[int]] = {}
    for marker, start, end in jpeg_segments(data):
        if marker in FRAMES:
            components = (data[start + 10 + 3 * number] for number in range(data[start + 9]))
            missing = {component: set(range(64)) for component in components}
        if marker == START_OF_SCAN:
            first, last, bits = data[end - 3 : end]
            for number in range(data[start + 4]):
                if bits & 15 == 0:
                    missing[data[start + 5 + 2 * number]] -= set(range(first, last + 1))
    return bool(missing) and not any(missing.values())
