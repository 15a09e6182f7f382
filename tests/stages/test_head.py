import re
import warnings
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv, read_json, write_csv
from stages.networks.classifier import build_head, flat_weights
from stages.networks.keras_quiet import keras
from stages.pictures.decoding import decode
from stages.pictures.reading import read_members
from stages.pictures.splits import choose_rows, read_split
from stages.training import calibration
from stages.training.fit import make_repeatable
from stages.training.logistic import fit_logistic
from tests.tiny_set import CLASS_NAMES, IMAGES, Stages

MODEL = "models/tiny/demo_backbone/"
HISTORY = "metrics/history/tiny-demo_backbone-head.csv"
FILES = ("head.keras", "head_weights.npy", "head_probabilities.npy")
LOGISTIC: dict[str, Any] = {"kind": "logistic", "hidden": []}
MLP: dict[str, Any] = {"epochs": 6, "learning_rate": 0.03}


def kinds(head: keras.Model) -> list[tuple[str, float]]:
    """Each Dense and Dropout layer's kind, and its width or rate."""
    return [
        (type(layer).__name__, layer.units if hasattr(layer, "units") else layer.rate)
        for layer in head.layers
        if isinstance(layer, keras.layers.Dense | keras.layers.Dropout)
    ]


def images_of(stages: Stages) -> NDArray[Any]:
    members = read_members(stages.folder / "data/raw/tiny/pictures.csv", IMAGES)
    return np.stack([decode(data, 32, "center") for _, data in sorted(members)])


def test_the_model_file_gives_the_probabilities_that_are_scored(ran: Stages) -> None:
    scores_are_the_models(ran)
    expected = np.load(ran.folder / MODEL / "head_probabilities.npy")
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


def bytes_of(stages: Stages, *names: str) -> list[bytes]:
    """Files of the model's folder."""
    return [(stages.folder / MODEL / name).read_bytes() for name in names]


def change_labels(stages: Stages, part: str) -> None:
    """Give every image of a part another class in the table of the split."""
    path = stages.folder / "data/splits/tiny.csv"
    rows = [dict(row) for row in read_csv(path)]
    for row in rows:
        if row["part"] == part:
            label = (int(row["label"]) + 1) % len(CLASS_NAMES)
            row |= {"label": str(label), "class": CLASS_NAMES[label]}
    write_csv(path, list(rows[0]), [[*row.values()] for row in rows])


def scores_are_the_models(stages: Stages, folder: str = MODEL, name: str = "head") -> None:
    """Assert that the model file gives the probabilities that were written."""
    model = keras.saving.load_model(stages.folder / folder / f"{name}.keras")
    expected = np.load(stages.folder / folder / f"{name}_probabilities.npy")
    np.testing.assert_allclose(model.predict_on_batch(images_of(stages)), expected, atol=1e-4)


def test_without_averaging_the_first_view_is_scored(stages: Stages) -> None:
    before = np.load(stages.folder / MODEL / "head_probabilities.npy")
    stages.run_head(average_views=False)
    after = np.load(stages.folder / MODEL / "head_probabilities.npy")
    assert not np.array_equal(before, after)
    scores_are_the_models(stages)


def test_the_head_is_what_the_parameters_say(stages: Stages) -> None:
    stages.run_head(hidden=[8, 4], dropout=0.25, epochs=0)
    head = keras.saving.load_model(stages.folder / MODEL / "head.keras").get_layer("head")
    assert kinds(head) == [("Dense", 8), ("Dense", 4), ("Dropout", 0.25), ("Dense", 3)]


def test_without_hidden_layers_there_is_one_dense_layer(stages: Stages) -> None:
    stages.run_head(hidden=[], dropout=0, epochs=0)
    head = keras.saving.load_model(stages.folder / MODEL / "head.keras").get_layer("head")
    assert kinds(head) == [("Dense", 3)]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_model_file_holds_no_optimizer(stages: Stages, epochs: int) -> None:
    stages.run_head(epochs=epochs)
    path = stages.folder / MODEL / "head.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras.saving.load_model(path)
    with ZipFile(path) as archive:
        assert b"optimizer" not in archive.read("config.json")
        assert b"optimizer" not in archive.read("model.weights.h5")


