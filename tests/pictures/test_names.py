"""What is a picture by its name, what is hidden, and how what is left out is told."""

import os
from pathlib import Path

import pytest

from stages.pictures.names import (
    FOREIGN,
    PACKED,
    SUFFIXES,
    TARS,
    Kind,
    describe_left_out,
    kind_by_name,
    list_folder,
    printable,
)

HIDDEN = [
    "@eaDir", "@__thumb", ".thumbnails", "lost+found", "__MACOSX", "Thumbs.db", "$RECYCLE.BIN",
    "System Volume Information", ".DS_Store", "._1.jpg", "desktop.ini", "@Recycle", "#recycle",
    "#snapshot", "Icon\r",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "endings"),
    [
        (Kind.PICTURE, (*SUFFIXES, ".jfif", ".jpe", ".JPG")),
        (Kind.TAR, (*TARS, ".TGZ")),
        (Kind.PACKED, (*PACKED, ".zip", ".7z", ".RAR")),
        (Kind.FOREIGN, (*FOREIGN, ".heic", ".HEIF")),
        (Kind.OTHER, ("", ".txt", ".jpgx", ".csv", "jpg")),
    ],
)
def test_the_ending_says_what_a_file_is(kind: Kind, endings: tuple[str, ...]) -> None:
    assert {kind_by_name(f"a b/c{ending}") for ending in endings} == {kind}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_systems_put_there_is_hidden_as_a_file_and_as_a_folder(name: str) -> None:
    for path in (name, f"red/{name}", f"{name}/red/1.jpg", f"{name.upper()}/1.jpg"):
        assert kind_by_name(path) is Kind.HIDDEN


def test_what_only_resembles_it_is_not() -> None:
    for name in ("eaDir", "thumbs", "recycle bin", "lost", "snapshot"):
        assert kind_by_name(f"{name}/1.jpg") is Kind.PICTURE


def test_a_folder_is_listed_without_what_hidden_ones_hold(tmp_path: Path) -> None:
    for path in ("b/1.jpg", "b/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "a/notes", ".git/1.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert list_folder(tmp_path) == {
        ".git": Kind.HIDDEN, "a": Kind.FOLDER, "a/notes": Kind.OTHER,
        "b": Kind.FOLDER, "b/1.jpg": Kind.PICTURE, "b/@eaDir": Kind.HIDDEN,
    }  # fmt: skip


def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures would vanish; for root, which tests may run as, no folder is one."""
    (tmp_path / "red").mkdir()
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "red":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="red"):
        list_folder(tmp_path)


def test_what_is_left_out_is_counted_by_reason_and_named() -> None:
    reasons = {f"{number}.txt": "no picture" for number in range(7)} | {"a\n.\udcff": "hidden"}
    assert describe_left_out(reasons) == [
        "left out, hidden: 1: a�.�",
        "left out, no picture: 7: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ...",
    ]
    assert describe_left_out({}) == []


def test_names_that_cannot_be_printed_are_made_so() -> None:
    assert printable(Path("rösé/a b.png")) == "rösé/a b.png"
    assert printable(Path(os.fsdecode(b"\xff\x1b[2J\n.png"))) == "��[2J�.png"
