"""The stage `imagenet`: what it writes, and that what could not be had is tried again."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.common.command_line import UserError
from stages.common.files import read_json
from stages.imagenet import LACKING, main, why_not
from stages.networks import imagenet
from stages.networks.keras_quiet import keras
from tests.tiny_set import ROOT

FOLDER = Path("data/imagenet/vgg19")
MIRROR = Path(os.environ["FLOWERS_MIRROR"]).resolve() if "FLOWERS_MIRROR" in os.environ else None
"""Found before a test changes the folder."""
DAISIES = 801
"""Number of the first of 80 daisies of the 17 flowers."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_imagenet(backbone: str = "vgg19", weights: str = "imagenet", wanted: str = "true") -> None:
    main(["--backbone", backbone, "--weights", weights, *["--classifier"][: wanted == "true"]])


def daisy(number: int) -> NDArray[np.float32]:
    """A picture of the 17 flowers' daisies, (224, 224, 3) from 0 to 255, out of the mirror."""
    assert MIRROR is not None
    with tarfile.open(MIRROR / "17flowers.tgz") as archive:
        file = archive.extractfile(f"jpg/image_{DAISIES + number:04d}.jpg")
        assert file is not None
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB").resize((224, 224)), np.float32)


@pytest.mark.parametrize(
    ("backbone", "weights", "wanted", "reason"),
    [
        ("vgg19", "imagenet", True, ""),
        ("vgg19", "imagenet", False, "unwanted"),
        ("vgg19", "random", True, "random"),
        ("demo_backbone", "imagenet", True, "unpublished"),
        ("dinov2_small", "imagenet", True, "unpublished"),
        ("demo_backbone", "random", False, "random"),
    ],
)
def test_keras_alone_publishes_classifiers(
    backbone: str, weights: str, wanted: bool, reason: str
) -> None:
    assert why_not(backbone, weights, wanted) == reason


def test_weights_and_class_names_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    monkeypatch.setattr(imagenet, "download_imagenet_network", lambda _: network)
    monkeypatch.setattr(imagenet, "class_names", lambda: ["a", "b", "c"])
    written = []
    for _ in range(2):
        run_imagenet()
        written.append({path.name: path.read_bytes() for path in FOLDER.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"facts.json", "classifier.weights.h5"}
    assert read_json(FOLDER / "facts.json") == {"lacking": "", "class_names": ["a", "b", "c"]}
    again = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    again.load_weights(FOLDER / "classifier.weights.h5")
    for mine, theirs in zip(again.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("backbone", "weights", "wanted", "reason"),
    [
        ("vgg19", "random", "true", "random"),
        ("vgg19", "imagenet", "false", "unwanted"),
        ("demo_backbone", "imagenet", "true", "unpublished"),
        ("dinov2_small", "imagenet", "true", "unpublished"),
    ],
)
def test_where_there_is_no_classifier_it_says_why_and_nothing_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    backbone: str,
    weights: str,
    wanted: str,
    reason: str,
) -> None:
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: pytest.fail("downloads"))
    folder = Path("data/imagenet", backbone)
    folder.mkdir(parents=True)
    (folder / "classifier.weights.h5").touch()  # Of an earlier run.
    run_imagenet(backbone, weights, wanted)
    assert [path.name for path in folder.iterdir()] == ["facts.json"]
    assert read_json(folder / "facts.json") == {"lacking": LACKING[reason]}
    assert LACKING[reason] in capsys.readouterr().out


def test_without_a_classifier_tensorflow_is_not_loaded() -> None:
    code = (
        "import sys; from stages.imagenet import main; "
        "main(['--backbone', 'vgg19', '--weights', 'random', '--classifier']); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize("what", ["download_imagenet_network", "class_names"])
def test_what_cannot_be_had_is_an_error_that_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def lacking(*_: str) -> Any:
        raise UserError("no network")

    monkeypatch.setattr(imagenet, "download_imagenet_network", lambda _: keras.Sequential())
    monkeypatch.setattr(imagenet, what, lacking)
    with pytest.raises(
        UserError,
        match=r"^no network; to go on without what vgg19 calls pictures untouched, set "
        r"inspect\.classifier to false in params\.yaml$",
    ):
        run_imagenet()
    assert not FOLDER.exists()
    assert list(Path().rglob(".partial-*")) == []
    run_imagenet(wanted="false")
    assert read_json(FOLDER / "facts.json") == {"lacking": LACKING["unwanted"]}


def test_without_a_network_one_line_names_file_and_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: str, origin: str, **__: Any) -> str:
        raise OSError(f"URL fetch failure on {origin}")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    monkeypatch.delenv("FLOWERS_MIRROR", raising=False)
    with pytest.raises(UserError) as caught:
        run_imagenet("mobilenet_v2")
    message = str(caught.value)
    assert "\n" not in message
    for words in (
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
        "FLOWERS_MIRROR",
        "weights to random",
        "inspect.classifier to false",
    ):
        assert words in message
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "mine"}, "no choice of weights 'mine'; there are: imagenet, random"),
        ({"backbone": "vgg20"}, "no backbone 'vgg20'; there are: vgg16, vgg19"),
    ],
)
def test_a_wrong_parameter_is_named(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_imagenet(**change)
    assert not Path("data").exists()


@pytest.mark.slow
@pytest.mark.skipif(MIRROR is None, reason="FLOWERS_MIRROR is not set")
def test_the_published_classifier_names_a_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded from the stage's file is the network as it is published."""
    assert MIRROR is not None
    monkeypatch.setenv("FLOWERS_MIRROR", str(MIRROR))
    run_imagenet("mobilenet_v2")
    folder = Path("data/imagenet/mobilenet_v2")
    names = read_json(folder / "facts.json")["class_names"]
    assert len(names) == 1000
    assert names[985] == "daisy"
    network = imagenet.load_imagenet_network("mobilenet_v2", folder / "classifier.weights.h5")
    preprocess = keras.applications.mobilenet_v2.preprocess_input
    values = np.stack([preprocess(daisy(number)) for number in range(8)])
    found = imagenet.classify(network, values, names)
    assert sum(each["class"] == "daisy" for each in found) >= 6
