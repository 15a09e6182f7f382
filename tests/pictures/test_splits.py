from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.pictures.splits import Rows, SplitTable, choose_rows, read_split

TABLE = """image,label,class,group,part
jpg/2.jpg,1,"rose, red",1,val
jpg/1.jpg,0,daisy,2,train
jpg/3.jpg,16,iris,1,train
"""


def test_a_split_is_read_in_the_files_order(tmp_path: Path) -> None:
    path = tmp_path / "demo.csv"
    path.write_text(TABLE)
    table = read_split(path)
    assert table.images == ["jpg/2.jpg", "jpg/1.jpg", "jpg/3.jpg"]
    assert table.labels.tolist() == [1, 0, 16]
    assert table.labels.dtype == np.int64
    assert table.groups.tolist() == [1, 2, 1]
    assert table.parts.tolist() == ["val", "train", "train"]


@pytest.mark.parametrize(
    ("parts", "reported"),
    [(["train", "val"], "val"), (["train", "val", "test"], "test"), (["test", "train"], "test")],
)
def test_test_is_reported_where_there_is_one(parts: list[str], reported: str) -> None:
    none = np.zeros(0, int)
    assert SplitTable([], none, none, np.array(parts), []).reported_part == reported


def with_test() -> SplitTable:
    """Eight images in three parts."""
    parts = ["train", "val", "test", "train", "val", "test", "train", "test"]
    none = np.zeros(8, int)
    return SplitTable([""] * 8, none, none, np.array(parts), [])


def without_test(classes: int = 3, train: int = 40, val: int = 10) -> SplitTable:
    """Classes of `train` and `val` images each; the first of each are pairs of duplicates."""
    images = classes * (train + val)
    labels = np.repeat(np.arange(classes), train + val)
    groups = np.arange(images)
    for first in range(0, images, train + val):
        groups[first : first + 20] = np.repeat(groups[first : first + 20 : 2], 2)
    parts = np.array((["train"] * train + ["val"] * val) * classes)
    return SplitTable([""] * images, labels, groups, parts, [])


def few_images(train: Sequence[int]) -> SplitTable:
    """Classes of so many images of train, and one of val each, without duplicates."""
    labels = np.repeat(np.arange(len(train)), np.array(train) + 1)
    parts = np.concatenate([["train"] * count + ["val"] for count in train])
    return SplitTable([""] * len(labels), labels, np.arange(len(labels)), parts, [])


def as_lists(rows: Rows) -> list[list[int]]:
    return [getattr(rows, field.name).tolist() for field in fields(rows)]


@pytest.mark.parametrize(
    ("refit", "final", "shown"), [(True, [0, 1, 3, 4, 6], []), (False, [0, 3, 6], [1, 4])]
)
def test_where_test_is_reported_val_judges_and_may_train_in_the_end(
    refit: bool, final: list[int], shown: list[int]
) -> None:
    rows = choose_rows(with_test(), refit, seed=0)
    assert as_lists(rows) == [[0, 3, 6], [1, 4], final, shown]
    assert {row.dtype for row in (rows.choosing, rows.judging, rows.final, rows.shown)} == {
        np.dtype(np.int64)
    }


@pytest.mark.parametrize("refit", [True, False])
def test_where_val_is_reported_a_fifth_of_train_judges_and_val_never_trains(refit: bool) -> None:
    table = without_test()
    rows = choose_rows(table, refit, seed=0)
    train, val = (np.flatnonzero(table.parts == part).tolist() for part in ("train", "val"))
    assert rows.final.tolist() == train
    assert rows.shown.tolist() == val
    assert sorted([*rows.choosing, *rows.judging]) == train
    # Pairs that stay together leave the classes' fifths one image off at most.
    assert (abs(np.bincount(table.labels[rows.judging]) - 40 / 5) <= 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_do_not_judge_each_other(seed: int) -> None:
    table = without_test()
    rows = choose_rows(table, False, seed)
    assert not {*table.groups[rows.choosing]} & {*table.groups[rows.judging]}
    assert {*table.groups[rows.judging]} & {*table.groups[:20]}


def test_the_fifth_that_judges_is_drawn_by_the_seed() -> None:
    first, again, other = (choose_rows(without_test(), True, seed) for seed in (0, 0, 1))
    assert as_lists(first) == as_lists(again)
    assert first.judging.tolist() != other.judging.tolist()


@pytest.mark.parametrize("table", [with_test(), without_test()], ids=["test", "val"])
def test_no_image_that_is_reported_chooses_or_trains(table: SplitTable) -> None:
    rows = choose_rows(table, True, seed=0)
    reported = np.flatnonzero(table.parts == table.reported_part)
    for used in (rows.choosing, rows.judging, rows.final):
        assert not np.isin(reported, used).any()


def test_labels_of_reported_images_do_not_move_the_fifth() -> None:
    table, other = without_test(), without_test()
    other.labels[table.parts == "val"] = 0
    assert as_lists(choose_rows(table, True, 0)) == as_lists(choose_rows(other, True, 0))


@pytest.mark.parametrize("train", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_of_few_images_a_larger_share_judges(train: int, seed: int) -> None:
    table = few_images([train, train, train])
    rows = choose_rows(table, True, seed)
    assert sorted([*rows.choosing, *rows.judging]) == rows.final.tolist()
    assert set(table.labels[rows.choosing]) == {0, 1, 2}
    # scikit-learn's slices of few images are one image of a class off at most.
    assert len(rows.judging) > 0
    assert np.bincount(table.labels[rows.judging]).max() <= 2


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_image_chooses_and_the_other_classes_judge(seed: int) -> None:
    table = few_images([1, 2, 6])
    rows = choose_rows(table, True, seed)
    assert sorted([*rows.choosing, *rows.judging]) == rows.final.tolist()
    assert set(table.labels[rows.choosing]) == {0, 1, 2}
    assert len(rows.judging) > 0
    assert 0 not in table.labels[rows.judging]


def test_where_only_duplicates_could_judge_each_other_it_is_named() -> None:
    table = few_images([2, 2])
    alike = replace(table, groups=table.labels)
    with pytest.raises(UserError, match=r"^4 images of train are too few .* not duplicates$"):
        choose_rows(alike, True, seed=0)


@pytest.mark.parametrize("classes", [2, 5, 20])
def test_too_few_images_to_hold_some_out_are_named_with_what_helps(classes: int) -> None:
    with pytest.raises(
        UserError,
        match=rf"^{classes} images of train are too few to hold some out \(.*\); add pictures, so "
        r"that a class has two there at least that are not duplicates$",
    ) as caught:
        choose_rows(few_images([1] * classes), True, seed=0)
    assert "\n" not in str(caught.value)
