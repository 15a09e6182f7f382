import subprocess
import sys
from collections.abc import Collection, Sequence

import numpy as np
import pytest

from stages.common.files import read_csv, read_json, write_csv
from stages.evaluate import class_rows, prediction_rows, reliability_rows
from stages.pictures.splits import part_columns
from stages.scoring.scores import wilson_interval
from tests.tiny_set import ROOT, Stages

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


def test_reliability_rows_have_the_bins_that_hold_an_image() -> None:
    probabilities = np.array([[0.7, 0.3], [0.72, 0.28], [0.05, 0.95]], np.float32)
    assert reliability_rows(probabilities, np.array([0, 1, 1])) == [
        ["0.710000", "0.500000", "2"],
        ["0.950000", "1.000000", "1"],
    ]


def test_the_table_of_reliability_is_of_every_image(ran: Stages) -> None:
    for name in ("head", "finetuned"):
        rows = read_csv(ran.folder / f"metrics/reliability/tiny-demo_backbone-{name}.csv")
        scores = read_json(ran.folder / METRICS)[name]
        assert sum(int(row["images"]) for row in rows) == scores["images"]
        error = sum(
            int(row["images"]) * abs(float(row["accuracy"]) - float(row["confidence"]))
            for row in rows
        )
        assert error / scores["images"] == pytest.approx(scores["calibration_error"], abs=1e-5)


def test_the_metrics_file(ran: Stages) -> None:
    metrics = read_json(ran.folder / METRICS)
    assert list(metrics) == ["head", "finetuned", "comparison"]
    for scores in (metrics["head"], metrics["finetuned"]):
        assert set(scores) == {
            "accuracy", "accuracy_low", "accuracy_high",
            "mean_class_accuracy", "mean_class_accuracy_low", "mean_class_accuracy_high",
            "top5_accuracy", "log_loss", "calibration_error",
            "images", "part", "protocol", "image_source", "weights",
        }  # fmt: skip
        assert scores["images"] == 6
        assert (scores["part"], scores["protocol"]) == ("val", "stratified")
        assert (scores["image_source"], scores["weights"]) == ("generated", "random")


def write_parts(stages: Stages, *repeats: Sequence[str]) -> None:
    """Put other parts, for each repeat those of the 30 images, into the split's table."""
    path = stages.folder / "data/splits/tiny.csv"
    columns = ["image", "label", "class", "group"]
    rows = [[row[column] for column in columns] for row in read_csv(path)]
    table = [[*row, *parts] for row, parts in zip(rows, zip(*repeats, strict=True), strict=True)]
    write_csv(path, columns + part_columns(len(repeats)), table)


def write_probabilities(stages: Stages, name: str, *wrong: Collection[int]) -> None:
    """Let a model have all images right but for those `wrong` in each repeat."""
    labels = np.arange(30) % 3
    predicted = [(labels + np.isin(np.arange(30), list(each))) % 3 for each in wrong]
    path = stages.folder / f"models/tiny/demo_backbone/{name}_probabilities.npy"
    np.save(path, np.eye(3, dtype=np.float32)[np.array(predicted)])


