"""Pictures that cannot be read: the survey stops the run, or all stages leave them out."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.common.files import read_csv, read_json
from stages.pictures.reading import read_members
from stages.pictures.splits import read_split
from stages.reporting.tables import find_reservations
from tests.tiny_set import IMAGES, Stages, replace_pictures

ARCHIVE = "data/raw/tiny/tiny.tgz"
BROKEN = {3: b"no picture", 7: b"", 16: None, 21: b"no picture"}
"""Row in the set, and what stands there in place of a picture; None: the picture, cut off."""
NAMES = [IMAGES[row] for row in BROKEN]
READABLE = np.setdiff1d(np.arange(len(IMAGES)), [*BROKEN])


def break_pictures(folder: Path, broken: Mapping[int, bytes | None]) -> None:
    """Replace pictures of the set in `folder`; the archive's order stays."""
    table = folder / "data/raw/tiny/pictures.csv"
    whole = dict(read_members(table, IMAGES))
    halves = {row: data[: len(data) // 2] for row, data in whole.items()}
    replace_pictures(
        folder, {row: halves[row] if put is None else put for row, put in broken.items()}
    )


def outputs(folder: Path) -> dict[str, bytes]:
    """What the stages wrote, apart from the raw files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "raw" not in path.parts
    }


def test_by_default_the_run_stops_with_all_of_them(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    break_pictures(stages.folder, BROKEN)
    before = outputs(stages.folder)
    with pytest.raises(UserError) as caught:
        stages.run_survey()
    assert str(caught.value) == (
        f"4 of 30 images cannot be read: {', '.join(NAMES)}; put whole ones into the archive, or "
        "leave these out by the parameter `unreadable: skip`"
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" cannot be read: ")[0] for line in lines] == NAMES
    assert "truncated" in lines[2]
    assert outputs(stages.folder) == before


def test_damaged_pictures_stop_nothing_and_are_counted(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = (
        data for _, data in read_members(stages.folder / "data/raw/tiny/pictures.csv", IMAGES[:1])
    )
    break_pictures(stages.folder, {5: first[:-2]})
    stages.run_survey()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{IMAGES[5]} is damaged, but is read: its end is missing",
        "tiny: 30 images, 0 unreadable, 1 damaged",
    ]
    rows = read_csv(stages.folder / "metrics/survey/tiny.csv")
    assert [row["damaged"] for row in rows] == [""] * 5 + ["its end is missing"] + [""] * 24
    assert rows[5]["width"] == rows[0]["width"]


def test_many_are_all_listed_and_the_error_stays_short(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    break_pictures(stages.folder, dict.fromkeys(range(20), b""))
    with pytest.raises(UserError, match=r"20 of 30 .*0005\.jpg, \.\.\., all listed above; put"):
        stages.run_survey()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == IMAGES[:20]


def test_a_class_is_never_left_without_a_picture(stages: Stages) -> None:
    break_pictures(stages.folder, dict.fromkeys(range(1, len(IMAGES), 3), b""))
    stages.run_survey("skip")
    stages.run_duplicates()
    with pytest.raises(UserError, match="class 'green' has nothing in train: none of its pictures"):
        stages.run_split()


def test_where_all_can_be_read_skip_changes_no_byte(stages: Stages) -> None:
    before = outputs(stages.folder)
    stages.run_survey("skip")
    assert outputs(stages.folder) == before


@pytest.fixture(scope="module")
def skipped(tmp_path_factory: pytest.TempPathFactory, ran: Stages) -> Stages:
    """A folder in which all stages have run without the broken pictures; tests only read there."""
    folder = tmp_path_factory.mktemp("skipped") / "repository"
    shutil.copytree(ran.folder, folder)
    stages = Stages(folder)
    break_pictures(folder, BROKEN)
    stages.run_survey("skip")
    stages.run_duplicates()
    stages.run_split()
    stages.run_features()
    stages.run_prefix()
    stages.run_head()
    stages.run_finetune()
    stages.run_evaluate()
    stages.run_explain()
    stages.run_inspect()
    return stages


def test_they_are_in_no_part_and_the_others_stay_where_they_were(
    skipped: Stages, ran: Stages
) -> None:
    before, after = (
        read_split(each.folder / "data/splits/tiny.csv").parts for each in (ran, skipped)
    )
    assert set(after[[*BROKEN]]) == {"unreadable"}
    np.testing.assert_array_equal(after[READABLE], before[READABLE])


@pytest.mark.parametrize("protocol", ["stratified", "official", "ordered"])
def test_no_protocol_gives_them_a_part(skipped: Stages, tmp_path: Path, protocol: str) -> None:
    copy = Stages(tmp_path / "copy")
    shutil.copytree(skipped.folder, copy.folder)
    copy.run_split(protocol=protocol)
    parts = read_split(copy.folder / "data/splits/tiny.csv").parts
    assert set(parts[[*BROKEN]]) == {"unreadable"}
    assert "unreadable" not in parts[READABLE]


@pytest.mark.parametrize(
    "file", ["features/tiny/demo_backbone.npy", "prefix/tiny/demo_backbone/values.npy"]
)
def test_their_rows_are_there_and_empty_and_the_others_are_as_they_were(
    skipped: Stages, ran: Stages, file: str
) -> None:
    before, after = (np.load(each.folder / "data" / file) for each in (ran, skipped))
    assert after.shape == before.shape
    np.testing.assert_allclose(after[READABLE], before[READABLE], rtol=1e-3, atol=1e-3)
    assert not after[[*BROKEN]].any()
    assert after[READABLE].reshape(len(READABLE), -1).any(axis=1).all()


def test_they_are_nobodys_duplicates(skipped: Stages) -> None:
    """Though four empty hashes would be the same."""
    found = {row["image"] for row in read_csv(skipped.folder / "data/duplicates/tiny.csv")}
    assert found.isdisjoint(NAMES)


def test_duplicates_behind_them_keep_their_numbers(stages: Stages) -> None:
    members = dict(read_members(stages.folder / "data/raw/tiny/pictures.csv", IMAGES))
    break_pictures(stages.folder, BROKEN | {20: members[5]})
    stages.run_survey("skip")
    stages.run_duplicates(distance=0)
    rows = read_csv(stages.folder / "data/duplicates/tiny.csv")
    found = [(row["image"], row["group"], row["partner"]) for row in rows]
    names = IMAGES
    assert found == [(names[5], "6", names[20]), (names[20], "6", names[5])]


def test_metrics_card_and_report_count_them(skipped: Stages) -> None:
    metrics = read_json(skipped.folder / "metrics/tiny/demo_backbone.json")
    assert {metrics[model]["unreadable"] for model in ("head", "finetuned")} == {4}
    card = (skipped.folder / "models/tiny/demo_backbone/README.md").read_text()
    assert "; 4 cannot be read.\n" in card
    summary = read_json(skipped.folder / "metrics/summary/tiny-demo_backbone.json")
    marks = dict(find_reservations(summary))
    assert marks["images missing"] == "4 of the set cannot be read and are in no part"


def test_where_all_can_be_read_nothing_is_said(ran: Stages) -> None:
    metrics = read_json(ran.folder / "metrics/tiny/demo_backbone.json")
    assert "unreadable" not in metrics["head"]
    assert "cannot be read" not in (ran.folder / "models/tiny/demo_backbone/README.md").read_text()


def test_none_of_them_is_scored_shown_or_explained(skipped: Stages) -> None:
    scored = read_csv(skipped.folder / "metrics/predictions/tiny-demo_backbone-finetuned.csv")
    assert {row["image"] for row in scored}.isdisjoint(NAMES)
    for stage in ("inspect", "explain"):
        text = (skipped.folder / f"metrics/{stage}/tiny-demo_backbone/facts.json").read_text()
        assert not any(name in text for name in NAMES)


def test_a_picture_that_the_survey_did_not_see_is_named(stages: Stages) -> None:
    break_pictures(stages.folder, {3: b""})
    with pytest.raises(UserError, match=r"jpg/image_0004\.jpg in .*tiny\.tgz is not a readable"):
        stages.run_features()
