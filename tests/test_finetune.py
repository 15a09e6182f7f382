from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_csv
from stages.common.keras_quiet import keras
from tests.test_head import MODEL, images_of
from tests.tiny_set import Stages

NAMES = ("head", "finetuned")
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
    model = keras.saving.load_model(ran.folder / MODEL / "finetuned.keras")
    expected = np.load(ran.folder / MODEL / "finetuned_probabilities.npy")[0]
    np.testing.assert_allclose(model.predict_on_batch(images_of(ran)), expected, atol=1e-4)


def test_only_layers_above_the_cut_train_and_batch_norm_does_not(ran: Stages) -> None:
    paths = changed(ran)
    assert any("block4" in path for path in paths)
    assert any("head" in path or "dense" in path for path in paths)
    assert not any(path.startswith(("stem", "block1", "block2")) for path in paths)
    assert not any("_bn" in path for path in paths)


def test_where_batch_norm_trains_it_does_so_everywhere(stages: Stages) -> None:
    stages.run_prefix(batch_norm="train", unfreeze="3")
    stages.run_finetune(batch_norm="train", unfreeze="3", batch_norm_momentum=0.5)
    paths = changed(stages)
    assert {path.split("/")[0] for path in paths} >= {"stem_bn", "block1_1_bn", "block4_2_bn"}
    assert not any("conv" in path and not path.startswith("features") for path in paths)
    model = keras.saving.load_model(stages.folder / MODEL / "finetuned.keras")
    assert model.get_layer("demo_backbone").get_layer("stem_bn").momentum == 0.5
    expected = np.load(stages.folder / MODEL / "finetuned_probabilities.npy")[0]
    np.testing.assert_allclose(model.predict_on_batch(images_of(stages)), expected, atol=1e-4)


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
    stages.run_head(epochs=60, learning_rate=0.01)
    stages.run_finetune(epochs=1, learning_rate=1e-9)
    head = np.load(stages.folder / MODEL / "head_probabilities.npy")[0]
    finetuned = np.load(stages.folder / MODEL / "finetuned_probabilities.npy")[0]
    np.testing.assert_allclose(finetuned, head, atol=1e-3)


def test_a_killed_run_goes_on_and_ends_the_same(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages.common.training import Checkpoints

    stages.run_finetune(epochs=4)
    undisturbed = (stages.folder / MODEL / "finetuned.keras").read_bytes()
    history = (stages.folder / HISTORY).read_bytes()
    save = Checkpoints.on_epoch_end

    def save_then_die(self: Checkpoints, epoch: int, logs: dict[str, float]) -> None:
        save(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Checkpoints, "on_epoch_end", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            stages.run_finetune(epochs=4)
    capsys.readouterr()
    stages.run_finetune(epochs=4)
    output = capsys.readouterr().out
    assert "Epoch 2/4" not in output
    assert "Epoch 3/4" in output
    assert (stages.folder / MODEL / "finetuned.keras").read_bytes() == undisturbed
    assert (stages.folder / HISTORY).read_bytes() == history
    assert list((stages.folder / "data/checkpoints").rglob("*.h5")) == []


def test_checkpoints_of_other_parameters_are_not_used(stages: Stages) -> None:
    stages.run_finetune()
    other = stages.folder / "data/checkpoints/tiny/demo_backbone/0123456789abcdef/000000"
    other.mkdir(parents=True)
    stages.run_finetune()
    assert not other.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_norm": "thawed"}, "no finetune.batch_norm 'thawed'; there are: frozen, train"),
        ({"unfreeze": "block9"}, "finetune.unfreeze: demo_backbone has no layer 'block9'"),
        ({"batch_norm_momentum": 2}, "--batch_norm_momentum: '2' is not a number from 0 to 1"),
        ({"epochs": -1}, "--epochs: '-1' is not a whole number from 0"),
    ],
)
def test_a_wrong_parameter_is_named(
    stages: Stages, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stages.run_finetune(**change)


def test_repeats_have_splits_and_seeds_of_their_own(stages: Stages) -> None:
    stages.run_split(repeats=2)
    stages.run_head()
    stages.run_finetune()
    together = [np.load(stages.folder / MODEL / f"{name}_probabilities.npy") for name in NAMES]
    assert [len(each) for each in together] == [2, 2]
    models = [(stages.folder / MODEL / f"{name}.keras").read_bytes() for name in NAMES]
    for repeat in (1, 0):
        stages.run_split(seed=42 + repeat)
        stages.run_head(seed=42 + repeat)
        stages.run_finetune(seed=42 + repeat)
        for name, each in zip(NAMES, together, strict=True):
            alone = np.load(stages.folder / MODEL / f"{name}_probabilities.npy")[0]
            np.testing.assert_array_equal(each[repeat], alone)
    # The model files are the first repeat's.
    assert [(stages.folder / MODEL / f"{name}.keras").read_bytes() for name in NAMES] == models
