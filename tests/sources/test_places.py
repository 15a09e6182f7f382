"""Classes and parts by folders, whatever parts are called, and by tables as people write them."""

import unicodedata
from pathlib import Path

import pytest

from stages.common.command_line import UserError
from stages.pictures.names import Kind
from stages.sources.places import part_of, places_by_folder, places_by_table, tidy_class_names

NAMES = {
    "train": ["train", "Training", "TRAIN", "trainset", "train_set", "training_set", "seg_train",
              "train-images", "images_train", "Train Data", "train_01", "train_augmented"],
    "val": ["val", "valid", "Validation", "validation_set", "dev", "seg_val", "val_images"],
    "test": ["test", "Testing", "test_set", "seg_test", "test1", "evaluation", "eval"],
    "": ["", "augmented", "seg_pred", "trains", "train station", "testudo", "devon", "images",
         "restrain", "latest", "valley", "training wheel"],
}  # fmt: skip


@pytest.mark.parametrize("part", NAMES)
def test_common_names_of_parts(part: str) -> None:
    assert {name: part_of(name) for name in NAMES[part]} == dict.fromkeys(NAMES[part], part)


def found(*folders: str) -> dict[str, tuple[str, str]]:
    paths = {folder: f"{folder}/{number}.jpg" for number, folder in enumerate(folders)}
    places = places_by_folder([*paths.values()])
    return {folder: (places[path].class_name, places[path].part) for folder, path in paths.items()}


@pytest.mark.parametrize("above", ["", "intel/", "a/b/"])
@pytest.mark.parametrize(
    ("first", "second", "parts"),
    [
        ("Training", "Test", ("train", "test")),
        ("train", "testing", ("train", "test")),
        ("seg_train", "seg_test", ("train", "test")),
        ("training_set/training_set", "test_set/test_set", ("train", "test")),
        ("train", "VALIDATION", ("train", "val")),
    ],
)
def test_folders_of_parts_give_parts(
    above: str, first: str, second: str, parts: tuple[str, str]
) -> None:
    folders = [f"{above}{part}/{name}" for part in (first, second) for name in ("red", "white")]
    places = [("red", parts[0]), ("white", parts[0]), ("red", parts[1]), ("white", parts[1])]
    assert list(found(*folders).values()) == places


@pytest.mark.parametrize(
    ("folders", "parts", "others"),
    [
        (("train/a", "train/b", "val/a", "augmented/a"), "'train' (train), 'val' (val)", "augment"),
        (("seg_train/a", "seg_test/a", "seg_pred"), "'seg_test' (test), 'seg_train'", "seg_pred"),
        (("test", "rose"), "'test' (test)", "rose"),
        (("set/train", "set/car", "set/plane"), "'train' (train)", "car, plane"),
    ],
)
def test_a_mixture_is_an_error_that_says_what_was_understood(
    folders: tuple[str, ...], parts: str, others: str
) -> None:
    with pytest.raises(UserError) as caught:
        found(*folders)
    text = str(caught.value)
    assert text.startswith(f"by their names {parts}")
    assert f" are parts, but not {others}" in text
    assert "rename them to train, val or test" in text
    assert "list the pictures in labels.csv" in text
    assert "\n" not in text


@pytest.mark.parametrize("above", ["", "set/"])
def test_pictures_in_a_parts_folder_are_named_with_what_it_is_taken_for(above: str) -> None:
    words = rf"^{above}test/1\.jpg is in no class's folder \('test' is taken for the part test\)"
    with pytest.raises(UserError, match=words):
        found(f"{above}train/a", f"{above}test")


def test_parts_inside_of_classes_are_not_passed_over() -> None:
    with pytest.raises(UserError, match=r"such as 'red', hold folders of parts: test, train; put"):
        found("red/train", "red/test", "white/train")


def test_one_part_alone_is_passed_over() -> None:
    assert found("train/red", "train/white") == {
        "train/red": ("red", ""), "train/white": ("white", ""),
    }  # fmt: skip


APART, COMPOSED = (unicodedata.normalize(form, "rosé") for form in ("NFD", "NFC"))
PATHS = {f"red/{APART}.jpg": "", "red/a, b.jpg": "", "red/ c.jpg": "", "red/d.jpg": ""}


def write(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, "utf-8")
    return folder / "labels.csv"


