"""A scratch copy of the repository in which a benchmark runs the pipeline as its users do."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from stages.common.command_line import UserError

# Stands in for `python` in the workspace. It must stay small: a process counts its parent's memory
# as its own until it has become another program.
SHIM = """\
import os, sys, time
started = time.perf_counter()
process = os.posix_spawn({python!r}, [{python!r}, *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - started
with open({log!r}, "a") as log:
    print(f"{{seconds}} {{usage.ru_maxrss}}", *sys.argv[1:], file=log)
sys.exit(os.waitstatus_to_exitcode(status))
"""
KILOBYTE = 1 if sys.platform == "darwin" else 1024
"""What `ru_maxrss` counts in."""


class Done(NamedTuple):
    """A process that has ended well: its seconds, its peak memory in bytes, and its output."""

    seconds: float
    processor: float
    """Seconds of all cores, which other work on the machine hardly lengthens."""
    peak: int
    output: str

    def result(self) -> Any:
        """The JSON value that the output's last line holds."""
        return json.loads(self.output.strip().splitlines()[-1])


class StageRun(NamedTuple):
    """One run of a stage under DVC."""

    stage: str
    seconds: float
    peak: int


class Workspace:
    """A copy of this repository's files with its own Git, cache and parameters.

    `files` names the folder that stands in for downloads; `parameters` are set over those of
    params.yaml, `code` is put after stages/sources/sets.py.
    """

    def __init__(
        self, folder: Path, files: Path, parameters: Mapping[str, Any], code: str = ""
    ) -> None:
        self.folder, self.log = folder / "repository", folder / "stages.log"
        self.environment = os.environ | {
            "PATH": os.pathsep.join(
                [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "FLOWERS_MIRROR": str(files),
            "DVC_NO_ANALYTICS": "1",
        }
        copy_repository(self.folder)
        write_shim(folder / "bin", self.log)
        set_parameters(self.folder / "params.yaml", parameters)
        with (self.folder / "stages/sources/sets.py").open("a", encoding="utf-8") as file:
            file.write(code)
        for words in (
            ("init", "--quiet"),
            ("config", "user.name", "bench"),
            ("config", "user.email", "bench@example.org"),
            ("add", "--all"),
            ("commit", "--quiet", "--message", "bench"),
        ):
            self.run("git", *words)

    def run(self, *command: str) -> Done:
        """Run a command in the copy. Raises UserError with its last words when it fails."""
        return run(command, self.folder, self.environment)

    def python(self, *arguments: str) -> Done:
        """Run Python in the copy."""
        return self.run(sys.executable, *arguments)

    def dvc(self, *arguments: str) -> Done:
        """Run DVC in the copy; what stages it ran is then in `stage_runs`."""
        self.log.unlink(missing_ok=True)
        return self.python("-m", "dvc", *arguments)

    def stage_runs(self) -> list[StageRun]:
        """The stages that the last call of `dvc` ran."""
        return parse_log(self.log.read_text("utf-8")) if self.log.exists() else []


def run(command: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> Done:
    """Run a command to its end and measure it; its peak memory is the greatest of its processes.

    Raises UserError with the last line of what it said when it fails.
    """
    output = folder.parent / "output.txt"
    started = time.perf_counter()
    with output.open("w+", encoding="utf-8", errors="replace") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        file.seek(0)
        text = file.read()
    if process.returncode:
        errors = [line for line in text.splitlines() if line.startswith("error:")]
        last = (errors or text.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"`{' '.join(command)}` ended with status {process.returncode}: {last}")
    return Done(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * KILOBYTE, text)


def copy_repository(folder: Path) -> None:
    """Copy the files that Git knows or would take from the current directory."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise UserError(f"the benchmark copies what `git ls-files` lists: {listed.stderr.strip()}")
    for name in listed.stdout.split("\0")[:-1]:
        if Path(name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)


def write_shim(folder: Path, log: Path) -> None:
    """Put a `python` into `folder` that notes each run's seconds and peak memory in `log`."""
    folder.mkdir(parents=True)
    code = folder / "shim.py"
    code.write_text(SHIM.format(python=sys.executable, log=str(log)), "utf-8")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{code}" "$@"\n', "utf-8")
    python.chmod(0o755)


def set_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """Set parameters, by their dotted names, in a params.yaml."""
    values = yaml.safe_load(path.read_text("utf-8"))
    for name, value in parameters.items():
        section, _, key = name.rpartition(".")
        (values[section] if section else values)[key] = value
    path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")


def parse_log(text: str) -> list[StageRun]:
    """The stages in the shim's log: seconds, peak memory, `-m stages.NAME` and its options."""
    runs = []
    for line in text.splitlines():
        seconds, peak, *words = line.split()
        if words[:1] == ["-m"]:
            name = words[1].removeprefix("stages.")
            runs.append(StageRun(name, float(seconds), int(peak) * KILOBYTE))
    return runs
