import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import yaml

from stages.common.command_line import UserError
from stages.sources.demo_flowers import SPECIES
from stages.sources.published import (
    PublishedSet,
    Split,
    Variable,
    labels_of,
    parts_by_number,
    read_published_set,
    read_variable,
    splits_of,
)
from tests.sources.toy_set import toy_facts, write_facts
from tests.tiny_set import ROOT


def shipped(name: str) -> PublishedSet:
    """The facts of a set as they are in the repository."""
    return read_published_set(ROOT / "data/sets" / name)


OXFORD = shipped("oxford102")


def write_labels(folder: Path, labels: Any) -> Path:
    """A label file as it is published: a row of numbers of one byte."""
    path = folder / "imagelabels.mat"
    scipy.io.savemat(path, {"labels": np.asarray(labels, np.uint8)[np.newaxis]})
    return path


@pytest.mark.parametrize(
    ("name", "count", "classes"),
    [("flowers17", 1360, 17), ("oxford102", 8189, 102), ("demo", 1360, 17)],
)
def test_shipped_sets_are_complete(name: str, count: int, classes: int) -> None:
    found = shipped(name)
    assert found.name == name
    assert found.count == count
    assert len(set(found.classes)) == len(found.classes) == classes
    assert found.terms.strip()
    assert found.drawn == (name == "demo")


def test_there_are_no_other_shipped_sets() -> None:
    shipped_sets = {path.parent.name for path in (ROOT / "data/sets").glob("*/set.yaml")}
    assert shipped_sets == {"flowers17", "oxford102", "demo"}


def test_files_of_the_17_flowers() -> None:
    archive, splits = shipped("flowers17").files
    assert shipped("flowers17").archive == archive.name == "17flowers.tgz"
    assert (archive.algorithm, archive.digest) == ("md5", "b59a65d8d1a99cd66944d474e1289eab")
    assert (splits.algorithm, splits.digest) == ("md5", "4828cddfd0d803c5abbdebcb1e148a1e")
    assert (archive.size, splits.size) == (None, None)
    assert (archive.optional, splits.optional) == (False, True)
    folder = "https://www.robots.ox.ac.uk/~vgg/data/flowers/17"
    assert [archive.url, splits.url] == [f"{folder}/17flowers.tgz", f"{folder}/datasplits.mat"]


def test_files_of_the_102_flowers() -> None:
    folder = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
    sha256 = "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246"
    assert [
        (file.url, file.algorithm, file.digest, file.size, file.optional) for file in OXFORD.files
    ] == [
        (f"{folder}/102flowers.tgz", "sha256", sha256, 344_862_509, False),
        (f"{folder}/imagelabels.mat", "md5", "e0620be6f572b9609742df49c70aed4d", 502, False),
        (f"{folder}/setid.mat", "md5", "a5357ecc9cb78c4bef273ce3793fc85c", 14_989, False),
    ]
    assert OXFORD.archive == "102flowers.tgz"


def test_the_demo_set_is_drawn_of_the_species_there_are() -> None:
    demo = shipped("demo")
    assert list(demo.classes) == [species.name for species in SPECIES]
    assert demo.files == []


def test_images_are_named_as_in_the_archives() -> None:
    flowers = shipped("flowers17").images
    assert (flowers[0], flowers[-1], len(flowers)) == (
        "jpg/image_0001.jpg",
        "jpg/image_1360.jpg",
        1360,
    )
    assert shipped("demo").images == flowers
    oxford = OXFORD.images
    assert (oxford[0], oxford[-1], len(oxford)) == (
        "jpg/image_00001.jpg",
        "jpg/image_08189.jpg",
        8189,
    )


def test_published_splits_of_the_102_flowers_are_read_as_they_are_named(tmp_path: Path) -> None:
    """The published setid.mat has 1020 pictures in train, 1020 in val and 6149 in test."""
    numbers = np.random.default_rng(0).permutation(8189) + 1
    parts = dict(zip(("trnid", "valid", "tstid"), np.split(numbers, [1020, 2040]), strict=True))
    scipy.io.savemat(tmp_path / "setid.mat", parts)
    ((official,),) = splits_of(OXFORD, np.zeros(8189, np.int64), tmp_path).values()
    assert Counter(official.tolist()) == {"train": 1020, "val": 1020, "test": 6149}
    for part, name in {"train": "trnid", "val": "valid", "test": "tstid"}.items():
        assert set(official[parts[name] - 1]) == {part}


