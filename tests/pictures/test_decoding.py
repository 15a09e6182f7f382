import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.pictures.decoding import CROPS, FORMATS, Crop, decode, read_picture
from stages.pictures.views import VIEWS, see, view_window
from tests.tiny_set import ROOT

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
Pixels = NDArray[np.uint8]
Order = Literal["<", ">"]


def encoded(image: Image.Image, kind: str = "PNG", exif: Image.Exif | None = None) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **({} if exif is None else {"exif": exif}))
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def bands(*widths: int, height: int) -> Pixels:
    """Bands of red, green and blue from left to right."""
    colours = np.array([RED, GREEN, BLUE], np.uint8)
    return np.tile(np.repeat(colours, widths, axis=0), (height, 1, 1))


def plain(colour: tuple[int, int, int], size: int = 8) -> bytes:
    return encoded(Image.new("RGB", (size, size), colour))


def test_a_square_of_the_size_asked_for_is_left_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(9, 9, 3), dtype=np.uint8)
    for crop in CROPS:
        found = decode(encoded(Image.fromarray(pixels)), 9, crop)
        np.testing.assert_array_equal(found, pixels)
        assert found.dtype == np.uint8


def test_center_takes_the_largest_centred_square() -> None:
    pixels = bands(20, 40, 20, height=40)
    assert (decode(encoded(Image.fromarray(pixels)), 40, "center") == GREEN).all()
    upright = np.rot90(pixels, -1).copy()
    assert (decode(encoded(Image.fromarray(upright)), 40, "center") == GREEN).all()


def test_center_scales_what_it_takes() -> None:
    """Of 80 x 40 the square is columns 20 to 60; green begins at its middle, column 40."""
    pixels = bands(30, 10, 40, height=40)
    found = decode(encoded(Image.fromarray(pixels)), 20, "center")
    assert (found[:, :4] == RED).all()
    assert (found[:, 6:9] == GREEN).all()
    assert (found[:, 11:] == BLUE).all()


def test_center_of_an_odd_remainder_is_centred_on_half_pixels() -> None:
    """Of 3 x 2 the square is columns 0.5 to 2.5, so both columns are of two colours."""
    found = decode(encoded(Image.fromarray(bands(1, 1, 1, height=2))), 2, "center")
    mirrored = found[:, ::-1, ::-1]
    np.testing.assert_array_equal(found, mirrored)
    assert (found[:, 0, :2] > 0).all()


def test_none_squeezes_the_whole_picture() -> None:
    found = decode(encoded(Image.fromarray(bands(20, 40, 20, height=20))), 20, "none")
    assert found.shape == (20, 20, 3)
    assert (found[:, :4] == RED).all()
    assert (found[:, 6:14] == GREEN).all()
    assert (found[:, 16:] == BLUE).all()


def test_scaling_down_takes_in_every_pixel() -> None:
    """A fine chessboard becomes grey, where sampling alone would find black or white."""
    chessboard = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = np.repeat(chessboard[:, :, None], 3, axis=2).astype(np.uint8)
    found = decode(encoded(Image.fromarray(pixels)), 8, "center").astype(int)
    assert np.abs(found - 127.5).max() < 4


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    found = decode(encoded(Image.fromarray(grey)), 8, "center")
    np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))


