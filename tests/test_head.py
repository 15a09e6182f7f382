from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv, read_json
from stages.common.images import decode, read_members
from stages.common.keras_quiet import keras
from tests.tiny_set import TINY, Stages


def kinds(head: keras.Model) -> list[tuple[str, float]]:
    """Each Dense and Dropout layer's kind, and its width or rate."""
    return [
        (type(layer).__name__, layer.units if hasattr(layer, "units") else layer.rate)
        for layer in head.layers
        if isinstance(layer, keras.layers.Dense | keras.layers.Dropout)
    ]


MODEL = "models/tiny/demo_backbone/"


def images_of(stages: Stages) -> NDArray[Any]:
    members = read_members(stages.folder / "data/raw/tiny/tiny.tgz", TINY.image_names)
    return np.stack([decode(data, 32, "center") for _, data in sorted(members)])


def test_the_model_file_gives_the_probabilities_that_are_scored(ran: Stages) -> None:
    model = keras.saving.load_model(ran.folder / MODEL / "head.keras")
    assert model.input_shape == (None, 32, 32, 3)
    expected = np.load(ran.folder / MODEL / "head_probabilities.npy")[0]
    np.testing.assert_allclose(model.predict_on_batch(images_of(ran)), expected, atol=1e-4)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


def test_without_averaging_the_first_view_is_scored(stages: Stages) -> None:
    before = np.load(stages.folder / MODEL / "head_probabilities.npy")[0]
    stages.run_head(average_views=False)
    after = np.load(stages.folder / MODEL / "head_probabilities.npy")[0]
    assert not np.array_equal(before, after)
    model = keras.saving.load_model(stages.folder / MODEL / "head.keras")
    np.testing.assert_allclose(model.predict_on_batch(images_of(stages)), after, atol=1e-4)


def test_the_head_is_what_the_parameters_say(stages: Stages) -> None:
    stages.run_head(hidden=[8, 4], dropout=0.25)
    head = keras.saving.load_model(stages.folder / MODEL / "head.keras").get_layer("head")
    assert kinds(head) == [("Dense", 8), ("Dense", 4), ("Dropout", 0.25), ("Dense", 3)]


def test_without_hidden_layers_there_is_one_dense_layer(stages: Stages) -> None:
    stages.run_head(hidden=[], dropout=0)
    head = keras.saving.load_model(stages.folder / MODEL / "head.keras").get_layer("head")
    assert kinds(head) == [("Dense", 3)]


def test_the_backbone_in_the_model_is_as_it_was(ran: Stages) -> None:
    from stages.common.backbones import build, load_weights

    backbone = build("demo_backbone", 32)
    load_weights(backbone, ran.folder / "data/weights/demo_backbone.weights.h5")
    model = keras.saving.load_model(ran.folder / MODEL / "head.keras")
    inside = model.get_layer("demo_backbone").get_weights()
    for mine, theirs in zip(backbone.get_weights(), inside, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_history_and_class_names(ran: Stages) -> None:
    rows = read_csv(ran.folder / "metrics/history/tiny-demo_backbone-head.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0]) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert read_json(ran.folder / MODEL / "classes.json") == list(TINY.class_names)


def test_enough_epochs_learn_the_colours(stages: Stages) -> None:
    stages.run_head(epochs=60, learning_rate=0.01, dropout=0)
    probabilities = np.load(stages.folder / MODEL / "head_probabilities.npy")[0]
    assert (probabilities.argmax(axis=1) == np.arange(30) % 3).mean() > 0.9


def test_a_second_run_writes_the_same_bytes(stages: Stages) -> None:
    names = ["head.keras", "head_probabilities.npy"]
    before = [(stages.folder / MODEL / name).read_bytes() for name in names]
    stages.run_head()
    assert [(stages.folder / MODEL / name).read_bytes() for name in names] == before


def test_seed_and_dropout_change_the_result(stages: Stages) -> None:
    before = np.load(stages.folder / MODEL / "head_probabilities.npy")[0]
    for change in ({"seed": 43}, {"dropout": 0.7}):
        stages.run_head(**change)
        after = np.load(stages.folder / MODEL / "head_probabilities.npy")[0]
        assert not np.array_equal(before, after)


def test_early_stopping_ends_before_the_last_epoch(stages: Stages) -> None:
    stages.run_head(epochs=200, learning_rate=0.1, early_stopping=2)
    rows = read_csv(stages.folder / "metrics/history/tiny-demo_backbone-head.csv")
    assert len(rows) < 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 1}, "--dropout: '1' is not a number from 0 to 0.95"),
        ({"hidden": [0]}, "--hidden: '0' is not a whole number from 1"),
        ({"optimizer": "adma"}, "no head.optimizer 'adma'; there are: adam, adamax, adamw, sgd"),
        ({"learning_rate": 0}, "--learning_rate: '0' is not a number above 0"),
        ({"epochs": -1}, "--epochs: '-1' is not a whole number from 0"),
        ({"batch_size": 2.5}, "--batch_size: '2.5' is not a whole number"),
    ],
)
def test_a_wrong_parameter_is_named(
    stages: Stages, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stages.run_head(**change)
