"""A full disk in each stage: a line that names the file, nothing half-written, then on it goes."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.io
import yaml

from stages import check, collect, report
from stages.common.command_line import run
from stages.common.files import digest
from stages.networks.keras_quiet import keras
from tests.sources.toy_set import write_facts
from tests.tiny_set import CLASS_NAMES, IMAGES, LABELS, Stages

pytestmark = pytest.mark.soak
RUN = "tiny-demo_backbone"
MODELS = "models/tiny/demo_backbone"


@cache
def small_network() -> keras.Model:
    """A network with 40 kB of weights."""
    return keras.Sequential([keras.Input((100,)), keras.layers.Dense(100)])


def run_imagenet(stages: Stages) -> None:
    """Run the stage for a backbone whose whole network is a small one."""
    with (
        mock.patch(
            "stages.networks.imagenet.download_imagenet_network", return_value=small_network()
        ),
        mock.patch("stages.networks.imagenet.class_names", return_value=["a", "b"]),
    ):
        stages.run_imagenet(backbone="vgg19", weights="imagenet")


STAGES: dict[str, tuple[Callable[[Stages], None], tuple[str, ...]]] = {
    "check": (lambda stages: stages.run(check.main), ("data/checked.txt",)),
    "collect": (lambda stages: stages.run(collect.main, "--set", "web"), ("data/raw/web",)),
    "weights": (Stages.run_weights, ("data/weights",)),
    "imagenet": (run_imagenet, ("data/imagenet/vgg19",)),
    "survey": (Stages.run_survey, ("metrics/survey",)),
    "inspect": (Stages.run_inspect, (f"metrics/inspect/{RUN}",)),
    "duplicates": (Stages.run_duplicates, ("data/duplicates",)),
    "split": (Stages.run_split, ("data/splits",)),
    "features": (Stages.run_features, ("data/kept/features/tiny", "data/features/tiny")),
    "prefix": (Stages.run_prefix, ("data/kept/prefix/tiny", "data/prefix/tiny")),
    "head": (
        Stages.run_head,
        (
            f"{MODELS}/head.keras",
            f"{MODELS}/classes.json",
            f"{MODELS}/input.json",
            f"{MODELS}/head_weights.npy",
            f"{MODELS}/head_probabilities.npy",
            f"metrics/history/{RUN}-head.csv",
        ),
    ),
    "finetune": (
        Stages.run_finetune,
        (
            "data/checkpoints",
            f"{MODELS}/finetuned.keras",
            f"{MODELS}/finetuned_probabilities.npy",
            f"metrics/history/{RUN}-finetuned.csv",
        ),
    ),
    "evaluate": (
        Stages.run_evaluate,
        (
            "metrics/tiny",
            f"{MODELS}/README.md",
            "metrics/predictions",
            "metrics/reliability",
            "metrics/classes",
            "metrics/summary",
        ),
    ),
    "explain": (Stages.run_explain, (f"metrics/explain/{RUN}",)),
    "report": (lambda stages: stages.run(report.main), ("metrics/report",)),
}
"""Each stage, and what it writes."""


@pytest.fixture(scope="module")
def disk(ran: Stages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """All stages' outputs on a disk of 64 MB, which can be filled; skipped where there is none."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk: mounting a tmpfs takes root on Linux")
    try:
        shutil.copytree(ran.folder, folder / "repository")
        stages = Stages(folder / "repository")
        parameters = {"sets": ["tiny"], "backbones": ["demo_backbone"]}
        (stages.folder / "params.yaml").write_text(yaml.safe_dump(parameters))
        (stages.folder / "data/sets/tiny").mkdir(parents=True, exist_ok=True)
        stages.run(check.main)
        stages.run_survey()
        stages.run_inspect()
        stages.run_explain()
        stages.run(report.main)
        yield stages
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def downloadable(tmp_path: Path, disk: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `collect` find the files of a set `web` in a mirror, on another disk."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.copyfile(disk.folder / "data/raw/tiny/tiny.tgz", mirror / "tiny.tgz")
    scipy.io.savemat(mirror / "imagelabels.mat", {"labels": LABELS + 1})
    train, val, test = np.split(np.arange(len(IMAGES)) + 1, [9, 15])
    scipy.io.savemat(mirror / "setid.mat", {"trnid": train, "valid": val, "tstid": test})
    names = ("tiny.tgz", "imagelabels.mat", "setid.mat")
    digests = {name: digest(mirror / name, "sha256") for name in names}
    (mirror / "SHA256SUMS").write_text("".join(f"{d}  {n}\n" for n, d in digests.items()))
    official = {"file": "setid.mat", "train": ["trnid"], "val": ["valid"], "test": ["tstid"]}
    facts = {
        "page": "https://flowers.invalid/17/",
        "terms": "none",
        "files": {name: {"sha256": digests[name]} for name in names},
        "archive": "tiny.tgz",
        "pictures": "jpg/image_{:04d}.jpg",
        "count": len(IMAGES),
        "classes": list(CLASS_NAMES),
        "labels": {"file": "imagelabels.mat", "name": "labels"},
        "splits": {"official": official},
    }
    write_facts(disk.folder / "data/sets/web", facts)
    monkeypatch.setenv("FLOWERS_MIRROR", str(mirror))


def contents(folder: Path, outputs: tuple[str, ...]) -> dict[str, bytes]:
    """Every file under the outputs that are there, by its name."""
    paths = [folder / output for output in outputs]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in files if file.is_file()
    }


def remove(folder: Path, outputs: tuple[str, ...]) -> None:
    for path in (folder / output for output in outputs):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def fill(folder: Path, room: int) -> Path:
    """Leave `room` bytes of a disk; return the file that takes the rest."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    path = folder.parent / "filler"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - room)
    return path


@pytest.mark.parametrize("room", [0, 1, 0.5], ids=["no_room", "a_page", "half_the_room"])
@pytest.mark.parametrize("name", STAGES)
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    name: str,
    room: float,
    disk: Stages,
    downloadable: None,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_stage, outputs = STAGES[name]
    if name in {"collect", "imagenet"}:
        run_stage(disk)
    whole = contents(disk.folder, outputs)
    assert whole
    remove(disk.folder, outputs)
    page = os.statvfs(disk.folder).f_frsize
    size = sum(-(-len(data) // page) * page for data in whole.values())
    filler = fill(disk.folder, page if room == 1 else int(size * room) // page * page)
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as caught:
            run(lambda _: run_stage(disk))
        left = contents(disk.folder, outputs)
        left = {path: data for path, data in left.items() if "checkpoints" not in path}
    finally:
        filler.unlink()
    errors = capsys.readouterr().err
    if caught.value.code == 0:
        assert left == whole
        assert room > 0  # A stage whose last file is smaller than a page may find room.
    else:
        (line,) = errors.splitlines()[-1:]
        assert re.fullmatch(r"error: \[Errno 28\] No space left on device: '(.*)'; see to .*", line)
        assert any(output in line.replace(".partial-", "") for output in outputs)
        assert left.items() <= whole.items()
    assert list(disk.folder.rglob(".partial-*")) == []
    run_stage(disk)
    assert contents(disk.folder, outputs) == whole
