import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.common.files import read_json
from stages.networks.backbones import build, cut_for, load_weights
from stages.networks.keras_quiet import keras
from stages.pictures.decoding import decode
from stages.pictures.reading import read_members
from tests.tiny_set import IMAGES, Stages

FOLDER = "data/prefix/tiny/demo_backbone"
PREFIX = f"{FOLDER}/values.npy"


def test_features_come_from_the_prefix_through_the_rest(ran: Stages) -> None:
    prefix = np.load(ran.folder / PREFIX)
    features = np.load(ran.folder / "data/features/tiny/demo_backbone.npy")
    backbone = build("demo_backbone", 32)
    load_weights(backbone, ran.folder / "data/weights/demo_backbone.weights.h5")
    rest = keras.Model(cut_for(backbone, "auto", reads_pixels=False), backbone.output)
    got = rest.predict_on_batch(prefix[:, 1].astype(np.float32)).mean(axis=(1, 2))
    np.testing.assert_allclose(got, features[:, 1], rtol=0.02, atol=0.02)


def test_activations_are_half_size_unless_float32_is_asked_for(ran: Stages, stages: Stages) -> None:
    assert np.load(ran.folder / PREFIX).dtype == np.float32
    stages.run_prefix(precision="auto")
    assert np.load(stages.folder / PREFIX).dtype == np.float16


@pytest.mark.parametrize("change", [{"batch_norm": "train"}, {"augment": "crop"}])
def test_where_pictures_change_the_prefix_is_the_pixels(
    stages: Stages, capsys: pytest.CaptureFixture[str], change: dict[str, str]
) -> None:
    stages.run_prefix(**change)
    assert "reads pictures, not activations" in capsys.readouterr().out
    prefix = np.load(stages.folder / PREFIX)
    assert prefix.dtype == np.uint8
    members = dict(read_members(stages.folder / "data/raw/tiny/pictures.csv", IMAGES))
    image = decode(members[7], 32, "center")
    np.testing.assert_array_equal(prefix[7, 0], image)
    np.testing.assert_array_equal(prefix[7, 1], image[:, ::-1])


def test_activations_are_not_said_to_be_pictures(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.run_prefix()
    assert "reads pictures" not in capsys.readouterr().out


def test_an_unknown_augmentation_is_named(stages: Stages) -> None:
    with pytest.raises(UserError, match=r"no finetune\.augment 'flip'; there are: none, crop"):
        stages.run_prefix(augment="flip")


def test_with_nothing_unfrozen_there_is_no_prefix(stages: Stages) -> None:
    stages.run_prefix(unfreeze="0")
    assert not (stages.folder / PREFIX).exists()
    assert read_json(stages.folder / FOLDER / "facts.json") == {"values": "none"}


@pytest.mark.parametrize(
    ("change", "values"),
    [({}, "activations"), ({"batch_norm": "train"}, "pixels"), ({"augment": "crop"}, "pixels")],
)
def test_what_the_values_are_stands_beside_them(
    stages: Stages, change: dict[str, str], values: str
) -> None:
    stages.run_prefix(**change)
    facts = read_json(stages.folder / FOLDER / "facts.json")
    assert (facts["values"], facts["views"]) == (values, ["plain", "mirror"])


def test_an_unknown_layer_is_named_with_near_ones(stages: Stages) -> None:
    with pytest.raises(UserError, match=r"no layer 'block2_uot'.*block2_out"):
        stages.run_prefix(unfreeze="block2_uot")
