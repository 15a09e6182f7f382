"""Extraction on a Ray cluster of two workers on this machine, as a whole and with losses.

    python -m pytest -m soak tests/test_ray.py

Skipped without `make ray`.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.small_clone import SmallClone
from tests.test_interrupt import interrupt
from tests.test_kill import start

pytest.importorskip("ray", reason="needs `make ray`")
pytestmark = pytest.mark.soak

PAIR = "demo-demo_backbone"
STAGES = (f"features@{PAIR}", f"prefix@{PAIR}")
IMAGES = 136


@pytest.fixture(scope="module")
def ran_local(tmp_path_factory: pytest.TempPathFactory) -> SmallClone:
    """A clone that has run both stages on this machine, and is about to run them on a cluster."""
    clone = SmallClone(tmp_path_factory.mktemp("ray") / "clone")
    clone.edit("stages/common/ray_extraction.py", "SHARD = 256", "SHARD = 16")
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
    clone.environment = clone.environment | {"RAY_ADDRESS": os.environ.get("RAY_ADDRESS", "")}
    return start(clone, log, *targets)


def working() -> list[psutil.Process]:
    """Workers that run the network over a shard at this moment."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [""])[0].startswith("ray::MapBatches")
    ]


def seen(log: Path) -> int:
    """Images that the bar says are done."""
    return int(re.findall(r"(\d+)/136 ", log.read_text())[-1] if "/136 " in log.read_text() else 0)


@pytest.mark.usefixtures("cluster")
def test_the_bytes_are_those_of_a_local_run_though_workers_are_killed(
    clone: SmallClone, ran_local: SmallClone, tmp_path: Path
) -> None:
    process = begin(clone, tmp_path / "log", *STAGES)
    killed: set[int] = set()
    while process.poll() is None:
        for worker in working():
            if len(killed) < 2 and worker.pid not in killed:
                worker.kill()
                killed.add(worker.pid)
        time.sleep(0.2)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert len(killed) == 2
    assert "0 images are known, 136 are new" in (tmp_path / "log").read_text()
    assert outputs(clone) == outputs(ran_local)


def test_a_lost_machine_s_work_goes_to_the_others(
    clone: SmallClone, ran_local: SmallClone, cluster: Any, tmp_path: Path
) -> None:
    process = begin(clone, tmp_path / "log", STAGES[0])
    while seen(tmp_path / "log") == 0:
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    cluster.remove_node(cluster.list_all_nodes[-1], allow_graceful=False)
    assert process.wait(300) == 0, (tmp_path / "log").read_text()
    assert outputs(clone) == outputs(ran_local)


def test_without_an_address_this_machine_is_the_cluster_and_an_interrupt_ends_it(
    clone: SmallClone, ran_local: SmallClone, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = begin(clone, log, STAGES[0])
        text = interrupt(process, log, lambda _: seen(log) > 0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted: finished stages are kept" in text
    assert "Traceback" not in text
    again = clone("dvc", "repro", STAGES[0])
    known = re.search(r"(\d+) images are known, (\d+) are new", again)
    assert known
    assert int(known[1]) > 0
    assert int(known[1]) + int(known[2]) == IMAGES
    assert outputs(clone)[STAGES[0]] == outputs(ran_local)[STAGES[0]]


def test_a_cluster_that_is_not_there_is_one_line(clone: SmallClone) -> None:
    done = clone.try_("dvc", "repro", STAGES[0], RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode != 0
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "set engine to local" in error[0]
    assert "Traceback" not in done.stderr
