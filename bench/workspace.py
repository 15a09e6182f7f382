"""A scratch copy of the repository, and generated pictures, to run the pipeline on as users do."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from stages.common.command_line import UserError

# Stands in for `python` in the workspace. It must stay small: a process counts its parent's memory
# as its own until it has become another program.
SHIM = """\
#!/bin/sh
exec "{python}" -IS -c '
import os, sys, time
python, log, *words = sys.argv[1:]
started = time.perf_counter()
process = os.posix_spawn(python, [python, *words], os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - started
with open(log, "a") as file:
    print(seconds, usage.ru_maxrss, *words, file=file)
sys.exit(os.waitstatus_to_exitcode(status))
' "{python}" "{log}" "$@"
"""
CLASSES = 17
UNIT = 1 if sys.platform == "darwin" else 1024  # Bytes of what `ru_maxrss` counts.


class StageRun(NamedTuple):
    """One run of a stage under DVC; its gigabytes are those of its peak."""

    stage: str
    seconds: float
    gigabytes: float


class Workspace:
    """A copy of this repository's files with its own Git, cache and parameters.

    `sets` are sets of one's own, by name, with their numbers of pictures; none leaves the default
    ones. `parameters` are set over those of params.yaml.
    """

    def __init__(self, folder: Path, sets: Mapping[str, int], parameters: dict[str, Any]) -> None:
        self.folder, self.log = folder / "repository", folder / "stages.log"
        paths = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = os.environ | {"PATH": os.pathsep.join(paths), "DVC_NO_ANALYTICS": "1"}
        copy_repository(self.folder)
        write_shim(folder / "python", self.log)
        for name, count in sets.items():
            write_folder(self.folder / "data/sets" / name, count)
        self.set_parameters(parameters | ({"sets": [*sets]} if sets else {}))
        self.run("git", "init", "--quiet")
        self.run("git", "add", "--all")
        author = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
        self.run("git", *author, "commit", "--quiet", "--message", "bench")

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set parameters, by their dotted names, in params.yaml."""
        path = self.folder / "params.yaml"
        values = yaml.safe_load(path.read_text("utf-8"))
        for name, value in parameters.items():
            section, _, key = name.rpartition(".")
            (values[section] if section else values)[key] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")

    def run(self, *command: str) -> tuple[float, str]:
        """Run a command in the copy; return its seconds and what it printed."""
        started = time.perf_counter()
        printed = run(command, self.folder, self.environment)
        return time.perf_counter() - started, printed

    def module(self, name: str, *arguments: str) -> tuple[float, Any]:
        """Run a module of Python; return its seconds and the JSON of its output's last line."""
        seconds, output = self.run(sys.executable, "-m", name, *arguments)
        return seconds, json.loads(output.splitlines()[-1])

    def dvc(self, *arguments: str) -> tuple[float, list[StageRun]]:
        """Run DVC; return its seconds and the stages that it ran, in their order."""
        self.log.write_text("", "utf-8")
        seconds, _ = self.run(sys.executable, "-m", "dvc", *arguments)
        return seconds, [stage_run(line) for line in self.log.read_text("utf-8").splitlines()]


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Run a command and return what it printed; raises UserError with its error when it fails."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        error = [line for line in said if line.startswith("error:")][:1] or said[-1:]
        raise UserError(f"`{' '.join(command)}` ended with {done.returncode}: {' '.join(error)}")
    return done.stdout


def stage_run(line: str) -> StageRun:
    """What a line of the shim's log says: seconds, peak memory, and `-m stages.NAME ...`."""
    seconds, peak, _, module, *_ = line.split()
    return StageRun(module.removeprefix("stages."), float(seconds), int(peak) * UNIT / 1e9)


def generated_picture(number: int) -> bytes:
    """A JPEG of blending colours, with the size and about the bytes of a published picture."""
    small = np.random.default_rng(number).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((667, 500)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_folder(folder: Path, count: int) -> None:
    """Write `count` pictures to `train` and a fifth of them to `val`, a folder for each class."""
    for number in range(count):
        part = "val" if number % 5 == 4 else "train"
        path = folder / part / f"class{number * CLASSES // count:02}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(generated_picture(number))


def write_shim(path: Path, log: Path) -> None:
    """Write a `python` that notes each run's seconds and peak memory in `log`."""
    path.write_text(SHIM.format(python=sys.executable, log=log), "utf-8")
    path.chmod(0o755)


def copy_repository(folder: Path) -> None:
    """Copy the files that Git knows or would take from the current directory, without dvc.lock."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in run(words, Path(), os.environ).split("\0")[:-1]:
        if Path(name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, folder / name)
