"""Pictures changed at random: each is decoded or a ValueError, and none crashes the process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stages.pictures.decoding import FORMATS
from tests.tiny_set import ROOT

pytestmark = pytest.mark.slow

CASES = 12_000
KINDS = [*FORMATS, "progressive", "CMYK", "turned", "grey 16 bits", "palette", "floats", "text"]
FUZZ = """
import sys
from pathlib import Path
import numpy as np
from stages.pictures.decoding import decode
from stages.survey import look_at
from tests.memory import peak_megabytes

whole = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
rng, counts = np.random.default_rng(0), [0, 0]
for case in range(int(sys.argv[2])):
    data = bytearray(whole[case % len(whole)])
    how = rng.integers(4)
    # Headers are short, and decide most.
    reach = len(data) if how < 2 else min(len(data), 200)
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(reach)] = rng.integers(256)
    if how == 0:
        del data[rng.integers(len(data)) :]
    if how == 1:
        start = rng.integers(len(data))
        del data[start : start + rng.integers(1, 50)]
    try:
        image = decode(bytes(data), 16, "center" if case % 2 else "none")
        assert image.shape == (16, 16, 3) and image.dtype == np.uint8
        readable = True
    except ValueError as error:
        assert str(error)
        readable = False
    try:
        look_at(bytes(data))
        assert readable, case
    except ValueError:
        assert not readable, case
    counts[not readable] += 1
print(*counts, round(peak_megabytes()))
"""


def write_pictures(folder: Path) -> None:
    """A small picture of each of KINDS, of noise, so that few bytes are alike."""
    pixels = np.random.default_rng(0).integers(256, size=(24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for kind in FORMATS:
        image.save(folder / kind, kind)
    image.save(folder / "progressive", "JPEG", progressive=True)
    image.convert("CMYK").save(folder / "CMYK", "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned", "JPEG", exif=exif)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "grey 16 bits", "PNG")
    Image.fromarray(pixels[..., 0].astype(np.float32) / 255).save(folder / "floats", "TIFF")
    text = PngInfo()
    text.add_text("Comment", "x" * 3_000_000, zip=True)
    image.save(folder / "text", "PNG", pnginfo=text)
    image.convert("P").save(folder / "palette", "PNG", transparency=3)
    assert sorted(path.name for path in folder.iterdir()) == sorted(KINDS)


def test_pictures_changed_at_random_are_read_or_refused(tmp_path: Path) -> None:
    """And the survey refuses those that the other stages refuse, and no other."""
    write_pictures(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ, str(tmp_path), str(CASES)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    read, refused, megabytes = map(int, done.stdout.split())
    assert read + refused == CASES
    assert min(read, refused) > CASES / 10
    assert megabytes < 2000
