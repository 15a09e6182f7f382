import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from stages.common.command_line import UserError
from stages.common.files import write_csv
from tests.tiny_set import ROOT
from tools import compare


def predictions(wrong: Sequence[int], images: int = 12) -> dict[str, tuple[str, str]]:
    """Predictions of which those `wrong` are."""
    return {
        f"{number}.jpg": ("rose", "iris" if number in wrong else "rose") for number in range(images)
    }


def test_a_difference_by_hand() -> None:
    """Image 0 is right in the first alone, images 1 to 9 in the second alone, 10 and 11 in both.

    At most one of ten falls to one side in (1 + 10) of 2**10 cases, and as often to the other.
    """
    found = compare.compare(predictions(range(1, 10)), predictions([0]))
    assert found[:3] == (12, 3 / 12, 11 / 12)
    assert found.test == pytest.approx((1, 9, 2 * 11 / 1024))
    assert compare.describe(found, "HEAD", "moth") == (
        "12 images, accuracy 0.2500 in HEAD, 0.9167 in moth (+0.6667); right in HEAD alone 1, "
        "in moth alone 9; p = 0.021: real at 5 %"
    )


def test_a_difference_of_chance_is_said_to_be_one() -> None:
    """Five of five to one side come up in 2 of 32 cases, which is above 5 %."""
    found = compare.compare(predictions([]), predictions(range(5)))
    assert compare.describe(found, "a", "b").endswith("p = 0.062: within chance")


def test_rows_are_joined_by_image_not_by_place() -> None:
    given = predictions([2])
    turned = dict(reversed(given.items()))
    assert compare.compare(given, turned).test == (0, 0, 1)


def test_other_images_and_other_truths_are_refused() -> None:
    with pytest.raises(ValueError, match="12 and 9 images were scored, 9 the same"):
        compare.compare(predictions([]), predictions([], images=9))
    relabelled = predictions([]) | {"0.jpg": ("iris", "iris")}
    with pytest.raises(ValueError, match="the images' true classes differ"):
        compare.compare(predictions([]), relabelled)


def test_runs_are_found_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "tiny-net_035-head.csv",
        "tiny-net-finetuned.csv",
        "my-set-1.2-net-head.csv",
        "notes.csv",
        "a-b-c.txt",
    ):
        write_csv(Path("metrics/predictions", name), ["image"], [])
    runs = compare.find_runs(compare.open_revision("workspace"))
    assert runs == {
        ("tiny", "net_035", "head"),
        ("tiny", "net", "finetuned"),
        ("my-set-1.2", "net", "head"),
    }


BREAKS = ("\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\n", "\r", "\r\n", ",", '"')
NAMES = [f"a{break_}b.jpg" for break_ in BREAKS]


def test_names_that_hold_breaks_of_lines_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [[name, "rose", "iris"] for name in NAMES]
    write_csv(Path("a.csv"), ["image", "truth", "prediction"], rows)
    read = compare.read_predictions(compare.open_revision("workspace"), "workspace", "a.csv")
    assert read == dict.fromkeys(NAMES, ("rose", "iris"))


def test_a_wrong_option_is_one_line_that_names_the_help() -> None:
    with pytest.raises(UserError, match=r"no model 'tail'; .* \(see `python -m tools\.compare --h"):
        compare.main(["--model", "tail"])


def test_tensorflow_is_not_needed() -> None:
    code = "import sys, tools.compare; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


WRITE = """
import sys
from pathlib import Path
wrong, images = map(int, sys.argv[1:])
for model in ("head", "finetuned"):
    lines = ["image,truth,prediction"]
    lines += [f"{n}.jpg,rose,{'iris' if n < wrong else 'rose'}" for n in range(images)]
    path = Path(f"metrics/predictions/tiny-net-{model}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\\n".join(lines) + "\\n")
"""
PIPELINE = """
stages:
  evaluate:
    cmd: python write.py ${wrong} ${images}
    deps: [write.py]
    outs:
      - metrics/predictions/tiny-net-head.csv
      - metrics/predictions/tiny-net-finetuned.csv
"""


