import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.pictures.tars import BLOCK
from stages.sources.archives import check_archive
from tests.sources.toy_set import ARCHIVE, NAMES, make_archive, member_of, toy_picture
from tests.tiny_set import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "toy.tgz"


def failure(path: Path, archive: bytes) -> str:
    """The error for an archive of those bytes."""
    path.write_bytes(archive)
    with pytest.raises(UserError) as caught:
        check_archive(path, NAMES)
    text = str(caught.value)
    assert "\n" not in text
    assert "toy.tgz" in text
    assert "put the whole archive in its place" in text
    return text


def test_digests_are_in_the_order_of_the_names(path: Path) -> None:
    path.write_bytes(ARCHIVE)
    digests = [hashlib.sha256(toy_picture(number)).hexdigest() for number in range(3)]
    assert check_archive(path, NAMES) == digests
    assert check_archive(path, NAMES[::-1]) == digests[::-1]


def test_an_archive_that_lacks_images(path: Path) -> None:
    text = failure(path, make_archive(NAMES[:1]))
    assert "lacks 2 of 3 images, first jpg/image_0002.jpg" in text


def test_an_archive_with_an_image_twice(path: Path) -> None:
    text = failure(path, make_archive([*NAMES, NAMES[1]]))
    assert "holds more than once 1 of 3 images, first jpg/image_0002.jpg" in text


def test_an_image_that_is_a_link(path: Path) -> None:
    buffer = io.BytesIO(make_archive(NAMES[:2]))
    with tarfile.open(fileobj=buffer) as whole:
        members = [(each, whole.extractfile(each)) for each in whole]
        linked = io.BytesIO()
        with tarfile.open(fileobj=linked, mode="w:gz") as archive:
            for member, body in members:
                archive.addfile(member, body)
            archive.addfile(member_of(NAMES[2], tarfile.SYMTYPE, to=NAMES[0]))
    text = failure(path, linked.getvalue())
    assert "lacks 1 of 3 images, first jpg/image_0003.jpg" in text


@pytest.mark.parametrize("lost", [1, 8, 100, 9_000, len(ARCHIVE) - 5, len(ARCHIVE)])
def test_a_truncated_archive(path: Path, lost: int) -> None:
    assert "is no whole archive" in failure(path, ARCHIVE[:-lost])


def test_an_archive_with_a_flipped_byte(path: Path) -> None:
    plain = bytearray(gzip.decompress(ARCHIVE))
    stored = bytearray(gzip.compress(bytes(plain), compresslevel=0))
    stored[1000] ^= 1
    assert "is no whole archive" in failure(path, bytes(stored))


def test_something_that_is_no_archive(path: Path) -> None:
    assert "is no whole archive" in failure(path, b"<!DOCTYPE html>")
    assert "is no whole archive" in failure(path, gzip.compress(b"no tar" * 999))


def test_an_archive_with_garbage_after_it(path: Path) -> None:
    garbage = gzip.compress(b"")[:10] + b"\xff" * 100
    assert "is no whole archive" in failure(path, ARCHIVE + garbage)


def tar_bytes(*members: tarfile.TarInfo, body: bytes = b"") -> bytes:
    """The headers of members, each followed by `body`, without a tar's end."""
    return b"".join(member.tobuf(tarfile.GNU_FORMAT) + body for member in members)


def repeated(block: bytes, times: int) -> bytes:
    """Gzip of a block over and over: members of gzip, put together, unpack to all of them."""
    return gzip.compress(block) * times


ZEROS = bytes(100_000_000)
HUGE = 100 * len(ZEROS)
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "an image of ten gigabytes": (
        lambda: gzip.compress(tar_bytes(member_of(NAMES[0], size=HUGE))) + repeated(ZEROS, 100),
        "has 10000000000 bytes, a picture at most 100000000",
    ),
    "another file of ten gigabytes": (
        lambda: gzip.compress(tar_bytes(member_of("extra", size=HUGE))) + repeated(ZEROS, 100),
        "it unpacks to more than",
    ),
    "zeros alone": (lambda: repeated(ZEROS, 100), "it unpacks to more than"),
    "zeros after the end": (lambda: ARCHIVE + repeated(ZEROS, 100), "it unpacks to more than"),
    "a name of ten gigabytes": (
        lambda: (
            gzip.compress(tar_bytes(member_of("x", tarfile.GNUTYPE_LONGNAME, HUGE)))
            + repeated(ZEROS, 100)
        ),
        "it has a header of 10000000",
    ),
    "a header of ten gigabytes": (
        lambda: (
            gzip.compress(tar_bytes(member_of("x", tarfile.XHDTYPE, HUGE))) + repeated(ZEROS, 100)
        ),
        "it has a header of 10000000",
    ),
    "a sparse image of four terabytes": (
        lambda: gzip.compress(sparse(NAMES[0], 4 << 40) + bytes(1024)),
        "has 4398046511104 bytes, a picture at most 100000000",
    ),
    "a million members": (
        lambda: repeated(tar_bytes(*[member_of("extra")] * 10_000), 100),
        "holds more than 1030 members for 3 images",
    ),
    "a million images": (
        lambda: repeated(tar_bytes(*[member_of(NAMES[0])] * 10_000), 100),
        "holds more than 1030 members for 3 images",
    ),
}
CHECK_WITHIN = """
import resource, sys
from pathlib import Path
from stages.common.command_line import UserError
from stages.pictures.tars import BLOCK
from stages.sources.archives import check_archive
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    check_archive(Path(sys.argv[1]), sys.argv[3:])
except UserError as error:
    print(error)
"""


