"""Run the whole pipeline on the drawn set `demo`, in a workspace of its own.

    python -m tools.demo

The workspace is the folder .demo: a copy of dvc.yaml, stages/, the set and params.yaml, with the
lists of sets and of backbones set to the demo's. The repository's own dvc.lock, parameters and
metrics stay as they are. What has not changed since the last call comes from the cache.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.command_line import run
from stages.common.files import read_json
from stages.common.parameters import read_yaml

WORKSPACE = Path(".demo")
LISTS = {"sets": ["demo"], "backbones": ["demo_backbone"]}
COPIED = ("dvc.yaml", ".dvcignore")
FOLDERS = ("stages", "data/sets/demo")
IGNORED = shutil.ignore_patterns("__pycache__")

BEFORE = """\
The demo makes a flower classifier from start to end, without a download:
it draws 17 species of flowers, 80 pictures each, lets a small network that has never seen these
species look at them, trains a head on what it sees, fine-tunes its upper layers, and scores both.
Each line `Running stage` is one step; the second time, all of them come from the cache.
"""

AFTER = """
What to try next
  look at the report      {report}
  classify pictures       .venv/bin/python -m tools.predict {model} PICTURE_OR_FOLDER
  in a browser            .venv/bin/python -m tools.serve {model}
  change something        set `dropout: 0.6` in params.yaml, and `make demo` again:
                          head, finetune, evaluate, explain and report run
  put it back             set the old value, and `make demo`: nothing is trained
  your own pictures       put them into data/sets/NAME, a folder a class; in params.yaml set
                          `sets: [NAME]` and for a start `backbones: [mobilenet]`;
                          . .venv/bin/activate && dvc repro
                          then .venv/bin/python -m tools.predict models/NAME/mobilenet PICTURE
                          (docs/own-images.md)
  real flowers            . .venv/bin/activate && dvc repro   (downloads 400 MB; see README.md)
"""


def set_lists(parameters: Mapping[str, Any]) -> str:
    """A params.yaml with the demo's sets and backbones. It is JSON, which is YAML to DVC."""
    return json.dumps({**parameters, **LISTS}, indent=2, ensure_ascii=False) + "\n"


def copy_changed(text: str, target: Path) -> None:
    """Write `text` to a file unless it holds it, so that DVC need not look at it again."""
    if not target.exists() or target.read_text("utf-8") != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")


def prepare(repository: Path, workspace: Path) -> None:
    """Bring the workspace up to date with the repository's pipeline."""
    for name in COPIED:
        copy_changed((repository / name).read_text("utf-8"), workspace / name)
    copy_changed(set_lists(read_yaml(repository / "params.yaml")), workspace / "params.yaml")
    for name in FOLDERS:
        shutil.rmtree(workspace / name, ignore_errors=True)
        shutil.copytree(repository / name, workspace / name, ignore=IGNORED)


def metrics_table(metrics: dict[str, dict[str, float]], classes: int) -> str:
    """The scores of head and fine-tuned model, and of guessing, as lines of text."""
    names = ["accuracy", "mean_class_accuracy", "top5_accuracy", "log_loss"]
    rows = [["", *names]]
    rows += [
        [model, *(f"{metrics[model][name]:.3f}" for name in names)]
        for model in ("head", "finetuned")
    ]
    rows.append(["guessing", f"{1 / classes:.3f}"])
    return "\n".join("  ".join(f"{cell:>19}" for cell in row).rstrip() for row in rows)


def main(_: Sequence[str]) -> None:
    """Prepare the workspace, run the pipeline in it, and show what came out."""
    try:
        make_demo()
    except KeyboardInterrupt:
        print(
            "interrupted: finished stages are kept, `make demo` goes on from here", file=sys.stderr
        )
        sys.exit(130)


def make_demo() -> None:
    """Prepare the workspace, run the pipeline in it, and show what came out; exit as DVC does."""
    print(BEFORE, flush=True)
    repository, started = Path.cwd(), time.monotonic()
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DVC_NO_ANALYTICS": "1",
    }
    dvc = [sys.executable, "-m", "dvc"]
    if not (WORKSPACE / ".dvc/config").exists():
        WORKSPACE.mkdir(exist_ok=True)
        command = [*dvc, "init", "--quiet", "--force", "--no-scm"]
        subprocess.run(command, cwd=WORKSPACE, env=environment, check=True)
    prepare(repository, WORKSPACE)
    status = subprocess.run([*dvc, "repro"], cwd=WORKSPACE, env=environment).returncode
    if status:
        sys.exit(status)
    metrics = read_json(WORKSPACE / "metrics/demo/demo_backbone.json")
    classes = read_json(WORKSPACE / "models/demo/demo_backbone/classes.json")
    print(f"\nOn {metrics['head']['images']} pictures that nothing was trained on")
    print(metrics_table(metrics, len(classes)))
    print(f"\n{time.monotonic() - started:.0f} s in all")
    model = WORKSPACE / "models/demo/demo_backbone"
    print(AFTER.format(report=WORKSPACE / "metrics/report/index.html", model=model))


if __name__ == "__main__":
    run(main)
