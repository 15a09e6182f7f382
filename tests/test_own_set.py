"""A folder of pictures, made on the spot, through all stages that a set goes through."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv, read_json
from stages.pictures.reading import decode_rows
from tests.stages.test_collect import picture
from tests.tiny_set import Stages
from tools.export import pictures_for
from tools.samples import find_samples, read_samples

CLASSES = {"जैस्मिन": 12, "red rose": 9, "weiß": 5}
KINDS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp"}
PATHS = ("data/features/mine/demo_backbone.npy", "data/prefix/mine/demo_backbone/values.npy")


def add_pictures(folder: Path, first: int, counts: dict[str, int]) -> None:
    """Put pictures of all kinds and sizes into the classes' folders."""
    number = first
    for name, count in counts.items():
        for _ in range(count):
            kind, suffix = [*KINDS.items()][number % len(KINDS)]
            path = folder / "data/sets/mine" / name / f"deep{number % 2}" / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number, kind, (20 + number, 60 - number)))
            number += 1


@pytest.fixture(scope="module")
def ran_mine(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A folder in which every stage has run on pictures of one's own; tests only read there."""
    stages = Stages(tmp_path_factory.mktemp("mine"), "mine")
    add_pictures(stages.folder, 0, CLASSES)
    stages.run_collect()
    stages.run_from_weights()
    return stages


@pytest.fixture
def mine(ran_mine: Stages, tmp_path: Path) -> Stages:
    """A copy of it, in which a test can run stages again."""
    shutil.copytree(ran_mine.folder, tmp_path / "repository")
    return Stages(tmp_path / "repository", "mine")


def test_it_is_scored_and_described_as_any_set(ran_mine: Stages) -> None:
    metrics = read_json(ran_mine.folder / "metrics/mine/demo_backbone.json")
    assert metrics["head"]["images"] == 2 + 2 + 1
    model = ran_mine.folder / "models/mine/demo_backbone"
    assert read_json(model / "classes.json") == sorted(CLASSES)
    card = (model / "README.md").read_text("utf-8")
    assert "Tells 3 classes apart" in card
    assert "robots.ox.ac.uk" not in card


def test_every_class_is_on_both_sides(ran_mine: Stages) -> None:
    rows = read_csv(ran_mine.folder / "data/splits/mine.csv")
    for name in CLASSES:
        assert {row["part"] for row in rows if row["class"] == name} == {"train", "val"}


def test_what_uses_a_model_finds_its_pictures(ran_mine: Stages) -> None:
    model = ran_mine.folder / "models/mine/demo_backbone/finetuned.keras"
    files = find_samples(model, "mine")
    assert files is not None
    assert set(read_samples(*files, sorted(CLASSES))) == set(CLASSES)
    images, what = pictures_for(model, 16)
    assert images.shape == (5, 16, 16, 3)
    assert what.startswith("first 5 pictures of val")


def test_it_can_be_surveyed_inspected_and_explained(mine: Stages) -> None:
    mine.run_survey()
    mine.run_inspect()
    mine.run_explain()
    sizes = {
        (row["width"], row["height"]) for row in read_csv(mine.folder / "metrics/survey/mine.csv")
    }
    assert ("60", "20") in sizes
    assert (
        len(read_json(mine.folder / "metrics/inspect/mine-demo_backbone/facts.json")["pictures"])
        == 3
    )


def test_new_pictures_alone_are_looked_at_and_the_bytes_are_those_of_a_cold_run(
    mine: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noting(
        table: Path, names: list[str], rows: NDArray[np.int64], *others: Any
    ) -> Iterator[Any]:
        seen.extend(names[row] for row in rows)
        yield from decode_rows(table, names, rows, *others)

    monkeypatch.setattr("stages.extraction.extract.decode_rows", noting)
    own = mine.folder / "data/sets/mine"
    add_pictures(mine.folder, 50, {"weiß": 2, "a new class": 3})
    (own / "red rose/deep1/13.png").unlink()
    (own / "red rose/deep0/12.jpg").write_bytes(picture(99))
    mine.run_collect()
    mine.run_survey()
    for run, path in zip((mine.run_features, mine.run_prefix), PATHS, strict=True):
        run()
        numbers = sorted(Path(name).stem for name in seen)
        assert numbers == ["12", "50", "51", "52", "53", "54"]
        warm = (mine.folder / path).read_bytes()
        assert len(np.load(mine.folder / path)) == 26 - 1 + 5
        shutil.rmtree(mine.folder / "data/kept" / Path(path).parts[1])
        seen.clear()
        run()
        assert len(seen) == 30
        assert (mine.folder / path).read_bytes() == warm
        seen.clear()


def test_a_new_view_leaves_the_others_as_they_are(mine: Stages) -> None:
    before = np.load(mine.folder / PATHS[0])
    mine.run_features(views=["plain", "mirror", "zoom"])
    after = np.load(mine.folder / PATHS[0])
    assert after[:, :2].tobytes() == before.tobytes()
    assert np.abs(after[:, 2]).max() > 0


def test_a_flat_folder_has_no_official_split_and_no_order(mine: Stages) -> None:
    for protocol in ("official", "ordered"):
        with pytest.raises(UserError, match=rf"mine: .* no split '{protocol}'.* are: stratified$"):
            mine.run_split(protocol=protocol)


def test_given_parts_are_taken_by_official_alone(mine: Stages) -> None:
    own = mine.folder / "data/sets/mine"
    for part, suffix in (("train", (".jpg", ".png", ".webp")), ("test", (".bmp",))):
        for path in [path for path in own.glob("*/*/*") if path.suffix in suffix]:
            target = own / part / path.relative_to(own)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    for name in CLASSES:
        shutil.rmtree(own / name)
    mine.run_collect()
    mine.run_survey()
    mine.run_duplicates()
    with pytest.raises(
        UserError, match=r"split\.protocol: the set has parts of its own; set it to official"
    ):
        mine.run_split()
    mine.run_split(protocol="official")
    parts = [row["part"] for row in read_csv(mine.folder / "data/splits/mine.csv")]
    assert (parts.count("train"), parts.count("test")) == (20, 6)
    # There is no val: a part of train judges what there is to choose.
    mine.run_features()
    mine.run_head(kind="logistic", hidden=[])
    probabilities = np.load(mine.folder / "models/mine/demo_backbone/head_probabilities.npy")
    assert probabilities.shape == (26, 3)


def test_a_set_that_there_is_not_is_named_with_the_remedy(mine: Stages) -> None:
    shutil.rmtree(mine.folder / "data/raw/mine")
    with pytest.raises(UserError, match=r"mine/pictures\.csv is missing; run .*collect@mine"):
        mine.run_features()
    shutil.rmtree(mine.folder / "data/sets/mine")
    (mine.folder / "data/sets/flowers17").mkdir()
    with pytest.raises(UserError, match=r"no folder .*/mine; there are: flowers17; .*sets/NAME"):
        mine.run_collect()
