import numpy as np
import pytest

from stages.common.files import read_csv, read_json, write_csv
from stages.evaluate import class_rows, prediction_rows
from tests.tiny_set import Stages

METRICS = "metrics/tiny/demo_backbone.json"


def test_prediction_rows() -> None:
    probabilities = np.array([[0.7, 0.3], [0.9, 0.1]], np.float32)
    rows = prediction_rows(["a.jpg", "b.jpg"], np.array([0, 1]), probabilities, ["x", "y"])
    assert rows == [
        ["a.jpg", "x", "x", "0.700000", "0.700000"],
        ["b.jpg", "y", "x", "0.900000", "0.100000"],
    ]


def test_class_rows_leave_empty_what_is_undefined() -> None:
    truth = np.array([0, 0, 1])
    rows = class_rows(truth, [np.array([0, 1, 1]), np.array([0, 0, 0])], ["x", "y", "z"])
    assert rows == [
        ["x", 2, "0.500000", "1.000000", "1.000000", "0.666667"],
        ["y", 1, "1.000000", "0.500000", "0.000000", ""],
        ["z", 0, "", "", "", ""],
    ]


def test_the_metrics_file(ran: Stages) -> None:
    metrics = read_json(ran.folder / METRICS)
    assert list(metrics) == ["head", "finetuned"]
    for scores in metrics.values():
        assert set(scores) == {
            "accuracy", "mean_class_accuracy", "top5_accuracy", "log_loss", "calibration_error",
            "images", "part", "protocol", "image_source", "weights",
        }  # fmt: skip
        assert scores["images"] == 6
        assert (scores["part"], scores["protocol"]) == ("val", "stratified")
        assert (scores["image_source"], scores["weights"]) == ("generated", "random")


def test_only_the_reported_part_is_scored(stages: Stages) -> None:
    rows = read_csv(stages.folder / "data/splits/tiny.csv")
    parts = ["train"] * 10 + ["val"] * 15 + ["test"] * 5
    table = [[*list(row.values())[:3], part] for row, part in zip(rows, parts, strict=True)]
    write_csv(stages.folder / "data/splits/tiny.csv", list(rows[0]), table)
    probabilities = np.zeros((30, 3), np.float32)
    right = np.arange(30) % 3
    probabilities[np.arange(30), right] = 1
    probabilities[26] = [1, 0, 0]
    for name in ("head", "finetuned"):
        np.save(
            stages.folder / f"models/tiny/demo_backbone/{name}_probabilities.npy",
            probabilities[np.newaxis],
        )
    stages.run_evaluate(protocol="official")
    scores = read_json(stages.folder / METRICS)["head"]
    assert (scores["part"], scores["images"], scores["accuracy"]) == ("test", 5, 0.8)
    # The classes of images 25 to 29 are 1, 2, 0, 1, 2; one of the two of class 2 is missed.
    assert scores["mean_class_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3, abs=1e-6)


def test_the_metrics_follow_from_the_predictions(ran: Stages) -> None:
    for name in ("head", "finetuned"):
        rows = read_csv(ran.folder / f"metrics/predictions/tiny-demo_backbone-{name}.csv")
        right = [row["truth"] == row["prediction"] for row in rows]
        scores = read_json(ran.folder / METRICS)[name]
        assert scores["accuracy"] == round(sum(right) / len(right), 6)


def test_tensorflow_is_not_needed() -> None:
    import subprocess
    import sys

    code = "import sys, stages.evaluate; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
