import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from stages.common.command_line import Parser, UserError, number, one_of, run, stage_name
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


def test_a_stage_is_known_by_its_name_wherever_dvc_was_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DVC_STAGE", "../dvc.yaml:fit@a")
    assert stage_name() == "fit@a"


def run_into(
    output: int, code: str, *options: str, stderr: int = subprocess.PIPE
) -> "subprocess.CompletedProcess[str]":
    """Run a `main` of this code as a command that writes to `output`."""
    words = (
        f"import sys\nfrom stages.common.command_line import *\ndef main(_):\n {code}\nrun(main)"
    )
    return subprocess.run(
        [sys.executable, *options, "-c", words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        stdout=output, stderr=stderr, text=True,
    )  # fmt: skip


@pytest.fixture
def unread() -> Iterator[int]:
    """The writing end of a pipe that nobody reads, as after `| head` has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("options", [[], ["-u"]])
@pytest.mark.parametrize(
    "code",
    [
        "print('a')",
        "print('a', flush=True)",
        "print('a' * 100_000)",
        "print('a'); sys.exit(0)",
    ],
)
def test_output_that_nobody_reads_ends_a_run_without_a_word(
    code: str, options: list[str], unread: int
) -> None:
    done = run_into(unread, code, *options)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_help_that_nobody_reads_ends_without_a_word(options: list[str], unread: int) -> None:
    done = run_into(unread, "Parser('What it does.').parse_args(['--help'])", *options)
    # argparse forgives an error where it writes at once, in some versions.
    assert done.returncode in ({0, 141} if options else {141})
    assert done.stderr == ""


def test_an_error_is_told_where_nobody_reads_the_output(unread: int) -> None:
    done = run_into(unread, "print('a'); raise UserError('it cannot be done')")
    assert (done.returncode, done.stderr) == (1, "error: it cannot be done\n")


def test_errors_that_nobody_reads_do_not_change_the_status(unread: int) -> None:
    code = "print('a', file=sys.stderr); raise UserError('it cannot be done')"
    assert run_into(unread, code, stderr=subprocess.STDOUT).returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_output_onto_a_full_disk_is_told_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = run_into(full.fileno(), "print('a')")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*No space left on device.*\n", done.stderr), done.stderr


def test_importing_has_no_effect() -> None:
    """A fault before the run is Python's own to show, as is an interrupt."""
    code = (
        "import sys; before = sys.excepthook; import stages.common.command_line; "
        "sys.exit(sys.excepthook is not before)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def start_stage(folder: Path, stage: str) -> "subprocess.Popen[str]":
    """Start what runs as DVC's `stage` until its input ends."""
    code = """
import sys
from stages.common.command_line import run, stage_name
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
