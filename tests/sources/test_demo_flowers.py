import io
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from stages.sources import demo_flowers as module
from stages.sources.demo_flowers import (
    SPECIES,
    demo_images,
    draw,
    image_of,
    species_of,
    write_demo_set,
)
from stages.sources.sets import DEMO_NAMES, SETS, read_labels
from tests.tiny_set import ROOT
from tools import train_demo_backbone


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_species_of_the_set_have_its_names_in_order() -> None:
    assert tuple(one.name for one in SPECIES) == DEMO_NAMES


@pytest.mark.parametrize("one", [*SPECIES, *species_of(1, 100)], ids=lambda one: one.name)
def test_traits_are_among_those_that_can_be_drawn(one: module.Species) -> None:
    assert one.shape in module.SHAPES
    assert one.marking in module.MARKINGS
    assert one.centre in module.CENTRES
    assert one.pose in module.POSES
    assert one.growth in module.GROWTHS
    assert one.leaf in module.LEAVES
    assert 0 < one.width <= 1


def test_random_species_depend_on_the_seed_alone() -> None:
    assert species_of(3, 4) == species_of(3, 9)[:4]
    assert species_of(3, 4) != species_of(4, 4)


def test_pretraining_species_are_none_of_the_set() -> None:
    def traits(species: tuple[module.Species, ...]) -> set[module.Species]:
        return {replace(one, name="") for one in species}

    pretraining = species_of(train_demo_backbone.SEED, train_demo_backbone.SPECIES)
    assert len(traits(pretraining)) == train_demo_backbone.SPECIES
    assert not traits(pretraining) & traits(SPECIES)


@pytest.mark.parametrize("one", SPECIES, ids=lambda one: one.name)
def test_pictures_are_rgb_bytes_that_follow_the_generator(one: module.Species) -> None:
    image = draw(one, rng())
    assert image.shape == (128, 128, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10
    np.testing.assert_array_equal(image, draw(one, rng()))
    assert (image != draw(one, rng(1))).mean() > 0.5


def test_species_alone_makes_a_difference() -> None:
    same_scene = [draw(one, rng(5)).tobytes() for one in SPECIES]
    assert len(set(same_scene)) == len(SPECIES)


def test_size_can_be_chosen() -> None:
    assert draw(SPECIES[0], rng(), size=64).shape == (64, 64, 3)


@pytest.mark.parametrize("kind", module.MARKINGS[1:])
def test_every_marking_shows_its_own_colour(kind: str) -> None:
    white = replace(SPECIES[4], colours=(("#ffffff", "#ffffff"),), marking="plain", mark="#ff0000")

    def redness(species: module.Species) -> float:
        image = draw(species, rng(9)).astype(float)
        return float((image[..., 0] - image[..., 1]).mean())

    assert redness(replace(white, marking=kind)) > redness(white) + 0.3


def test_a_petal_is_where_it_is_placed() -> None:
    canvas = np.zeros((40, 40, 3), np.float32)
    module._paint_patch(
        canvas,
        module.Patch(
            origin=np.array([20.0, 35.0]),
            along=np.array([0.0, -30.0]),
            across=np.array([8.0, 0.0]),
            bow=np.zeros(2),
            shape="oval",
            base=np.array([1.0, 0.0, 0.0]),
            tip=np.array([1.0, 0.0, 0.0]),
            marking="plain",
            mark=np.zeros(3),
        ),
    )
    rows, columns = np.nonzero(canvas[..., 0] > 0.3)
    assert (rows.min(), rows.max()) == (5, 34)
    assert (columns.min(), columns.max()) == (12, 28)
    assert canvas[..., 1:].max() == 0


def test_pool_draws_the_same_files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGES_OF_A_SPECIES", 2)
    monkeypatch.setattr(module, "SPECIES", SPECIES[:2])
    directly = [image_of(SPECIES[number // 2], 17, number) for number in range(4)]
    assert list(demo_images(17)) == directly
    assert len(set(directly)) == 4


def grey_jpegs(count: int) -> list[bytes]:
    files = []
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number % 256, 0, 0)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def test_archive_and_labels_fit_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = grey_jpegs(1360)
    monkeypatch.setattr(module, "demo_images", lambda: iter(files))
    write_demo_set(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.tgz", "imagelabels.mat"]
    with tarfile.open(tmp_path / "demo.tgz") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == SETS["demo"].image_names
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {
            (0, 0, 0, "")
        }
        content = archive.extractfile(members[1359])
        assert content is not None
        assert content.read() == files[1359]
    np.testing.assert_array_equal(read_labels(SETS["demo"], tmp_path), np.repeat(range(17), 80))


def test_files_have_no_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "demo_images", lambda: iter(grey_jpegs(1360)))
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr("time.time", lambda name=name: 1e9 if name == "one" else 1.5e9)
        monkeypatch.setattr("time.asctime", lambda *_, name=name: f"day {name}")
        write_demo_set(folder)
        contents.append([(folder / file).read_bytes() for file in ("demo.tgz", "imagelabels.mat")])
    assert contents[0] == contents[1]


@pytest.mark.soak
def test_whole_set_is_drawn_the_same_twice(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_demo_set(tmp_path / name)
        contents.append((tmp_path / name / "demo.tgz").read_bytes())
    assert contents[0] == contents[1]


DRAWING = """
from stages.sources.demo_flowers import demo_images
if __name__ == "__main__":
    for number, _ in enumerate(demo_images()):
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