def test_the_backbone_in_the_model_is_as_it_was(ran: Stages) -> None:
    from stages.networks.backbones import build, load_weights

    backbone = build("demo_backbone", 32)
    load_weights(backbone, ran.folder / "data/weights/demo_backbone.weights.h5")
    model = keras.saving.load_model(ran.folder / MODEL / "head.keras")
    inside = model.get_layer("demo_backbone").get_weights()
    for mine, theirs in zip(backbone.get_weights(), inside, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_history_and_class_names(ran: Stages) -> None:
    rows = read_csv(ran.folder / HISTORY)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0]) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert read_json(ran.folder / MODEL / "classes.json") == list(CLASS_NAMES)


def test_what_a_picture_is_made_ready_by_is_beside_the_model(stages: Stages) -> None:
    wanted = {"set": "tiny", "crop": "center", "image_size": 32}
    assert read_json(stages.folder / MODEL / "input.json") == wanted
    stages.run_features(crop="none", image_size=48)
    stages.run_head(epochs=0)
    found = read_json(stages.folder / MODEL / "input.json")
    assert found == wanted | {"crop": "none", "image_size": 48}


def test_enough_epochs_learn_the_colours(stages: Stages) -> None:
    stages.run_head(epochs=15, learning_rate=0.03, dropout=0)
    probabilities = np.load(stages.folder / MODEL / "head_probabilities.npy")
    assert (probabilities.argmax(axis=1) == np.arange(30) % 3).mean() > 0.9


def test_a_second_run_writes_the_same_bytes(stages: Stages) -> None:
    before = bytes_of(stages, *FILES)
    stages.run_head()
    assert bytes_of(stages, *FILES) == before


def test_seed_and_dropout_change_the_result(stages: Stages) -> None:
    before = np.load(stages.folder / MODEL / "head_probabilities.npy")
    for change in ({"seed": 43}, {"dropout": 0.7}):
        stages.run_head(**change)
        after = np.load(stages.folder / MODEL / "head_probabilities.npy")
        assert not np.array_equal(before, after)


def test_a_logistic_head_is_scored_by_its_model_file(stages: Stages) -> None:
    stages.run_head(**LOGISTIC)
    scores_are_the_models(stages)
    probabilities = np.load(stages.folder / MODEL / "head_probabilities.npy")
    assert (probabilities.argmax(axis=1) == np.arange(30) % 3).mean() > 0.9
    (row,) = read_csv(stages.folder / HISTORY)
    assert row["epoch"] == "1"
    assert all(float(row[name]) >= 0 for name in ("accuracy", "loss", "val_accuracy", "val_loss"))


