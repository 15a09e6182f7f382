import itertools
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages import finetune
from stages.common import command_line
from stages.common.command_line import UserError
from stages.common.files import read_csv
from stages.networks.augmentation import ColorJitter
from stages.networks.keras_quiet import keras
from stages.training import calibration, fine_tune
from stages.training.checkpoints import Checkpoints
from stages.training.fit import fit
from stages.training.recipe import Recipe
from stages.training.upper_layers import take_apart
from tests.stages.test_head import LOGISTIC, MODEL, scores_are_the_models
from tests.tiny_set import Stages

HISTORY = "metrics/history/tiny-demo_backbone-finetuned.csv"


def weights_of(stages: Stages, name: str) -> dict[str, NDArray[Any]]:
    """Every weight of a saved model's backbone and head by its path; not dropout's seed."""
    model = keras.saving.load_model(stages.folder / MODEL / f"{name}.keras")
    variables = model.get_layer("demo_backbone").variables + model.get_layer("head").variables
    return {each.path: np.array(each) for each in variables if "seed_generator" not in each.path}


def changed(stages: Stages) -> set[str]:
    """Paths of the weights that fine-tuning changed."""
    before, after = weights_of(stages, "head"), weights_of(stages, "finetuned")
    assert before.keys() == after.keys()
    return {path for path in before if not np.array_equal(before[path], after[path])}


def test_the_model_file_gives_the_probabilities_that_are_scored(ran: Stages) -> None:
    scores_are_the_models(ran, name="finetuned")


def test_only_layers_above_the_cut_train_and_batch_norm_does_not(ran: Stages) -> None:
    paths = changed(ran)
    assert any("block4" in path for path in paths)
    assert any("head" in path or "dense" in path for path in paths)
    assert not any(path.startswith(("stem", "block1", "block2")) for path in paths)
    assert not any("_bn" in path or "standardize" in path for path in paths)


def test_where_batch_norm_trains_it_does_so_everywhere(stages: Stages) -> None:
    stages.run_prefix(batch_norm="train", unfreeze="3")
    stages.run_finetune(batch_norm="train", unfreeze="3", batch_norm_momentum=0.5)
    paths = changed(stages)
    assert {path.split("/")[0] for path in paths} >= {"stem_bn", "block1_1_bn", "block4_2_bn"}
    assert not any("conv" in path and not path.startswith("features") for path in paths)
    model = keras.saving.load_model(stages.folder / MODEL / "finetuned.keras")
    assert model.get_layer("demo_backbone").get_layer("stem_bn").momentum == 0.5
    scores_are_the_models(stages, name="finetuned")


@pytest.mark.parametrize("change", [{"epochs": 0}, {"unfreeze": "0"}, {"unfreeze": "1"}])
def test_without_fine_tuning_the_head_is_passed_through(
    stages: Stages, change: dict[str, str]
) -> None:
    if "unfreeze" in change:
        stages.run_prefix(**change)  # The last layer alone is a relu, which has no weights.
    stages.run_finetune(**change)
    for name in ("{}.keras", "{}_probabilities.npy"):
        head = (stages.folder / MODEL / name.format("head")).read_bytes()
        assert (stages.folder / MODEL / name.format("finetuned")).read_bytes() == head
    assert read_csv(stages.folder / HISTORY) == []


def test_training_goes_on_from_the_head(stages: Stages) -> None:
    stages.run_finetune(epochs=1, learning_rate=1e-9)
    head = np.load(stages.folder / MODEL / "head_probabilities.npy")
    finetuned = np.load(stages.folder / MODEL / "finetuned_probabilities.npy")
    np.testing.assert_allclose(finetuned, head, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "killed_after"),
    [
        ({}, 1),
        pytest.param({"calibrate": True}, 3, marks=pytest.mark.soak),
        pytest.param({"augment": "crop", "color_jitter": 0.5}, 1, marks=pytest.mark.soak),
    ],
    ids=["plain", "in the final training", "augmented"],
)
def test_a_killed_run_goes_on_and_ends_the_same(
    stages: Stages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    killed_after: int,
) -> None:
    if "augment" in changes:
        stages.run_prefix(augment=changes["augment"])
    stages.run_finetune(**changes)
    undisturbed = (stages.folder / MODEL / "finetuned.keras").read_bytes()
    history = (stages.folder / HISTORY).read_bytes()
    save, saved = Checkpoints.on_epoch_end, list[int]()

    def save_then_die(self: Checkpoints, epoch: int, logs: dict[str, float]) -> None:
        save(self, epoch, logs)
        saved.append(epoch)
        if len(saved) == killed_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Checkpoints, "on_epoch_end", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            stages.run_finetune(**changes)
    capsys.readouterr()
    stages.run_finetune(**changes)
    output = capsys.readouterr().out
    # Of the final training the first epoch was done, and all of the temperature's before it.
    assert "epoch 1/" not in output
    assert output.count("epoch 2/2: ") == 1
    assert (stages.folder / MODEL / "finetuned.keras").read_bytes() == undisturbed
    assert (stages.folder / HISTORY).read_bytes() == history
    assert not [*(stages.folder / "data/checkpoints").rglob("*.npz")]


