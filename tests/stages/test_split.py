from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from stages.common.command_line import UserError
from stages.common.files import read_csv, write_csv
from stages.pictures.splits import read_split
from stages.sources.sets import SETS
from stages.split import (
    check_both_sides,
    choose_parts,
    drawn_by_content,
    keep_groups_together,
    ordered,
    published,
    read_groups,
    read_official,
    stratified,
)
from tests.tiny_set import TINY, Stages, write_tiny_set


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    """A folder with what the stage reads."""
    stages = Stages(tmp_path)
    write_tiny_set(tmp_path / "data/raw/tiny")
    stages.run_survey()
    stages.run_duplicates()
    return stages


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


def test_a_set_of_one_class_is_refused(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETS, "tiny", replace(TINY, class_names=("red",), label_file=None))
    with pytest.raises(UserError, match="tiny has one class, and there is nothing"):
        stages.run_split()


def test_a_class_of_one_image_is_refused_where_it_is_to_be_split(stages: Stages) -> None:
    labels = np.repeat([1, 2, 3], [15, 14, 1])
    scipy.io.savemat(stages.folder / "data/raw/tiny/imagelabels.mat", {"labels": labels})
    with pytest.raises(
        UserError, match=r"^split\.fraction 0\.2 leaves no stratified split: .*class"
    ):
        stages.run_split()


def test_ordered_trains_on_the_first_of_each_class() -> None:
    parts = ordered(np.array([0, 0, 1, 2, 0, 1, 2, 1, 0]), 2)
    assert np.flatnonzero(parts == "val").tolist() == [4, 7, 8]
    assert set(parts) == {"train", "val"}


def test_published_numbers_count_from_one() -> None:
    parts = published(4, np.array([2]), np.array([4]), np.array([1, 3]))
    assert parts.tolist() == ["test", "train", "test", "val"]


@pytest.mark.parametrize("test", [[1], [1, 3, 3], [1, 5]])
def test_published_parts_must_cover_each_image_once(test: list[int]) -> None:
    with pytest.raises(UserError, match="download its file again"):
        published(4, np.array([2]), np.array([4]), np.array(test))


