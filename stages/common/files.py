"""Reading and writing of small files, so that a final name always holds a whole file."""

import csv
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from numpy.typing import NDArray


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well.

    Works for a file and for a folder. When the block raises, the temporary is removed and `path`
    is left as it was. The temporary's name is fixed, so a killed run's leftover is cleared by the
    next one. The suffix stays, as some libraries choose a format by it. An error of writing, such
    as a full disk, is made to name `path`.
    """
    temporary = path.with_name(f".partial-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)
        temporary.replace(path)
    except BaseException as error:
        _remove(temporary)
        # Opening a file names it, writing into one does not; HDF5's texts have several lines.
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or where the disk has no hard links a copy of it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    return digest(path, "sha256")


def digest(path: Path, algorithm: str) -> str:
    """Digest of a file's bytes by a `hashlib` algorithm, in hexadecimal, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with keys in the order given."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """The value that a JSON file holds."""
    return json.loads(path.read_text("utf-8"))


class _LinesOfCsv:
    """Takes rows that end in CR LF and writes them to `file` with a newline alone."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")


def csv_writer(file: TextIO) -> Any:
    """A `csv.writer` whose lines end in a newline alone, and all of whose fields can be read back.

    Told to end lines so by itself, it would leave a carriage return in a field without quotes,
    where a reader takes it for the end of the line.
    """
    return csv.writer(_LinesOfCsv(file))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with a header line; lines end in a newline alone, on every system."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv_writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def read_csv(path: Path) -> list[Mapping[str, str]]:
    """The rows of a table with a header line, every value as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def reserve(path: Path) -> None:
    """Have the disk set aside the room for a whole file whose end has been set but not written.

    Raises OSError when there is none; without this a write through a mapping of the file would
    meet the full disk, which kills the process. Does nothing where the system cannot (macOS).
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def release(array: NDArray[Any]) -> None:
    """Let go of the pages of an array that is mapped from a file; others are left alone.

    They stay in the system's cache and come back when they are looked at, but no longer count as
    memory of this process, which would grow with the file.
    """
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
