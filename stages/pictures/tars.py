"""Reading tars forwards, compressed or not, within bounds: whatever they hold, nothing else grows.

Used for archives that are downloaded and for those in a folder of one's own.
"""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

MOST_UNPACKED = (100_000_000, 20)
"""What a tar may unpack to: so many bytes, and so many times its own size.

Pictures are compressed already, and tar's padding shrinks tenfold at most; gzip can do a
thousandfold. A member takes 512 bytes at least, so this bounds their number too."""
LARGEST_PICTURE = 100_000_000
"""In bytes. Pictures are read whole, a batch of them at a time."""
BLOCK = 1 << 20
"""Bytes that are read of a tar at a time."""


class Bounded:
    """What a tar unpacks to, read forwards: at most so many bytes, and few of them at a time.

    The next one is an OSError. tarfile reads a member's name in one go, whatever size it declares.
    """

    def __init__(self, unpacked: IO[bytes], most: int) -> None:
        self.unpacked, self.most, self.last = unpacked, most, b""

    def tell(self) -> int:
        """How many bytes have been read or passed over."""
        return self.unpacked.tell()

    def seek(self, position: int) -> None:
        """Pass over what is before a position, or before the end."""
        if position < self.tell():
            raise OSError("a header of it leads back")
        self.check(position)
        self.unpacked.seek(position)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end; they are `last` then."""
        if size > BLOCK:
            raise OSError(f"it has a header of {size} bytes")
        self.last = self.unpacked.read(size)
        self.check(self.tell())
        return self.last

    def check(self, position: int) -> None:
        """Raise OSError for a position that is out of bounds."""
        if position > self.most:
            raise OSError(f"it unpacks to more than {self.most / 1e6:.0f} MB")


class TarMember(NamedTuple):
    """A member of a tar; it can be read until the next one is asked for."""

    info: tarfile.TarInfo
    tar: tarfile.TarFile

    def read(self) -> bytes:
        """The bytes of a regular file. Raises ValueError for one larger than LARGEST_PICTURE."""
        if self.info.size > LARGEST_PICTURE:
            raise ValueError(
                f"{self.info.name!r} in it has {self.info.size} bytes, a picture at most "
                f"{LARGEST_PICTURE}"
            )
        file = self.tar.extractfile(self.info)
        assert file is not None, "only regular files are read"
        try:
            return b"".join(iter(lambda: file.read(BLOCK), b""))
        except FAULTS as error:
            raise ValueError(str(error)) from None


FAULTS = (
    OSError, EOFError, ValueError, RecursionError, zlib.error, lzma.LZMAError, tarfile.TarError,
)  # fmt: skip
"""What broken and hostile tars raise; headers that are about headers nest without end."""


def read_forwards(path: Path) -> Iterator[TarMember]:
    """The members of a tar, or of one in gzip, bzip2 or xz, in its order, up to its very end.

    Memory does not grow with it. Raises ValueError that says why where it is broken, lacks its end
    or has more behind it, or unpacks to more than MOST_UNPACKED.
    """
    try:
        most = MOST_UNPACKED[0] + MOST_UNPACKED[1] * path.stat().st_size
        with open_unpacked(path) as unpacked:
            stream = Bounded(unpacked, most)
            with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
                while (info := tar.next()) is not None:
                    tar.members.clear()
                    yield TarMember(info, tar)
                check_end(stream)
    except FAULTS as error:
        raise ValueError(str(error)) from None


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file by what it begins with, to read what it unpacks to."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)  # type: ignore[return-value]
    if start.startswith(b"BZh"):
        return bz2.open(path)
    if start.startswith((b"\xfd7zXZ", b"\x5d\x00\x00\x80")):
        return lzma.open(path)
    return path.open("rb")


def check_end(stream: Bounded) -> None:
    """Raise OSError unless the last block is a tar's end, with nothing but zeros behind it.

    tarfile takes a header that is broken or cut off for the end, and members behind are lost.
    """
    if not stream.last or stream.last.strip(b"\0"):
        raise OSError(f"it is broken or cut off at byte {stream.tell()}")
    stream.most = min(stream.most, stream.tell() + MOST_UNPACKED[0])
    while block := stream.read(BLOCK):
        if block.strip(b"\0"):
            raise OSError("there is more behind its end, such as a second tar")
