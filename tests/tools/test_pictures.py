import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.pictures import find_pictures, printable, read_picture, read_pictures

COLOURS = {"a.png": (200, 0, 0), "b.png": (0, 200, 0), "c.png": (0, 0, 200), "d.png": (9, 9, 9)}


def fill(folder: Path) -> None:
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 10), colour).save(folder / name)


def test_folders_are_searched_to_the_bottom_in_the_order_of_names(tmp_path: Path) -> None:
    names = ["b/2.JPG", "b/10.png", "a.webp", ".hidden.png", ".cache/1.png", "b/notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_pictures([tmp_path])
    assert found == [tmp_path / name for name in ("a.webp", "b/10.png", "b/2.JPG")]


def test_what_is_named_is_taken_as_it_is(tmp_path: Path) -> None:
    """Hidden or without an ending, and files that are missing too, which reading then reports."""
    (tmp_path / ".inside").mkdir()
    (tmp_path / ".inside/a.png").touch()
    named = [tmp_path / "z", tmp_path / ".inside", tmp_path / ".inside/.b"]
    assert find_pictures(named) == [named[0], tmp_path / ".inside/a.png", named[2]]
    assert find_pictures([]) == []


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_a_folder_that_holds_itself_is_searched_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "again").symlink_to(tmp_path)
    assert find_pictures([tmp_path]) == [tmp_path / "a.png"]


def test_pictures_come_in_batches_and_broken_ones_are_reported(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "bb.png").write_bytes(b"no picture")
    paths = [tmp_path / name for name in ("a.png", "bb.png", "b.png", "none.png", "c.png", "d.png")]
    failures = []
    batches = list(
        read_pictures(paths, 8, "center", 2, lambda path, error: failures.append((path, error)))
    )
    assert [[path.name for path in batch] for batch, _ in batches] == [
        ["a.png"], ["b.png"], ["c.png", "d.png"],
    ]  # fmt: skip
    for batch, images in batches:
        assert images.shape == (len(batch), 8, 8, 3)
        assert images.dtype == np.uint8
        for path, image in zip(batch, images, strict=True):
            assert (image == COLOURS[path.name]).all()
    assert [path.name for path, _ in failures] == ["bb.png", "none.png"]
    assert str(failures[0][1]).startswith("not a picture in JPEG")
    assert str(failures[1][1]) == "No such file or directory"


def test_a_folder_in_place_of_a_file_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Is a directory"):
        read_picture(tmp_path, 8, "none")


def test_names_that_cannot_be_printed_are_made_so() -> None:
    assert printable(Path("rösé/a b.png")) == "rösé/a b.png"
    assert printable(Path(os.fsdecode(b"\xff\x1b[2J\n.png"))) == "��[2J�.png"
