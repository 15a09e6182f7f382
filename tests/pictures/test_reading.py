"""Reading the pictures of a set by its table, out of archives, and decoding them ahead of use."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.command_line import UserError
from stages.pictures.reading import decode_all, read_members, read_tar
from stages.pictures.table import PictureTable, write_table
from tests.pictures.test_decoding import RED, encoded, plain
from tests.tiny_set import write_tar


def set_of(root: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """The table of a set of one class, whose pictures are in an archive in this order."""
    folder = root / "data/raw/some"
    folder.mkdir(parents=True)
    write_tar(folder / "some.tgz", dict(members))
    names, contents = zip(*members, strict=True)
    digests = [hashlib.sha256(data).hexdigest() for data in contents]
    archives = ["data/raw/some/some.tgz"] * len(names)
    table = PictureTable(names, np.zeros(len(names), np.int64), ["any"], digests, archives)
    write_table(folder / "pictures.csv", table)
    return folder / "pictures.csv"


def test_members_come_with_their_positions_in_the_archives_order(tmp_path: Path) -> None:
    members = [("c", b"3"), ("other", b"4"), ("a", b"1"), ("b", b"2")]
    archive = tmp_path / "set.tgz"
    write_tar(archive, dict(members))
    assert list(read_tar(archive, ["a", "b", "c"])) == [(2, b"3"), (0, b"1"), (1, b"2")]


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
    assert list(read_tar(path, ["a", "b"])) == [(0, b"1"), (1, b"3")]


def test_missing_members_are_named_and_counted(tmp_path: Path) -> None:
    archive = tmp_path / "set.tgz"
    write_tar(archive, {"jpg/2.jpg": b""})
    with pytest.raises(UserError, match=r"set\.tgz lacks jpg/1\.jpg and 1 more"):
        list(read_tar(archive, ["jpg/1.jpg", "jpg/2.jpg", "jpg/3.jpg"]))


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.98])
def test_a_truncated_archive_is_named(tmp_path: Path, share: float) -> None:
    rng = np.random.default_rng(0)
    members = [(f"{number}.jpg", rng.bytes(3000)) for number in range(5)]
    archive = tmp_path / "set.tgz"
    write_tar(archive, dict(members))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"set\.tgz .*download") as caught:
        list(read_tar(archive, [name for name, _ in members]))
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    members = [(f"{number}.jpg", bytes(100_000)) for number in range(5)]
    archive = tmp_path / "set.tgz"
    write_tar(archive, dict(members))
    data = bytearray(archive.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = b"\xff" * 60
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"set\.tgz "):
        list(read_tar(archive, [name for name, _ in members]))


@pytest.mark.parametrize("data", [b"", b"no archive", None])
def test_what_is_no_archive_is_named(tmp_path: Path, data: bytes | None) -> None:
    archive = tmp_path / "set.tgz"
    if data is not None:
        archive.write_bytes(data)
    with pytest.raises(UserError, match=r"set\.tgz cannot be read"):
        list(read_tar(archive, ["a"]))


def test_nothing_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "set.tgz"
    write_tar(archive, {"jpg/a": b"1", "jpg/b": b"2"})
    monkeypatch.chdir(tmp_path)
    list(read_tar(archive, ["jpg/b"]))
    assert [path.name for path in tmp_path.rglob("*")] == ["set.tgz"]


def test_images_come_in_batches_of_the_archives_order(tmp_path: Path) -> None:
    colours = [(number, 2 * number, 3 * number) for number in range(7)]
    order = [3, 6, 0, 2, 5, 1, 4]
    table = set_of(tmp_path, [(f"{number}.png", plain(colours[number])) for number in order])
    names = [f"{number}.png" for number in range(7)]
    batches = list(decode_all(table, names, 8, "center", batch_size=3))
    assert [positions.tolist() for positions, _ in batches] == [order[:3], order[3:6], order[6:]]
    for positions, images in batches:
        assert images.shape == (len(positions), 8, 8, 3)
        for position, image in zip(positions, images, strict=True):
            assert (image == colours[position]).all()


def test_a_whole_number_of_batches_ends_without_an_empty_one(tmp_path: Path) -> None:
    table = set_of(tmp_path, [(f"{number}", plain(RED)) for number in range(4)])
    batches = decode_all(table, list("0123"), 8, "none", batch_size=2)
    assert [len(positions) for positions, _ in batches] == [2, 2]


def test_a_bad_picture_is_named_with_its_archive(tmp_path: Path) -> None:
    table = set_of(tmp_path, [("1.png", plain(RED)), ("2.png", b"no picture")])
    with pytest.raises(UserError, match=r"2\.png in .*some\.tgz is not a readable picture"):
        list(decode_all(table, ["1.png", "2.png"], 8, "center", batch_size=1))


def test_members_of_a_table_come_in_the_archives_order_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = set_of(tmp_path, [("jpg/c", b"3"), ("jpg/a", b"1"), ("jpg/b", b"2")])
    monkeypatch.chdir(tmp_path / "data")
    for path in (table, Path("raw/some/pictures.csv")):
        assert list(read_members(path, ["jpg/b", "jpg/c"])) == [(1, b"3"), (0, b"2")]


def test_a_member_that_changed_since_is_named_with_what_helps(tmp_path: Path) -> None:
    table = set_of(tmp_path, [("a.jpg", b"1"), ("b.jpg", b"2")])
    write_tar(table.with_name("some.tgz"), {"a.jpg": b"1", "b.jpg": b"3"})
    with pytest.raises(
        UserError,
        match=r"^b\.jpg in data/raw/some/some\.tgz has changed since it was listed; "
        r"run `dvc repro --force --single-item collect@some`, then `dvc repro`$",
    ):
        list(read_members(table, ["a.jpg", "b.jpg"]))


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
    table = set_of(tmp_path, [*members.items()])
    ((positions, images),) = decode_all(table, [*members], 8, "center", batch_size=3)
    assert sorted(positions) == [0, 1, 2]
    assert images.min() >= 254