def test_only_the_reported_part_is_scored(stages: Stages) -> None:
    write_parts(stages, ["train"] * 10 + ["val"] * 15 + ["test"] * 5)
    write_probabilities(stages, "head", {3, 12, 26})
    write_probabilities(stages, "finetuned", {3, 12, 26})
    stages.run_evaluate(protocol="official")
    scores = read_json(stages.folder / METRICS)["head"]
    assert (scores["part"], scores["images"], scores["accuracy"]) == ("test", 5, 0.8)
    # The classes of images 25 to 29 are 1, 2, 0, 1, 2; one of the two of class 2 is missed.
    assert scores["mean_class_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3, abs=1e-6)
    low, high = wilson_interval(4, 5)
    assert (scores["accuracy_low"], scores["accuracy_high"]) == (round(low, 6), round(high, 6))


def test_repeats_are_scored_each_on_its_own_part(stages: Stages) -> None:
    """Repeat 1 scores images 20 to 29 and has 9 right, repeat 2 images 0 to 3 and has 2 right."""
    write_parts(stages, ["train"] * 20 + ["val"] * 10, ["val"] * 4 + ["train"] * 26)
    write_probabilities(stages, "head", {0, 29}, {1, 2, 29})
    write_probabilities(stages, "finetuned", (), ())
    stages.run_evaluate()
    scores = read_json(stages.folder / METRICS)["head"]
    assert scores["accuracy"] == pytest.approx((0.9 + 0.5) / 2)
    assert scores["accuracy_std"] == pytest.approx(0.4 / 2**0.5, abs=1e-6)
    bounds = (wilson_interval(9, 10)[0] + wilson_interval(2, 4)[0]) / 2
    assert scores["accuracy_low"] == pytest.approx(bounds, abs=1e-6)
    assert (scores["images"], scores["repeats"]) == (10, 2)
    assert read_json(stages.folder / METRICS)["comparison"]["gain"] == 0.1
    rows = read_csv(stages.folder / "metrics/predictions/tiny-demo_backbone-head.csv")
    assert [row["image"] for row in rows] == [f"jpg/image_{n:04}.jpg" for n in range(21, 31)]


def test_the_comparison_by_hand(stages: Stages) -> None:
    """Of ten images the head alone has one right, the fine-tuned model three.

    In (1 + 4) of 16 cases at most one of four falls to the one side, and as often to the other.
    """
    write_parts(stages, ["train"] * 20 + ["val"] * 10)
    write_probabilities(stages, "head", {0, 20, 21, 22, 23})
    write_probabilities(stages, "finetuned", {5, 23, 24})
    stages.run_evaluate()
    assert read_json(stages.folder / METRICS)["comparison"] == {
        "gain": 0.2, "only_head_right": 1, "only_finetuned_right": 3, "p_value": 0.625,
    }  # fmt: skip


def test_a_head_alone_is_scored(stages: Stages) -> None:
    (stages.folder / "models/tiny/demo_backbone/finetuned_probabilities.npy").unlink()
    before = read_json(stages.folder / METRICS)
    stages.run_evaluate()
    assert read_json(stages.folder / METRICS) == {"head": before["head"]}
    columns = read_csv(stages.folder / "metrics/classes/tiny-demo_backbone.csv")[0]
    assert list(columns) == ["class", "images", "head_recall", "head_precision"]


def test_a_second_run_gives_the_same_bytes(stages: Stages) -> None:
    before = (stages.folder / METRICS).read_bytes()
    stages.run_evaluate()
    assert (stages.folder / METRICS).read_bytes() == before


def test_the_model_card_says_what_was_scored(stages: Stages) -> None:
    """Of images 25 to 29, of the classes 1, 2, 0, 1, 2, the fine-tuned model has three wrong."""
    write_parts(stages, ["train"] * 10 + ["val"] * 15 + ["test"] * 5)
    write_probabilities(stages, "head", {26})
    write_probabilities(stages, "finetuned", {25, 28, 29})
    stages.run_evaluate(protocol="official")
    card = stages.folder / "models/tiny/demo_backbone/README.md"
    text = card.read_text("utf-8")
    assert "On 5 images of the part `test` of the protocol `official`" in text
    assert "10 images of train, 15 images of val, 5 images of test." in text
    assert "| accuracy | 0.8000 (" in text
    assert "- green: 0% of 2\n- blue's: 50% of 2\n\n" in text
    before = card.read_bytes()
    stages.run_evaluate(protocol="official")
    assert card.read_bytes() == before


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


def test_evaluate_imports_nothing_slow() -> None:
    code = "import sys, stages.evaluate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not {"scipy", "sklearn", "tensorflow", "matplotlib"} & set(done.stdout.split())
    assert "numpy" in done.stdout.split()
