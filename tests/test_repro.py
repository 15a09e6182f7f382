"""The pipeline as its users run it: real `dvc` in a clone, on the drawn set and random weights.

    python -m pytest -m slow tests/test_repro.py

Every command that the README names is run here. The tests share one clone and run in order.
"""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny_set import ROOT

pytestmark = pytest.mark.slow

SHRUNK = {
    r"^sets:.*": "sets: [demo]",
    r"^backbones:.*": "backbones: [demo_backbone]",
    r"^weights:.*": "weights: random",
    r"^(  image_size:).*": r"\1 32",
    r"^(  epochs:).*": r"\1 2",
    r"^(  kind:).*": r"\1 mlp",
}
RUN = "demo-demo_backbone"
STAGES_AFTER_FEATURES = {"head", "finetune", "evaluate", "explain", "report"}


class Clone:
    """A clone of this repository with its own DVC cache and changed parameters, committed."""

    def __init__(self, folder: Path, changes: dict[str, str]) -> None:
        self.folder = folder
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = os.environ | {"PATH": os.pathsep.join(paths)}
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.split("\0")[:-1]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        self("git", "init", "--quiet")
        self("git", "config", "user.name", "test")
        self("git", "config", "user.email", "test@example.org")
        self.set_parameters(changes)
        self.commit()

    def set_parameters(self, changes: dict[str, str]) -> None:
        path = self.folder / "params.yaml"
        text = path.read_text()
        for pattern, value in changes.items():
            text, count = re.subn(pattern, value, text, flags=re.MULTILINE)
            assert count, pattern
        path.write_text(text)

    def commit(self) -> None:
        self("git", "add", "--all")
        self("git", "commit", "--quiet", "--allow-empty", "--message", "state")

    def try_(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.folder, env=self.environment | environment,
            capture_output=True, text=True,
        )  # fmt: skip

    def __call__(self, *command: str, **environment: str) -> str:
        """Run a command that must end well; return what it printed."""
        done = self.try_(*command, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ran(self, *command: str, **environment: str) -> set[str]:
        """Run a command and return the stages that it ran, without their matrix names."""
        return {name.split("@")[0] for name in self.ran_in_full(*command, **environment)}

    def ran_in_full(self, *command: str, **environment: str) -> set[str]:
        return set(re.findall(r"(?m)^Running stage '(.*)':$", self(*command, **environment)))

    def lock(self) -> bytes:
        return (self.folder / "dvc.lock").read_bytes()

    def accuracies(self) -> dict[str, float]:
        text = (self.folder / "metrics/demo/demo_backbone.json").read_text()
        metrics = json.loads(text)
        return {name: metrics[name]["log_loss"] for name in ("head", "finetuned")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("clone"), SHRUNK)
    stages = clone.ran("dvc", "repro")
    assert stages == {
        "check", "collect", "weights", "imagenet", "survey", "inspect", "duplicates", "split",
        "features", "prefix", "head", "finetune", "evaluate", "explain", "report",
    }  # fmt: skip
    clone.commit()
    return clone


def test_a_clone_is_clean_after_a_run(clone: Clone) -> None:
    assert clone("git", "status", "--porcelain") == ""
    assert list(clone.folder.rglob(".partial-*")) == []
    tracked = clone("git", "ls-files", "metrics", "data", "models").split()
    sets = [f"data/sets/{name}/set.yaml" for name in ("demo", "flowers17", "oxford102")]
    sets.insert(1, "data/sets/demo/species.yaml")
    assert tracked == [*sets, "metrics/demo/demo_backbone.json"]


def test_a_second_run_runs_nothing(clone: Clone) -> None:
    started = time.monotonic()
    assert clone.ran("dvc", "repro") == set()
    assert time.monotonic() - started < 10


def test_the_metrics_file_names_its_weights_and_images(clone: Clone) -> None:
    metrics = json.loads((clone.folder / "metrics/demo/demo_backbone.json").read_text())
    for scores in (metrics["head"], metrics["finetuned"]):
        assert scores["images"] == 272
        assert (scores["weights"], scores["image_source"]) == ("random", "generated")
    page = (clone.folder / "metrics/report/index.html").read_text()
    assert "random weights" in page.lower()


@pytest.mark.soak
def test_force_gives_the_same_lock_file(clone: Clone) -> None:
    before = clone.lock()
    assert len(clone.ran("dvc", "repro", "--force")) == 15
    assert clone.lock() == before


def test_an_experiment_with_another_dropout(clone: Clone) -> None:
    before = clone.accuracies()
    assert clone.ran("dvc", "exp", "run", "-S", "dropout=0.3") == STAGES_AFTER_FEATURES
    assert all(value != before[name] for name, value in clone.accuracies().items())
    changes = json.loads(clone("dvc", "metrics", "diff", "--json"))
    (path,) = changes
    assert path == "metrics/demo/demo_backbone.json"
    assert {name.split(".")[0] for name in changes[path]} >= {"head", "finetuned"}
    assert "head.log_loss" in changes[path]
    overlaid = clone.try_("dvc", "plots", "diff", "HEAD")
    assert (overlaid.returncode, overlaid.stderr) == (0, "")
    page = (clone.folder / "dvc_plots/index.html").read_text()
    assert all(f'"rev": "{revision}"' in page for revision in ("HEAD", "workspace"))
    shutil.rmtree(clone.folder / "dvc_plots")
    finetuned, head = clone(sys.executable, "-m", "tools.compare").splitlines()
    assert finetuned.startswith("demo demo_backbone finetuned: 272 images, accuracy ")
    assert head.startswith("demo demo_backbone head: 272 images, accuracy ")
    table = list(csv.DictReader(io.StringIO(clone("dvc", "exp", "show", "--csv"))))
    assert {row["dropout"] for row in table} >= {"0.3", "0.2"}


def test_going_back_restores_from_the_cache(clone: Clone) -> None:
    clone("git", "checkout", "--", "params.yaml")
    output = clone("dvc", "repro")
    assert "Running stage" not in output
    assert "is cached - skipping run" in output
    assert clone("git", "status", "--porcelain") == ""


def test_another_split_seed_extracts_nothing(clone: Clone) -> None:
    stages = clone.ran("dvc", "exp", "run", "-S", "split.seed=7")
    assert stages == {"split", *STAGES_AFTER_FEATURES}
    clone("git", "checkout", "--", ".")
    clone("dvc", "checkout")


def test_leaving_out_what_cannot_be_read_looks_again_and_extracts_nothing(clone: Clone) -> None:
    """The table says the same, as every picture of the set can be read."""
    assert clone.ran("dvc", "exp", "run", "-S", "unreadable=skip") == {"survey", "report"}
    clone("git", "checkout", "--", ".")
    clone("dvc", "checkout")


@pytest.mark.soak
def test_a_new_backbone_runs_for_itself_alone(clone: Clone) -> None:
    both = "backbones=[demo_backbone,mobilenet_v2_035]"
    stages = clone.ran_in_full("dvc", "exp", "run", "-S", both)
    new = {"weights@mobilenet_v2_035", "imagenet@mobilenet_v2_035"} | {
        f"{name}@demo-mobilenet_v2_035"
        for name in ("inspect", "features", "prefix", "head", "finetune", "evaluate", "explain")
    }
    assert stages == {*new, "report"}
    clone("git", "stash", "--include-untracked", "--quiet")
    clone("git", "stash", "drop", "--quiet")
    clone("dvc", "checkout")


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("stages/evaluate.py", {"evaluate"}),
        ("stages/scoring/scores.py", {"head", "evaluate", "explain", "report"}),
        ("stages/reporting/charts.py", {"explain", "report"}),
    ],
)
def test_a_changed_line_reruns_the_stages_that_import_it(
    clone: Clone, module: str, stages: set[str]
) -> None:
    path = clone.folder / module
    text = path.read_text()
    path.write_text(text + "# changed\n")
    try:
        assert clone.ran("dvc", "repro") == stages
    finally:
        path.write_text(text)
    clone("git", "checkout", "--", ".")
    assert clone.ran("dvc", "repro") == set()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "sets=[flowers18]",
            "no folder data/sets/flowers18; there are: demo, flowers17, oxford102; put",
        ),
        ("backbones=[vgg20]", "no backbone 'vgg20'; there are: vgg16, vgg19"),
        ("finetune.unfreeze=block9", "no layer 'block9'"),
        ("split.fraction=1.5", "'1.5' is not a number from 0.01 to 0.99"),
        ("split.protocol=official", "demo: split.protocol: the set has no split 'official'"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(clone: Clone, change: str, words: str) -> None:
    done = clone.try_("dvc", "exp", "run", "-S", change)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in done.stderr
    clone("git", "checkout", "--", ".")
    clone("dvc", "checkout")


def test_a_misspelt_parameter_is_refused(clone: Clone) -> None:
    done = clone.try_("dvc", "exp", "run", "-S", "dropuot=0.3")
    assert done.returncode != 0
    assert "dropuot" in done.stderr
    clone("git", "checkout", "--", ".")


@pytest.mark.soak
def test_a_queue_of_experiments(clone: Clone) -> None:
    clone("dvc", "exp", "run", "-S", "dropout=0.1,0.5", "--queue")
    clone("dvc", "queue", "start")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        states = re.findall(r"(Success|Failed|Running|Queued)", clone("dvc", "queue", "status"))
        if set(states) <= {"Success", "Failed"}:
            break
        time.sleep(2)
    assert states == ["Success", "Success"]
    table = list(csv.DictReader(io.StringIO(clone("dvc", "exp", "show", "--csv"))))
    assert {row["dropout"] for row in table} >= {"0.1", "0.5", "0.2"}


def test_an_experiment_elsewhere_finds_a_relative_mirror(
    clone: Clone, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mirror = tmp_path_factory.mktemp("mirror")
    (mirror / "SHA256SUMS").write_text("")
    relative = os.path.relpath(mirror, clone.folder)
    change = ["dvc", "exp", "run", "--temp", "-S", "sets=[flowers17]"]
    found = clone.try_(*change, FLOWERS_MIRROR=relative, HTTPS_PROXY="http://127.0.0.1:9")
    assert "is no folder" not in found.stderr
    assert "17flowers.tgz" in found.stderr
    lost = clone.try_(*change, FLOWERS_MIRROR="nowhere")
    assert "FLOWERS_MIRROR=nowhere is no folder" in lost.stderr


def test_graph_plots_and_status(clone: Clone) -> None:
    graph = clone("dvc", "dag")
    assert f"evaluate@{RUN}" in graph
    shown = clone.try_("dvc", "plots", "show")
    assert (shown.returncode, shown.stderr) == (0, "")
    page = (clone.folder / "dvc_plots/index.html").read_text()
    kinds = ("history", "predictions", "reliability")
    files = [f"{kind}/{RUN}-{model}.csv" for kind in kinds for model in ("head", "finetuned")]
    for file in (*files, f"classes/{RUN}.csv"):
        assert f"metrics/{file}" in page
    shutil.rmtree(clone.folder / "dvc_plots")
    assert "up to date" in clone("dvc", "status")
