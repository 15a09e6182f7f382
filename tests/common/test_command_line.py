import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stages.common.command_line import Parser, UserError, number, one_of, run
from tests.tiny_set import ROOT


def failing(error: BaseException) -> Callable[[Sequence[str]], None]:
    def main(_: Sequence[str]) -> None:
        raise error

    return main


def test_run_hands_the_arguments_on_and_exits_with_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", "--set", "demo"])
    seen: list[str] = []
    with pytest.raises(SystemExit) as caught:
        run(seen.extend)
    assert caught.value.code == 0
    assert seen == ["--set", "demo"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("dropout: 2 is too high; lower it"), 1, "error: dropout: 2 is too high; lower"),
        (FileNotFoundError(2, "No such file or directory", "data/a.csv"), 1, "data/a.csv"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_run_tells_what_the_user_can_mend_in_one_line(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(failing(error))
    output = capsys.readouterr()
    assert caught.value.code == status
    assert output.err.count("\n") == 1
    assert words in output.err
    assert output.out == ""


@pytest.mark.parametrize("stage", ["", "head@demo-demo_backbone"])
def test_an_interrupted_stage_of_dvc_says_what_is_kept(
    stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_STAGE", stage)
    with pytest.raises(SystemExit):
        run(failing(KeyboardInterrupt()))
    assert ("`dvc repro` goes on from here" in capsys.readouterr().err) == bool(stage)


def test_an_interrupt_before_the_run_is_one_line_too() -> None:
    code = "import stages.common.command_line; raise KeyboardInterrupt"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_STAGE": "head@a"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ("interrupted: finished stages are kept, `dvc repro` goes on from here\n")


def test_another_fault_before_the_run_keeps_its_traceback() -> None:
    command = [sys.executable, "-c", "import stages.common.command_line; 1 / 0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def start_stage(folder: Path, stage: str) -> "subprocess.Popen[str]":
    """Start what runs as DVC's `stage` until its input ends."""
    code = """
import sys
from stages.common.command_line import run
run(lambda _: print("runs", flush=True) or sys.stdin.read())
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_STAGE": stage}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="locks files by fcntl")
def test_a_stage_waits_for_one_whose_dvc_has_gone(tmp_path: Path) -> None:
    with start_stage(tmp_path, "head@a") as first:
        assert first.stdout
        assert first.stdout.readline() == "runs\n"
        with start_stage(tmp_path, "head@a") as second, start_stage(tmp_path, "head@b") as other:
            assert second.stdout
            assert other.stdout
            line = second.stdout.readline()
            assert line.startswith(f"head@a is still run by process {first.pid}, whose DVC has")
            assert other.stdout.readline() == "runs\n"
            first.kill()
            assert second.stdout.readline() == "runs\n"
            second.communicate("")
            other.communicate("")
    assert (second.returncode, other.returncode) == (0, 0)


def test_run_keeps_the_traceback_of_a_fault() -> None:
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()))


MODULE = """
import sys
from stages.common.command_line import UserError, run
def main(arguments):
    if arguments:
        raise UserError("it cannot be done")
    bytearray(100_000_000)
run(main)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


def run_module(folder: Path, *arguments: str, stage: str = "", start: str = "") -> int:
    """Run MODULE, as DVC's `stage` if one is given, after `start`, in `folder`; its exit status."""
    (folder / "fit.py").write_text(start + MODULE)
    names = {"DVC_STAGE": stage} if stage else {}
    kept = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    environment = kept | {"PYTHONPATH": str(ROOT)} | names
    command = [sys.executable, "fit.py", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True).returncode


def commit(folder: Path) -> str:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "init", "--quiet"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "a"], cwd=folder, check=True)
    command = [*git, "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@linux
def test_a_run_of_dvc_is_noted_with_time_memory_and_commit(tmp_path: Path) -> None:
    head = commit(tmp_path)
    large = bytearray(400_000_000)  # Is no part of what the run takes.
    assert run_module(tmp_path, stage="fit@a-b+c", start="import time; time.sleep(0.5)\n") == 0
    assert len(large) == 400_000_000
    use = json.loads((tmp_path / "data/times/fit@a-b+c/fit.json").read_text())
    assert 0.5 <= use["seconds"] < 60
    assert 100 <= use["megabytes"] < 300
    assert len(use["commit"]) >= 7
    assert head.startswith(use["commit"])


@linux
def test_a_run_is_noted_by_its_name_alone_and_without_a_repository(tmp_path: Path) -> None:
    assert run_module(tmp_path, stage="../dvc.yaml:fit@a") == 0
    (path,) = (path for path in tmp_path.rglob("*.json"))
    assert path == tmp_path / "data/times/fit@a/fit.json"
    assert json.loads(path.read_text())["commit"] == ""


def test_neither_a_failed_run_nor_one_without_dvc_is_noted(tmp_path: Path) -> None:
    assert run_module(tmp_path, "fail", stage="fit") == 1
    assert run_module(tmp_path) == 0
    assert not (tmp_path / "data/times").exists()


def parser() -> Parser:
    made = Parser("What it does.")
    made.add_argument("--learning_rate", type=number(float, 0, 10, open_low=True), required=True)
    return made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--learning_rate", "11"], "--learning_rate: '11' is not a number above 0 to 10"),
        (["--learning_rate"], "expected one argument"),
        ([], "required: --learning_rate"),
        (["--learning_rate", "1", "--other", "2"], "unrecognized arguments: --other 2"),
        (["--learning", "1"], "required: --learning_rate"),
    ],
)
def test_a_command_line_that_does_not_parse_is_a_user_error(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parser().parse_args(arguments)
    assert "params.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""


def test_a_command_line_that_parses() -> None:
    assert parser().parse_args(["--learning_rate", "0.5"]).learning_rate == 0.5


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("0.95", 0.95), ("5e-1", 0.5)])
def test_a_number_may_be_either_bound(text: str, value: float) -> None:
    assert number(float, 0, 0.95)(text) == value


@pytest.mark.parametrize("text", ["-0.1", "0.96", "nan", "inf", "-inf", "", "None", "many", "1,5"])
def test_a_number_outside_its_range_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        number(float, 0, 0.95)(text)
    assert str(caught.value) == f"{text!r} is not a number from 0 to 0.95"


def test_an_open_bound_is_refused_itself() -> None:
    positive = number(float, 0, 10, open_low=True)
    assert positive("1e-9") == 1e-9
    for text in ("0", "-0.0", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="above 0 to 10"):
            positive(text)


def test_a_whole_number_stays_whole() -> None:
    value = number(int, 1)("3")
    assert (value, type(value)) == (3, int)
    for text in ("0", "1.5", "1e3", "inf", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is not a whole number from 1$"):
            number(int, 1)(text)


def test_a_number_without_upper_bound_is_finite() -> None:
    assert number(float, 0)("1e300") == 1e300
    with pytest.raises(argparse.ArgumentTypeError, match=r"'inf' is not a number from 0$"):
        number(float, 0)("inf")
    assert number(int, 0)("9" * 400) == int("9" * 400)


def test_one_of() -> None:
    choose = one_of(("avg", "max"), "features.pooling")
    assert choose("max") == "max"
    for text in ("", "AVG", "av"):
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            choose(text)
        assert str(caught.value) == f"no features.pooling {text!r}; there are: avg, max"
