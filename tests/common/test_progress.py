import sys

import pytest

from stages.common import progress
from stages.common.progress import progress_bar


def test_in_a_log_every_update_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0)
    with progress_bar(total=4, unit=" images") as bar:
        for _ in range(2):
            bar.update(2)
    output = capsys.readouterr()
    assert output.out == ""
    assert "\r" not in output.err
    assert output.err.endswith("\n")
    lines = output.err.splitlines()
    assert all(lines)
    counts = [line.split("|")[2].split("[")[0].strip() for line in lines]
    assert list(dict.fromkeys(counts)) == ["0/4", "2/4", "4/4"]
    assert "images/s" in lines[-1]


def test_between_two_lines_of_a_log_seconds_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar(range(1000), desc="quick")) == list(range(1000))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "0/1000" in lines[0]
    assert "quick: 100%" in lines[1]


def test_on_a_terminal_the_bar_is_drawn_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(total=2, mininterval=0) as bar:
        bar.update(2)
    written = capsys.readouterr().err
    assert written.count("\r") >= 2
    assert written.count("\n") == 1
