"""`make` as a newcomer types it."""

import os
import subprocess
from pathlib import Path

import yaml

from stages.common.parameters import read_yaml
from tests.tiny_set import ROOT, default_parameters
from tools.demo import metrics_table, prepare, set_lists


def fake_python(folder: Path, version: str) -> None:
    """Put programs into `folder` that answer as Pythons of another version would."""
    for name in ("python3", "python3.10", "python3.11", "python3.12", "python3.13"):
        path = folder / name
        path.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}" && exit\nexit 1\n'
        )
        path.chmod(0o755)


def run_setup(tmp_path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    scripts = tmp_path / "repository/scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    (scripts / "setup.sh").write_text((ROOT / "tools/setup.sh").read_text())
    fake_python(tmp_path, "3.9.2")
    path = f"{tmp_path}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(scripts / "setup.sh")],
        env={"PATH": path, **environment}, capture_output=True, text=True,
    )  # fmt: skip


def test_another_python_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = run_setup(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: needs Python 3.10 to 3.13, found Python 3.9.2; ")
    assert "make setup PYTHON=" in line
    assert not (tmp_path / "repository/.venv").exists()


def test_a_python_that_is_named_and_not_there(tmp_path: Path) -> None:
    done = run_setup(tmp_path, PYTHON="python3.99")
    assert done.returncode == 1
    assert "python3.99" in done.stderr


def test_an_environment_that_others_may_use_is_not_made_anew(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/package").touch()
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/.venv").symlink_to(tmp_path / "shared")
    done = run_setup(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: .venv is a link to {tmp_path}/shared, which others may")
    assert (tmp_path / "shared/package").exists()


def test_help_lists_the_targets() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {
        "demo",
        "test",
        "setup",
        "help",
    }


def test_the_demo_uses_the_parameters_with_lists_of_its_own(tmp_path: Path) -> None:
    prepare(ROOT, tmp_path)
    parameters = yaml.safe_load((tmp_path / "params.yaml").read_text("utf-8"))
    lists = {"sets": ["demo"], "backbones": ["demo_backbone"]}
    assert parameters == default_parameters() | lists
    assert (tmp_path / "stages/head.py").exists()


def test_preparing_again_touches_only_what_changed(tmp_path: Path) -> None:
    prepare(ROOT, tmp_path)
    (tmp_path / "stages/head.py").write_text("changed")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.py")}
    prepare(ROOT, tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.py")}
    assert [path.name for path in before if before[path] != after[path]] == ["head.py"]


def test_set_lists_leaves_everything_else(tmp_path: Path) -> None:
    """Texts that YAML takes for something else without quotes among it."""
    given = {"sets": ["a", "b"], "seed": 1, "backbones": ["c"]}
    others = {"head": {"sets": 3, "x": ["off", "007", "0o7", "1e3", "ü: '\""], "y": 1e-05}}
    path = tmp_path / "params.yaml"
    path.write_text(set_lists(given | others), "utf-8")
    lists = {"sets": ["demo"], "backbones": ["demo_backbone"]}
    assert read_yaml(path) == lists | {"seed": 1} | others


def test_the_table_of_metrics() -> None:
    scores = {"accuracy": 0.91, "mean_class_accuracy": 0.9, "top5_accuracy": 1, "log_loss": 0.25}
    metrics = {
        "head": scores,
        "finetuned": scores | {"accuracy": 0.95},
        "comparison": {"gain": 0.04},
    }
    lines = metrics_table(metrics, 16).splitlines()
    assert lines[0].split() == list(scores)
    assert lines[1].split() == ["head", "0.910", "0.900", "1.000", "0.250"]
    assert lines[2].split()[:2] == ["finetuned", "0.950"]
    assert lines[3].split() == ["guessing", "0.062"]