@pytest.mark.parametrize("name", ["flowers17", "demo"])
def test_ordered_trains_on_the_first_65_of_each_class(name: str, tmp_path: Path) -> None:
    facts = shipped(name)
    splits = splits_of(facts, labels_of(facts, tmp_path), tmp_path)
    assert list(splits) == ["ordered"], "the official one has no file here"
    (ordered,) = splits["ordered"]
    assert ordered.tolist() == (["train"] * 65 + ["val"] * 15) * 17


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"train": [1, 2], "val": [2], "test": [3]}, "names 3 of 3 images, 4 times in all"),
        ({"train": [1], "val": [2], "test": []}, "names 2 of 3 images, 2 times in all"),
        ({"train": [0], "val": [1], "test": [2]}, "names 3 of 3 images, 3 times in all"),
        ({"train": [2], "val": [3], "test": [4]}, "names 3 of 3 images, 3 times in all"),
    ],
)
def test_a_split_that_is_none_is_refused(numbers: dict[str, list[int]], words: str) -> None:
    arrays = [np.array(own, np.int64) for own in numbers.values()]
    with pytest.raises(UserError, match=rf"the split in setid\.mat {words}; download it again"):
        parts_by_number(3, arrays, "setid.mat")


def without(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != name}


def refused(folder: Path, facts: Any) -> str:
    """The one-line error for a set.yaml that holds those facts."""
    write_facts(folder / "toy", facts)
    with pytest.raises(UserError) as caught:
        read_published_set(folder / "toy")
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{folder / 'toy/set.yaml'} does not describe a set (")
    assert text.endswith("; see data/sets/flowers17/set.yaml for one")
    return text


FACTS = toy_facts("https://flowers.invalid") | {
    "labels": {"file": "labels.mat", "name": "labels"},
    "splits": {
        "official": {"file": "splits.mat", "train": ["a"], "val": ["b"], "test": ["c"]},
        "ordered": {"first": 2},
    },
}
FACTS["files"]["labels.mat"] = {"sha256": "0" * 64, "size": 5}


def test_facts_that_are_right_are_read(tmp_path: Path) -> None:
    """Those that the tests below make wrong."""
    write_facts(tmp_path / "toy", FACTS)
    found = read_published_set(tmp_path / "toy")
    assert (found.name, found.labels) == ("toy", Variable("labels.mat", "labels"))
    assert found.splits == {
        "official": Split(0, "splits.mat", ["a"], ["b"], ["c"]), "ordered": Split(2)
    }  # fmt: skip
    assert [file.url for file in found.files] == [
        f"https://flowers.invalid/17/{name}" for name in ("toy.tgz", "splits.mat", "labels.mat")
    ]
    assert found.images == [f"jpg/image_000{number}.jpg" for number in (1, 2, 3)]


@pytest.mark.parametrize("name", ["terms", "archive", "pictures", "count", "classes"])
def test_a_missing_entry_is_named(tmp_path: Path, name: str) -> None:
    assert name in refused(tmp_path, without(FACTS, name))


def test_a_set_has_files_or_is_drawn(tmp_path: Path) -> None:
    bare = {key: value for key, value in FACTS.items() if key not in ("labels", "splits")}
    assert "either files or `drawn: true`" in refused(tmp_path, without(bare, "files"))
    assert "either files or `drawn: true`" in refused(tmp_path, bare | {"drawn": True})


@pytest.mark.parametrize("name", ["clases", "name", "label", "licence", "two lines"])
def test_an_unknown_entry_is_named(tmp_path: Path, name: str) -> None:
    assert f"'{name}'" in refused(tmp_path, FACTS | {name.replace(" ", "\n"): "x"})


WRONG: dict[str, list[Any]] = {
    "page": [None, 17, ["x"]],
    "terms": [None, 17, ["none"]],
    "files": [None, "toy.tgz", ["toy.tgz"], {}],
    "archive": [None, 17, ["toy.tgz"]],
    "pictures": [None, 17, "one.jpg", "{:04d", "{}{}", "{x}", "{:q}"],
    "count": [None, "many", "3", 0, -3, 3.0, [3]],
    "classes": [
        None, "daisy", [], [1], ["a", "a"], {"a": 1}, [["a"]],
    ],
    "drawn": [None, "yes", 1, True],
    "labels": [
        "labels.mat",
        ["labels.mat"],
        {},
        17,
        {"file": "labels.mat"},
        {"name": "labels"},
        {"file": "labels.mat", "name": "labels", "first": 0},
    ],
    "splits": [
        "official",
        ["official"],
        17,
        {"image": {"first": 2}},
        {"stratified": {"first": 2}},
        {"official_2": {"first": 2}},
        {"ordered": None},
        {"ordered": 65},
        {"ordered": "first"},
        {"ordered": ["first"]},
        {"ordered": {}},
        {"ordered": {"first": None}},
        {"ordered": {"first": "2"}},
        {"ordered": {"first": 0}},
        {"ordered": {"first": 1.5}},
        {"ordered": {"first": 2, "last": 1}},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]], ids=str
)
def test_a_wrong_entry_is_one_line(tmp_path: Path, name: str, value: Any) -> None:
    refused(tmp_path, FACTS | {name: value})


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *((part, None) for part in ("file", "train", "val", "test")),
        ("train", []),
        ("train", ["a", "b"]),
        ("val", 17),
        ("tests", ["d"]),
    ],
    ids=str,
)
def test_a_wrong_split_is_one_line(tmp_path: Path, part: str, value: Any) -> None:
    """None stands for one that is missing."""
    changed = without(FACTS["splits"]["official"] | {part: value}, part if value is None else "")
    refused(tmp_path, FACTS | {"splits": {"official": changed}})


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "0" * 32,
        {},
        {"size": 3},
        {"md5": "0" * 32, "sha256": "0" * 64},
        {"sha1": "0" * 40},
        {"md5": "0" * 32, "optional": "yes"},
        {"md5": "0" * 32, "url": "https://flowers.invalid"},
    ],
    ids=str,
)
def test_a_wrong_file_is_one_line(tmp_path: Path, entry: Any) -> None:
    refused(tmp_path, FACTS | {"files": FACTS["files"] | {"toy.tgz": entry}})


