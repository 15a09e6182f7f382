import subprocess
import sys
from collections.abc import Collection, Sequence

import numpy as np
import pytest

from stages.common.files import read_csv, read_json, write_csv
from stages.scoring.scores import wilson_interval
from tests.tiny_set import ROOT, Stages

METRICS = "metrics/tiny/demo_backbone.json"


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


def write_parts(stages: Stages, parts: Sequence[str]) -> None:
    """Put other parts of the 30 images into the split's table."""
    path = stages.folder / "data/splits/tiny.csv"
    rows = [{**row, "part": part} for row, part in zip(read_csv(path), parts, strict=True)]
    write_csv(path, list(rows[0]), [[*row.values()] for row in rows])


def write_probabilities(stages: Stages, name: str, wrong: Collection[int]) -> None:
    """Let a model have all images right but for those `wrong`."""
    predicted = (np.arange(30) % 3 + np.isin(np.arange(30), list(wrong))) % 3
    path = stages.folder / f"models/tiny/demo_backbone/{name}_probabilities.npy"
    np.save(path, np.eye(3, dtype=np.float32)[predicted])


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