def test_palette_becomes_its_colours() -> None:
    image = Image.fromarray(bands(3, 3, 2, height=8)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert image.mode == "P"
    np.testing.assert_array_equal(decode(encoded(image), 8, "center"), bands(3, 3, 2, height=8))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = decode(encoded(image, kind), 8, "center").astype(int)
    assert np.abs(found - RED).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_lies_on_white(kind: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 255, 0, 51))
    found = decode(encoded(image, kind), 8, "center").astype(int)
    # A fifth of green, four fifths of white.
    assert np.abs(found - (204, 255, 204)).max() <= 2


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.fromarray(bands(4, 4, 0, height=8)).convert("P", palette=Image.Palette.ADAPTIVE)
    red = image.getpixel((0, 0))
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=red)
    found = decode(stream.getvalue(), 8, "center")
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == GREEN).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    found = decode(encoded(Image.fromarray(grey), kind), 8, "center")
    wanted = (grey / 65535 * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(found, np.repeat(wanted[:, :, None], 3, axis=2))


def tiff(
    pixels: NDArray[Any], bits: Sequence[int], photometric: int,
    order: Order = "<", sample: int = 1, extra: Sequence[int] = (),
    more: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:  # fmt: skip
    """A TIFF as Pillow cannot write it, of `pixels` of shape (height, width, ...) as they are.

    `bits` are those of each channel, `sample` is 1 for integers, 2 for signed ones, 3 for floats.
    """
    height, width = pixels.shape[:2]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tags = [
        (256, 3, [width]), (257, 3, [height]), (258, 3, bits), (259, 3, [1]),
        (262, 3, [photometric]), (273, 4, [8]), (277, 3, [len(bits)]), (278, 3, [height]),
        (279, 4, [len(data)]), (339, 3, [sample] * len(bits)),
    ]  # fmt: skip
    tags += [(338, 3, extra)] if extra else []
    directory, far = b"", b""
    start = 8 + len(data)
    entries = sorted([*tags, *more])
    for tag, kind, values in entries:
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            place = start + 6 + 12 * len(entries) + len(far)
            packed, far = struct.pack(f"{order}I", place), far + packed
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return head + data + struct.pack(f"{order}H", len(entries)) + directory + bytes(4) + far


def ramp(high: float, kind: str) -> NDArray[Any]:
    """8 x 8 values from 0 to `high`."""
    return (np.arange(64).reshape(8, 8) * (high / 63)).astype(kind)


GREY_RAMP = (ramp(1, "f8") * 255).round()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("high", "kind", "bits", "sample"),
    [
        (65535, "u2", 16, 1),
        (4095, "u2", 16, 1),
        (1023, "u2", 16, 1),
        (255, "u2", 16, 1),
        (4095, "i2", 16, 2),
        (255, "i4", 32, 2),
        (65535, "i4", 32, 2),
        (1, "f4", 32, 3),
    ],
)
def test_deep_grey_is_scaled_to_what_is_white(
    high: int, kind: str, bits: int, sample: int, order: Order
) -> None:
    """Whole 16 bits, and the 8, 10 or 12 that cameras put into 16 or 32 as they are."""
    grey = ramp(high, kind)
    found = decode(tiff(grey, [bits], 1, order, sample), 8, "center")
    wanted = np.floor(grey * (255 / high) + 0.5)
    np.testing.assert_array_equal(found, np.repeat(wanted[:, :, None], 3, axis=2))
    assert np.abs(wanted - GREY_RAMP).max() <= 1


def test_deep_grey_of_a_png_is_scaled_to_what_is_white() -> None:
    found = decode(encoded(Image.fromarray(ramp(4095, "u2"))), 8, "center")[..., 0]
    assert np.abs(found - GREY_RAMP).max() <= 1


def test_twelve_bits_that_a_file_states_are_twelve_however_dark() -> None:
    packed = np.tile(np.array([0x01, 0x00, 0x10], np.uint8), (8, 4))  # 16, 16, 16, ...
    data = bytearray(tiff(packed, [12], 1))
    entry = data.index(struct.pack("<HHI", 256, 3, 1))
    data[entry + 8 : entry + 10] = struct.pack("<H", 8)  # Of 12 bytes a row.
    assert set(decode(bytes(data), 8, "center").ravel()) == {1}


@pytest.mark.parametrize("order", ["<", ">"])
def test_zero_is_white_where_a_deep_file_says_so(order: Order) -> None:
    """Of big-endian integers Pillow knows no such mode, so it says so."""
    floats = decode(tiff(ramp(1, "f4"), [32], 0, order, 3), 8, "center")[..., 0]
    assert np.abs(floats - GREY_RAMP[::-1, ::-1]).max() <= 1
    integers = tiff(ramp(65535, "u2"), [16], 0, order)
    if order == "<":
        found = decode(integers, 8, "center")[..., 0]
        assert np.abs(found - GREY_RAMP[::-1, ::-1]).max() <= 1
    else:
        with pytest.raises(ValueError, match=r"^a TIFF that is .* save it with 8 bits a channel$"):
            decode(integers, 8, "center")


@pytest.mark.parametrize(
    ("pixels", "bits", "sample"),
    [
        (ramp(65536, "i4"), 32, 2),
        (ramp(2**31 - 1, "i4"), 32, 2),
        (ramp(2**32 - 1, "u4"), 32, 1),
        (ramp(-9, "i4"), 32, 2),
        (ramp(-300, "i2"), 16, 2),
        (ramp(255, "f4"), 32, 3),
        (ramp(-1, "f4"), 32, 3),
        (np.where(ramp(1, "f4") > 0.5, np.nan, 0).astype("f4"), 32, 3),
        (np.full((8, 8), np.inf, "f4"), 32, 3),
        (ramp(1, "f8"), 64, 3),
    ],
)
def test_grey_of_which_nobody_knows_what_is_white_is_refused(
    pixels: NDArray[Any], bits: int, sample: int
) -> None:
    with pytest.raises(ValueError, match=r"save it with 8 bits a channel$"):
        decode(tiff(pixels, [bits], 1, sample=sample), 8, "center")


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_of_sixteen_bits_become_eight(order: Order) -> None:
    pixels = np.full((8, 8, 3), (65535, 32896, 257), np.uint16)
    found = decode(tiff(pixels, [16] * 3, 2, order), 8, "center")
    assert (found == (255, 128, 1)).all()


@pytest.mark.parametrize("high", [255, 4095])
def test_colours_of_twelve_bits_in_sixteen_are_refused(high: int) -> None:
    """Pillow gives their upper 8 bits alone, so that they can be no more than nearly black."""
    for pixels in (ramp(high, "u2"), np.full((8, 8), high, "u2")):
        data = tiff(np.repeat(pixels[:, :, None], 3, axis=2), [16] * 3, 2)
        with pytest.raises(ValueError, match=r"at most 12 are used; save it with 8 bits"):
            decode(data, 8, "center")


def test_a_black_shape_of_sixteen_bits_is_read() -> None:
    pixels = np.zeros((8, 8, 4), np.uint16)
    pixels[:, :4, 3] = 65535
    found = decode(tiff(pixels, [16] * 4, 2, extra=[2]), 8, "center")
    assert (found[:, :4] == 0).all()
    assert (found[:, 4:] == 255).all()


PALETTE = [0xFFFF, 0] * 128 + [0, 0xFFFF] * 128 + [0] * 256
"""TIFF's, of 16 bits: even values are red, odd ones green."""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("mode", "pixel", "bits", "photometric", "more", "extra", "colour"),
    [
        ("1", [0xFF], [1], 1, (), (), (255, 255, 255)),
        ("1", [0xFF], [1], 0, (), (), (0, 0, 0)),
        ("L", [200], [8], 1, (), (), (200, 200, 200)),
        ("L", [200], [8], 0, (), (), (55, 55, 55)),
        ("LA", [100, 51], [8] * 2, 1, (), [2], (224, 224, 224)),
        ("P", [2], [8], 3, [(320, 3, PALETTE)], (), RED),
        ("PA", [3, 255], [8] * 2, 3, [(320, 3, PALETTE)], [2], GREEN),
        ("PA", [3, 0], [8] * 2, 3, [(320, 3, PALETTE)], [2], (255, 255, 255)),
        ("RGB", [1, 2, 3], [8] * 3, 2, (), (), (1, 2, 3)),
        ("RGB", [1, 2, 3, 0], [8] * 4, 2, (), [0], (1, 2, 3)),
        ("RGBA", [0, 255, 0, 51], [8] * 4, 2, (), [2], (204, 255, 204)),
        ("RGBA", [0, 51, 0, 51], [8] * 4, 2, (), [1], (204, 255, 204)),
        ("CMYK", [0, 255, 255, 0], [8] * 4, 5, (), (), RED),
        ("LAB", [136, 80, 67], [8] * 3, 8, (), (), RED),
    ],
)
def test_each_mode_of_tiff_has_its_colours(
    mode: str, pixel: Sequence[int], bits: Sequence[int], photometric: int,
    more: Sequence[tuple[int, int, Sequence[int]]], extra: Sequence[int],
    colour: tuple[int, int, int], order: Order,
) -> None:  # fmt: skip
    width = 1 if bits == [1] else 8
    pixels = np.tile(np.array(pixel, np.uint8), (8, width, 1))
    data = bytearray(tiff(pixels, bits, photometric, order, extra=extra, more=more))
    if bits == [1]:
        entry = data.index(struct.pack(f"{order}HHI", 256, 3, 1))
        data[entry + 8 : entry + 10] = struct.pack(f"{order}H", 8)
    with Image.open(io.BytesIO(data)) as file:
        assert file.mode == mode
    found = decode(bytes(data), 8, "center").astype(int)
    assert np.abs(found - colour).max() <= (12 if mode == "LAB" else 1)