def test_the_three_splits_of_flowers17(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    orders = [rng.permutation(1360) + 1 for _ in range(3)]
    variables = {}
    for fold, order in enumerate(orders, 1):
        for name, part in zip(("trn", "val", "tst"), np.split(order, [680, 1020]), strict=True):
            variables[f"{name}{fold}"] = part[np.newaxis]
    scipy.io.savemat(tmp_path / "datasplits.mat", variables)
    for fold, order in enumerate(orders, 1):
        parts = read_official(SETS["flowers17"], tmp_path, fold)
        labels = np.zeros(1360, int)
        chosen = choose_parts(
            SETS["flowers17"], labels, labels, tmp_path, "official", 0.2, 42, fold
        )
        assert chosen.tolist() == parts.tolist()
        assert set(np.flatnonzero(parts == "train") + 1) == set(order[:680])
        assert set(np.flatnonzero(parts == "test") + 1) == set(order[1020:])


def test_a_missing_file_of_splits_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasplits\.mat is missing"):
        read_official(SETS["flowers17"], tmp_path, 1)


@pytest.mark.parametrize(
    ("name", "protocol", "message"),
    [
        ("oxford102", "ordered", "oxford102 has no such order; choose stratified or official"),
        ("demo", "official", "demo has no official split; choose stratified or ordered"),
    ],
)
def test_a_protocol_that_a_set_lacks(name: str, protocol: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_parts(SETS[name], np.zeros(4, int), np.arange(4), Path(), protocol, 0.2, 42, 1)


def test_the_table(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    stages.run_split()
    counts = {"24 train, 6 val", "6 val, 24 train"}
    assert capsys.readouterr().out in {
        f"tiny, stratified: {each}; moved to their duplicates: 0\n" for each in counts
    }
    rows = read_csv(stages.folder / "data/splits/tiny.csv")
    assert [row["image"] for row in rows] == TINY.image_names
    assert [row["label"] for row in rows] == ["0", "1", "2"] * 10
    assert {row["label"]: row["class"] for row in rows} == dict(
        zip("012", TINY.class_names, strict=True)
    )
    assert sum(row["part"] == "val" for row in rows) == 6


def test_official_has_three_parts(stages: Stages) -> None:
    stages.run_split(protocol="official")
    rows = read_csv(stages.folder / "data/splits/tiny.csv")
    assert [row["part"] for row in rows] == ["train"] * 9 + ["val"] * 6 + ["test"] * 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction": 1.5}, r"--fraction: '1.5' is not a number from 0.01 to 0.99"),
        ({"protocol": "random"}, "no split.protocol 'random'; there are: stratified, official"),
        ({"seed": -1}, "--seed: '-1' is not a whole number from 0"),
        ({"fold": 4}, "--fold: '4' is not a whole number from 1 to 3"),
        ({"fractoin": 0.2}, "unrecognized arguments: --fractoin"),
    ],
)
def test_a_wrong_parameter_is_named(
    stages: Stages, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stages.run_split(**changes)


def test_each_repeat_has_the_next_seed(stages: Stages) -> None:
    stages.run_split(repeats=3, seed=7)
    together = read_split(stages.folder / "data/splits/tiny.csv").parts
    for repeat in range(3):
        stages.run_split(seed=7 + repeat)
        alone = read_split(stages.folder / "data/splits/tiny.csv").parts
        assert alone.shape == (1, 30)
        assert together[repeat].tolist() == alone[0].tolist()


def test_each_repeat_has_the_next_published_fold(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def choose(*arguments: Any) -> NDArray[np.str_]:
        seen.append(arguments[-1])
        return np.array(["train"] * 20 + ["val"] * 10)

    monkeypatch.setattr("stages.split.choose_parts", choose)
    stages.run_split(repeats=3, fold=2)
    assert seen == [2, 3, 1]


def test_a_group_that_straddles_goes_to_the_earliest_part_it_touches() -> None:
    parts = np.array(["test", "val", "train", "val", "test", "test", "test", "val"])
    groups = np.array([1, 1, 2, 2, 2, 3, 3, 4])
    together = keep_groups_together(parts, groups)
    assert together.tolist() == ["val", "val", "train", "train", "train", "test", "test", "val"]


def test_images_without_a_partner_stay_where_they_were() -> None:
    parts = stratified(np.repeat(np.arange(17), 80), 0.2, 42)
    assert keep_groups_together(parts, np.arange(1, 1361)).tolist() == parts.tolist()


def test_every_image_has_a_group_its_own_or_its_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    write_csv(path, ["image", "group"], [("b", 2), ("d", 2)])
    assert read_groups(path, ["a", "b", "c", "d", "e"]).tolist() == [1, 2, 3, 2, 5]


def write_duplicates(stages: Stages, *groups: tuple[int, ...]) -> None:
    """Let the images of these numbers, from 1, be duplicates of each other."""
    rows = [(TINY.image_names[each - 1], group[0]) for group in groups for each in group]
    write_csv(stages.folder / "data/duplicates/tiny.csv", ["image", "group"], rows)


@pytest.mark.parametrize(
    ("protocol", "group", "part"),
    [
        ("official", (9, 10), "train"),
        ("official", (1, 30), "train"),
        ("official", (15, 16, 17), "val"),
        ("ordered", (1, 30), "train"),
    ],
)
def test_duplicates_stay_on_one_side_in_every_protocol(
    stages: Stages,
    capsys: pytest.CaptureFixture[str],
    protocol: str,
    group: tuple[int, ...],
    part: str,
) -> None:
    path = stages.folder / "data/splits/tiny.csv"
    write_duplicates(stages, group)
    stages.run_split(protocol=protocol, group_duplicates=False)
    assert "moved to their duplicates: 0" in capsys.readouterr().out
    before = read_split(path)
    stages.run_split(protocol=protocol)
    after = read_split(path)
    members = np.array(group) - 1
    assert len(set(before.parts[0][members])) == 2
    assert set(after.parts[0][members]) == {part}
    others = np.delete(np.arange(30), members)
    assert after.parts[0][others].tolist() == before.parts[0][others].tolist()
    assert after.groups[members].tolist() == before.groups[members].tolist()
    assert after.groups[members].tolist() == [group[0]] * len(group)
    assert len(set(after.groups)) == 31 - len(group)
    moved = (after.parts != before.parts).sum()
    assert f"moved to their duplicates: {moved}\n" in capsys.readouterr().out


def test_duplicates_stay_on_one_side_in_every_repeat(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = [(number, number + 3) for number in (1, 2, 3, 7, 8, 9, 13, 14, 15)]
    write_duplicates(stages, *groups)
    stages.run_split(repeats=4, group_duplicates=False)
    apart = read_split(stages.folder / "data/splits/tiny.csv").parts
    capsys.readouterr()
    stages.run_split(repeats=4)
    together = read_split(stages.folder / "data/splits/tiny.csv").parts
    moved = (apart != together).sum(axis=1).tolist()
    assert min(moved) > 0
    assert f"moved to their duplicates: {', '.join(map(str, moved))}\n" in capsys.readouterr().out
    for repeat in range(4):
        for first, second in groups:
            assert together[repeat][first - 1] == together[repeat][second - 1]


def test_without_grouping_the_split_is_scikit_learns(stages: Stages) -> None:
    write_duplicates(stages, tuple(range(1, 31)))
    stages.run_split(group_duplicates=False)
    table = read_split(stages.folder / "data/splits/tiny.csv")
    assert table.parts[0].tolist() == stratified(table.labels, 0.2, 42).tolist()


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


def test_a_class_that_is_on_one_side_alone_is_named() -> None:
    labels = np.array([0, 0, 1, 1])
    check_both_sides(np.array(["train", "val", "val", "train"]), labels, ["a", "b"], "mine")
    with pytest.raises(UserError, match=r"class 'b' of mine has nothing in val: .*duplicates"):
        check_both_sides(np.array(["train", "val", "train", "train"]), labels, ["a", "b"], "mine")
