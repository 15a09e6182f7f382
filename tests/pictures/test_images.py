import io
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.common.command_line import UserError
from stages.pictures.decoding import CROPS, FORMATS, Crop, decode
from stages.pictures.reading import decode_all, read_members
from stages.pictures.views import VIEWS, see, view_window
from tests.tiny_set import ROOT

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
Pixels = NDArray[np.uint8]


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


def tar_of(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


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


PEAK = """
import sys
from pathlib import Path
from stages.common.command_line import process_use
from stages.pictures.decoding import decode
decode(Path(sys.argv[1]).read_bytes(), 224, "center")
print(process_use()[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGBA", "I;16", "CMYK"])
def test_the_largest_pictures_fit_into_memory(tmp_path: Path, mode: str) -> None:
    """177 million pixels, of which a copy in RGB takes 0.7 GB: two such copies at once, at most."""
    image = Image.new(mode, (13_300, 13_300))
    image.save(tmp_path / "picture", "TIFF", compression="packbits")
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


def test_a_broken_exif_block_is_a_value_error_at_worst() -> None:
    data = bytearray(encoded(Image.new("RGB", (16, 16), BLUE), "JPEG", turned(6)))
    start = data.index(b"Exif")
    for end in range(7, 24):
        broken = data[: start + 6] + bytes([255] * (end - 6)) + data[start + end :]
        with suppress(ValueError):
            assert decode(bytes(broken), 8, "center").shape == (8, 8, 3)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_pictures_are_turned_as_their_exif_says(orientation: int, turns: int) -> None:
    """Orientation 6 is shown turned by 90 degrees clockwise, 8 anticlockwise, 3 upside down."""
    exif = turned(orientation)
    pixels = np.full((32, 32, 3), 255, np.uint8)
    pixels[:16, :16] = 0
    found = decode(encoded(Image.fromarray(pixels), "JPEG", exif), 32, "center").astype(int)
    assert np.abs(found - np.rot90(pixels, turns)).max() < 10


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

        def chunk(name: bytes, data: bytes) -> bytes:
            return (
                struct.pack(">I", len(data))
                + name
                + data
                + struct.pack(">I", zlib.crc32(name + data))
            )

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
from stages.survey import picture_size
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + 100_000_000
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for read in (lambda data: decode(data, 224, "center"), picture_size):
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


def test_what_a_picture_is_called_does_not_matter(tmp_path: Path) -> None:
    """A PNG of 16 bits, a progressive JPEG, a WebP: all as .jpg in an archive."""
    deep = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(stream, "JPEG", progressive=True)
    members = {
        "1.jpg": encoded(deep),
        "2.jpg": stream.getvalue(),
        "3.jpg": encoded(Image.new("L", (8, 8), 255), "WEBP"),
    }
    archive = tar_of(tmp_path / "set.tgz", [*members.items()])
    ((positions, images),) = decode_all(archive, [*members], 8, "center", batch_size=3)
    assert sorted(positions) == [0, 1, 2]
    assert images.min() >= 254


def test_a_picture_of_a_hundred_million_pixels_warns_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(plain(RED))
    code = (
        "import sys; from pathlib import Path; from stages.pictures.decoding import Image, decode;"
        "Image.MAX_IMAGE_PIXELS = 40; decode(Path(sys.argv[1]).read_bytes(), 8, 'center')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "red.png")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_members_come_with_their_positions_in_the_archives_order(tmp_path: Path) -> None:
    members = [("c", b"3"), ("other", b"4"), ("a", b"1"), ("b", b"2")]
    archive = tar_of(tmp_path / "set.tgz", members)
    assert list(read_members(archive, ["a", "b", "c"])) == [(2, b"3"), (0, b"1"), (1, b"2")]


def test_folders_and_repeated_members_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "set.tgz"
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in (("a", b"1"), ("a", b"2"), ("b", b"3")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert list(read_members(path, ["a", "b"])) == [(0, b"1"), (1, b"3")]


def test_missing_members_are_named_and_counted(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "set.tgz", [("jpg/2.jpg", b"")])
    with pytest.raises(UserError, match=r"set\.tgz lacks jpg/1\.jpg and 1 more"):
        list(read_members(archive, ["jpg/1.jpg", "jpg/2.jpg", "jpg/3.jpg"]))


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.98])
def test_a_truncated_archive_is_named(tmp_path: Path, share: float) -> None:
    rng = np.random.default_rng(0)
    members = [(f"{number}.jpg", rng.bytes(3000)) for number in range(5)]
    archive = tar_of(tmp_path / "set.tgz", members)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"set\.tgz .*download") as caught:
        list(read_members(archive, [name for name, _ in members]))
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    members = [(f"{number}.jpg", bytes(100_000)) for number in range(5)]
    archive = tar_of(tmp_path / "set.tgz", members)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = b"\xff" * 60
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"set\.tgz "):
        list(read_members(archive, [name for name, _ in members]))


@pytest.mark.parametrize("data", [b"", b"no archive", None])
def test_what_is_no_archive_is_named(tmp_path: Path, data: bytes | None) -> None:
    archive = tmp_path / "set.tgz"
    if data is not None:
        archive.write_bytes(data)
    with pytest.raises(UserError, match=r"set\.tgz cannot be read"):
        list(read_members(archive, ["a"]))


def test_nothing_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar_of(tmp_path / "set.tgz", [("jpg/a", b"1"), ("jpg/b", b"2")])
    monkeypatch.chdir(tmp_path)
    list(read_members(archive, ["jpg/b"]))
    assert [path.name for path in tmp_path.rglob("*")] == ["set.tgz"]


def test_images_come_in_batches_of_the_archives_order(tmp_path: Path) -> None:
    colours = [(number, 2 * number, 3 * number) for number in range(7)]
    order = [3, 6, 0, 2, 5, 1, 4]
    archive = tar_of(
        tmp_path / "set.tgz", [(f"{number}.png", plain(colours[number])) for number in order]
    )
    names = [f"{number}.png" for number in range(7)]
    batches = list(decode_all(archive, names, 8, "center", batch_size=3))
    assert [positions.tolist() for positions, _ in batches] == [order[:3], order[3:6], order[6:]]
    for positions, images in batches:
        assert images.shape == (len(positions), 8, 8, 3)
        for position, image in zip(positions, images, strict=True):
            assert (image == colours[position]).all()


def test_a_whole_number_of_batches_ends_without_an_empty_one(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "set.tgz", [(f"{number}", plain(RED)) for number in range(4)])
    batches = decode_all(archive, list("0123"), 8, "none", batch_size=2)
    assert [len(positions) for positions, _ in batches] == [2, 2]


def test_a_bad_picture_is_named_with_its_archive(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "set.tgz", [("1.png", plain(RED)), ("2.png", b"no picture")])
    with pytest.raises(UserError, match=r"2\.png in .*set\.tgz is not a readable picture"):
        list(decode_all(archive, ["1.png", "2.png"], 8, "center", batch_size=1))


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