@pytest.mark.parametrize("normalize", ["none", "power"])
def test_a_logistic_head_has_the_weights_of_its_regression(stages: Stages, normalize: str) -> None:
    """On the normalised features of every view of train."""
    stages.run_head(**LOGISTIC, normalize=normalize, strengths=[0.1], dropout=0.5)
    head = keras.saving.load_model(stages.folder / MODEL / "head.keras").get_layer("head")
    before = keras.Model(head.input, head.get_layer("classes").input)
    table = read_split(stages.folder / "data/splits/tiny.csv")
    train = table.parts == "train"
    features = np.load(stages.folder / "data/features/tiny/demo_backbone.npy")[train]
    values = before.predict_on_batch(features.reshape(-1, 256)).reshape(features.shape)
    (weights,) = fit_logistic(values, table.labels[train], [0.1], 3)
    for found, wanted in zip(head.get_layer("classes").get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_the_strength_decides(stages: Stages) -> None:
    sizes = []
    for strengths in ([0.001], [3, 0.001]):
        stages.run_head(**LOGISTIC, strengths=strengths)
        head = keras.saving.load_model(stages.folder / MODEL / "head.keras").get_layer("head")
        sizes.append(float(np.linalg.norm(head.get_layer("classes").kernel)))
    # The colours are told apart without fault, so the weak penalty has the lower loss.
    assert sizes[0] < 0.5 * sizes[1]


@pytest.mark.parametrize("kind", [{}, LOGISTIC], ids=["mlp", "logistic"])
def test_a_second_head_has_not_seen_what_judges(stages: Stages, kind: dict[str, Any]) -> None:
    stages.run_head(**{"hidden": [], "epochs": 0, "normalize": "standard"} | kind)
    weights = np.load(stages.folder / MODEL / "head_weights.npy")
    assert weights.shape == (2, 2 * 256 + 256 * 3 + 3)
    table = read_split(stages.folder / "data/splits/tiny.csv")
    rows = choose_rows(table, refit=True, seed=42)
    features = np.load(stages.folder / "data/features/tiny/demo_backbone.npy")
    # Kernel and bias of the dense layer stand before or after the means and variances.
    for found, seen in zip(weights, (rows.final, rows.choosing), strict=True):
        means = features[seen].reshape(-1, 256).mean(axis=0)
        np.testing.assert_allclose(found[:256], means, rtol=1e-3, atol=1e-5)
    model = keras.saving.load_model(stages.folder / MODEL / "head.keras")
    np.testing.assert_array_equal(flat_weights(model.get_layer("head")), weights[0])


@pytest.mark.parametrize("kind", [{}, LOGISTIC], ids=["mlp", "logistic"])
def test_a_calibrated_head_is_the_same_but_for_how_sure_it_is(
    stages: Stages,
    kind: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(calibration, "FEWEST", 1)
    stages.run_head(**kind)
    weights = np.load(stages.folder / MODEL / "head_weights.npy")
    before = np.load(stages.folder / MODEL / "head_probabilities.npy")
    capsys.readouterr()
    stages.run_head(**kind, calibrate=True)
    said = re.search(r"temperature ([\d.]+), by (\d+) images held out", capsys.readouterr().out)
    assert said
    temperature = float(said[1])
    assert temperature != pytest.approx(1, abs=0.02)
    rows = choose_rows(read_split(stages.folder / "data/splits/tiny.csv"), True, 42)
    assert int(said[2]) == len(rows.judging)
    # What fine-tuning starts from is as it was trained; a second head has not seen what judges.
    found = np.load(stages.folder / MODEL / "head_weights.npy")
    assert len(found) == 2
    np.testing.assert_array_equal(found[0], weights[0])
    model = keras.saving.load_model(stages.folder / MODEL / "head.keras")
    kernel, bias = model.get_layer("head").get_layer("classes").get_weights()
    last = np.concatenate([kernel.ravel(), bias])
    np.testing.assert_allclose(last * temperature, weights[0, -last.size :], rtol=2e-3)
    scores_are_the_models(stages, name="head")
    after = np.load(stages.folder / MODEL / "head_probabilities.npy")
    surer = after.max(axis=1) > before.max(axis=1)
    assert (surer == (temperature < 1)).mean() > 0.9


def test_where_no_more_is_trained_on_no_second_head_is_trained(stages: Stages) -> None:
    stages.run_split(protocol="official")
    for refit, heads in (("true", 2), ("false", 1)):
        stages.run_head(refit=refit, calibrate=True)
        assert len(np.load(stages.folder / MODEL / "head_weights.npy")) == heads


def test_without_epochs_the_head_is_as_it_was_drawn(stages: Stages) -> None:
    stages.run_head(epochs=0, normalize="none")
    make_repeatable(42)
    drawn = flat_weights(build_head(256, "none", [8], stages.dropout, 3))
    found = np.load(stages.folder / MODEL / "head_weights.npy")[0]
    np.testing.assert_array_equal(found[: len(drawn)], drawn)
    assert read_csv(stages.folder / HISTORY) == []


@pytest.mark.parametrize(
    ("kind", "refits"),
    [(LOGISTIC | {"strengths": [1]}, ["true", "false"]), ({"epochs": 1}, ["true"])],
    ids=["logistic", "mlp"],
)
def test_val_trains_too_where_test_is_reported_and_refit_says_so(
    stages: Stages, kind: dict[str, Any], refits: list[str]
) -> None:
    stages.run_split(protocol="official")
    found = {}
    for labels in ("right", "wrong"):
        for refit in refits:
            stages.run_head(**kind, refit=refit)
            found[labels, refit] = bytes_of(stages, "head_weights.npy")
            (row,) = read_csv(stages.folder / HISTORY)
            assert (row["val_loss"] == row["val_accuracy"] == "") is (refit == "true")
        change_labels(stages, "val")
    for refit in refits:
        assert (found["right", refit] == found["wrong", refit]) is (refit == "false")


@pytest.mark.parametrize("protocol", ["stratified", "official"])
@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_labels_of_the_images_that_are_reported_change_nothing_but_the_scores(
    stages: Stages, protocol: str, kind: str
) -> None:
    """No figure is reported on images that trained, or that chose anything.

    Where val is reported refit does not change that, nor anything else.
    """
    settings: dict[str, Any] = LOGISTIC if kind == "logistic" else MLP
    # One case is fine-tuned too, which takes longest: one in which history shows those images.
    fine_tuned = (kind, protocol) == ("logistic", "stratified")
    names = [*FILES]
    names += ["finetuned.keras", "finetuned_probabilities.npy"] if fine_tuned else []
    stages.run_split(protocol=protocol)

    def trained(refit: str) -> list[bytes]:
        stages.run_head(**settings, refit=refit)
        if fine_tuned:
            stages.run_finetune(epochs=2, refit=refit)
        return bytes_of(stages, *names)

    before = trained("true")
    change_labels(stages, "val" if protocol == "stratified" else "test")
    assert trained("false" if protocol == "stratified" else "true") == before


def test_labels_of_the_images_that_judge_change_the_choice(stages: Stages) -> None:
    """Without refit they do nothing else where test is reported."""
    stages.run_split(protocol="official")
    stages.run_head(**LOGISTIC, refit="false")
    before = bytes_of(stages, "head_weights.npy")
    change_labels(stages, "val")
    stages.run_head(**LOGISTIC, refit="false")
    assert bytes_of(stages, "head_weights.npy") != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 1}, "--dropout: '1' is not a number from 0 to 0.95"),
        ({"hidden": [0]}, "--hidden: '0' is not a whole number from 1"),
        ({"optimizer": "adma"}, "no head.optimizer 'adma'; there are: adam, adamax, adamw, sgd"),
        ({"learning_rate": 0}, "--learning_rate: '0' is not a number above 0"),
        ({"epochs": -1}, "--epochs: '-1' is not a whole number from 0"),
        ({"batch_size": 2.5}, "--batch_size: '2.5' is not a whole number"),
        ({"kind": "svm"}, "no head.kind 'svm'; there are: mlp, logistic"),
        ({"normalize": "l2"}, "no head.normalize 'l2'; there are: none, standard, power"),
        ({"strengths": [1, 0]}, "--strengths: '0' is not a number above 0"),
        ({"backbone": "rose"}, "no backbone 'rose'; there are: vgg16, vgg19"),
        (
            {"kind": "logistic", "hidden": [128]},
            r"^head.hidden: \[128\] .* head.kind logistic; set it to \[\]$",
        ),
    ],
)
def test_a_wrong_parameter_is_named(
    stages: Stages, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stages.run_head(**change)
