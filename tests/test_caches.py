"""DVC's cache of every type and on another disk, entries that are gone, and runs at the same time.

python -m pytest -m soak tests/test_caches.py
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_clone import Reference, SmallClone
from tests.test_kill import start

pytestmark = pytest.mark.soak

PAIR = "demo-demo_backbone"
CHEAP = ("survey@demo", "duplicates@demo", "split@demo", f"evaluate@{PAIR}", "report")
"""Stages without TensorFlow, of every kind of output: file, folder, metrics."""


@pytest.fixture
def clone(reference: Reference, tmp_path: Path) -> SmallClone:
    return reference.after.copy(tmp_path / "clone")


def is_whole(clone: SmallClone, reference: Reference) -> None:
    """Nothing is missing, changed or left over, in workspace and cache."""
    assert clone.lock() == reference.lock
    assert clone.outputs() == reference.outputs
    assert clone.corrupt_cache() == []
    assert clone.temporary_files() == ([], [])


def rerun(clone: SmallClone, reference: Reference) -> None:
    """Take all outputs from the cache, then run stages that write in their place."""
    for name in ("data", "models", "metrics"):
        shutil.rmtree(clone.folder / name)
    clone("git", "checkout", "--", "metrics", "data")
    clone("dvc", "checkout")
    assert clone.ran("dvc", "repro") == set()
    clone("dvc", "repro", "--force", "--single-item", *CHEAP)
    is_whole(clone, reference)
    assert clone.ran("dvc", "repro") == set()


@pytest.mark.parametrize("kind", ["copy", "hardlink", "symlink", "reflink"])
def test_each_type_of_link_to_the_cache(kind: str, clone: SmallClone, reference: Reference) -> None:
    clone("dvc", "config", "cache.type", kind)
    if kind == "reflink":
        (clone.folder / "a").write_text("a")
        copied = clone.try_("cp", "--reflink=always", "a", "b")
        (clone.folder / "a").unlink()
        (clone.folder / "b").unlink(missing_ok=True)
        if copied.returncode:
            pytest.skip("this file system has no reflinks (Btrfs and XFS have)")
    rerun(clone, reference)
    split = clone.folder / "data/splits/demo.csv"
    assert split.is_symlink() == (kind == "symlink")
    assert (split.stat().st_nlink > 1) == (kind == "hardlink")


@pytest.fixture
def other_disk() -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("/dev/shm is no other file system here")
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)


def test_a_cache_on_another_file_system(
    clone: SmallClone, reference: Reference, other_disk: Path
) -> None:
    shutil.move(clone.folder / ".dvc/cache", other_disk / "cache")
    clone("dvc", "cache", "dir", str(other_disk / "cache"))
    rerun(clone, reference)
    assert (clone.folder / "data/splits/demo.csv").stat().st_nlink == 1  # A copy.


def object_of(clone: SmallClone, output: str) -> Path:
    """Where the cache has the content of an output."""
    entry = rf"path: {re.escape(output)}\n      hash: md5\n      md5: (\w\w)(\w+)"
    found = re.search(entry, clone.lock().decode())
    assert found
    return clone.folder / ".dvc/cache/files/md5" / found[1] / found[2]


def test_what_cache_and_workspace_have_lost_is_made_again(
    clone: SmallClone, reference: Reference
) -> None:
    object_of(clone, "data/splits/demo.csv").unlink()
    (clone.folder / "data/splits/demo.csv").unlink()
    assert clone.ran("dvc", "repro") == {"split"}
    is_whole(clone, reference)


def test_what_the_cache_alone_has_lost_is_put_back(clone: SmallClone, reference: Reference) -> None:
    object_of(clone, "data/splits/demo.csv").unlink()
    assert clone.ran("dvc", "repro") <= {"split"}
    clone("dvc", "commit", "--force")
    is_whole(clone, reference)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs chattr by root")
def test_an_output_that_cannot_be_replaced_is_named(
    clone: SmallClone, reference: Reference
) -> None:
    folder = clone.folder / "data/splits"
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode:
        pytest.skip("this file system cannot make a folder unchangeable")
    try:
        words = "stages.split --set demo --protocol stratified --fraction 0.2 --seed 42 --fold 1"
        done = clone.try_(sys.executable, "-m", *words.split(), "--group_duplicates")
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*not permitted: '.*demo\.csv'; see to .*\n", done.stderr)
    is_whole(clone, reference)


def wait_for(words: str, log: Path) -> None:
    deadline = time.monotonic() + 300
    while words not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_of_two_runs_at_once_the_second_is_refused(
    clone: SmallClone, reference: Reference, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    first = start(clone, log, "--force", "--single-item", f"features@{PAIR}")
    wait_for("> python -m stages.features", log)
    os.killpg(first.pid, signal.SIGSTOP)  # So that it is not over before the second has begun.
    second = clone.try_("dvc", "repro", "--force", "--single-item", f"features@{PAIR}")
    os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr
    assert f"(PID {first.pid})" in second.stderr, second.stderr
    assert first.wait(300) == 0, log.read_text()
    is_whole(clone, reference)


def test_a_queue_with_two_workers(clone: SmallClone, reference: Reference) -> None:
    clone("dvc", "exp", "run", "-S", "finetune.epochs=1,2", "--queue")
    clone("dvc", "queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 900
    states = ["Queued"]
    while set(states) & {"Queued", "Running"}:
        assert time.monotonic() < deadline
        time.sleep(3)
        states = re.findall(r"(Success|Failed|Running|Queued)", clone("dvc", "queue", "status"))
    print(states)
    assert "Success" in states
    is_whole(clone, reference)
