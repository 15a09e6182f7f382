from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import inspect
from stages.common.files import read_json, write_json
from stages.imagenet import LACKING
from stages.networks import imagenet
from stages.networks.backbones import preprocess
from stages.networks.keras_quiet import keras
from stages.networks.registry import find_backbone
from stages.sources.published import read_published_set
from tests.tiny_set import ROOT, Stages

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
    classes = ["rose", "tulip", "artichoke", "iris", "daisy"]
    known = [f"name {number}" for number in range(1000)]
    plain = [{"class": f"name {number}"} for number in (985, 1, 2, 3, 985)]
    preprocessed = [{"class": f"name {number}"} for number in (985, 985, 2, 944, 985)]
    assert imagenet.count_plausible(labels, classes, known, plain, preprocessed) == [
        {"label": 2, "imagenet": "name 944", "images": 1, "plain": 0, "preprocessed": 1,
         "class": "artichoke"},
        {"label": 4, "imagenet": "name 985", "images": 3, "plain": 1, "preprocessed": 2,
         "class": "daisy"},
    ]  # fmt: skip


def test_plausible_classes_are_classes_of_a_set() -> None:
    folders = [path.parent for path in (ROOT / "data/sets").glob("*/set.yaml")]
    names = {name for folder in folders for name in read_published_set(folder).classes}
    assert set(imagenet.PLAUSIBLE) <= names


def test_preprocessing_is_the_backbones_and_leaves_the_pictures_alone() -> None:
    images = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(3, axis=3)
    assert preprocess(find_backbone("mobilenet"), images).ravel().tolist() == [-1] * 3 + [1] * 3
    blue, green, red = preprocess(find_backbone("vgg19"), images)[0, 0, 0]
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

    monkeypatch.setattr(imagenet, "load_imagenet_network", lambda *_: Classifier())
    monkeypatch.setitem(imagenet.PLAUSIBLE, "green", 985)
    names = [f"name {number}" for number in range(1000)]
    facts_file = stages.folder / "data/imagenet/demo_backbone/facts.json"
    write_json(facts_file, {"lacking": "", "class_names": names})
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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": "random"}, "random"),
        ({"weights": "imagenet"}, "unpublished"),
        ({"weights": "random", "classifier": False}, "random"),
    ],
)
def test_without_a_classifier_it_says_why_and_goes_on(
    stages: Stages, capsys: pytest.CaptureFixture[str], changes: dict[str, str], reason: str
) -> None:
    stages.run_imagenet(**changes)
    stages.run_inspect()
    assert f"3 pictures; ImageNet's classifier: {LACKING[reason]}\n" in capsys.readouterr().out
    facts = read_json(stages.folder / FOLDER / "facts.json")
    assert facts["classifier"] == LACKING[reason]
    assert facts["pictures"][0]["predictions"] == []
    assert facts["plausible"] == []
