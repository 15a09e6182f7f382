"""Ctrl-C, as a terminal sends it: SIGINT to DVC and to its stage, in each stage.

    python -m pytest -m soak tests/test_interrupt.py

The run ends within two seconds (on a busy machine, times the number of processes that a core has
to serve), says what is kept, and leaves no process and no temporary file.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.small_clone import Reference
from tests.test_kill import members, start
from tests.tiny_set import ROOT

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform == "win32", reason="interrupts groups of processes"),
]

SECONDS = 2.0
KEPT = "interrupted: finished stages are kept, `dvc repro` goes on from here"
DVCS = "ERROR: interrupted by the user"
"""What DVC says where the interrupt finds the stage's work done, so that the stage ends well."""
PAIR = "demo-demo_backbone"
# All but `check`, `imagenet`, `survey` and `evaluate`, which are over before one could interrupt
# them. Each is interrupted when its own code begins or, where it loads TensorFlow first, in the
# midst of that.
STAGES = (
    "collect@demo",
    "weights@demo_backbone",
    f"inspect@{PAIR}",
    "duplicates@demo",
    "split@demo",
    f"features@{PAIR}",
    f"prefix@{PAIR}",
    f"head@{PAIR}",
    f"finetune@{PAIR}",
    f"explain@{PAIR}",
    "report",
)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Where a shell has started pytest in the background, it and its children ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def bound() -> float:
    """Seconds within which an interrupted run must have ended."""
    return SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def interrupt(process: "subprocess.Popen[bytes]", log: Path, when: Callable[[str], bool]) -> str:
    """Interrupt a session once its log is such, and see that it ends; return the log."""
    deadline = time.monotonic() + 300
    while not when(log.read_text()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    limit, started = bound(), time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(limit)
    print(f"ended {time.monotonic() - started:.2f} s after the interrupt, bound {limit:.1f} s")
    assert members(process.pid) == []
    return log.read_text()


def after(seconds: float, words: str) -> Callable[[str], bool]:
    """Whether it is so many seconds ago that a log came to hold `words`."""
    first: list[float] = []

    def when(log: str) -> bool:
        if not first and words in log:
            first.append(time.monotonic())
        return bool(first) and time.monotonic() >= first[0] + seconds

    return when


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_stage_ends_and_says_what_is_kept(
    stage: str, reference: Reference, tmp_path: Path
) -> None:
    clone = reference.after.copy(tmp_path / "clone")
    before = clone.outputs()
    shutil.rmtree(clone.folder / "data/locks")
    lock = clone.folder / "data/locks" / stage
    loading = after(0.5, "starting TensorFlow")
    log = tmp_path / "log"
    process = start(clone, log, "--force", "--single-item", stage)
    text = interrupt(process, log, lambda log: lock.exists() or loading(log))
    assert process.returncode != 0, text
    assert text.count(KEPT) + text.count(DVCS) == 1, text
    assert "Traceback" not in text
    assert list(clone.folder.rglob(".partial-*")) == []
    assert clone.outputs().items() <= before.items()
    assert clone.corrupt_cache() == []


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (f"features@{PAIR}", "2 views, 32 px"),
        (f"prefix@{PAIR}", "2 views, 32 px"),
        (f"finetune@{PAIR}", "epoch 2/"),
    ],
)
def test_an_interrupt_in_the_midst_of_the_work(
    stage: str, words: str, reference: Reference, tmp_path: Path
) -> None:
    clone = reference.after.copy(tmp_path / "clone")
    clone.set_parameters({r"^(  epochs:).*": r"\1 1000"})
    shutil.rmtree(clone.folder / "data/kept")
    log = tmp_path / "log"
    process = start(clone, log, "--force", "--single-item", stage)
    text = interrupt(process, log, lambda log: words in log)
    assert text.count(KEPT) == 1, text
    assert "Traceback" not in text
    assert list(clone.folder.rglob(".partial-*")) == []


FITTING = """
import numpy as np
from stages.common.command_line import run
from stages.training.logistic import fit_logistic
rng = np.random.default_rng(0)
features = rng.normal(size=(20_000, 1, 1000)).astype(np.float32)
run(lambda _: fit_logistic(features, rng.integers(100, size=20_000), [1e6], 100))
"""


def run_python(
    code: str, log: Path, environment: Mapping[str, str] = os.environ
) -> "subprocess.Popen[bytes]":
    """Run code as a stage of DVC would be, in a session of its own."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=log.parent, stdout=output, stderr=output,
            env={**environment, "PYTHONPATH": str(ROOT), "DVC_STAGE": "head@a"},
            start_new_session=True,
        )  # fmt: skip


def test_an_interrupt_in_the_midst_of_l_bfgs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = run_python(FITTING, log)
    text = interrupt(process, log, after(1, "fitting 20000 rows"))
    assert process.returncode == 130
    assert re.sub(r"^strength .*\n", "", text) == KEPT + "\n"


def test_an_interrupt_when_the_work_is_done(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "import atexit, time; from stages.common.command_line import run; "
        "atexit.register(lambda: (print('leaving', flush=True), time.sleep(1))); run(print)"
    )
    process = run_python(code, log)
    interrupt(process, log, lambda log: "leaving" in log)
    assert process.returncode == 0


LOADING = """
from stages.common.command_line import run
def main(_):
    print("now", flush=True)
    import stages.networks.keras_quiet
    input()
run(main)
"""


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1, 1.5])
def test_an_interrupt_while_tensorflow_is_loaded(seconds: float, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = run_python(LOADING, log)
    text = interrupt(process, log, after(seconds, "now"))
    assert process.returncode == 130
    assert text == f"now\nstarting TensorFlow\n{KEPT}\n"
