"""Tars are read forwards to their end, and whatever they hold memory stays small."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.pictures import tars
from stages.pictures.tars import BLOCK, LARGEST_PICTURE, read_forwards

BODIES = {"a.jpg": b"one" * 999, "b/c.txt": b"", "b/d.jpg": bytes(range(256)) * 8}
HUGE = 100_000_000_000


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def whole() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, body in BODIES.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return stream.getvalue()


def read_all(path: Path) -> dict[str, bytes]:
    return {member.info.name: member.read() for member in read_forwards(path)}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_every_kind_is_read_by_what_it_begins_with(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "any.tar"
    path.write_bytes(pack(whole()))
    assert read_all(path) == BODIES
    assert [member.info.name for member in read_forwards(path)] == [*BODIES]


def test_a_member_larger_than_a_block_is_read_whole(tmp_path: Path) -> None:
    path, body = tmp_path / "a.tar", bytes(range(256)) * (3 * BLOCK // 256 + 1)
    path.write_bytes(header("a", size=len(body)) + body + bytes(-len(body) % 512 + 1024))
    assert read_all(path) == {"a": body}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("at", [3, 512, 700, 4096, 5000, 6656])
def test_one_that_is_cut_off_is_an_error_wherever(
    tmp_path: Path, at: int, pack: Callable[[bytes], bytes]
) -> None:
    """Also between members, where tarfile sees an end."""
    path, packed = tmp_path / "any.tar", pack(whole())
    path.write_bytes(packed[: len(packed) * at // 10240])
    with pytest.raises(ValueError, match=r"\w"):
        read_all(path)


def test_a_broken_header_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """tarfile takes it for the end, and the members behind it would be lost."""
    data = bytearray(whole())
    data[data.index(b"b/c.txt")] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ValueError, match="it is broken or cut off at byte"):
        read_all(tmp_path / "a.tar")


def test_a_second_tar_behind_the_end_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(whole() + whole())
    with pytest.raises(ValueError, match="there is more behind its end"):
        read_all(tmp_path / "a.tar")


BOMBS: dict[str, tuple[bytes, str]] = {
    "a huge picture": (header("a.jpg", size=HUGE), "'a.jpg' in it has 100000000000 bytes"),
    "a huge name": (header("a", tarfile.GNUTYPE_LONGNAME, HUGE), "it has a header of 1000"),
    "a huge header": (header("a", tarfile.XHDTYPE, HUGE), "it has a header of 1000"),
    "headers about headers": (header("a", tarfile.XHDTYPE) * 5000, "recursion"),
    "zeros": (bytes(1024), "it unpacks to more than"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_an_error_in_little_memory(tmp_path: Path, bomb: str) -> None:
    start, words = BOMBS[bomb]
    zeros = bz2.compress(bytes(LARGEST_PICTURE))
    path = tmp_path / "a.tar.bz2"
    path.write_bytes(bz2.compress(start) + zeros * 3)
    assert path.stat().st_size < 10_000
    tracemalloc.start()
    with pytest.raises(ValueError, match=words):
        read_all(path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_file_of_holes_is_passed_over_at_once(tmp_path: Path) -> None:
    """A terabyte of it in a member, and behind the end."""
    path = tmp_path / "a.tar"
    path.write_bytes(header("film", size=1 << 40))
    with path.open("r+b") as file:
        file.truncate((1 << 40) + 512 + 1024)
    assert [member.info.name for member in read_forwards(path)] == ["film"]
    with path.open("r+b") as file:
        file.write(bytes(512))
    with pytest.raises(ValueError, match="it unpacks to more than 100 MB"):
        list(read_forwards(path))


def test_memory_does_not_grow_with_the_number_of_members(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(header("a") * 100_000 + bytes(1024)))
    tracemalloc.start()
    assert sum(1 for _ in read_forwards(path)) == 100_000
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_it_may_unpack_to_so_much_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MOST_UNPACKED", (10_240, 0))
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(whole()))
    assert read_all(path) == BODIES
    monkeypatch.setattr(tars, "MOST_UNPACKED", (1000, 2))
    with pytest.raises(ValueError, match="it unpacks to more than"):
        read_all(path)