@pytest.mark.parametrize("mode", ["YCbCr", "RGB"])
def test_ycbcr_in_tiff_has_its_colours(mode: str) -> None:
    stream = io.BytesIO()
    image = Image.new("RGB", (16, 16), RED).convert(mode)
    image.save(stream, "TIFF", compression="jpeg", quality=95)
    assert np.abs(decode(stream.getvalue(), 8, "center").astype(int) - RED).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_black_and_white_of_one_bit_stay_so(kind: str) -> None:
    image = Image.fromarray(np.tile(np.repeat([0, 255], 4).astype(np.uint8), (8, 1))).convert("1")
    data = encoded(image if kind != "WEBP" else image.convert("RGB"), kind)
    found = decode(data, 8, "center")
    assert (found[:, :4] == 0).all()
    assert (found[:, 4:] == 255).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(line: bytes, width: int, bits: int, colours: int, *chunks: bytes) -> bytes:
    """A PNG of one line, with `chunks` before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colours, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + line))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("line", "bits", "colours", "transparent", "shown"),
    [
        (b"\x80", 1, 0, [1], [255, 0]),
        (b"\x60", 2, 0, [1], [255, 170]),
        (b"\x1f", 4, 0, [1], [255, 255]),
        (b"\x12", 4, 0, [1], [255, 34]),
        (b"\x07\x09", 8, 0, [7], [255, 9]),
        (struct.pack(">HH", 1000, 30000), 16, 0, [1000], [255, 117]),
        (bytes([7, 7, 7, 9, 9, 9]), 8, 2, [7, 7, 7], [255, 9]),
        (struct.pack(">6H", *[1000] * 3, *[30000] * 3), 16, 2, [1000] * 3, [255, 117]),
    ],
)
def test_the_transparent_colour_of_a_png_is_white(
    line: bytes, bits: int, colours: int, transparent: Sequence[int], shown: Sequence[int]
) -> None:
    entry = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    image = read_picture(png(line, 2, bits, colours, entry), 2).image
    assert np.asarray(image)[0, :, 0].tolist() == shown


PEAK = """
import sys
from pathlib import Path
from tests.memory import peak_megabytes
from stages.pictures.decoding import decode
decode(Path(sys.argv[1]).read_bytes(), 224, "center")
print(peak_megabytes())
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGBA", "I;16", "I", "F", "CMYK"])
def test_the_largest_pictures_fit_into_memory(tmp_path: Path, mode: str) -> None:
    """177 million pixels, of which a copy in RGB takes 0.7 GB: two such copies at once, at most."""
    image = Image.new(mode, (13_300, 13_300))
    image.save(tmp_path / "picture", "TIFF", compression="packbits")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "picture")]
    assert float(subprocess.check_output(command, cwd=ROOT, text=True)) < 2000


