from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.common.files import read_csv, write_csv, write_json
from stages.pictures.protocols import drawn_by_content, stratified
from stages.pictures.splits import read_split
from stages.pictures.table import PictureTable, table_path, write_table
from stages.split import read_groups
from tests.tiny_set import CLASS_NAMES, IMAGES, LABELS, Stages, replace_pictures, write_tiny_set


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    """A folder with what the stage reads."""
    stages = Stages(tmp_path)
    write_tiny_set(tmp_path / "data/raw/tiny")
    stages.run_survey()
    stages.run_duplicates()
    return stages


def write_pictures(stages: Stages, labels: list[int], *official: list[str]) -> None:
    """Let the tiny set have other labels, and other folds of its official split or none."""
    names = CLASS_NAMES[: max(labels) + 1]
    splits = {"official": [np.array(fold) for fold in official]} if official else {}
    digests = [f"{row:064}" for row in range(30)]
    table = PictureTable(IMAGES, np.array(labels), names, digests, [""] * 30, splits)
    write_table(table_path("tiny", stages.folder), table)


def test_a_set_of_one_class_is_refused(stages: Stages) -> None:
    write_pictures(stages, [0] * 30)
    with pytest.raises(UserError, match="tiny has one class, and there is nothing"):
        stages.run_split()


def test_a_class_of_one_image_is_refused_where_it_is_to_be_split(stages: Stages) -> None:
    write_pictures(stages, [0] * 15 + [1] * 14 + [2])
    with pytest.raises(
        UserError, match=r"^tiny: split\.fraction 0\.2 leaves no stratified split: .*class"
    ):
        stages.run_split()


def test_a_protocol_that_a_set_lacks_is_named_with_the_set(stages: Stages) -> None:
    write_pictures(stages, LABELS.tolist())
    with pytest.raises(UserError, match=r"^tiny: split\.protocol: the set has no split 'ordered'"):
        stages.run_split(protocol="ordered")


def test_pictures_of_ones_own_are_split_by_content(stages: Stages) -> None:
    write_pictures(stages, LABELS.tolist())
    stages.run_split()
    raw = table_path("tiny", stages.folder).parent
    path = stages.folder / "data/splits/tiny.csv"
    published = read_split(path).parts
    assert published.tolist() == stratified(LABELS, 0.2, 42).tolist()
    write_json(raw / "source.json", {"source": "own"})
    stages.run_split()
    digests = [f"{row:064}" for row in range(30)]
    expected = drawn_by_content(LABELS, np.arange(30), digests, 0.2, 42)
    assert read_split(path).parts.tolist() == expected.tolist()
    assert expected.tolist() != published.tolist()


