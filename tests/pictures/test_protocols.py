import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from stages.common.command_line import UserError
from stages.pictures.protocols import (
    check_parts,
    choose_parts,
    drawn_by_content,
    keep_groups_together,
    stratified,
)
from stages.pictures.table import Parts, PictureTable


def test_stratified_is_scikit_learns_split_of_the_file_order() -> None:
    labels = np.repeat(np.arange(17), 80)
    _, val = train_test_split(np.arange(1360), test_size=0.2, random_state=42, stratify=labels)
    parts = stratified(labels, 0.2, 42)
    assert set(np.flatnonzero(parts == "val")) == set(val)
    assert np.bincount(labels[parts == "val"]).tolist() == [16] * 17


def test_another_seed_chooses_other_images() -> None:
    labels = np.repeat(np.arange(3), 20)
    assert (stratified(labels, 0.2, 42) != stratified(labels, 0.2, 43)).any()


def test_stratified_needs_two_images_of_each_class() -> None:
    with pytest.raises(UserError, match=r"split.fraction 0.2 .*class"):
        stratified(np.array([0, 0, 0, 0, 1]), 0.2, 42)


def table_of(labels: list[int], **splits: list[list[str]]) -> PictureTable:
    """The table of a set of pictures of these labels, with the folds of published splits."""
    images = [f"{row}.jpg" for row in range(len(labels))]
    names = [*"abcdefgh"][: max(labels) + 1]
    folds = {name: [np.array(fold) for fold in found] for name, found in splits.items()}
    return PictureTable(images, np.array(labels), names, images, [""] * len(labels), folds)


def chosen(
    table: PictureTable, protocol: str, fold: int = 1, grows: bool = False, seed: int = 42
) -> list[str]:
    """The part of each picture of a set without duplicates; a fifth of each class is val."""
    lone = np.arange(len(table.images))
    parts = choose_parts(table, grows, lone, protocol, 0.2, seed, fold)
    return [str(part) for part in parts]


FOLDS = [["train", "val", "test", "train"], ["val", "train", "train", "test"]]


@pytest.mark.parametrize(("fold", "expected"), [(1, 0), (2, 1), (3, 0), (4, 1)])
@pytest.mark.parametrize("grows", [False, True])
def test_the_folds_of_a_published_split_are_taken_over_and_over(
    fold: int, expected: int, grows: bool
) -> None:
    table = table_of([0, 1, 0, 1], official=FOLDS)
    assert chosen(table, "official", fold, grows) == FOLDS[expected]


def test_each_published_split_is_taken_by_its_name() -> None:
    ordered = ["train", "train", "val", "val"]
    table = table_of([0, 1, 0, 1], official=FOLDS, ordered=[ordered])
    assert chosen(table, "ordered") == ordered
    assert chosen(table, "official") == FOLDS[0]


@pytest.mark.parametrize(
    ("splits", "protocol", "there"),
    [
        ({"official": FOLDS}, "ordered", "stratified, official"),
        ({"ordered": FOLDS[:1]}, "official", "stratified, ordered"),
        ({}, "official", "stratified"),
    ],
)
@pytest.mark.parametrize("grows", [False, True])
def test_a_protocol_that_a_set_lacks(
    splits: dict[str, list[list[str]]], protocol: str, there: str, grows: bool
) -> None:
    with pytest.raises(UserError) as caught:
        chosen(table_of([0, 1, 0, 1], **splits), protocol, grows=grows)
    assert str(caught.value) == (
        f"split.protocol: the set has no split {protocol!r}, or a file of it could not be had by "
        f"`collect`; there are: {there}"
    )


def test_a_set_that_grows_is_split_by_content_and_another_in_scikit_learns_way() -> None:
    table = table_of([0, 1] * 30, ordered=[["train"] * 60])
    assert chosen(table, "stratified") == stratified(table.labels, 0.2, 42).tolist()
    by_content = drawn_by_content(table.labels, np.arange(60), table.digests, 0.2, 42)
    assert chosen(table, "stratified", grows=True) == by_content.tolist()
    assert chosen(table, "stratified", grows=True) != chosen(table, "stratified")


def test_parts_of_ones_own_are_not_drawn_anew() -> None:
    table = table_of([0, 1, 0, 1], official=FOLDS[:1])
    with pytest.raises(UserError, match=r"has parts of its own; set it to official"):
        chosen(table, "stratified", grows=True)


def test_a_group_that_straddles_goes_to_the_earliest_part_it_touches() -> None:
    parts = np.array(["test", "val", "train", "val", "test", "test", "test", "val"])
    groups = np.array([1, 1, 2, 2, 2, 3, 3, 4])
    together = keep_groups_together(parts, groups)
    assert together.tolist() == ["val", "val", "train", "train", "train", "test", "test", "val"]


def test_images_without_a_partner_stay_where_they_were() -> None:
    parts = stratified(np.repeat(np.arange(17), 80), 0.2, 42)
    assert keep_groups_together(parts, np.arange(1, 1361)).tolist() == parts.tolist()


def drawn(labels: list[int], keys: list[str], fraction: float = 0.2, seed: int = 0) -> list[str]:
    parts = drawn_by_content(np.array(labels), np.arange(len(labels)), keys, fraction, seed)
    return [str(part) for part in parts]