@pytest.mark.slow
def test_the_largest_damaged_pictures_fit_into_memory(tmp_path: Path) -> None:
    """The pixels are read twice, as the text that cannot be read is behind them."""
    data = encoded(Image.new("RGBA", (13_300, 13_300)))
    (tmp_path / "picture").write_bytes(data[:-12] + chunk(b"zTXt", b"a\0\0" + HUGE) + data[-12:])
    command = [sys.executable, "-c", PEAK, str(tmp_path / "picture")]
    assert float(subprocess.check_output(command, cwd=ROOT, text=True)) < 2000


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind: str) -> None:
    found = decode(encoded(Image.new("RGB", (16, 16), BLUE), kind), 8, "center").astype(int)
    assert np.abs(found - BLUE).max() <= 5


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM"])
def test_no_other_format_is_opened(kind: str) -> None:
    """PostScript least of all, which Pillow hands to another program."""
    with pytest.raises(ValueError, match=r"^not a picture in JPEG, PNG, WEBP, "):
        decode(encoded(Image.new("RGB", (16, 16)), kind), 8, "center")


BESIDE = "what it holds beside the pixels cannot be read"
BROKEN_EXIF = "its Exif data cannot be read"
HUGE = zlib.compress(b"x" * 3_000_000)


@pytest.mark.parametrize(
    ("entry", "damage"),
    [
        (chunk(b"zTXt", b"Comment\0\0" + HUGE), BESIDE),
        (chunk(b"iTXt", b"Comment\0\1\0\0\0" + HUGE), BESIDE),
        (chunk(b"iCCP", b"profile\0\0" + HUGE), BESIDE),
        (chunk(b"zTXt", b"Comment\0\x07abc"), BESIDE),
        (chunk(b"pHYs", b"x"), BESIDE),
        (chunk(b"acTL", b""), BESIDE),
        (chunk(b"tEXt", b"Comment\0abc")[:-1] + b"x", BESIDE),
        (chunk(b"eXIf", b""), BROKEN_EXIF),
        (chunk(b"eXIf", b"no Exif"), BROKEN_EXIF),
        (chunk(b"eXIf", turned(6).tobytes()[6:20]), BROKEN_EXIF),
        (chunk(b"eXIf", turned(6).tobytes()[6:])[:-1] + b"x", BESIDE),
        (chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000), ""),
    ],
)
def test_damage_beside_the_pixels_of_a_png_is_passed_over(entry: bytes, damage: str) -> None:
    data = png(bytes(range(6)), 2, 8, 2, entry)
    with warnings.catch_warnings(action="ignore"):
        image, width, height, found = read_picture(data, 2)
    assert (image.tobytes(), width, height, found) == (bytes(range(6)), 2, 1, damage)


