"""`dvc repro` killed by SIGKILL at random moments, again and again, until it gets through.

    FLOWERS_KILLS=10 python -m pytest -m soak tests/test_kill.py

A run is killed after a random time, the next one goes on from there and is killed in its turn, so
that each kill falls on what earlier ones left. After each, no file under a final name and no object
of DVC's cache may differ from an undisturbed run's; what is finished must not run again; and the
run that gets through must end with an undisturbed run's dvc.lock.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from tests.small_clone import EPOCHS, Reference, SmallClone

VICTIMS = ("both", "both", "dvc", "stage")
"""Who is killed: DVC and the stage that it runs, or one of them, in turns."""
SHARE = 0.25
"""The longest time before a kill, as a share of an undisturbed run's."""


@dataclass
class Tally:
    """What was done and found."""

    kills: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    broken_locks: int = 0
    dvc_leftovers: int = 0

    def __str__(self) -> str:
        moments = ", ".join(f"{count} {name}" for name, count in sorted(self.moments.items()))
        return (
            f"{self.kills.total()} kills ({dict(self.kills)}) over {self.runs} runs; in {moments}; "
            f"dvc.lock or rwlock cut short: {self.broken_locks}, "
            f"temporary files of DVC left: {self.dvc_leftovers}"
        )


def start(clone: SmallClone, log: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start `dvc repro`, the leader of a session of its own."""
    with log.open("wb") as output:
        return subprocess.Popen(
            ["dvc", "repro", *words], cwd=clone.folder, env=clone.environment,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def members(session: int) -> list[psutil.Process]:
    """The processes of a session that live."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != "zombie":
                found.append(process)
        except ProcessLookupError:
            pass
    return found


def kill(process: "subprocess.Popen[bytes]", victim: str) -> str:
    """Kill `victim`; return who it was, as a stage that does not run yet cannot be."""
    stages = [each for each in psutil.Process(process.pid).children() if is_stage(each)]
    if victim == "stage" and stages:
        stages[0].kill()
    elif victim == "dvc":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
        victim = "both"
    process.wait()
    return victim


def is_stage(process: psutil.Process) -> bool:
    return "stages." in " ".join(process.cmdline())


def ran(log: str) -> list[str]:
    return re.findall(r"^Running stage '(.*)':$", log, re.MULTILINE)


def moment(log: str) -> str:
    """What a run was at when it was killed: a stage without its matrix name, or DVC's start."""
    stages = ran(log)
    return stages[-1].split("@")[0] if stages else "DVC's start"


CUT_SHORT = {
    "dvc.lock": re.compile(r"'\./dvc\.lock' (is invalid|validation failed)"),
    ".dvc/tmp/rwlock": re.compile(r"Unable to read RWLock-file '\.dvc/tmp/rwlock'"),
}
"""What DVC says of a file that it was killed in the midst of writing."""


def unlock(clone: SmallClone, log: str) -> bool:
    """Do what docs/faults.md says about such a file: delete it. Whether there was one."""
    files = [name for name, words in CUT_SHORT.items() if words.search(log)]
    for name in files:
        (clone.folder / name).unlink()
    return bool(files)


def checkpoints(clone: SmallClone) -> int:
    """Epochs kept of the training that is not finished: the temperature's, then the final."""
    kept = 0
    for training in ("calibration", "final"):
        states = clone.folder.glob(f"data/checkpoints/*/*/*/repeat_0/{training}/[0-9]*")
        kept = max((int(path.name) + 1 for path in states), default=0)
        if kept < EPOCHS:
            break
    return kept


def survive(
    reference: Reference, folder: Path, rng: random.Random, kills: int, tally: Tally
) -> None:
    """Kill one run at most `kills` times, until it gets through, and check it after each."""
    clone = reference.before.copy(folder)
    finished: set[str] = set()
    sessions: list[int] = []
    while True:
        # A stage that outlives its DVC may finish more epochs than are counted here.
        outlives = any(members(session) for session in sessions)
        kept = checkpoints(clone)
        # One for each run, as a stage that outlives its DVC goes on writing to its own.
        log = folder.with_suffix(f".{len(sessions)}.log")
        process = start(clone, log)
        sessions.append(process.pid)
        last = kills == 0
        try:
            process.wait(None if last else rng.uniform(0, SHARE * reference.seconds))
        except subprocess.TimeoutExpired:
            tally.moments[moment(log.read_text())] += 1
            tally.kills[kill(process, VICTIMS[tally.kills.total() % len(VICTIMS)])] += 1
            kills -= 1
        text = log.read_text()
        if unlock(clone, text):
            tally.broken_locks += 1
            continue
        assert finished.isdisjoint(ran(text)), text
        epochs = re.findall(r"^epoch (\d+)/", text.partition("stages.finetune")[2], re.MULTILINE)
        if epochs:
            first = int(epochs[0])
            assert first == kept + 1 or (outlives and first > kept), text
        wrong = clone.outputs().items() - reference.outputs.items()
        assert {name for name, _ in wrong} == set()
        assert clone.corrupt_cache() == []
        if process.returncode == 0:
            break
        assert not last, text
        with suppress(yaml.YAMLError):  # Cut short; the next run says so.
            finished |= clone.locked_stages()
    assert clone.lock() == reference.lock
    assert clone.outputs() == reference.outputs
    own, dvcs = clone.temporary_files()
    assert own == []
    assert [process for session in sessions for process in members(session)] == []
    tally.dvc_leftovers += len(dvcs)
    tally.runs += 1
    shutil.rmtree(folder)


def kill_often(reference: Reference, folder: Path, kills: int) -> Tally:
    """Kill runs `kills` times in all."""
    tally, rng = Tally(), random.Random(0)
    while (left := kills - tally.kills.total()) > 0:
        survive(reference, folder / f"run_{tally.runs}", rng, left, tally)
        print(tally, flush=True)
    return tally


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="kills groups of processes")
def test_a_run_that_is_killed_goes_on(reference: Reference, tmp_path: Path) -> None:
    kills = int(os.environ.get("FLOWERS_KILLS", "100"))
    assert kill_often(reference, tmp_path, kills).kills.total() == kills