def test_the_table(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    stages.run_split()
    counts = {"24 train, 6 val", "6 val, 24 train"}
    assert capsys.readouterr().out in {
        f"tiny, stratified: {each}; moved to their duplicates: 0\n" for each in counts
    }
    rows = read_csv(stages.folder / "data/splits/tiny.csv")
    assert [row["image"] for row in rows] == IMAGES
    assert [row["label"] for row in rows] == ["0", "1", "2"] * 10
    assert {row["label"]: row["class"] for row in rows} == dict(
        zip("012", CLASS_NAMES, strict=True)
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


def test_the_fold_is_that_of_the_published_split(stages: Stages) -> None:
    folds = [[*np.roll(["train"] * 21 + ["val"] * 9, turn).tolist()] for turn in (0, 9, 18)]
    write_pictures(stages, LABELS.tolist(), *folds)
    for fold in (1, 2, 3):
        stages.run_split(protocol="official", fold=fold)
        parts = read_split(stages.folder / "data/splits/tiny.csv").parts
        assert parts.tolist() == folds[fold - 1]


def test_every_image_has_a_group_its_own_or_its_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    write_csv(path, ["image", "group"], [("b", 2), ("d", 2)])
    assert read_groups(path, ["a", "b", "c", "d", "e"]).tolist() == [1, 2, 3, 2, 5]


def write_duplicates(stages: Stages, *groups: tuple[int, ...]) -> None:
    """Let the images of these numbers, from 1, be duplicates of each other."""
    rows = [(IMAGES[each - 1], group[0]) for group in groups for each in group]
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
    assert len(set(before.parts[members])) == 2
    assert set(after.parts[members]) == {part}
    others = np.delete(np.arange(30), members)
    assert after.parts[others].tolist() == before.parts[others].tolist()
    assert after.groups[members].tolist() == before.groups[members].tolist()
    assert after.groups[members].tolist() == [group[0]] * len(group)
    assert len(set(after.groups)) == 31 - len(group)
    moved = (after.parts != before.parts).sum()
    assert f"moved to their duplicates: {moved}\n" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(4))
def test_duplicates_stay_on_one_side_whatever_the_seed(
    stages: Stages, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    groups = [(number, number + 3) for number in (1, 2, 3, 7, 8, 9, 13, 14, 15)]
    write_duplicates(stages, *groups)
    stages.run_split(seed=seed, group_duplicates=False)
    apart = read_split(stages.folder / "data/splits/tiny.csv").parts
    capsys.readouterr()
    stages.run_split(seed=seed)
    together = read_split(stages.folder / "data/splits/tiny.csv").parts
    moved = (apart != together).sum()
    assert moved > 0
    assert f"moved to their duplicates: {moved}\n" in capsys.readouterr().out
    for first, second in groups:
        assert together[first - 1] == together[second - 1]


def test_without_grouping_the_split_is_scikit_learns(stages: Stages) -> None:
    write_duplicates(stages, tuple(range(1, 31)))
    stages.run_split(group_duplicates=False)
    table = read_split(stages.folder / "data/splits/tiny.csv")
    assert table.parts.tolist() == stratified(table.labels, 0.2, 42).tolist()


def test_a_class_of_ones_own_of_which_all_of_val_are_duplicates_is_one_line(
    stages: Stages,
) -> None:
    """Of a published set, whose split others use too, such a class is not judged."""
    write_pictures(stages, LABELS.tolist())
    stages.run_split(seed=5)
    path = stages.folder / "data/splits/tiny.csv"
    parts = read_split(path).parts
    red, of_val = (np.flatnonzero((LABELS == 0) & (parts == part)) + 1 for part in ("train", "val"))
    write_duplicates(stages, (int(red[0]), *of_val.tolist()))
    stages.run_split(seed=5)
    assert set(read_split(path).parts[LABELS == 0]) == {"train"}
    path.unlink()
    write_json(table_path("tiny", stages.folder).with_name("source.json"), {"source": "own"})
    write_duplicates(stages, tuple(range(1, 31, 3)))
    assert refused(stages, seed=5).startswith(
        "tiny: class 'red' has nothing in val: add pictures that are not duplicates"
    )


def unreadable(stages: Stages, *rows: int) -> None:
    """Let pictures be broken, and the survey know of it."""
    replace_pictures(stages.folder, dict.fromkeys(rows, b"no picture"))
    stages.run_survey("skip")


OFFICIAL = ["train"] * 15 + ["val"] * 6 + ["test"] * 9


def refused(stages: Stages, **changes: Any) -> str:
    """The line in which the stage ends, which then leaves no table."""
    with pytest.raises(UserError) as caught:
        stages.run_split(**changes)
    assert not (stages.folder / "data/splits/tiny.csv").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("official", [OFFICIAL, ["train"] * 21 + ["test"] * 9])
def test_where_everyone_who_is_judged_is_a_duplicate_of_train_it_is_one_line(
    stages: Stages, official: list[str]
) -> None:
    write_pictures(stages, LABELS.tolist(), official)
    write_duplicates(stages, *((row, row + 21) for row in range(1, 10)))
    assert refused(stages, protocol="official") == (
        "tiny: the set has nothing in test: its pictures there are duplicates of others, and stay "
        "with these; see data/duplicates, add pictures, or set split.group_duplicates to false"
    )
    stages.run_split(protocol="official", group_duplicates=False)
    parts = read_split(stages.folder / "data/splits/tiny.csv").parts
    assert parts.tolist() == official


def test_where_one_who_is_judged_is_no_duplicate_the_others_go(stages: Stages) -> None:
    write_pictures(stages, LABELS.tolist(), OFFICIAL)
    write_duplicates(stages, *((row, row + 21) for row in range(1, 9)))
    stages.run_split(protocol="official")
    parts = read_split(stages.folder / "data/splits/tiny.csv").parts
    assert parts.tolist() == ["train"] * 15 + ["val"] * 6 + ["train"] * 8 + ["test"]


def test_where_nobody_who_is_judged_can_be_read_it_is_one_line(stages: Stages) -> None:
    unreadable(stages, *range(15, 30))
    assert refused(stages, protocol="official").startswith(
        "tiny: the set has nothing in test: none of its pictures there can be read"
    )


@pytest.mark.parametrize("protocol", ["official", "ordered"])
def test_a_class_of_which_nothing_in_train_can_be_read_is_one_line(
    stages: Stages, protocol: str
) -> None:
    """Else there would be a model that never saw it."""
    unreadable(stages, *range(1, {"official": 9, "ordered": 21}[protocol], 3))
    assert refused(stages, protocol=protocol) == (
        "tiny: class 'green' has nothing in train: none of its pictures there can be read; put "
        "whole ones in their place"
    )


def test_what_cannot_be_read_has_not_moved_to_duplicates(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    write_duplicates(stages, (1, 30), (2, 20), (3, 6))
    unreadable(stages, 3, 17, 28)
    capsys.readouterr()
    stages.run_split(protocol="official")
    assert capsys.readouterr().out == (
        "tiny, official: 10 train, 3 unreadable, 6 val, 11 test; moved to their duplicates: 2\n"
    )