def test_more_text_than_pillow_reads_is_passed_over() -> None:
    entry = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1_000_000))
    image, *_, damage = read_picture(png(bytes(range(6)), 2, 8, 2, *[entry] * 68), 2)
    assert (image.tobytes(), damage) == (bytes(range(6)), BESIDE)


def test_a_png_whose_texts_are_passed_over_is_turned_and_transparent_as_it_says() -> None:
    entries = [
        chunk(b"eXIf", turned(6).tobytes()[6:]),
        chunk(b"tRNS", struct.pack(">H", 7)),
        chunk(b"zTXt", b"Comment\0\0" + HUGE),
    ]
    image, width, height, damage = read_picture(png(b"\x07\x09", 2, 8, 0, *entries), 2)
    assert np.asarray(image)[:, 0, 0].tolist() == [255, 9]
    assert (width, height, damage) == (1, 2, BESIDE)


def with_segment(marker: int, data: bytes, image: bytes) -> bytes:
    """A JPEG with a segment more at its beginning."""
    return image[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data + image[2:]


@pytest.mark.parametrize(
    ("marker", "data", "damage"),
    [
        (0xE1, b"Exif\0\0", BROKEN_EXIF),
        (0xE1, b"Exif\0\0no Exif", BROKEN_EXIF),
        (0xE1, turned(6).tobytes()[:20], BROKEN_EXIF),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04", BESIDE),
        (0xE0, b"JFIF", BESIDE),
        (0xFE, b"a comment", ""),
    ],
)
def test_damage_beside_the_pixels_of_a_jpeg_is_passed_over(
    marker: int, data: bytes, damage: str
) -> None:
    whole = encoded(Image.fromarray(smooth(40, 60)), "JPEG")
    with warnings.catch_warnings(action="ignore"):
        image, width, height, found = read_picture(with_segment(marker, data, whole), 60)
    assert (width, height, found) == (60, 40, damage)
    assert image.tobytes() == read_picture(whole, 60).image.tobytes()


def test_a_jpeg_whose_comments_are_passed_over_is_turned_as_it_says() -> None:
    whole = encoded(Image.fromarray(smooth(40, 60)), "JPEG", turned(6))
    image, width, height, damage = read_picture(
        with_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04", whole), 60
    )
    assert (width, height, damage) == (40, 60, BESIDE)
    assert image.tobytes() == read_picture(whole, 60).image.tobytes()


def test_broken_exif_of_any_kind_leaves_a_picture_as_it_is() -> None:
    data = bytearray(encoded(Image.new("RGB", (16, 16), BLUE), "JPEG", turned(6)))
    start = data.index(b"Exif")
    with warnings.catch_warnings(action="ignore"):
        for end in range(7, 24):
            broken = data[: start + 6] + bytes([255] * (end - 6)) + data[start + end :]
            image, *_, damage = read_picture(bytes(broken), 8)
            assert image.size == (16, 16)
            assert damage == BROKEN_EXIF or end > 18  # From there it is the orientation's entry.
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), BLUE).save(stream, "WEBP", exif=b"Exif\0\0no Exif")
    assert read_picture(stream.getvalue(), 8)[1:] == (16, 16, BROKEN_EXIF)