def test_what_ended_after_its_dvc_is_not_trained_again(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as context:
        context.setattr(command_line, "PARENT", -1)
        stages.run_finetune()
    first = (stages.folder / MODEL / "finetuned.keras").read_bytes()
    (stages.folder / MODEL / "finetuned.keras").unlink()
    assert "epoch 2/2" in capsys.readouterr().out
    stages.run_finetune()
    assert "epoch" not in capsys.readouterr().out
    assert (stages.folder / MODEL / "finetuned.keras").read_bytes() == first
    assert not [*(stages.folder / "data/checkpoints").rglob("*.npz")]


def test_checkpoints_of_other_parameters_are_not_used(stages: Stages) -> None:
    other = stages.folder / "data/checkpoints/tiny/demo_backbone/0123456789abcdef/000000"
    other.mkdir(parents=True)
    stages.run_finetune()
    assert not other.exists()


def test_checkpoints_of_another_dropout_are_not_used(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.run_head(**LOGISTIC)
    with monkeypatch.context() as context:
        context.setattr(command_line, "PARENT", -1)  # By which the checkpoints stay.
        stages.run_finetune(dropout=0.2)
    capsys.readouterr()
    stages.run_finetune(dropout=0.6)
    assert "epoch 1/2" in capsys.readouterr().out


def test_dropout_acts_in_fine_tuning_and_leaves_a_logistic_head_as_it_is(stages: Stages) -> None:
    """Only what trains by steps has it; the files are those of the head, byte by byte."""
    names = ("head.keras", "head_weights.npy", "head_probabilities.npy")
    heads, trained = [], []
    for dropout in (0, 0.2, 0.6):
        stages.run_head(**LOGISTIC, dropout=dropout)
        heads.append([(stages.folder / MODEL / name).read_bytes() for name in names])
        stages.run_finetune(dropout=dropout)
        trained.append(last_layer(stages))
        scores_are_the_models(stages, name="finetuned")
    assert heads[0] == heads[1] == heads[2]
    for one, other in itertools.combinations(trained, 2):
        assert not np.allclose(one, other, rtol=0, atol=1e-5)
    for name in ("head", "finetuned"):
        model = keras.saving.load_model(stages.folder / MODEL / f"{name}.keras")
        kinds = {type(layer) for layer in model.get_layer("head").layers}
        assert keras.layers.Dropout not in kinds


@pytest.mark.parametrize("rate", [0, 0.4])
def test_the_dropout_of_fine_tuning_is_the_one_asked_for(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    """Also where the head was trained with another one."""
    rates = []

    def watching(model: keras.Model, *rest: Any) -> Any:
        layers = model.get_layer("head").layers
        rates.append([each.rate for each in layers if isinstance(each, keras.layers.Dropout)])
        return fit(model, *rest)

    monkeypatch.setattr(fine_tune, "fit", watching)
    stages.run_finetune(dropout=rate, epochs=1)
    assert rates == [[rate] if rate else []]
    model = keras.saving.load_model(stages.folder / MODEL / "head.keras")
    own = [each for each in model.get_layer("head").layers if hasattr(each, "rate")]
    assert [each.rate for each in own] == [stages.dropout]
    assert stages.dropout not in (0, rate)


def test_checkpoints_of_other_code_are_not_used(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as context:
        context.setattr(command_line, "PARENT", -1)  # By which the checkpoints stay.
        context.setattr(finetune, "code_digests", lambda module: {module: "other"})
        stages.run_finetune()
    capsys.readouterr()
    stages.run_finetune()
    assert "epoch 1/2" in capsys.readouterr().out


def test_crops_train_the_whole_network_from_pixels(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, sides = [], list[int]()

    def watching(model: keras.Model, values: NDArray[Any], *rest: Any) -> Any:
        pictures = values[:4, 0].astype(np.float32)
        seen.append([np.asarray(model(pictures, training=True)) for _ in range(2)])
        sides.extend(layer.input.shape[1] for layer in model.layers[-1].layers if layer.weights)
        return fit(model, values, *rest)

    monkeypatch.setattr(fine_tune, "fit", watching)
    stages.run_prefix(augment="crop", unfreeze="all")
    stages.run_finetune(augment="crop", unfreeze="all", epochs=1)
    scores_are_the_models(stages, name="finetuned")
    # The same pictures look different each time, though nothing was trained between.
    ((first, second),) = seen
    assert not np.allclose(first, second, atol=1e-4)
    paths = changed(stages)
    assert any("block4" in path for path in paths)
    assert any(path.startswith("stem") for path in paths)
    # The classifier is for whole pictures, what trained it for crops of 11/16 of their side.
    model = keras.saving.load_model(stages.folder / MODEL / "finetuned.keras")
    assert sides[0] == model.input_shape[1] * 11 // 16


def test_every_parameter_reaches_training(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes, computed = [], set[str]()

    def watching(model: keras.Model, *rest: Any) -> Any:
        recipes.append(rest[3])
        computed.update(layer.compute_dtype for layer in model.layers)
        return fit(model, *rest)

    monkeypatch.setattr(fine_tune, "fit", watching)
    wanted = Recipe("sgd", 0.01, "cosine", 2, 8, 0.5, 0.1, 0.2, 0.3, 2)
    stages.run_finetune(**vars(wanted), precision="bfloat16")
    assert recipes == [wanted]
    epochs = [row["epoch"] for row in read_csv(stages.folder / HISTORY)]
    assert epochs == ["0.5", "1", "1.5", "2"]
    # It trains in bfloat16, and is scored as it is saved, in float32.
    assert computed == {"bfloat16", "float32"}
    scores_are_the_models(stages, name="finetuned")
    model = keras.saving.load_model(stages.folder / MODEL / "finetuned.keras")
    layers = [*model.layers, *model.get_layer("demo_backbone").layers]
    assert {layer.dtype_policy.name for layer in layers} == {"float32"}


@pytest.mark.parametrize(("refit", "trainings"), [("true", 2), ("false", 1)])
def test_the_temperature_is_chosen_by_images_that_were_not_trained_on(
    stages: Stages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refit: str,
    trainings: int,
) -> None:
    monkeypatch.setattr(calibration, "FEWEST", 6)
    stages.run_split(protocol="official")
    stages.run_head(refit=refit, calibrate=True)
    stages.run_finetune(refit=refit)
    plain = last_layer(stages)
    trained, starts = [], []

    def watching(*arguments: Any) -> Any:
        trained.append(arguments[3][0])
        return fit(*arguments)

    def starting(path: Any, head: NDArray[np.float32], upper: Any) -> Any:
        starts.append(head)
        return take_apart(path, head, upper)

    monkeypatch.setattr(fine_tune, "fit", watching)
    monkeypatch.setattr(fine_tune, "take_apart", starting)
    capsys.readouterr()
    stages.run_finetune(refit=refit, calibrate=True)
    said = re.search(r"temperature ([\d.]+), by 6 images held out", capsys.readouterr().out)
    assert said
    # Of the tiny set val has six images, from the tenth on.
    assert len(trained) == trainings
    assert set(range(9, 15)).isdisjoint(trained[0])
    # Each training starts from the head that has seen what it sees.
    np.testing.assert_array_equal(starts, np.load(stages.folder / MODEL / "head_weights.npy")[::-1])
    assert float(said[1]) != pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(last_layer(stages) * float(said[1]), plain, rtol=2e-3)
    scores_are_the_models(stages, name="finetuned")


def test_crops_have_other_colours_where_that_is_asked_for(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = list[float]()

    def stop_before_training(model: keras.Model, *_: Any) -> Any:
        shares.extend(each.share for each in model.layers if isinstance(each, ColorJitter))
        raise KeyboardInterrupt

    monkeypatch.setattr(fine_tune, "fit", stop_before_training)
    stages.run_prefix(augment="crop")
    for share, found in ((0, []), (0.25, [0.25])):
        with pytest.raises(KeyboardInterrupt):
            stages.run_finetune(augment="crop", color_jitter=share)
        assert shares == found


def last_layer(stages: Stages) -> NDArray[np.float32]:
    """Kernel of the fine-tuned model's last layer."""
    model = keras.saving.load_model(stages.folder / MODEL / "finetuned.keras")
    return np.asarray(model.get_layer("head").get_layer("classes").get_weights()[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_norm": "thawed"}, "no finetune.batch_norm 'thawed'; there are: frozen, train"),
        ({"unfreeze": "block9"}, "finetune.unfreeze: demo_backbone has no layer 'block9'"),
        ({"batch_norm_momentum": 2}, "--batch_norm_momentum: '2' is not a number from 0 to 1"),
        ({"epochs": -1}, "--epochs: '-1' is not a whole number from 0"),
        ({"augment": "flip"}, "no finetune.augment 'flip'; there are: none, crop"),
        ({"color_jitter": 1}, "--color_jitter: '1' is not a number from 0 to 0.9"),
        ({"precision": "float16"}, "no finetune.precision 'float16'; there are: auto, float32"),
        ({"warmup": 1.5}, "--warmup: '1.5' is not a number from 0 to 1"),
        ({"lowest_rate": 0}, "--lowest_rate: '0' is not a number above 0 to 1"),
        ({"slices": 0}, "--slices: '0' is not a whole number from 1"),
        ({"dropout": 1}, "--dropout: '1' is not a number from 0 to 0.95"),
    ],
)
def test_a_wrong_parameter_is_named(
    stages: Stages, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stages.run_finetune(**change)


def test_more_slices_than_images_are_refused(stages: Stages) -> None:
    with pytest.raises(UserError, match=r"finetune\.slices 1000 is more than the 24 images"):
        stages.run_finetune(slices=1000)
