from math import nan
from typing import Any

from stages.scoring.model_card import results_table, weakest, write_card

HEAD = {
    "accuracy": 0.5, "accuracy_low": 0.31, "accuracy_high": 0.69,
    "mean_class_accuracy": 0.4, "mean_class_accuracy_low": 0.2, "mean_class_accuracy_high": 0.6,
    "top5_accuracy": 1.0, "log_loss": 0.7, "calibration_error": 0.1, "images": 20,
}  # fmt: skip
IMAGES = {"source": "published", "files": {}, "terms": "Its page states no licence."}


def summary(**changes: Any) -> dict[str, Any]:
    """What evaluate puts into metrics/summary."""
    return {
        "set": "flowers17",
        "backbone": "vgg19",
        "images": IMAGES | {"files": {"17flowers.tgz": {"sha256": "ab12"}}},
        "weights": {"source": "keras", "terms": "ported, as it is known."},
        "features": {"image_size": 256, "crop": "center", "views": ["plain"], "pooling": "avg"},
        "protocol": "ordered",
        "part": "val",
        "classes": ["rose", "iris"],
        "metrics": {"head": HEAD, "finetuned": HEAD | {"accuracy": 0.6}, "comparison": {}},
    } | changes


def card(**changes: Any) -> str:
    return write_card(summary(**changes), {"train": 80, "val": 20}, [1.0, 0.25], [10, 10])


def test_the_table_has_a_column_for_each_model_and_intervals_where_there_are_some() -> None:
    lines = results_table(summary()["metrics"])
    assert lines[:3] == [
        "| | head | fine-tuned |",
        "|---|---|---|",
        "| accuracy | 0.5000 (0.310 to 0.690) | 0.6000 (0.310 to 0.690) |",
    ]
    assert lines[5] == "| log loss | 0.7000 | 0.7000 |"


def test_the_weakest_classes_come_worst_first_and_perfect_ones_not_at_all() -> None:
    names = ["a", "b", "c", "d", "e"]
    lines = weakest(names, [1.0, 0.5, nan, 0.25, 0.5], [4, 2, 0, 8, 6], most=2)
    assert lines == ["- d: 25% of 8", "- b: 50% of 2"]


def test_the_card_says_where_everything_came_from_and_how_to_load_it() -> None:
    text = card()
    for words in (
        "the published files",
        "`val` of the protocol `ordered`: the first 65 images of each class are train",
        "80 images of train, 20 images of val.",
        "`17flowers.tgz`: SHA-256 `ab12`",
        "squares of 256 px",
        "none of these",
        "- Pictures: Its page states no licence.\n",
        "- Weights of `vgg19`: ported, as it is known.\n",
        '"models/flowers17/vgg19/finetuned.keras"',
        "fine-tuned with the network's upper layers",
        "- iris: 25% of 10",
    ):
        assert words in text


def test_a_mirror_is_named() -> None:
    assert "not the published files" in card(images=IMAGES | {"source": "mirror"})


def test_weights_of_unknown_terms_are_said_to_be_that() -> None:
    text = card(weights={"source": "keras"})
    assert "- Weights of `vgg19`: their terms are not recorded here; for whose work" in text


def test_figures_of_stand_ins_are_called_that() -> None:
    assert "stand-ins (" not in card()
    assert "stand-ins (" in card(weights={"source": "mirror"})
    assert "stand-ins (" in card(images=IMAGES | {"source": "mirror"})
