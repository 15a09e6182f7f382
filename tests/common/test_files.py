import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.files import (
    digest,
    read_csv,
    read_json,
    replacing,
    sha256,
    write_csv,
    write_json,
)
from tests.tiny_set import ROOT


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "table.csv"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".csv"
        assert not path.exists()
    assert path.read_text() == "new"
    assert entries(path.parent) == ["table.csv"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        assert entries(path) == ["old"]
    assert entries(path) == ["new"]
    assert entries(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["file"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "half").touch()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert entries(path) == ["old"]
    assert entries(tmp_path) == ["folder"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_run_left_is_cleared(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result"
    with replacing(path) as temporary:
        temporary.write_text("")
    path.unlink()
    if kind == "file":
        temporary.write_text("half")
    else:
        temporary.mkdir()
        (temporary / "half").touch()
    with replacing(path) as temporary:
        assert not temporary.exists()
        temporary.write_text("new")
    assert entries(tmp_path) == ["result"]


def test_an_error_of_writing_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "weights.h5"
    with pytest.raises(OSError, match="No space left on device") as caught, replacing(path):
        # HDF5 puts several lines there.
        raise OSError(errno.ENOSPC, "Unable to write\n(file write failed: time = now\n)")
    assert str(caught.value) == f"[Errno {errno.ENOSPC}] No space left on device: '{path}'"
    assert entries(path.parent) == []


def test_an_error_that_names_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "table.csv"):
        (tmp_path / "missing").read_text()
    assert caught.value.filename == str(tmp_path / "missing")


RESERVING = """
import resource, sys
from pathlib import Path
from numpy.lib.format import open_memmap
from stages.common.files import reserve
path = Path(sys.argv[1])
array = open_memmap(path, mode="w+", dtype="uint8", shape=(1_000_000,))
reserve(path)
array[:] = 1
array.flush()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reserves by posix_fallocate")
def test_room_for_a_mapped_file_is_reserved(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RESERVING, str(tmp_path / "a.npy")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, check=True)
    status = (tmp_path / "a.npy").stat()
    assert status.st_blocks * 512 >= status.st_size


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_a_link_is_replaced_and_its_target_left(tmp_path: Path) -> None:
    """DVC may link an output into its cache, which must not be written through."""
    cached, path = tmp_path / "cached", tmp_path / "file"
    cached.write_text("cached")
    path.symlink_to(cached)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert cached.read_text() == "cached"


def test_json_keeps_order_and_letters(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    value = {"b": 1.5, "a": ["coltsfoot", "Blüte"], "c": None}
    write_json(path, value)
    wanted = '{\n  "b": 1.5,\n  "a": [\n    "coltsfoot",\n    "Blüte"\n  ],\n  "c": null\n}\n'
    assert path.read_bytes() == wanted.encode()
    assert read_json(path) == value


def test_csv_quotes_where_it_must_and_ends_lines_in_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    write_csv(path, ["name", "count"], [["colt's foot", 1], ['a "b", c', 2], ["Blüte", ""]])
    wanted = 'name,count\ncolt\'s foot,1\n"a ""b"", c",2\nBlüte,\n'
    assert path.read_bytes() == wanted.encode()
    assert read_csv(path)[1] == {"name": 'a "b", c', "count": "2"}
    assert read_csv(path)[2]["count"] == ""


@pytest.mark.parametrize("break_", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_csv_keeps_breaks_of_lines_in_names(break_: str, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    write_csv(path, ["name", "count"], [[f"a{break_}b", 1], [break_, 2]])
    assert read_csv(path) == [
        {"name": f"a{break_}b", "count": "1"},
        {"name": break_, "count": "2"},
    ]


def test_a_table_without_rows_keeps_its_header(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    write_csv(path, ["name", "count"], [])
    assert path.read_bytes() == b"name,count\n"
    assert read_csv(path) == []


def test_digests_are_hashlibs(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert digest(path, "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digests_cover_more_than_one_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = b"12345" * 500_000
    path.write_bytes(data)
    assert sha256(path) == hashlib.sha256(data).hexdigest()