@pytest.mark.parametrize("name", ["../toy.tgz", "/toy.tgz", "a/b.mat", "..", ".", "", 17])
def test_a_file_that_would_lie_elsewhere_is_refused(tmp_path: Path, name: Any) -> None:
    entry = {"md5": "0" * 32}
    refused(tmp_path, FACTS | {"files": FACTS["files"] | {name: entry}})
    drawn = yaml.safe_load((ROOT / "data/sets/demo/set.yaml").read_text("utf-8"))
    refused(tmp_path, drawn | {"archive": name})


def test_classes_without_labels_are_of_equal_size(tmp_path: Path) -> None:
    facts = without(FACTS, "labels") | {"classes": ["rose", "daisy"]}
    assert "count 3 is not as many of each of 2 classes" in refused(tmp_path, facts)


@pytest.mark.parametrize("text", ["", "# nothing\n", "a text", "[1, 2]", "17", "- page: x\n"])
def test_what_is_no_mapping_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "set.yaml").write_text(text)
    with pytest.raises(
        UserError, match=r"set\.yaml (is no list of|does not describe a set)"
    ) as caught:
        read_published_set(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"page: [", b"\xff\xfe", b"count: 1\ncount: 2\n", b"\0"])
def test_what_is_no_yaml_is_one_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "set.yaml").write_bytes(text)
    with pytest.raises(UserError, match=r"set\.yaml is not valid YAML") as caught:
        read_published_set(tmp_path)
    assert "\n" not in str(caught.value)


def test_classes_of_the_17_flowers_follow_each_other_by_80(tmp_path: Path) -> None:
    facts = shipped("flowers17")
    labels = labels_of(facts, tmp_path)
    assert np.bincount(labels).tolist() == [80] * 17
    found = [facts.classes[labels[number - 1]] for number in (1, 80, 81, 1360)]
    assert found == ["daffodil", "daffodil", "snowdrop", "pansy"]


def test_published_labels_are_counted_from_0(tmp_path: Path) -> None:
    published = np.arange(OXFORD.count) % 102 + 1
    write_labels(tmp_path, published)
    labels = labels_of(OXFORD, tmp_path)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, published - 1)


def test_a_wrong_count_of_labels_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path, np.ones(100))
    with pytest.raises(UserError, match=r"imagelabels\.mat has 100 labels for 8189 images"):
        labels_of(OXFORD, tmp_path)


@pytest.mark.parametrize(("wrong", "span"), [(0, "0 to 1"), (103, "1 to 103")])
def test_labels_out_of_range_are_refused(tmp_path: Path, wrong: int, span: str) -> None:
    published = np.ones(OXFORD.count)
    published[5] = wrong
    write_labels(tmp_path, published)
    with pytest.raises(UserError, match=f"labels from {span}, not each of 1 to 102"):
        labels_of(OXFORD, tmp_path)


def test_a_class_without_a_picture_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path, np.arange(OXFORD.count) % 101 + 1)
    with pytest.raises(
        UserError, match=r"imagelabels\.mat has 101 different labels from 1 to 101, not"
    ):
        labels_of(OXFORD, tmp_path)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    words = r"imagelabels\.mat holds no usable variable 'labels' .*; download it again"
    with pytest.raises(UserError, match=words):
        labels_of(OXFORD, tmp_path)


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    path = write_labels(tmp_path, [1, 2])
    with pytest.raises(UserError, match=r"imagelabels\.mat holds no usable variable 'trnid'"):
        read_variable(path, "trnid")


