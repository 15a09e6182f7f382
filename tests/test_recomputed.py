"""The metrics, computed again by scikit-learn from what the run keeps, to the last digit shown.

Nothing of `stages/` computes here: the inputs are the probabilities and the table of the split.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    top_k_accuracy_score,
)

from tests.tiny_set import CLASSES, ROOT, Stages

DIGITS = 6
OWN = sorted(
    path
    for path in ROOT.glob("metrics/*/*.json")
    if (ROOT / "models" / path.parent.name / path.stem).is_dir()
)
"""Metrics of this repository's own runs whose models are in the workspace."""


def calibration_error(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """Guo et al. (2017), equation 3, by its words: fifteen bins, one after the other."""
    error = 0.0
    for low in range(15):
        inside = [
            (float(row.max()), float(row.argmax() == label))
            for row, label in zip(probabilities, truth, strict=True)
            if low / 15 < row.max() <= (low + 1) / 15
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            error += abs(right - confidence) * len(inside) / len(truth)
    return error


def recompute(folder: Path, set_name: str, backbone: str, model: str) -> dict[str, float]:
    """The scores of a model on the part that is reported."""
    with (folder / f"data/splits/{set_name}.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in table])
    path = folder / f"models/{set_name}/{backbone}/{model}_probabilities.npy"
    reported = "test" if any(row["part"] == "test" for row in table) else "val"
    rows = np.array([row["part"] == reported for row in table])
    truth, given = labels[rows], np.load(path)[rows]
    classes = range(given.shape[1])
    scores = {
        "accuracy": accuracy_score(truth, given.argmax(axis=1)),
        "mean_class_accuracy": balanced_accuracy_score(truth, given.argmax(axis=1)),
        "top5_accuracy": top_k_accuracy_score(truth, given, k=5, labels=classes)
        if len(classes) > 5
        else 1.0,
        "log_loss": log_loss(truth, given, labels=classes),
        "calibration_error": calibration_error(given, truth),
    }
    return {name: round(float(score), DIGITS) for name, score in scores.items()}


def check(folder: Path, metrics: Path) -> None:
    """Compare a metrics file with what scikit-learn makes of the same run."""
    for model, scores in json.loads(metrics.read_text("utf-8")).items():
        if model != "comparison":
            again = recompute(folder, metrics.parent.name, metrics.stem, model)
            assert {name: scores[name] for name in again} == again, (metrics, model)


@pytest.mark.parametrize("protocol", ["stratified", "official"])
@pytest.mark.parametrize("seed", [1, 3])
def test_scores_are_scikit_learns(stages: Stages, protocol: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stages.run_split(protocol=protocol, seed=seed)
    for model in ("head", "finetuned"):
        drawn = rng.dirichlet(np.full(CLASSES, 0.3), 30).astype(np.float32)
        np.save(stages.folder / f"models/tiny/demo_backbone/{model}_probabilities.npy", drawn)
    stages.run_evaluate(protocol=protocol)
    check(stages.folder, stages.folder / "metrics/tiny/demo_backbone.json")


def test_scores_of_many_classes_are_scikit_learns(stages: Stages) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(17, size=600)
    parts = rng.choice(["train", "val"], size=600)
    with (stages.folder / "data/splits/tiny.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "class", "group", "part"])
        for number, (label, part) in enumerate(zip(labels, parts, strict=True)):
            writer.writerow([f"{number}.jpg", label, f"class {label}", number, part])
    models = stages.folder / "models/tiny/demo_backbone"
    (models / "classes.json").write_text(json.dumps([f"class {number}" for number in range(17)]))
    for model in ("head", "finetuned"):
        drawn = rng.dirichlet(np.full(17, 0.2), 600).astype(np.float32)
        np.save(models / f"{model}_probabilities.npy", drawn)
    stages.run_evaluate()
    check(stages.folder, stages.folder / "metrics/tiny/demo_backbone.json")


@pytest.mark.parametrize("metrics", OWN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_scores_of_this_repositorys_runs_are_scikit_learns(metrics: Path) -> None:
    check(ROOT, metrics)