JPEGS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"subsampling": 0},
    {"restart_marker_blocks": 1},
    {"quality": 95, "progressive": True, "subsampling": 0},
]


@pytest.mark.parametrize("how", JPEGS)
@pytest.mark.parametrize("grey", [False, True])
def test_a_jpeg_that_lacks_its_last_bytes_is_damaged(how: dict[str, Any], grey: bool) -> None:
    """At every size, and what is there of it is as in the whole one."""
    pixels = smooth(400, 600)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(stream, "JPEG", **how)
    data = stream.getvalue()
    for size in (1, 60, 400):
        whole = np.asarray(read_picture(data, size).image)
        for lost in (1, 2, 3, 4, 20, len(data) // 100):
            image, width, height, damage = read_picture(data[:-lost], size)
            assert (width, height, damage) == (600, 400, "its end is missing")
            above = whole.shape[0] * 9 // 10 - 2
            np.testing.assert_array_equal(np.asarray(image)[:above], whole[:above])
            if lost < 3:
                np.testing.assert_array_equal(np.asarray(image), whole)


@pytest.mark.parametrize("how", JPEGS)
def test_a_jpeg_of_which_half_is_missing_is_refused_at_every_size(how: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).normal(0, 20, (400, 600, 3))
    stream = io.BytesIO()
    image = Image.fromarray((smooth(400, 600) + noise).clip(0, 255).astype(np.uint8))
    image.save(stream, "JPEG", **how)
    data = stream.getvalue()
    for part in (0.5, 0.3, 0.1, 0.01):
        for size in (1, 60, 400):
            with pytest.raises(ValueError, match=r"truncated|not a picture"):
                read_picture(data[: int(part * len(data))], size)


def test_a_jpeg_has_one_verdict_at_every_size() -> None:
    """Wherever it breaks off; the survey reads it at an eighth, the other stages at their size."""
    image = Image.fromarray(smooth(60, 90))
    for how in JPEGS:
        stream = io.BytesIO()
        image.save(stream, "JPEG", **how)
        data = stream.getvalue()
        for length in range(0, len(data), 7):
            verdicts = set()
            for size in (1, 7, 60):
                try:
                    verdicts.add(read_picture(data[:length], size).damage)
                except ValueError:
                    verdicts.add("unreadable")
            assert len(verdicts) == 1, (how, length)


def test_a_jpeg_with_damage_of_two_kinds_is_read() -> None:
    data = encoded(Image.fromarray(smooth(40, 60)), "JPEG")[:-2]
    found = read_picture(with_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04", data), 40)
    assert (found.width, found.height, found.damage) == (60, 40, "its end is missing")


ORIENTED = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: np.rot90(shown, -1),
    7: lambda shown: shown.swapaxes(0, 1)[::-1, ::-1],
    8: lambda shown: np.rot90(shown, 1),
}
"""What EXIF says of each orientation: 6 is shown turned by 90 degrees clockwise."""


@pytest.mark.parametrize("kind", ORIENTED)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_as_their_exif_says(kind: str, orientation: int) -> None:
    pixels = np.full((48, 32, 3), 255, np.uint8)
    pixels[:16, :16] = 0
    pixels[16:32, :16] = 128
    data = encoded(Image.fromarray(pixels), kind, turned(orientation))
    wanted = UPRIGHT[orientation](pixels)
    for size in (1, 32):
        picture = read_picture(data, size)
        assert (picture.height, picture.width, picture.damage) == (*wanted.shape[:2], "")
    found = np.asarray(picture.image).astype(int)
    assert np.abs(found - wanted).mean() < 10


def test_cropping_follows_turning() -> None:
    exif = turned(6)
    data = encoded(Image.fromarray(bands(40, 80, 40, height=80)), "JPEG", exif)
    found = decode(data, 16, "center").astype(int)
    assert np.abs(found[2:-2] - GREEN).max() < 10
    squeezed = decode(data, 16, "none").astype(int)
    assert np.abs(squeezed[:3] - RED).max() < 10
    assert np.abs(squeezed[-3:] - BLUE).max() < 10


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1)])
def test_the_smallest_pictures_are_scaled_up(crop: Crop, shape: tuple[int, int]) -> None:
    found = decode(encoded(Image.new("RGB", shape, BLUE)), 16, crop)
    assert found.shape == (16, 16, 3)
    assert (found == BLUE).all()