def failure(table: Path) -> str:
    with pytest.raises(UserError) as caught:
        places_by_table(table, PATHS, {"e.heic": Kind.FOREIGN, "red/f.txt": Kind.OTHER})
    assert str(caught.value).startswith(str(table))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize(
    "cell",
    ["red/d.jpg", "./red/d.jpg", " red/d.jpg ", "red\\d.jpg", ".\\red\\d.jpg", "red//d.jpg",
     "{folder}/red/d.jpg", '"red/d.jpg"', ' "red/d.jpg"'],
)  # fmt: skip
def test_a_path_is_found_however_it_is_written(tmp_path: Path, cell: str) -> None:
    table = write(tmp_path, f"\ufeffpath, label\n{cell.format(folder=tmp_path)}, light red \n\n")
    places = places_by_table(table, PATHS, {})
    assert {path: place.class_name for path, place in places.items()} == {"red/d.jpg": "light red"}


@pytest.mark.parametrize("name", [APART, COMPOSED])
def test_accents_taken_apart_are_the_same_name(tmp_path: Path, name: str) -> None:
    table = write(tmp_path, f"path,label\nred/{name}.jpg,{APART}\nred/d.jpg,{COMPOSED}\n")
    places = tidy_class_names(places_by_table(table, PATHS, {}), tmp_path)
    assert [*places] == [f"red/{APART}.jpg", "red/d.jpg"]
    assert {place.class_name for place in places.values()} == {COMPOSED}


def test_a_name_as_it_stands_comes_before_what_it_may_mean(tmp_path: Path) -> None:
    table = write(tmp_path, 'path,label\n"red/ c.jpg",x\n"red/a, b.jpg",y\n')
    assert [*places_by_table(table, PATHS, {})] == ["red/ c.jpg", "red/a, b.jpg"]
    both = {f"{APART}.jpg": "", f"{COMPOSED}.jpg": ""}
    table = write(tmp_path, f"path,label\n{APART}.jpg,x\n{COMPOSED}.jpg,x\n")
    assert [*places_by_table(table, both, {})] == [*both]
    table = write(tmp_path, f"path,label\n./{APART}.jpg,x\n")
    with pytest.raises(UserError, match="may be 2 pictures; give them other names"):
        places_by_table(table, both, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "red/d.jpg,red, dark\n",
            "line 2 cannot be read (it has more cells than the header); see to its commas",
        ),
        ("red/a, b.jpg,red\n", "line 2 cannot be read (it has more cells"),
        (f"red/d.jpg,{'x' * 200_000}\n", "line 2 cannot be read (field larger than field limit"),
        (
            'red/d.jpg,"red\nred/a.jpg,white\n',
            "line 3 cannot be read (unexpected end of data); see",
        ),
        ('red/d.jpg,"red"x\n', "line 2 cannot be read ("),
        ("red/d.jpg,  \n", "line 2: 'red/d.jpg' has no label"),
        ("red/d.jpg,a\n./red/d.jpg,a\n", "line 3: 'red/d.jpg' is listed twice"),
        ("/red/d.jpg,a\n", "there is no picture '/red/d.jpg' in "),
        ("../d.jpg,a\n", "paths are from there, such as 'red/ c.jpg'"),
        (
            "e.heic,a\n",
            "line 2: 'e.heic' is left out: pictures of a kind that is not read; convert",
        ),
        ("red/f.txt,a\n", "line 2: 'red/f.txt' is left out: no pictures by their names"),
    ],
)
def test_what_a_line_has_wrong_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    assert words in failure(write(tmp_path, "path,label\n" + text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path;label\nred/d.jpg;red\n", "has the columns path;label; they must be path,label or"),
        ("path\tlabel\nred/d.jpg\tred\n", "with commas between them"),
        ("path,label,label\nred/d.jpg,red,white\n", "has the columns path, label, label"),
        ("x" * 100_000 + "\n", "has the columns xxxx"),
    ],
)
def test_a_header_of_other_columns_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in failure(write(tmp_path, text))


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("path,label\nred/d.jpg,rosé\n".encode("utf-16"))
    assert "is not UTF-8" in failure(tmp_path / "labels.csv")


def test_class_folders_of_one_name_are_one_class(tmp_path: Path) -> None:
    places = places_by_folder([f"{APART}/1.jpg", f"{COMPOSED}/2.jpg", " daisy/3.jpg"])
    tidy = tidy_class_names(places, tmp_path)
    assert [place.class_name for place in tidy.values()] == [COMPOSED, COMPOSED, "daisy"]
    with pytest.raises(UserError, match="cannot be printed"):
        tidy_class_names(places_by_folder(["  /1.jpg", "a/1.jpg"]), tmp_path)
