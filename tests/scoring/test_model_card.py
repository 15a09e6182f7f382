from math import nan
from typing import Any

import pytest

from stages.scoring.model_card import results_table, weakest, weight_terms, write_card

HEAD = {
    "accuracy": 0.5, "accuracy_low": 0.31, "accuracy_high": 0.69,
    "mean_class_accuracy": 0.4, "mean_class_accuracy_low": 0.2, "mean_class_accuracy_high": 0.6,
    "top5_accuracy": 1.0, "log_loss": 0.7, "calibration_error": 0.1, "images": 20,
}  # fmt: skip


def summary(**changes: Any) -> dict[str, Any]:
    """What evaluate puts into metrics/summary."""
    return {
        "set": "flowers17",
        "backbone": "vgg19",
        "images": {"source": "published", "files": {"17flowers.tgz": {"sha256": "ab12"}}},
        "weights": {"source": "keras"},
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
        "state no licence",
        "`vgg19`: ported from those of the Visual Geometry Group, Oxford",
        '"models/flowers17/vgg19/finetuned.keras"',
        "fine-tuned with the network's upper layers",
        "- iris: 25% of 10",
    ):
        assert words in text
    assert "repeats" not in text


def test_a_head_alone_is_not_called_fine_tuned() -> None:
    text = card(metrics={"head": HEAD}, backbone="vgg19+mobilenet")
    assert "fine-tuned" not in text
    assert '"models/flowers17/vgg19+mobilenet/head.keras"' in text
    assert "256 px" not in text
    assert "- Weights of `vgg19`" in text
    assert "- Weights of `mobilenet`" in text


def test_repeats_and_a_mirror_are_named() -> None:
    images = {"source": "mirror", "files": {}}
    text = card(images=images, metrics={"head": HEAD | {"repeats": 3}})
    assert "means of 3 repeats" in text
    assert "not the published files" in text


def test_drawn_pictures_have_no_owners_but_the_project() -> None:
    text = card(images={"source": "generated", "files": {}})
    assert "nobody else's rights" in text
    assert "state no licence" not in text


@pytest.mark.parametrize(
    ("backbone", "source", "words"),
    [
        ("vgg19", "random", "random numbers"),
        ("vgg16", "keras", "Creative Commons Attribution"),
        ("resnet50", "keras", "MIT"),
        ("resnet50_v2", "keras", "not recorded here"),
        ("demo_backbone", "demo", "trained by this project"),
    ],
)
def test_terms_are_those_that_are_known(backbone: str, source: str, words: str) -> None:
    assert words in weight_terms(backbone, source)


def test_figures_of_stand_ins_are_called_that() -> None:
    assert "stand-ins (" not in card()
    assert "stand-ins (" in card(weights={"source": "mirror"})
    assert "stand-ins (" in card(backbone="vgg19+mobilenet", weights={"source": "keras+mirror"})
    assert "stand-ins (" in card(images={"source": "mirror", "files": {}})