class Repository:
    """A small project whose one stage writes predictions, in the folder `place` of a repository."""

    def __init__(self, root: Path, place: str = ".") -> None:
        self.folder = folder = root / place
        folder.mkdir(exist_ok=True)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
        (folder / "write.py").write_text(WRITE)
        (folder / "dvc.yaml").write_text(PIPELINE)
        (folder / "params.yaml").write_text("wrong: 8\nimages: 20\n")
        self("git", "init", "--quiet", str(root))
        self("git", "config", "user.name", "test")
        self("git", "config", "user.email", "test@example.org")
        self("dvc", "init", "--quiet", *(["--subdir"] if place != "." else []))
        self("dvc", "repro", "--quiet")
        self("git", "add", "--all")
        self("git", "commit", "--quiet", "--message", "state")

    def try_(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def __call__(self, *command: str) -> str:
        done = self.try_(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def compare(self, *words: str) -> str:
        return self(sys.executable, "-m", "tools.compare", *words)

    def refusal(self, *words: str) -> str:
        done = self.try_(sys.executable, "-m", "tools.compare", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"error: .*\n", done.stderr), done.stderr
        return done.stderr


@pytest.mark.slow
def test_a_project_in_a_folder_of_a_repository(tmp_path: Path) -> None:
    project = Repository(tmp_path, "flowers")
    project("dvc", "exp", "run", "--quiet", "--name", "better", "-S", "wrong=1")
    for words in (("HEAD", "better"), ("HEAD", "workspace")):
        line = project.compare(*words, "--model", "head")
        assert f"20 images, accuracy 0.6000 in HEAD, 0.9500 in {words[1]}" in line
    assert "'worse' cannot be read" in project.refusal("HEAD", "worse")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """With the experiments `better` and `fewer`, of which the workspace holds the latter.

    The tests share it and run in order; the last ones remove files.
    """
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository("dvc", "exp", "run", "--quiet", "--name", "better", "-S", "wrong=1")
    repository("dvc", "exp", "run", "--quiet", "--name", "fewer", "-S", "images=15")
    return repository


@pytest.mark.slow
def test_experiments_are_compared(repository: Repository) -> None:
    difference = (
        "20 images, accuracy 0.6000 in HEAD, 0.9500 in better (+0.3500); "
        "right in HEAD alone 0, in better alone 7; p = 0.016: real at 5 %"
    )
    assert repository.compare("HEAD", "better").splitlines() == [
        f"tiny net finetuned: {difference}",
        f"tiny net head: {difference}",
    ]
    options = ("--set", "tiny", "--backbone", "net", "--model", "head")
    assert repository.compare("HEAD", "better", *options) == f"tiny net head: {difference}\n"


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused_in_one_line(repository: Repository) -> None:
    assert "HEAD and of workspace cannot be compared: 20 and 15 images" in repository.refusal()
    assert "'worse' cannot be read" in repository.refusal("HEAD", "worse")
    assert "no such predictions in common" in repository.refusal("--backbone", "vgg19")


@pytest.mark.slow
def test_a_model_that_one_alone_has_is_said_to_be_missing(repository: Repository) -> None:
    (repository.folder / "metrics/predictions/tiny-net-finetuned.csv").unlink()
    head, finetuned = repository.compare("fewer", "workspace").splitlines()
    assert head.endswith("p = 1: within chance")
    assert finetuned == "tiny net finetuned: in fewer alone"


@pytest.mark.slow
def test_predictions_that_the_cache_lacks_are_named(repository: Repository) -> None:
    shutil.rmtree(repository.folder / ".dvc/cache/files")
    assert "tiny-net-finetuned.csv of HEAD is not in DVC's cache" in repository.refusal(
        "HEAD", "better"
    )
