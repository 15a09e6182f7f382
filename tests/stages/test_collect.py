"""A folder made on the spot becomes a set: what is in it, in every layout, and what is refused."""

import io
import shutil
import tarfile
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.collect import main
from stages.common.command_line import UserError
from stages.common.files import read_csv
from stages.pictures.reading import decode_all, read_members
from stages.pictures.table import read_table

Make = Callable[..., Path]


def picture(number: int, kind: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture that no other number has."""
    stream = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Fills data/sets/roses with files, by their paths; pictures where no content is given."""
    monkeypatch.chdir(tmp_path)

    def fill(*paths: str, **contents: bytes) -> Path:
        folder = Path("data/sets/roses")
        folder.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(paths):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(contents.get(path.replace(".", "_"), picture(number)))
        return folder

    return fill


def collected() -> dict[str, tuple[str, str]]:
    """Class and part of each picture."""
    main(["--set", "roses"])
    rows = read_csv(Path("data/raw/roses/pictures.csv"))
    return {row["image"]: (row["class"], row.get("official", "")) for row in rows}


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w:gz") -> None:
    """Write a tar of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_a_folder_a_class(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("red/2.jpg", "red/1.jpg", "white/deep/er/3.JPEG", "white/4.webp", "white/notes.txt")
    assert collected() == {
        "red/1.jpg": ("red", ""), "red/2.jpg": ("red", ""),
        "white/4.webp": ("white", ""), "white/deep/er/3.JPEG": ("white", ""),
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "roses: 4 pictures of 2 classes" in said
    assert "left out, no pictures by their names: 1: white/notes.txt\n" in said
    found = read_table("roses")
    assert found.class_names == ["red", "white"]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.splits == {}


def test_tensorflows_flower_photos_work_as_they_are(make: Make) -> None:
    names = [f"flower_photos/{name}/{n}.jpg" for name in ("daisy", "tulips") for n in (1, 2)]
    make(*names, "flower_photos/LICENSE.txt")
    assert {place[0] for place in collected().values()} == {"daisy", "tulips"}


def test_their_archive_gives_the_same_set(make: Make) -> None:
    folder = make("flower_photos/daisy/1.jpg", "flower_photos/daisy/2.jpg", "flower_photos/t/1.jpg",
                  "flower_photos/t/2.jpg")  # fmt: skip
    loose = collected()
    names = read_table("roses").images
    before = dict(read_members(Path("data/raw/roses/pictures.csv"), names))
    members = {f"./{path}": (folder / path).read_bytes() for path in loose}
    shutil.rmtree(folder)
    write_tar(folder / "flower_photos.tgz", members | {"./flower_photos/LICENSE.txt": b"CC-BY"})
    assert collected() == loose
    after = dict(read_members(Path("data/raw/roses/pictures.csv"), names))
    assert after == before


def test_a_tar_in_a_classs_folder_and_pictures_beside_it(make: Make) -> None:
    folder = make("red/1.jpg", "white/1.jpg", "white/2.jpg")
    write_tar(folder / "red/more.tar", {"a/2.jpg": picture(7)}, "w")
    assert collected()["red/a/2.jpg"] == ("red", "")
    names = ["white/2.jpg", "red/a/2.jpg"]
    found = dict(read_members(Path("data/raw/roses/pictures.csv"), names))
    assert found == {0: picture(2), 1: picture(7)}


def test_given_parts(make: Make) -> None:
    make("Train/red/1.jpg", "Train/white/2.jpg", "valid/red/3.jpg", "valid/white/4.jpg")
    assert collected() == {
        "Train/red/1.jpg": ("red", "train"), "Train/white/2.jpg": ("white", "train"),
        "valid/red/3.jpg": ("red", "val"), "valid/white/4.jpg": ("white", "val"),
    }  # fmt: skip


def test_a_table_of_paths_and_labels(make: Make) -> None:
    table = '\ufeffpath,label,part\na/1.jpg,red,train\na/2.jpg,white,train\nb.jpg,"red",test\n'
    make("a/1.jpg", "a/2.jpg", "b.jpg", "unlisted.jpg", "labels.csv", labels_csv=table.encode())
    assert collected() == {
        "a/1.jpg": ("red", "train"), "a/2.jpg": ("white", "train"), "b.jpg": ("red", "test"),
    }  # fmt: skip


def test_what_is_hidden_is_left_out_and_names_are_of_any_script(make: Make) -> None:
    apart = unicodedata.normalize("NFD", "rosé")
    make(f"{apart}/1.jpg", f"{apart}/.2.jpg", f"{apart}/3.jpg", "गुलाब/ए.png", "गुलाब/2.png",
         ".trash/1.jpg", "__MACOSX/red/1.jpg")  # fmt: skip
    assert collected() == {
        f"{apart}/1.jpg": ("rosé", ""), f"{apart}/3.jpg": ("rosé", ""),
        "गुलाब/2.png": ("गुलाब", ""), "गुलाब/ए.png": ("गुलाब", ""),
    }  # fmt: skip


def test_pictures_of_every_kind_and_size_are_read(make: Make) -> None:
    kinds = {
        "a/1.jpg": ("JPEG", (1, 900)), "a/2.png": ("PNG", (7, 3)),
        "b/3.webp": ("WEBP", (5, 5)), "b/4.bmp": ("BMP", (300, 2)),
    }  # fmt: skip
    folder = make(*kinds)
    for number, (path, (kind, size)) in enumerate(kinds.items()):
        (folder / path).write_bytes(picture(number, kind, size))
    names = [*collected()]
    (batch,) = decode_all(Path("data/raw/roses/pictures.csv"), names, 16, "center", 8)
    assert batch[1].shape == (4, 16, 16, 3)


def test_links_to_files_are_read_and_the_sets_folder_may_be_a_link(
    make: Make, tmp_path: Path
) -> None:
    folder = make("red/1.jpg", "red/2.jpg", "white/1.jpg")
    (folder / "white/2.jpg").symlink_to((folder / "red/2.jpg").absolute())
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert collected()["white/2.jpg"] == ("white", "")


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "roses holds no picture; put them there, a folder a class"),
        (["red/1.jpg", "red/2.jpg"], "has one class, 'red'; there must be two"),
        (["red/1.jpg", "red/2.jpg", "white/a.txt"], "data/sets/roses/white holds no picture"),
        (["red/1.jpg", "white/2.jpg", "3.jpg"], "3.jpg is in no class's folder"),
        (["Red/1.jpg", "red/2.jpg"], "the classes 'Red' and 'red' in data/sets/roses are one"),
        (["r\x07d/1.jpg", "white/2.jpg"], "the class 'r\\x07d' in data/sets/roses cannot be p"),
        (["train/a/1.jpg", "test/2.jpg"], "test/2.jpg is in no class's folder"),
    ],
)  # fmt: skip
def test_what_is_no_set_is_refused(make: Make, paths: list[str], words: str) -> None:
    make(*paths)
    with pytest.raises(UserError) as caught:
        collected()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("data/raw/roses").exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("image,class\n1.jpg,red\n", "has the columns image, class; they must be path,label"),
        ("", "has the columns (none)"),
        ("path,label\n", "labels.csv lists no picture"),
        ("path,label\n1.jpg,red\n9.jpg,red\n", "labels.csv, line 3: there is no picture '9.jpg'"),
        ("path,label\n1.jpg,red\n1.jpg,red\n", "line 3: '1.jpg' is listed twice"),
        ("path,label\n1.jpg,\n", "line 2: '1.jpg' has no label"),
        ("path,label\n1.jpg\n", "line 2: '1.jpg' has no label"),
        ("path,label,part\n1.jpg,red,mine\n", "line 2: no part 'mine'; there are: train, val, "),
    ],
)
def test_a_wrong_table_is_refused_with_the_line(make: Make, table: str, words: str) -> None:
    make("1.jpg", "2.jpg", "labels.csv", labels_csv=table.encode())
    with pytest.raises(UserError) as caught:
        collected()
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "../roses", "-x", ".hidden", ""])
def test_names_that_cannot_be_a_sets_are_refused(make: Make, name: str) -> None:
    make("red/1.jpg")
    with pytest.raises(UserError, match=r"^sets: .* is not of letters, digits and _ \. - alone; "):
        main([f"--set={name}"])


def test_a_set_without_a_folder_is_named_with_those_that_there_are(make: Make) -> None:
    folder = make("red/1.jpg")
    folder.with_name("tulips").mkdir()
    folder.with_name("roses.dvc").touch()
    with pytest.raises(
        UserError, match=r"^sets: there is no folder data/sets/x; there are: roses, tulips; put "
    ):
        main(["--set", "x"])
    assert not Path("data/raw").exists()


def test_a_picture_in_a_tar_and_beside_it_is_refused(make: Make) -> None:
    folder = make("red/1.jpg", "white/1.jpg")
    write_tar(folder / "more.tgz", {"red/1.jpg": picture(1)})
    with pytest.raises(UserError, match=r"red/1\.jpg is there twice, also in more\.tgz"):
        collected()


def test_a_broken_tar_is_named(make: Make) -> None:
    folder = make("red/1.jpg", "white/1.jpg")
    write_tar(folder / "more.tgz", {"red/2.jpg": picture(1)})
    (folder / "more.tgz").write_bytes((folder / "more.tgz").read_bytes()[:200])
    with pytest.raises(UserError, match=r"data/sets/roses/more\.tgz cannot be read"):
        collected()


def test_a_name_that_is_no_utf8_is_refused(make: Make) -> None:
    make("red/\udcff.jpg", "red/1.jpg", "white/1.jpg", "white/2.jpg")
    with pytest.raises(UserError, match="is not UTF-8; rename it"):
        collected()


def test_a_picture_that_changed_or_went_since_is_named(make: Make) -> None:
    folder = make("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    names, table = [*collected()], Path("data/raw/roses/pictures.csv")
    (folder / "a/2.jpg").write_bytes(picture(9))
    with pytest.raises(
        UserError, match=r"data/sets/roses/a/2\.jpg has changed since it was listed"
    ):
        list(read_members(table, names))
    (folder / "a/2.jpg").unlink()
    with pytest.raises(UserError, match=r"data/sets/roses/a/2\.jpg is gone since it was listed"):
        list(read_members(table, names))
    with pytest.raises(UserError, match=r"lists no c\.jpg"):
        list(read_members(table, ["c.jpg"]))


def test_what_is_no_picture_is_named_where_it_lies(make: Make) -> None:
    make("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", **{"b/1_jpg": b"no picture"})
    names = [*collected()]
    with pytest.raises(UserError, match=r"^data/sets/roses/b/1\.jpg is not a readable picture"):
        list(decode_all(Path("data/raw/roses/pictures.csv"), names, 8, "center", 4))


def test_the_same_folder_gives_the_same_bytes(make: Make) -> None:
    make("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    written = []
    for _ in range(2):
        collected()
        written.append([path.read_bytes() for path in sorted(Path("data/raw/roses").iterdir())])
    assert written[0] == written[1]
