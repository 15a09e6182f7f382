import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.pictures.names import Kind
from tools.pictures import find_pictures, read_picture, read_pictures

COLOURS = {"a.png": (200, 0, 0), "b.png": (0, 200, 0), "c.png": (0, 0, 200), "d.png": (9, 9, 9)}


def fill(folder: Path) -> None:
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 10), colour).save(folder / name)


def test_folders_are_searched_to_the_bottom_in_the_order_of_names(tmp_path: Path) -> None:
    names = ["b/2.JPG", "b/10.png", "a.webp", ".hidden.png", ".cache/1.png", "b/notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, left_out = find_pictures([tmp_path])
    assert left_out == {
        str(tmp_path / ".cache"): "hidden", str(tmp_path / ".hidden.png"): "hidden",
        str(tmp_path / "b/notes.txt"): "no pictures by their names",
    }  # fmt: skip
    assert found == [tmp_path / name for name in ("a.webp", "b/10.png", "b/2.JPG")]


def test_what_is_named_is_taken_as_it_is(tmp_path: Path) -> None:
    """Hidden or without an ending, and files that are missing too, which reading then reports."""
    (tmp_path / ".inside").mkdir()
    (tmp_path / ".inside/a.png").touch()
    named = [tmp_path / "z", tmp_path / ".inside", tmp_path / ".inside/.b"]
    assert find_pictures(named) == ([named[0], tmp_path / ".inside/a.png", named[2]], {})
    assert find_pictures([]) == ([], {})


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_a_folder_that_holds_itself_is_searched_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "again").symlink_to(tmp_path)
    left_out = {str(tmp_path / "again"): Kind.LINK.value}
    assert find_pictures([tmp_path]) == ([tmp_path / "a.png"], left_out)


def test_pictures_come_in_batches_and_broken_ones_are_reported(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "bb.png").write_bytes(b"no picture")
    paths = [tmp_path / name for name in ("a.png", "bb.png", "b.png", "none.png", "c.png", "d.png")]
    batches = list(read_pictures(paths, 8, "center", 4))
    assert [len(batch) for batch in batches] == [4, 2]
    found = dict(each for batch in batches for each in batch)
    assert list(found) == paths
    for name, colour in COLOURS.items():
        image = found[tmp_path / name]
        assert isinstance(image, np.ndarray)
        assert image.shape == (8, 8, 3)
        assert image.dtype == np.uint8
        assert (image == colour).all()
    assert str(found[tmp_path / "bb.png"]).startswith("not a picture in JPEG")
    assert str(found[tmp_path / "none.png"]) == "No such file or directory"


def test_a_folder_in_place_of_a_file_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Is a directory"):
        read_picture(tmp_path, 8, "none")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_only_what_is_read_to_its_end_is_opened(tmp_path: Path) -> None:
    """A pipe that nobody writes to would never return; a broken picture is for reading to tell."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with (tmp_path / "holes.png").open("wb") as file:
        file.truncate(1 << 40)
    found, left_out = find_pictures([tmp_path])
    assert found == [tmp_path / "gone.png", tmp_path / "holes.png"]
    assert left_out == {
        str(tmp_path / "gone"): Kind.BROKEN.value, str(tmp_path / "pipe.png"): Kind.SPECIAL.value,
    }  # fmt: skip
    with pytest.raises(ValueError, match="it has more than 100 MB"):
        read_picture(found[1], 8, "none")


def test_a_heic_that_is_named_is_told_how_to_convert(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match=r"^not a picture in JPEG.*; convert it by `mogrify -form"):
        read_picture(tmp_path / "a.HEIC", 8, "none")