def smooth(height: int, width: int) -> Pixels:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 90 + phase) * np.cos(y / 70) for phase in (0, 1, 2)]
    return (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("crop", CROPS)
def test_a_huge_jpeg_is_decoded_at_a_reduced_scale_that_hardly_shows(
    crop: Crop, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(smooth(896, 1296))
    reduced = decode(encoded(image, "JPEG"), 100, crop)
    # Pictures in PNG have no reduced scale.
    whole = decode(encoded(image), 100, crop)
    assert np.abs(reduced.astype(int) - whole).max() < 4

    sizes = []
    resize = Image.Image.resize

    def noting(self: Image.Image, *how: Any, **more: Any) -> Image.Image:
        sizes.append(self.size)
        return resize(self, *how, **more)

    monkeypatch.setattr(Image.Image, "resize", noting)
    decode(encoded(image, "JPEG"), 100, crop)
    assert sizes == [(324, 224)]
    assert min(sizes[0]) >= 2 * 100


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_truncated_picture_is_a_value_error(kind: str) -> None:
    noise = np.random.default_rng(0).integers(256, size=(50, 50, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for length in (0, 10, len(data) // 2):
        with pytest.raises(ValueError, match=r"."):
            decode(data[:length], 16, "center")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xe0", b"BM" * 99])
def test_what_is_no_picture_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data, 16, "center")


def test_a_decompression_bomb_is_a_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match="decompression bomb"):
        decode(plain(RED), 8, "center")


def bomb(kind: str) -> bytes:
    """A small file of a picture of 30,000 x 30,000 pixels."""
    side = 30_000
    if kind == "PNG":
        lines = zlib.compress(bytes(side // 8 + 1) * side)
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        parts = [chunk(b"IHDR", header), chunk(b"IDAT", lines), chunk(b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    data = bytearray(encoded(Image.new("RGB", (64, 64), BLUE), kind))
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    elif kind == "BMP":
        data[18:26] = struct.pack("<II", side, side)
    else:
        data[6:10] = struct.pack("<HH", side, side)
    return bytes(data)


DECODE_WITHIN = """
import resource, sys
from pathlib import Path
from stages.pictures.decoding import decode
from stages.survey import look_at
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + 100_000_000
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for read in (lambda data: decode(data, 224, "center"), look_at):
    try:
        read(Path(sys.argv[1]).read_bytes())
    except ValueError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux's /proc")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_a_picture_of_30_000_by_30_000_pixels_is_refused_unseen(tmp_path: Path, kind: str) -> None:
    """In 100 MB, where it would take 2,700."""
    (tmp_path / "bomb").write_bytes(bomb(kind))
    assert (tmp_path / "bomb").stat().st_size < 200_000
    done = subprocess.run(
        [sys.executable, "-c", DECODE_WITHIN, str(tmp_path / "bomb")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == second
    assert "Image size (900000000 pixels) exceeds limit" in first


@pytest.mark.parametrize(
    "data", [plain(RED), png(bytes(range(6)), 2, 8, 2, chunk(b"eXIf", turned(6).tobytes()[6:20]))]
)
def test_large_and_damaged_pictures_warn_of_nothing(tmp_path: Path, data: bytes) -> None:
    """Large is what has more than half of the pixels that Pillow allows."""
    (tmp_path / "picture").write_bytes(data)
    code = (
        "from pathlib import Path; from stages.pictures.decoding import Image, decode;"
        "from stages.common.command_line import run; Image.MAX_IMAGE_PIXELS = 40;"
        "run(lambda words: decode(Path(words[0]).read_bytes(), 8, 'center'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "picture")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def gradient(side: int = 8) -> Pixels:
    """Two pictures whose red channel tells the column and green the row."""
    picture = np.zeros((2, side, side, 3), np.uint8)
    picture[..., 0] = 10 * np.arange(side)
    picture[..., 1] = 10 * np.arange(side)[:, np.newaxis]
    picture[1, ..., 2] = 200
    return picture


def test_plain_and_mirror_show_all_of_a_picture() -> None:
    images = gradient()
    np.testing.assert_array_equal(see(images, "plain"), images)
    np.testing.assert_array_equal(see(images, "mirror"), images[:, :, ::-1])


@pytest.mark.parametrize(
    ("view", "rows", "columns"),
    [
        ("zoom", (1, 7), (1, 7)),
        ("top_left", (0, 6), (0, 6)),
        ("top_right", (0, 6), (2, 8)),
        ("bottom_left", (2, 8), (0, 6)),
        ("bottom_right", (2, 8), (2, 8)),
    ],
)
def test_zoomed_views_show_three_quarters(
    view: str, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    images = gradient()
    top, left, side = view_window(view, 8)
    assert ((top, top + side), (left, left + side)) == (rows, columns)
    seen = see(images, view)
    assert seen.shape == images.shape
    assert (seen[0, 0, 0, 0], seen[0, 0, 0, 1]) == (10 * columns[0], 10 * rows[0])
    assert (seen[0, -1, -1, 0], seen[0, -1, -1, 1]) == (10 * columns[1] - 10, 10 * rows[1] - 10)
    assert (seen[1, ..., 2] == 200).all()
    np.testing.assert_array_equal(see(images, f"{view}_mirror"), seen[:, :, ::-1])


def test_there_are_twelve_views() -> None:
    assert len(VIEWS) == 12
    assert VIEWS[:3] == ("plain", "mirror", "zoom")
