"""A folder of one's own pictures under `dvc add`: whatever DVC does, they are there, byte for byte.

python -m pytest -m slow tests/test_own_pictures.py

The tests share one clone and run in order.
"""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.stages.test_collect import picture
from tests.test_repro import SHRUNK, Clone

pytestmark = pytest.mark.slow

PICTURES = Path("data/sets/roses")
TARGET = "split@roses"


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder, by their paths there."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_pictures(folder: Path) -> dict[str, bytes]:
    for number in range(8):
        path = folder / ("red", "white")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return contents(folder)


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, dict[str, bytes]]:
    """A clone whose pictures are under DVC and committed, and the pictures."""
    changes = SHRUNK | {r"^sets:.*": "sets: [roses]"}
    clone = Clone(tmp_path_factory.mktemp("own"), changes)
    pictures = write_pictures(clone.folder / PICTURES)
    clone("dvc", "add", str(PICTURES))
    assert f"{PICTURES}.dvc" in clone("git", "status", "--porcelain", "--untracked-files=all")
    clone("dvc", "repro", TARGET)
    clone.commit()
    assert clone("git", "ls-files", str(PICTURES)) == ""
    return clone, pictures


RUNS: dict[str, list[tuple[str, ...]]] = {
    "run": [("exp", "run", "-S", "split.seed=7", TARGET)],
    "temp": [("exp", "run", "--temp", "-S", "split.seed=8", TARGET)],
    "queue": [("exp", "run", "--queue", "-S", "split.seed=9", TARGET), ("queue", "start")],
    "checkout": [("checkout", "--allow-missing")],
    "gc": [("gc", "--workspace", "--force"), ("checkout", "--allow-missing")],
}


@pytest.mark.parametrize("name", RUNS)
def test_the_pictures_stay(added: tuple[Clone, dict[str, bytes]], name: str) -> None:
    clone, pictures = added
    for words in RUNS[name]:
        clone("dvc", *words)
    if name == "queue":
        wait_for_the_queue(clone)
    assert contents(clone.folder / PICTURES) == pictures


def wait_for_the_queue(clone: Clone) -> None:
    """Until its one experiment has ended, which must have gone well."""
    while {"Queued", "Running"} & set((status := clone("dvc", "queue", "status")).split()):
        time.sleep(1)
    assert "Success" in status


def test_what_gc_has_left_restores_them(added: tuple[Clone, dict[str, bytes]]) -> None:
    clone, pictures = added
    clone("dvc", "gc", "--workspace", "--force")
    shutil.rmtree(clone.folder / PICTURES)
    clone("dvc", "checkout", f"{PICTURES}.dvc")
    assert contents(clone.folder / PICTURES) == pictures


def test_a_second_clone_pulls_them(added: tuple[Clone, dict[str, bytes]], tmp_path: Path) -> None:
    clone, pictures = added
    clone("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    clone.commit()
    clone("dvc", "push")
    second = tmp_path / "second"
    subprocess.run(["git", "clone", "--quiet", str(clone.folder), str(second)], check=True)
    subprocess.run(
        ["dvc", "pull", "--allow-missing"], cwd=second, env=clone.environment, check=True
    )
    assert contents(second / PICTURES) == pictures
