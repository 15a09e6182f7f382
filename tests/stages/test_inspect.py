from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import inspect
from stages.common.command_line import UserError
from stages.common.files import read_json, write_json
from stages.networks import imagenet
from stages.networks.keras_quiet import keras
from stages.sources.sets import SETS
from tests.tiny_set import Stages

FOLDER = "metrics/inspect/tiny-demo_backbone"


def test_pictures_are_of_as_many_classes_with_those_of_interest() -> None:
    labels = np.arange(200) % 40
    chosen = inspect.choose_pictures(labels, [7, 33], seed=1)
    classes = labels[chosen].tolist()
    assert len(set(classes)) == 12
    assert classes == sorted(classes)
    assert {7, 33} <= set(classes)
    assert inspect.choose_pictures(labels, [7, 33], seed=1) == chosen
    assert len(inspect.choose_pictures(np.array([0, 1, 1]), [], seed=1)) == 2


def test_values_are_described() -> None:
    facts = inspect.describe_values(np.linspace(-1, 3, 480, dtype=np.float32))
    assert (facts["low"], facts["high"], facts["mean"]) == (-1, 3, 1)
    assert facts["counts"] == [10] * 48


def test_plausible_names_are_counted() -> None:
    labels = np.array([4, 4, 4, 2, 9])
    plain = [{"class": number} for number in (985, 1, 2, 3, 985)]
    preprocessed = [{"class": number} for number in (985, 985, 2, 944, 985)]
    assert inspect.count_plausible(labels, {4: 985, 2: 944}, plain, preprocessed) == [
        {"label": 4, "imagenet": 985, "images": 3, "plain": 1, "preprocessed": 2},
        {"label": 2, "imagenet": 944, "images": 1, "plain": 0, "preprocessed": 1},
    ]


def test_plausible_classes_are_classes_of_a_set() -> None:
    names = {name for each in SETS.values() for name in each.class_names}
    assert set(imagenet.PLAUSIBLE) <= names


@pytest.mark.parametrize(("name", "expected"), [("vgg19", True), ("demo_backbone", False)])
def test_only_keras_publishes_classifiers(name: str, expected: bool) -> None:
    assert imagenet.has_classifier(name) == expected


def test_preprocessing_is_the_backbones_and_leaves_the_pictures_alone() -> None:
    images = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, axis=3)
    assert imagenet.preprocess("mobilenet", images).ravel().tolist() == [-1] * 3 + [1] * 3
    blue, green, red = imagenet.preprocess("vgg19", images)[0, 0, 0]
    assert (blue, green, red) == pytest.approx((-103.939, -116.779, -123.68))
    assert images.max() == 255


def test_the_pictures_are_those_that_reach_the_network(stages: Stages) -> None:
    stages.run_inspect(augment="crop", views=["plain", "mirror"])
    facts = read_json(stages.folder / FOLDER / "facts.json")
    assert facts["classifier"] == "its weights are random"
    assert [each["class"] for each in facts["pictures"]] == ["red", "green", "blue's"]
    files = [each["file"] for each in facts["pictures"] + facts["views"]] + facts["augmented"]
    assert len(facts["augmented"]) == 6
    written = {path.name for path in (stages.folder / FOLDER).iterdir()}
    assert written == {*files, "facts.json"}
    for file in files:
        side = 22 if file in facts["augmented"] else 32
        with Image.open(stages.folder / FOLDER / file) as picture:
            assert picture.size == (side, side)
    plain, mirror = (
        np.asarray(Image.open(stages.folder / FOLDER / each["file"]), np.int64)
        for each in facts["views"]
    )
    assert np.abs(plain - mirror[:, ::-1]).mean() < np.abs(plain - mirror).mean() / 2


def test_crops_are_shown_in_the_colours_that_training_sees(stages: Stages) -> None:
    def crops(**change: Any) -> list[bytes]:
        stages.run_inspect(augment="crop", **change)
        return [file.read_bytes() for file in sorted((stages.folder / FOLDER).glob("augmented*"))]

    assert not {*crops()} & {*crops(color_jitter=0.5)}


def test_a_second_run_gives_the_same_bytes(stages: Stages) -> None:
    def contents() -> dict[str, bytes]:
        stages.run_inspect(augment="crop", color_jitter=0.5)
        return {path.name: path.read_bytes() for path in (stages.folder / FOLDER).iterdir()}

    assert contents() == contents()


def test_the_untouched_network_is_asked_with_and_without_preprocessing(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier of two classes: pictures of values above 10 on average are of class 985."""

    class Classifier(keras.Model):  # type: ignore[misc]
        def call(self, values: Any) -> Any:
            large = keras.ops.mean(values, axis=(1, 2, 3)) > 10
            return 0.75 * keras.ops.one_hot(keras.ops.where(large, 985, 1), 1000)

    monkeypatch.setattr(inspect, "has_classifier", lambda _: True)
    monkeypatch.setattr(inspect, "load_classifier", lambda _: Classifier())
    monkeypatch.setattr(inspect, "class_names", lambda: [f"name {n}" for n in range(1000)])
    monkeypatch.setitem(imagenet.PLAUSIBLE, "green", 985)
    write_json(stages.folder / "data/weights/demo_backbone.json", {"source": "keras"})
    stages.run_inspect()
    facts = read_json(stages.folder / FOLDER / "facts.json")
    assert facts["classifier"] == ""
    for each in facts["pictures"]:
        assert each["predictions"] == [
            {"class": "name 985", "probability": 0.75},
            {"class": "name 1", "probability": 0.75},
        ]
    assert facts["plausible"] == [
        {"label": 1, "imagenet": "name 985", "images": 10, "plain": 10, "preprocessed": 0,
         "class": "green"}
    ]  # fmt: skip


def test_without_the_classifiers_weights_it_says_so_and_goes_on(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(_: str) -> None:
        raise UserError("no network")

    monkeypatch.setattr(inspect, "has_classifier", lambda _: True)
    monkeypatch.setattr(inspect, "load_classifier", lacking)
    write_json(stages.folder / "data/weights/demo_backbone.json", {"source": "keras"})
    stages.run_inspect()
    assert "is left out: no network" in capsys.readouterr().out
    facts = read_json(stages.folder / FOLDER / "facts.json")
    assert facts["classifier"] == "its weights with the classifier could not be had"
    assert facts["pictures"][0]["predictions"] == []
    assert facts["plausible"] == []
