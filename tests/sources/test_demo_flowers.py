import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.common.command_line import UserError
from stages.sources import demo_flowers as module
from stages.sources.demo_flowers import (
    DEMO_SEED,
    SPECIES,
    Species,
    image_of,
    images_of,
    write_demo_set,
)
from stages.sources.published import labels_of, read_published_set
from tests.tiny_set import ROOT
from tools import train_demo_backbone
from tools.train_demo_backbone import random_species

DEMO = read_published_set(ROOT / "data/sets/demo")


def test_species_of_the_set_have_its_names_in_order() -> None:
    assert [one.name for one in SPECIES] == DEMO.classes


@pytest.mark.parametrize("one", SPECIES, ids=lambda one: one.name)
def test_pictures_are_jpegs_that_follow_seed_and_number(one: Species) -> None:
    file = image_of(one, 17, 3)
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 128))
        assert np.asarray(image).std() > 10
    assert file == image_of(one, 17, 3)
    assert len({file, image_of(one, 17, 4), image_of(one, 18, 3)}) == 3


def test_species_alone_makes_a_difference() -> None:
    assert len({image_of(one, 17, 0) for one in SPECIES}) == len(SPECIES)


def pixels(species: Species) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(image_of(species, 17, 9))), float)


WHITE = Species("white", 6, "oval", 0.5, [["#ffffff", "#ffffff"]], mark="#ff0000")


@pytest.mark.parametrize("shape", module.SIDES)
def test_every_outline_shows_the_colour_of_its_petals(shape: str) -> None:
    white, red = (
        pixels(replace(WHITE, shape=shape, colours=[[colour, colour]]))
        for colour in ("#ffffff", "#ff0000")
    )
    lost = (white - red)[..., 1] > 60
    assert 0.01 < lost.mean() < 0.6
    assert not lost[:8, :8].any()


@pytest.mark.parametrize("marking", [name for name in module.COATS if name != "plain"])
def test_every_marking_shows_its_own_colour(marking: str) -> None:
    difference = pixels(WHITE) - pixels(replace(WHITE, marking=marking))
    assert difference[..., 1].mean() > difference[..., 0].mean() + 0.3


def test_a_centre_and_more_layers_and_flowers_are_drawn() -> None:
    centre = {"petals": 9, "shape": "oval", "width": 0.5, "size": 0.3, "colours": [["#000000"] * 2]}
    others = [replace(WHITE, centre=[centre]), replace(WHITE, layers=2), replace(WHITE, flowers=3)]
    for other in others:
        assert np.abs(pixels(WHITE) - pixels(other)).mean() > 1


def test_pretraining_species_depend_on_their_number_and_are_none_of_the_set() -> None:
    pretraining = [random_species(number) for number in range(train_demo_backbone.SPECIES)]
    assert random_species(7) == pretraining[7]
    traits = [replace(one, name="") for one in (*pretraining, *SPECIES)]
    assert not [one for number, one in enumerate(traits) if one in traits[:number]]
    assert train_demo_backbone.SEED != DEMO_SEED


def test_pool_draws_the_same_files_in_order() -> None:
    directly = [image_of(SPECIES[number // 2], 17, number) for number in range(4)]
    assert list(images_of(SPECIES[:2], 2, 17)) == directly
    assert len(set(directly)) == 4


def grey_jpegs(count: int) -> list[bytes]:
    files = []
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number % 256, 0, 0)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def test_archive_fits_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, asked = grey_jpegs(1360), []

    def draw_grey(*arguments: object) -> Iterator[bytes]:
        asked.append(arguments)
        return iter(files)

    monkeypatch.setattr(module, "images_of", draw_grey)
    write_demo_set(tmp_path / "demo.tgz", DEMO.images, DEMO.classes)
    assert asked == [(SPECIES, 80, DEMO_SEED)]
    assert [path.name for path in tmp_path.iterdir()] == ["demo.tgz"]
    with tarfile.open(tmp_path / "demo.tgz") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == DEMO.images
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {
            (0, 0, 0, "")
        }
        content = archive.extractfile(members[1359])
        assert content is not None
        assert content.read() == files[1359]
    np.testing.assert_array_equal(labels_of(DEMO, tmp_path), np.repeat(range(17), 80))


def test_archive_has_no_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "images_of", lambda *_: iter(grey_jpegs(1360)))
    contents = []
    for name in ("one", "two"):
        path = tmp_path / name / "demo.tgz"
        monkeypatch.setattr("time.time", lambda name=name: 1e9 if name == "one" else 1.5e9)
        monkeypatch.setattr("time.asctime", lambda *_, name=name: f"day {name}")
        write_demo_set(path, DEMO.images, DEMO.classes)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("classes", [DEMO.classes[1:], DEMO.classes[::-1], ["rose"] * 17])
def test_other_classes_are_refused(tmp_path: Path, classes: list[str]) -> None:
    with pytest.raises(UserError, match=r"demo\.tgz cannot be drawn of other classes") as caught:
        write_demo_set(tmp_path / "demo.tgz", DEMO.images[: len(classes)], classes)
    assert "\n" not in str(caught.value)
    assert ", ".join(DEMO.classes) in str(caught.value)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.soak
def test_whole_set_is_drawn_the_same_twice(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        path = tmp_path / name / "demo.tgz"
        write_demo_set(path, DEMO.images, DEMO.classes)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


DRAWING = """
from stages.sources.demo_flowers import DEMO_SEED, SPECIES, images_of
if __name__ == "__main__":
    for number, _ in enumerate(images_of(SPECIES, 80, DEMO_SEED)):
        print(number, flush=True)
"""


@pytest.mark.slow
def test_workers_end_when_the_drawing_process_is_killed(tmp_path: Path) -> None:
    (tmp_path / "draw.py").write_text(DRAWING)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "draw.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2  # With multiprocessing's tracker.
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