@pytest.mark.parametrize(("images", "val"), [(2, 1), (3, 1), (7, 1), (8, 2), (100, 20)])
def test_of_every_class_a_fraction_is_val_and_one_at_least(images: int, val: int) -> None:
    parts = drawn([0] * images + [1] * 10, [f"{n}" for n in range(images + 10)])
    assert parts[:images].count("val") == val
    assert parts[images:].count("val") == 2


def test_a_part_is_left_to_train_however_large_the_fraction() -> None:
    assert sorted(drawn([0, 0, 0], ["a", "b", "c"], fraction=0.99)) == ["train", "val", "val"]


def test_a_picture_that_comes_moves_one_other_of_its_class_at_most() -> None:
    labels, keys = [0] * 40 + [1] * 40, [f"{number}" for number in range(80)]
    before = drawn(labels, keys)
    assert before != drawn(labels, keys, seed=1)
    for number in range(20):
        after = drawn([0, *labels], [f"new {number}", *keys])[1:]
        assert after[40:] == before[40:]
        assert sum(a != b for a, b in zip(after, before, strict=True)) <= 1


def test_groups_are_not_divided_and_a_large_one_trains() -> None:
    labels, groups = np.zeros(12, int), np.array([1, 1, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7])
    for seed in range(20):
        parts = drawn_by_content(labels, groups, [f"{n}" for n in range(12)], 0.2, seed)
        assert [str(part) for part in parts[:5]] == ["train"] * 5
        assert parts[5] == parts[6]
        assert (parts == "val").sum() == 2
    pair = drawn_by_content(labels[:5], groups[[0, 1, 2, 5, 6]], [*"abcde"], 0.2, 0)
    assert [str(part) for part in pair] == ["train"] * 3 + ["val"] * 2


TWO = table_of([0, 0, 1, 1, 1])


def as_parts(text: str) -> Parts:
    """Parts by their first letters."""
    names = {"r": "train", "v": "val", "e": "test", "u": "unreadable"}
    return np.array([names[letter] for letter in text])


def check(drawn: str, together: str, left: str, both_sides: bool = True) -> None:
    check_parts(as_parts(drawn), as_parts(together), as_parts(left), TWO, both_sides)


@pytest.mark.parametrize("parts", ["rvvrr", "rvvru", "rvurv"])
def test_a_class_on_both_sides_is_well(parts: str) -> None:
    check("rvvrv", "rvvrv", parts)


@pytest.mark.parametrize("parts", ["rvrrr", "rerrr", "rrrre", "rurve"])
def test_in_a_published_split_a_class_need_not_be_judged(parts: str) -> None:
    check(parts.replace("u", "v"), parts.replace("u", "v"), parts, both_sides=False)


GONE, MOVED = "can be read; put whole ones", "are duplicates of others"


@pytest.mark.parametrize(
    ("drawn", "together", "left", "both_sides", "words"),
    [
        ("rvvrr", "rvrrr", "rvrrr", True, f"class 'b' has nothing in val: its .* {MOVED}"),
        ("rvvrr", "rvvrr", "rvurr", True, f"class 'b' has nothing in val: none of its .* {GONE}"),
        ("rvvrr", "rvvrr", "uvvrr", True, f"class 'a' has nothing in train: none of its .* {GONE}"),
        ("rvvrr", "rvvrr", "uvvrr", False, f"class 'a' has nothing in train: none .* {GONE}"),
        ("reevr", "reevr", "reevu", False, f"class 'b' has nothing in train: none .* {GONE}"),
        ("vvvrr", "vvvrr", "vvvrr", False, "class 'a' has nothing in train: add pictures that ar"),
        ("rrerr", "rrrrr", "rrrrr", False, f"the set has nothing in test: its .* {MOVED}"),
        ("rverr", "rvrrr", "rvrrr", False, f"the set has nothing in test: its .* {MOVED}"),
        ("rverr", "rverr", "rvurr", False, f"the set has nothing in test: none .* {GONE}"),
        ("rrvrr", "rrvrr", "rrurr", False, f"the set has nothing in val: none .* {GONE}"),
        ("rrvrr", "rrrrr", "rrrrr", False, f"the set has nothing in val: its .* {MOVED}"),
        ("rrrrr", "rrrrr", "rrrrr", False, "the set has nothing in val: add pictures that are not"),
    ],
)  # fmt: skip
def test_whoever_has_nothing_to_learn_from_or_be_judged_by_is_named(
    drawn: str, together: str, left: str, both_sides: bool, words: str
) -> None:
    with pytest.raises(UserError, match=f"^{words}") as caught:
        check(drawn, together, left, both_sides)
    assert "\n" not in str(caught.value)


def test_a_class_of_ones_own_of_one_picture_is_refused() -> None:
    table, lone = table_of([0, 0, 1]), np.arange(3)
    parts = choose_parts(table, True, lone, "stratified", 0.2, 42, 1)
    with pytest.raises(UserError, match=r"^class 'b' has nothing in val: add pictures that are"):
        check_parts(parts, parts, parts, table, True)
