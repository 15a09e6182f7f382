from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from stages.common.command_line import UserError
from stages.common.sets import SETS, read_labels, read_mat

OXFORD = SETS["oxford102"]


def write_labels(folder: Path, labels: Any) -> Path:
    """A label file as it is published: a row of numbers of one byte."""
    path = folder / "imagelabels.mat"
    scipy.io.savemat(path, {"labels": np.asarray(labels, np.uint8)[np.newaxis]})
    return path


def test_every_set_is_complete() -> None:
    known = {"flowers17": (1360, 17), "oxford102": (8189, 102), "demo": (1360, 17)}
    assert {name: (SETS[name].images, len(SETS[name].class_names)) for name in known} == known
    for name, one in SETS.items():
        assert one.name == name
        assert len(set(one.class_names)) == len(one.class_names)
        if one.files:
            assert one.files[0].name == one.archive
            files = {file.name for file in one.files}
            assert {one.label_file, one.official_file} - {None} <= files


def test_images_are_named_as_in_the_archives() -> None:
    flowers = SETS["flowers17"].image_names
    assert (flowers[0], flowers[-1], len(flowers)) == (
        "jpg/image_0001.jpg",
        "jpg/image_1360.jpg",
        1360,
    )
    oxford = OXFORD.image_names
    assert (oxford[0], oxford[-1], len(oxford)) == (
        "jpg/image_00001.jpg",
        "jpg/image_08189.jpg",
        8189,
    )


def test_addresses_are_those_of_the_publisher() -> None:
    addresses = [file.url for file in OXFORD.files]
    folder = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
    names = ("102flowers.tgz", "imagelabels.mat", "setid.mat")
    assert addresses == [f"{folder}/{name}" for name in names]


def test_digests_have_the_length_of_their_algorithm() -> None:
    files = [file for one in SETS.values() for file in one.files]
    assert files
    for file in files:
        assert len(file.digest) == {"md5": 32, "sha256": 64}[file.algorithm]
        assert set(file.digest) <= set("0123456789abcdef")


def test_classes_of_the_17_flowers_follow_each_other_by_80(tmp_path: Path) -> None:
    labels = read_labels(SETS["flowers17"], tmp_path)
    assert np.bincount(labels).tolist() == [80] * 17
    names = SETS["flowers17"].class_names
    found = [names[labels[number - 1]] for number in (1, 80, 81, 1360)]
    assert found == ["daffodil", "daffodil", "snowdrop", "pansy"]


def test_published_labels_are_counted_from_0(tmp_path: Path) -> None:
    published = np.arange(OXFORD.images) % 102 + 1
    write_labels(tmp_path, published)
    labels = read_labels(OXFORD, tmp_path)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, published - 1)


def test_a_wrong_count_of_labels_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path, np.ones(100))
    with pytest.raises(UserError, match=r"imagelabels\.mat has 100 labels for 8189 images"):
        read_labels(OXFORD, tmp_path)


@pytest.mark.parametrize(("wrong", "span"), [(0, "0 to 1"), (103, "1 to 103")])
def test_labels_out_of_range_are_refused(tmp_path: Path, wrong: int, span: str) -> None:
    published = np.ones(OXFORD.images)
    published[5] = wrong
    write_labels(tmp_path, published)
    with pytest.raises(UserError, match=f"has labels from {span}, not 1 to 102"):
        read_labels(OXFORD, tmp_path)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"imagelabels\.mat is missing; .*`dvc repro"):
        read_labels(OXFORD, tmp_path)


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    path = write_labels(tmp_path, [1, 2])
    with pytest.raises(UserError, match=r"imagelabels\.mat holds no usable variable 'trnid'"):
        read_mat(path, "trnid")


def test_text_in_place_of_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "imagelabels.mat"
    scipy.io.savemat(path, {"labels": "roses"})
    with pytest.raises(UserError, match="no usable variable 'labels'"):
        read_mat(path, "labels")


@pytest.mark.parametrize("length", [0, 3, 60, 128, 140, 170, -30])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_file_is_named(tmp_path: Path, length: int, compressed: bool) -> None:
    path = tmp_path / "setid.mat"
    values = {"labels": np.random.default_rng(0).integers(1, 103, 50).astype(np.uint8)}
    scipy.io.savemat(path, values, do_compression=compressed)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"setid\.mat holds no usable variable") as caught:
        read_mat(path, "labels")
    assert "\n" not in str(caught.value)


def test_a_web_page_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "setid.mat"
    path.write_text("<!DOCTYPE html><html><body>Not found</body></html>" * 10)
    with pytest.raises(UserError, match=r"setid\.mat holds no usable variable"):
        read_mat(path, "trnid")
