import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.common.files import read_json
from stages.networks.backbones import build, load_weights
from stages.pictures.decoding import decode
from stages.pictures.reading import read_members
from tests.tiny_set import IMAGES, Stages


def test_a_row_holds_the_pooled_features_of_its_image_in_each_view(ran: Stages) -> None:
    raw, data = ran.folder / "data/raw/tiny", ran.folder / "data"
    features = np.load(data / "features/tiny/demo_backbone.npy")
    assert features.shape == (30, 2, 256)
    assert features.dtype == np.float32
    backbone = build("demo_backbone", 32)
    load_weights(backbone, data / "weights/demo_backbone.weights.h5")
    members = dict(read_members(raw / "pictures.csv", IMAGES))
    for position in (0, 29):
        image = decode(members[position], 32, "center")
        for view, pixels in enumerate((image, image[:, ::-1])):
            expected = backbone.predict_on_batch(pixels[np.newaxis])[0].mean(axis=(0, 1))
            np.testing.assert_allclose(features[position, view], expected, rtol=1e-4, atol=1e-5)


def test_what_was_done_stands_beside_the_features(ran: Stages) -> None:
    info = read_json(ran.folder / "data/features/tiny/demo_backbone.json")
    assert info["features"] == {
        "image_size": 32, "crop": "center", "views": ["plain", "mirror"], "pooling": "avg",
        "precision": "float32", "width": 256,
    }  # fmt: skip
    assert info["weights"] == {"source": "random", "seed": 42, "terms": "random numbers"}
    assert info["images"]["source"] == "generated"


def test_a_second_run_writes_the_same_bytes(stages: Stages) -> None:
    path = stages.folder / "data/features/tiny/demo_backbone.npy"
    before = path.read_bytes()
    stages.run_features()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change", [{"pooling": "max"}, {"crop": "none"}, {"precision": "bfloat16"}]
)
def test_each_choice_changes_the_features(stages: Stages, change: dict[str, str]) -> None:
    path = stages.folder / "data/features/tiny/demo_backbone.npy"
    before = np.load(path)
    stages.run_features(**change)
    after = np.load(path)
    assert after.shape == before.shape
    assert not np.allclose(after, before, rtol=1e-4)


def test_one_view(stages: Stages) -> None:
    path = stages.folder / "data/features/tiny/demo_backbone.npy"
    before = np.load(path)
    stages.run_features(views=["mirror"])
    np.testing.assert_array_equal(np.load(path)[:, 0], before[:, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 5000}, "--image_size: '5000' is not a whole number from 32 to 1024"),
        ({"views": ["plain", "upside_down"]}, "no view in features.views 'upside_down'"),
        ({"pooling": "mean"}, "no features.pooling 'mean'; there are: avg, max"),
        ({"views": []}, "the following arguments are required: --views"),
    ],
)
def test_a_wrong_parameter_is_named(
    stages: Stages, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stages.run_features(**change)


def test_weights_of_another_network_are_named(stages: Stages) -> None:
    other = build("mobilenet_v2_035", 32)
    other.save_weights(stages.folder / "data/weights/demo_backbone.weights.h5")
    with pytest.raises(UserError, match=r"demo_backbone.weights.h5 does not fit demo_backbone"):
        stages.run_features()
