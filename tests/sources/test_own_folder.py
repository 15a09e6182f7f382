"""What a folder of one's own pictures holds: nothing is opened that hangs, nothing lost unsaid."""

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.collect import collect
from stages.common.command_line import UserError
from stages.pictures.names import Kind
from stages.pictures.reading import read_files, read_tar
from stages.sources.own_folder import list_pictures

CLASSES = ("red/1.jpg", "red/2.jpg", "white/1.jpg", "white/2.jpg")


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def fill(folder: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(number))
    return folder


@pytest.fixture
def roses(tmp_path: Path) -> Path:
    """A set of two classes of two pictures."""
    return fill(tmp_path / "roses", *CLASSES)


def write_tar(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> None:
    """A tar of files, and of members that are given as they are to be."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, tarfile.TarInfo):
                info.name = name
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def member(kind: bytes, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, to
    return info


PICTURES: dict[str, bytes | tarfile.TarInfo] = {
    path: picture(number) for number, path in enumerate(CLASSES)
}


def failure(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        collect(folder)
    assert len(str(caught.value).splitlines()) == 1
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("to", ["red", ".", "..", "/dev", "yellow"])
def test_a_link_to_a_folder_is_refused_wherever_it_leads(roses: Path, to: str) -> None:
    (roses / "yellow").symlink_to(to)
    words = "lead nowhere; mend" if to == "yellow" else "to folders, which are not followed; move"
    assert f"{roses / 'yellow'} would be left out: links" in failure(roses)
    assert words in failure(roses)


def test_a_table_of_labels_reaches_no_further(roses: Path) -> None:
    (roses / "labels.csv").write_text("path,label\nred/1.jpg,a\nred/2.jpg,a\nwhite/1.jpg,b\n")
    (roses / "yellow").symlink_to("red")
    assert "yellow would be left out: links to folders" in failure(roses)


def test_links_to_files_are_read(roses: Path) -> None:
    (roses / "red/3.jpg").symlink_to("../white/1.jpg")
    (roses / "red/4.jpg").symlink_to("3.jpg")
    rows, _ = collect(roses)
    digests = {row[0]: row[3] for row in rows}
    assert digests["red/4.jpg"] == digests["red/3.jpg"] == digests["white/1.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_left_out_and_never_opened(roses: Path) -> None:
    os.mkfifo(roses / "red/pipe.jpg")
    os.mkfifo(roses / "more.tar")
    (roses / "red/zero.png").symlink_to("/dev/zero")
    (roses / "red/again.png").symlink_to("pipe.jpg")
    rows, left_out = collect(roses)
    assert len(rows) == 4
    names = {"more.tar", "red/pipe.jpg", "red/zero.png", "red/again.png"}
    assert left_out == dict.fromkeys(names, Kind.SPECIAL.value)
    (roses / "labels.csv").symlink_to("more.tar")
    assert "labels.csv is no file that can be read" in failure(roses)


def test_a_picture_of_a_terabyte_of_holes_is_refused_unread(roses: Path) -> None:
    with (roses / "red/3.jpg").open("wb") as file:
        file.truncate(1 << 40)
    assert "red/3.jpg would be left out: pictures of more than 100 MB" in failure(roses)


def test_one_that_has_grown_since_is_read_no_further_than_the_bound(roses: Path) -> None:
    with (roses / "red/1.jpg").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match=r"red/1\.jpg: it has more than 100 MB; take it away"):
        list(read_files(roses, ["red/1.jpg"]))


@pytest.mark.parametrize("name", ["films.avi", "labels.csv", "more.tar"])
def test_other_files_of_holes_are_not_read_either(roses: Path, name: str) -> None:
    with (roses / name).open("wb") as file:
        file.truncate(1 << 40)
    if name == "films.avi":
        assert collect(roses)[1] == {name: "no pictures by their names"}
    else:
        assert f"{name} " in failure(roses)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("more.zip", "archives, which are not looked into; unpack them"),
        ("red/more.7z", "unpack them"),
        ("more.RAR", "unpack them"),
        ("red/3.heic", "convert them by `mogrify -format jpg FILES`"),
        ("red/3.CR2", "convert them"),
    ],
)
def test_what_holds_pictures_or_is_one_and_is_not_read_is_refused(
    roses: Path, name: str, words: str
) -> None:
    (roses / name).write_bytes(b"x")
    assert f"{roses / name} would be left out: " in failure(roses)
    assert words in failure(roses)
    (roses / name).unlink()
    write_tar(roses / "more.tar", {name: b"x"})
    assert words in failure(roses)


def test_their_number_is_told(roses: Path) -> None:
    for number in range(3, 6):
        (roses / f"red/{number}.heic").touch()
    assert "red/3.heic (and 2 more) would be left out: pictures of a kind" in failure(roses)


def test_what_has_been_converted_may_stay(roses: Path) -> None:
    (roses / "red/1.HEIC").touch()
    rows, left_out = collect(roses)
    assert (len(rows), list(left_out)) == (4, ["red/1.HEIC"])


def test_with_a_table_what_it_does_not_list_is_left_out_and_told(roses: Path) -> None:
    table = "path,label\nred/1.jpg,a\nred/2.jpg,a\nwhite/1.jpg,b\nwhite/2.jpg,b\n"
    (roses / "labels.csv").write_text(table)
    fill(roses, "3.png")
    for name in ("more.zip", "3.heic"):
        (roses / name).touch()
    rows, left_out = collect(roses)
    assert len(rows) == 4
    assert left_out == {
        "3.png": "not in labels.csv", "3.heic": Kind.FOREIGN.value, "more.zip": Kind.PACKED.value,
    }  # fmt: skip
    (roses / "labels.csv").write_text(table + "3.heic,b\n")
    assert "labels.csv, line 6: '3.heic' is left out: pictures of a kind that" in failure(roses)


def test_jfif_and_jpe_are_pictures(tmp_path: Path) -> None:
    paths = ("a/1.jfif", "a/2.JPE", "b/1.jpe", "b/2.jfif")
    assert [row[0] for row in collect(fill(tmp_path / "roses", *paths))[0]] == [*paths]


def test_what_systems_put_there_is_no_class_and_no_picture(roses: Path) -> None:
    before, _ = collect(roses)
    fill(roses, "@eaDir/a/1.jpg", "red/@eaDir/1.jpg/THUMB_M.jpg", "lost+found/1.jpg", "Thumbs.db",
         "$RECYCLE.BIN/x/1.jpg", "System Volume Information/1.png")  # fmt: skip
    write_tar(roses / "more.tar", {"__MACOSX/red/._1.jpg": b"x", "@__thumb/1.jpg": b"x"})
    rows, left_out = collect(roses)
    assert rows == before
    assert set(left_out.values()) == {"hidden"}
    assert {"@eaDir", "lost+found", "Thumbs.db", "@__thumb/1.jpg"} <= set(left_out)


def test_where_there_is_no_picture_what_there_is_is_told(tmp_path: Path) -> None:
    fill(tmp_path / "roses", "a/1.ppm", "b/1.ppm")
    words = "holds no picture; put them there, a folder a class (left out, no pictures by their nam"
    assert words in failure(tmp_path / "roses")


def test_what_a_tar_holds_besides_pictures_is_counted_by_reason(tmp_path: Path) -> None:
    (tmp_path / "roses").mkdir()
    others: dict[str, bytes | tarfile.TarInfo] = {
        "LICENSE": b"x", "red/notes.txt": b"x", "red/pipe.jpg": member(tarfile.FIFOTYPE),
        "red/disk.png": member(tarfile.BLKTYPE), "red/more.txt": member(tarfile.LNKTYPE, "LICENSE"),
        "attributes/names.txt": b"x",
    }  # fmt: skip
    members = {f"set/images/{path}": data for path, data in PICTURES.items()}
    members |= {f"set/{path}": data for path, data in others.items()}
    write_tar(tmp_path / "roses/all.tar", members)
    rows, left_out = collect(tmp_path / "roses")
    assert {row[1] for row in rows} == {"red", "white"}
    assert left_out == {
        "set/LICENSE": Kind.OTHER.value, "set/red/notes.txt": Kind.OTHER.value,
        "set/red/pipe.jpg": Kind.SPECIAL.value, "set/red/disk.png": Kind.SPECIAL.value,
        "set/red/more.txt": Kind.OTHER.value, "set/attributes/names.txt": Kind.OTHER.value,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("red/3.jpg", member(tarfile.LNKTYPE, "red/1.jpg"), "is a link; pack it anew by `tar --de"),
        ("red/3.jpg", member(tarfile.SYMTYPE, "1.jpg"), "is a link; pack it anew by `tar --deref"),
        ("yellow", member(tarfile.SYMTYPE, "red"), "yellow in "),
        ("/red/3.jpg", b"x", "/red/3.jpg in "),
        ("../red/3.jpg", b"x", "leads out of it; pack it anew by `tar -cf FILE -C FOLDER .`"),
        ("red/../../3.jpg", b"x", "leads out of it"),
        ("yellow/1.txt", b"x", "yellow, of a tar, holds no picture"),
        ("yellow", member(tarfile.DIRTYPE), "yellow, of a tar, holds no picture"),
        ("labels.csv", b"path,label\n", "roses/labels.csv is not read as a table of labels; put"),
        ("sub/Labels.CSV", b"path,label\n", "sub/Labels.CSV is not read as"),
        ("more.tar", b"x", "tars, which are not looked into here; unpack them"),
    ],
)
def test_what_would_be_lost_from_a_tar_is_refused(
    tmp_path: Path, name: str, data: bytes | tarfile.TarInfo, words: str
) -> None:
    (tmp_path / "roses").mkdir()
    write_tar(tmp_path / "roses/all.tar", PICTURES | {name: data})
    assert words in failure(tmp_path / "roses")


def test_a_classs_folder_without_pictures_in_a_part_of_a_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "roses").mkdir()
    members = {f"{part}/{path}": data for path, data in PICTURES.items() for part in ("train", "v")}
    members = {path.replace("v/", "val/"): data for path, data in members.items()}
    for lost in ("val/yellow/1.txt", "test/red/1.txt"):
        write_tar(tmp_path / "roses/all.tar", members | {lost: b"x"})
        assert f"{Path(lost).parts[0]}" in failure(tmp_path / "roses")
        assert "of a tar, holds no picture" in failure(tmp_path / "roses")


def test_a_table_beside_a_tar_labels_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "roses").mkdir()
    write_tar(tmp_path / "roses/all.tar", PICTURES | {"labels.csv": b"another"})
    labels = "path,label\nred/1.jpg,a\nred/2.jpg,a\nwhite/1.jpg,b\nwhite/2.jpg,b\n"
    (tmp_path / "roses/labels.csv").write_text(labels)
    rows, _ = collect(tmp_path / "roses")
    assert [row[1] for row in rows] == ["a", "a", "b", "b"]


def test_a_table_further_down_is_refused(roses: Path) -> None:
    (roses / "red/labels.csv").write_text("path,label\n")
    assert (
        f"red/labels.csv is not read as a table of labels; put it into {roses / 'labels.csv'}"
        in failure(roses)
    )


def test_a_tar_that_declares_a_huge_picture_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "roses").mkdir()
    info = tarfile.TarInfo("red/1.jpg")
    info.size = 100_000_000_000
    (tmp_path / "roses/all.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    assert "red/1.jpg in" in failure(tmp_path / "roses")
    assert "has 100000000000 bytes, a picture at most 100000000" in failure(tmp_path / "roses")


def test_what_is_listed_of_a_tar_can_be_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "all.tar", {f"./{path}": data for path, data in PICTURES.items()})
    found = list_pictures(tmp_path).pictures
    assert dict(read_tar(tmp_path / "all.tar", [*found])) == dict(enumerate(PICTURES.values()))