def test_text_in_place_of_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "imagelabels.mat"
    scipy.io.savemat(path, {"labels": "roses"})
    with pytest.raises(UserError, match="no usable variable 'labels'"):
        read_variable(path, "labels")


@pytest.mark.parametrize(
    "labels",
    [
        [1.5, 2.0],
        [1.0, np.nan],
        [1.0, np.inf],
        [1 + 2j, 3],
        {"a": 1},
        np.array([np.array([1, 2]), "rose"], object),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_whole_number_is_refused(tmp_path: Path, labels: Any) -> None:
    path = tmp_path / "imagelabels.mat"
    scipy.io.savemat(path, {"labels": labels})
    with pytest.raises(UserError, match=r"imagelabels\.mat holds no usable variable 'labels'"):
        read_variable(path, "labels")


def test_whole_numbers_of_any_kind_and_shape_are_read(tmp_path: Path) -> None:
    path = tmp_path / "imagelabels.mat"
    for kind in (np.uint8, np.int16, np.int32, np.float32, np.float64):
        scipy.io.savemat(path, {"labels": np.array([[1, 2], [3, 4]], kind)})
        found = read_variable(path, "labels")
        assert found.tolist() == [1, 2, 3, 4]
        assert found.dtype == np.int64


@pytest.mark.parametrize("shape", [(8189, 2), (2, 8189), (1, 8188), (0, 0), (1, 1)])
def test_labels_of_a_wrong_shape_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "imagelabels.mat"
    scipy.io.savemat(path, {"labels": np.ones(shape)})
    count = shape[0] * shape[1]
    with pytest.raises(UserError, match=rf"has {count} labels for 8189 images; download it again"):
        labels_of(OXFORD, tmp_path)


def test_a_file_of_version_7_3_is_named(tmp_path: Path) -> None:
    path = tmp_path / "imagelabels.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["labels"] = np.ones((8189, 1))
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header + path.read_bytes()[128:])
    with pytest.raises(UserError, match=r"holds no usable variable 'labels' \(.* v7\.3 files"):
        labels_of(OXFORD, tmp_path)


MAT_CASES = 1000
FUZZ_MAT = """
import sys, warnings
from pathlib import Path
import numpy as np
from stages.common.command_line import UserError
from stages.sources.published import labels_of, read_published_set
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
path, rng = folder / "imagelabels.mat", np.random.default_rng(0)
oxford = read_published_set(Path("data/sets/oxford102"))
whole = [(folder / name).read_bytes() for name in ("plain.mat", "compressed.mat")]
read, lines = 0, 0
for case in range(int(sys.argv[2])):
    data = bytearray(whole[case % 2])
    # The first bytes hold kinds, sizes and names; they decide more than the numbers do.
    reach = 300 if case % 4 < 2 else len(data)
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(min(reach, len(data)))] = rng.integers(256)
    if case % 2 == 0:
        data[184:188] = whole[0][184:188]
    path.write_bytes(data[: rng.integers(1, len(data) + 1)] if case % 8 > 5 else data)
    try:
        labels = labels_of(oxford, folder)
        assert labels.shape == (8189,) and np.unique(labels).tolist() == list(range(102))
        read += 1
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and "imagelabels.mat" in str(error), error
        lines += 1
print(read, lines)
"""


def test_a_file_changed_at_random_is_labels_or_one_line(tmp_path: Path) -> None:
    """In a process of its own, as a crash would end this one.

    SciPy 1.15 crashes on four bytes: it looks up the data's type without checking its number. They
    are left out here; tests/stages/test_collect_published.py shows that a changed file does not get
    that far.
    """
    labels = np.arange(8189, dtype=np.uint8)[np.newaxis] % 102 + 1
    scipy.io.savemat(tmp_path / "plain.mat", {"labels": labels})
    scipy.io.savemat(tmp_path / "compressed.mat", {"labels": labels}, do_compression=True)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ_MAT, str(tmp_path), str(MAT_CASES)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    read, lines = map(int, done.stdout.split())
    assert read + lines == MAT_CASES
    assert min(read, lines) > MAT_CASES / 20


@pytest.mark.parametrize("length", [0, 3, 60, 128, 140, 170, -30])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_file_is_named(tmp_path: Path, length: int, compressed: bool) -> None:
    path = tmp_path / "setid.mat"
    values = {"labels": np.random.default_rng(0).integers(1, 103, 50).astype(np.uint8)}
    scipy.io.savemat(path, values, do_compression=compressed)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"setid\.mat holds no usable variable") as caught:
        read_variable(path, "labels")
    assert "\n" not in str(caught.value)


def test_a_web_page_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "setid.mat"
    path.write_text("<!DOCTYPE html><html><body>Not found</body></html>" * 10)
    with pytest.raises(UserError, match=r"setid\.mat holds no usable variable"):
        read_variable(path, "trnid")
