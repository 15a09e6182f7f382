"""Run the whole pipeline on the drawn set `demo`, in a workspace of its own.

    python -m tools.demo

The workspace is the folder .demo: a copy of dvc.yaml, stages/ and params.yaml, with the lists of
sets and of backbones set to the demo's. The repository's own dvc.lock, parameters and metrics stay
as they are. What has not changed since the last call comes from the cache.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from stages.common.files import read_json

WORKSPACE = Path(".demo")
LISTS = {"sets": ["demo"], "own": [], "backbones": ["demo_backbone"], "fusions": []}
COPIED = ("dvc.yaml", ".dvcignore")

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
  your own pictures       put them into data/own/NAME, a folder a class; in params.yaml set
                          `sets: []`, `own: [NAME]` and for a start `backbones: [mobilenet]`;
                          . .venv/bin/activate && dvc repro
                          then .venv/bin/python -m tools.predict models/NAME/mobilenet PICTURE
                          (docs/own-images.md)
  real flowers            . .venv/bin/activate && dvc repro   (downloads 400 MB; see README.md)
"""


def set_lists(parameters: str) -> str:
    """The text of params.yaml, without its comments, with the demo's sets and backbones for its."""
    return yaml.safe_dump(yaml.safe_load(parameters) | LISTS, sort_keys=False)


def copy_changed(text: str, target: Path) -> None:
    """Write `text` to a file unless it holds it, so that DVC need not look at it again."""
    if not target.exists() or target.read_text("utf-8") != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")


def prepare(repository: Path, workspace: Path) -> None:
    """Bring the workspace up to date with the repository's pipeline."""
    for name in COPIED:
        copy_changed((repository / name).read_text("utf-8"), workspace / name)
    copy_changed(
        set_lists((repository / "params.yaml").read_text("utf-8")), workspace / "params.yaml"
    )
    shutil.copytree(
        repository / "stages",
        workspace / "stages",
        ignore=shutil.ignore_patterns("__pycache__"),
        copy_function=_copy_if_newer,
        dirs_exist_ok=True,
    )


def _copy_if_newer(source: str, target: str) -> None:
    if not Path(target).exists() or Path(source).read_bytes() != Path(target).read_bytes():
        shutil.copyfile(source, target)


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


def main() -> int:
    """Prepare the workspace, run the pipeline in it, and show what came out."""
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
        return status
    metrics = read_json(WORKSPACE / "metrics/demo/demo_backbone.json")
    classes = read_json(WORKSPACE / "models/demo/demo_backbone/classes.json")
    print(f"\nOn {metrics['head']['images']} pictures that nothing was trained on")
    print(metrics_table(metrics, len(classes)))
    print(f"\n{time.monotonic() - started:.0f} s in all")
    model = WORKSPACE / "models/demo/demo_backbone"
    print(AFTER.format(report=WORKSPACE / "metrics/report/index.html", model=model))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(
            "interrupted: finished stages are kept, `make demo` goes on from here", file=sys.stderr
        )
        sys.exit(130)
