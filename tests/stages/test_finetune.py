import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common import command_line
from stages.common.command_line import UserError
from stages.common.files import read_csv
from stages.networks.augmentation import ColorJitter
from stages.networks.keras_quiet import keras
from stages.training import finetuning
from stages.training.checkpoints import Checkpoints
from stages.training.fit import fit
from stages.training.recipe import Recipe
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
    head = np.load(stages.folder / MODEL / "head_probabilities.npy")[0]
    finetuned = np.load(stages.folder / MODEL / "finetuned_probabilities.npy")[0]
    np.testing.assert_allclose(finetuned, head, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "killed_after"),
    [
        ({}, 1),
        pytest.param({"early_stopping": 3}, 3, marks=pytest.mark.soak),
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
    # Of the final training the first epoch was done, and all of the choice before it.
    assert "epoch 1/" not in output
    assert output.count("epoch 2/2: ") == 1
    assert (stages.folder / MODEL / "finetuned.keras").read_bytes() == undisturbed
    assert (stages.folder / HISTORY).read_bytes() == history
    assert not [*(stages.folder / "data/checkpoints").rglob("repeat_*")]


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
    assert not [*(stages.folder / "data/checkpoints").rglob("repeat_*")]


def test_checkpoints_of_other_parameters_are_not_used(stages: Stages) -> None:
    other = stages.folder / "data/checkpoints/tiny/demo_backbone/0123456789abcdef/000000"
    other.mkdir(parents=True)
    stages.run_finetune()
    assert not other.exists()


def test_checkpoints_of_another_dropout_are_not_used(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.run_head(**LOGISTIC, dropout=0.2)
    weights = (stages.folder / MODEL / "head_weights.npy").read_bytes()
    with monkeypatch.context() as context:
        context.setattr(command_line, "PARENT", -1)  # By which the checkpoints stay.
        stages.run_finetune()
    stages.run_head(**LOGISTIC, dropout=0.6)
    assert (stages.folder / MODEL / "head_weights.npy").read_bytes() == weights
    capsys.readouterr()
    stages.run_finetune()
    assert "epoch 1/2" in capsys.readouterr().out


def test_checkpoints_of_other_code_are_not_used(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as context:
        context.setattr(command_line, "PARENT", -1)  # By which the checkpoints stay.
        context.setattr(finetuning, "code_digests", lambda modules: [*modules])
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

    monkeypatch.setattr(finetuning, "fit", watching)
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

    monkeypatch.setattr(finetuning, "fit", watching)
    wanted = Recipe("sgd", 0.01, "cosine", 2, 8, 0.5, 0.1, 0.2, 0.3, 0, 2)
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


def test_early_stopping_chooses_by_val_and_starts_anew_from_all_that_trains(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.run_split(protocol="official")
    stages.run_head(**LOGISTIC, finetune_early_stopping=1)
    starts, start = [], finetuning.start

    def watching(path: Any, head: NDArray[np.float32], options: Any) -> Any:
        starts.append(head)
        return start(path, head, options)

    monkeypatch.setattr(finetuning, "start", watching)
    capsys.readouterr()
    # Far too high a rate: the loss on val rises from the first epoch on.
    stages.run_finetune(epochs=5, early_stopping=1, learning_rate=0.1, warmup=0)
    output = capsys.readouterr().out
    (line,) = [each for each in output.splitlines() if "lowest loss" in each]
    rows = read_csv(stages.folder / HISTORY)
    assert line.startswith(f"lowest loss after {len(rows)} of 5")
    assert len(rows) < 5
    # Val trains in the end, and is watched no more.
    assert {row["val_loss"] for row in rows} == {""}
    final, choosing = np.load(stages.folder / MODEL / "head_weights.npy")[0]
    np.testing.assert_array_equal(starts, [choosing, final])
    assert not np.array_equal(choosing, final)
    scores_are_the_models(stages, name="finetuned")


@pytest.mark.parametrize(("refit", "trainings"), [("true", 2), ("false", 1)])
def test_the_temperature_is_chosen_by_images_that_were_not_trained_on(
    stages: Stages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refit: str,
    trainings: int,
) -> None:
    stages.run_split(protocol="official")
    stages.run_head(refit=refit, calibrate=True)
    stages.run_finetune(refit=refit)
    plain = last_layer(stages)
    trained = []

    def watching(*arguments: Any) -> Any:
        trained.append(arguments[3][0])
        return fit(*arguments)

    monkeypatch.setattr(finetuning, "fit", watching)
    capsys.readouterr()
    stages.run_finetune(refit=refit, calibrate=True)
    said = re.search(r"temperature ([\d.]+), by 6 images held out", capsys.readouterr().out)
    assert said
    # Of the tiny set val has six images, from the tenth on.
    assert len(trained) == trainings
    assert set(range(9, 15)).isdisjoint(trained[0])
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

    monkeypatch.setattr(finetuning, "fit", stop_before_training)
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
    ],
)
def test_a_wrong_parameter_is_named(
    stages: Stages, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stages.run_finetune(**change)


@pytest.mark.soak
def test_repeats_have_splits_and_seeds_of_their_own(stages: Stages) -> None:
    stages.run_split(repeats=2)
    stages.run_head(**LOGISTIC)
    stages.run_finetune(epochs=1)
    together = np.load(stages.folder / MODEL / "finetuned_probabilities.npy")
    assert len(together) == 2
    model = (stages.folder / MODEL / "finetuned.keras").read_bytes()
    for repeat in (1, 0):
        stages.run_split(seed=42 + repeat)
        stages.run_head(**LOGISTIC, seed=42 + repeat)
        stages.run_finetune(seed=42 + repeat, epochs=1)
        alone = np.load(stages.folder / MODEL / "finetuned_probabilities.npy")
        np.testing.assert_array_equal(together[repeat], alone[0])
    # The model file is the first repeat's.
    assert (stages.folder / MODEL / "finetuned.keras").read_bytes() == model


def test_more_slices_than_images_are_refused(stages: Stages) -> None:
    with pytest.raises(UserError, match=r"finetune\.slices 1000 is more than the 24 images"):
        stages.run_finetune(slices=1000)
