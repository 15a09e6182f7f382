"""What is computed a second time, and what is not."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.extraction.kept import Kept
from tests.tiny_set import ROOT

KEYS = ["a", "b", "c", "d"]


def fill(
    folder: Path, keys: Sequence[str], views: Sequence[str] = ("plain",), **recipe: str
) -> str:
    """Compute what is lacking, values that say what they are of; return of which."""
    kept = Kept(folder / "kept", keys, views, recipe, (2,), "float32")
    lacking = []
    for row, key in enumerate(keys):
        for column, view in enumerate(views):
            if not kept.done[row, column]:
                kept.values[row, column] = [ord(key), len(view)]
                kept.mark(np.array([row]), column)
                lacking.append(f"{key} {view}")
    kept.finish(folder / "values.npy")
    found = np.load(folder / "values.npy")
    expected = [[[ord(key), len(view)] for view in views] for key in keys]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    return ", ".join(lacking)


def test_only_what_is_new_is_lacking(tmp_path: Path) -> None:
    assert fill(tmp_path, KEYS) == "a plain, b plain, c plain, d plain"
    assert fill(tmp_path, KEYS) == ""
    assert fill(tmp_path, ["c", "x", "a", "d", "c"]) == "x plain"
    assert fill(tmp_path, ["x", "b"]) == "b plain"  # It was gone in the run before.


def test_a_new_view_is_lacking_alone(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"], ["plain", "mirror"])
    assert fill(tmp_path, ["b", "c"], ["zoom", "mirror"]) == "b zoom, c zoom, c mirror"


def test_another_recipe_begins_anew(tmp_path: Path) -> None:
    fill(tmp_path, ["a"], pooling="avg")
    assert fill(tmp_path, ["a"], pooling="max") == "a plain"
    assert fill(tmp_path, ["a"], pooling="max") == ""


def test_the_output_is_the_same_file_and_survives_what_follows(tmp_path: Path) -> None:
    fill(tmp_path, KEYS)
    output = tmp_path / "values.npy"
    assert output.samefile(tmp_path / "kept/values.npy")
    os.link(output, tmp_path / "cache")  # As DVC does, and makes it one that is only read.
    output.chmod(0o444)
    before = output.read_bytes()
    output.unlink()
    fill(tmp_path, ["b", "e"])
    assert (tmp_path / "cache").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cache", "kept", "values.npy"]


@pytest.mark.parametrize("again", [False, True])
def test_a_killed_run_goes_on(tmp_path: Path, again: bool) -> None:
    """With `again`, another run is killed just when it begins to copy."""
    fill(tmp_path, ["a"])
    code = """
import os, signal, sys
import numpy as np
from pathlib import Path
from stages.extraction.kept import Kept
folder, at = Path(sys.argv[1]), sys.argv[2]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if at == "copying":
    Kept._copy_from = die
kept = Kept(folder / "kept", ["a", "b", "c"], ["plain"], {}, (2,), "float32")
assert kept.done[:, 0].tolist() == [True, False, False]
kept.values[1, 0] = [ord("b"), 5]
kept.mark(np.array([1]), 0)
kept.values[2, 0] = -1
die()
"""
    for at in ["computing"] + (["copying"] if again else []):
        command = [sys.executable, "-c", code, str(tmp_path), at]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert fill(tmp_path, ["a", "b", "c"]) == "c plain"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["kept", "values.npy"]