def sparse(name: str, size: int) -> bytes:
    """The header of a file without data that unpacks to `size` zeros, as GNU tar writes it."""
    info = member_of(name, tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux's /proc")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_one_line_soon_and_in_little_memory(tmp_path: Path, bomb: str) -> None:
    """In 50 MB above what the process had when its modules were loaded."""
    make, words = BOMBS[bomb]
    path = tmp_path / "toy.tgz"
    path.write_bytes(make())
    assert path.stat().st_size < 11_000_000
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CHECK_WITHIN, str(path), "50000000", *NAMES],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert time.monotonic() - started < 30
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert "toy.tgz" in line
    assert words in line
    assert "put the whole archive in its place" in line


def test_an_archive_without_images(path: Path) -> None:
    text = failure(path, make_archive(["jpg/files.txt", "README"]))
    assert "lacks 3 of 3 images, first jpg/image_0001.jpg" in text


@pytest.mark.parametrize(
    "headers", [{"GNU.sparse.size": "x"}, {"size": "-9"}, {"path": ""}, {"hdrcharset": "BINARY"}]
)
def test_senseless_headers_are_one_line_or_passed_over(path: Path, headers: dict[str, str]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        odd = member_of("extra")
        odd.pax_headers = headers
        archive.addfile(odd)
    assert "toy.tgz" in failure(path, buffer.getvalue())


def changed_at_random(rng: np.random.Generator, case: int) -> bytes:
    """The archive with up to eight other bytes: of the gzip, or near the headers of the tar.

    The headers' sums are right, so that their other fields are looked at.
    """
    changed = bytearray(ARCHIVE if case % 4 == 0 else gzip.decompress(ARCHIVE))
    starts = [at for at in range(0, len(changed), 512) if changed[at : at + 4] == b"jpg/"]
    for _ in range(rng.integers(1, 9)):
        anywhere, near = rng.integers(len(changed)), rng.integers(512)
        changed[rng.choice(starts) + near if case % 4 else anywhere] = rng.integers(256)
    if case % 4 == 0:
        return bytes(changed)
    for start in starts:
        changed[start + 148 : start + 156] = b" " * 8
        total = sum(changed[start : start + 512])
        changed[start + 148 : start + 156] = f"{total:06o}\0 ".encode()
    return gzip.compress(changed, 1)


def test_an_archive_changed_at_random_is_whole_or_one_line(tmp_path: Path) -> None:
    rng, path, lines = np.random.default_rng(0), tmp_path / "toy.tgz", []
    for case in range(1000):
        path.write_bytes(changed_at_random(rng, case))
        try:
            check_archive(path, NAMES)
        except UserError as error:
            lines.append(str(error))
    assert 300 < len(lines) < 1000
    assert all("\n" not in line and "toy.tgz" in line for line in lines)


def write_pictures(path: Path, size: int, format_: int) -> None:
    """Write the toy set as a .tgz whose pictures have `size` bytes each."""
    with tarfile.open(path, "w:gz", format=format_) as archive:
        for number, name in enumerate(NAMES):
            archive.addfile(member_of(name, size=size), io.BytesIO(bytes([number]) * size))


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, BLOCK - 512, BLOCK, BLOCK + 512])
def test_pictures_of_any_size_are_read_whole(path: Path, size: int, format_: int) -> None:
    """Of a multiple of 512 bytes too: tarfile then goes back by one byte before it goes on."""
    write_pictures(path, size, format_)
    digests = [hashlib.sha256(bytes([number]) * size).hexdigest() for number in range(3)]
    assert check_archive(path, NAMES) == digests


@pytest.mark.parametrize("size", [512, 1024])
def test_an_archive_that_ends_in_a_picture_of_whole_blocks_is_no_whole_one(
    path: Path, size: int
) -> None:
    write_pictures(path, size, tarfile.GNU_FORMAT)
    whole = gzip.decompress(path.read_bytes())
    cut = 512 + size - 1
    assert "is no whole archive" in failure(path, gzip.compress(whole[:cut]))
