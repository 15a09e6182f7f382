"""Extraction on a Ray cluster of two workers on this machine, as a whole and with losses.

    python -m pytest -m soak tests/test_ray.py

Skipped without `make ray`. What needs no `dvc` is in tests/extraction/test_ray_extraction.py.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.small_clone import SmallClone
from tests.test_kill import members, start

pytest.importorskip("ray", reason="needs `make ray`")
pytestmark = pytest.mark.soak

PAIR = "demo-demo_backbone"
STAGES = (f"features@{PAIR}", f"prefix@{PAIR}")
IMAGES = 136


@pytest.fixture(scope="module")
def ran_local(tmp_path_factory: pytest.TempPathFactory) -> SmallClone:
    """A clone that has run both stages on this machine, and is about to run them on a cluster."""
    clone = SmallClone(tmp_path_factory.mktemp("ray") / "clone")
    clone.edit("stages/extraction/ray_extraction.py", "SHARD = 128", "SHARD = 16")
    clone("dvc", "repro", *STAGES)
    clone.set_parameters({r"^engine:.*": "engine: ray"})
    clone.commit()
    return clone


@pytest.fixture
def clone(ran_local: SmallClone, tmp_path: Path) -> SmallClone:
    """A copy of it, that knows no values yet."""
    clone = ran_local.copy(tmp_path / "clone")
    shutil.rmtree(clone.folder / "data/kept")
    return clone


@pytest.fixture(autouse=True)
def without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else Ray would leave a token in the home folder, which later clusters ask for."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines of one processor each, so to speak, and one that computes nothing."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


def outputs(clone: SmallClone) -> dict[str, list[dict[str, Any]]]:
    """What dvc.lock says of the two stages' outputs."""
    stages = yaml.safe_load(clone.lock())["stages"]
    return {name: stages[name]["outs"] for name in STAGES}


def begin(clone: SmallClone, log: Path, *targets: str) -> "subprocess.Popen[bytes]":
    clone.environment = clone.environment | {
        name: value for name, value in os.environ.items() if name.startswith("RAY_")
    }
    return start(clone, log, *targets)


def kill_working(sparing: set[int]) -> set[int]:
    """Kill the cluster's workers that run the network over a shard; return their numbers."""
    killed = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
            if process.pid not in sparing and process.cmdline()[0].startswith("ray::MapBatches"):
                process.kill()
                killed.add(process.pid)
    return killed


def until_seen(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the bar says that some images are done."""
    deadline = time.monotonic() + 300
    while not re.search(rf"[1-9]\d*/{IMAGES} ", log.read_text()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.usefixtures("cluster")
def test_the_bytes_are_those_of_a_local_run_though_workers_are_killed(
    clone: SmallClone, ran_local: SmallClone, tmp_path: Path
) -> None:
    process = begin(clone, tmp_path / "log", *STAGES)
    killed: set[int] = set()
    while process.poll() is None:
        if len(killed) < 2:
            killed |= kill_working(killed)
        time.sleep(0.2)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert len(killed) >= 2
    assert "0 images are known, 136 are new" in (tmp_path / "log").read_text()
    assert "Ray: 2 processors and 0 GPUs" in (tmp_path / "log").read_text()
    assert outputs(clone) == outputs(ran_local)


@pytest.mark.usefixtures("cluster")
def test_what_is_lost_again_and_again_is_given_up(clone: SmallClone, tmp_path: Path) -> None:
    process = begin(clone, tmp_path / "log", STAGES[0])
    killed: set[int] = set()
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        killed |= kill_working(killed)
        time.sleep(0.2)
    text = (tmp_path / "log").read_text()
    assert process.poll() not in (None, 0), text
    assert len(killed) > 3
    assert "Traceback" not in text
    assert len(re.findall("(?m)^error: engine: ray failed on data/raw/demo/", text)) == 1, text


def test_a_lost_machine_s_work_goes_to_the_others(
    clone: SmallClone, ran_local: SmallClone, cluster: Any, tmp_path: Path
) -> None:
    process = begin(clone, tmp_path / "log", STAGES[0])
    until_seen(process, tmp_path / "log")
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert process.wait(300) == 0, (tmp_path / "log").read_text()
    assert outputs(clone) == outputs(ran_local)


def test_without_an_address_this_machine_is_the_cluster_and_an_interrupt_ends_it(
    clone: SmallClone, ran_local: SmallClone, tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = begin(clone, tmp_path / "log", STAGES[0])
    signal.signal(signal.SIGINT, before)
    until_seen(process, tmp_path / "log")
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    process.wait(60)  # Ray takes its own processes down, with some grace.
    print(f"ended {time.monotonic() - started:.1f} s after the interrupt")
    assert members(process.pid) == []
    text = (tmp_path / "log").read_text()
    assert "interrupted: finished stages are kept" in text
    assert "Traceback" not in text
    again = clone("dvc", "repro", STAGES[0], RAY_AUTH_MODE="disabled")
    known = re.search(r"(\d+) images are known, (\d+) are new", again)
    assert known
    assert int(known[1]) > 0
    assert int(known[1]) + int(known[2]) == IMAGES
    assert outputs(clone)[STAGES[0]] == outputs(ran_local)[STAGES[0]]


def test_a_cluster_that_is_not_there_is_one_line(clone: SmallClone) -> None:
    done = clone.try_(
        "dvc", "repro", STAGES[0], RAY_ADDRESS="127.0.0.1:1", RAY_AUTH_MODE="disabled"
    )
    assert done.returncode != 0
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "set engine to local" in error[0]
    assert "Traceback" not in done.stderr
