import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.files import read_json, write_json
from stages.training.batches import Batches
from stages.training.checkpoints import Checkpoints
from stages.training.fit import fit
from stages.training.optimizers import make_optimizer
from tests.training.test_fit import data, network, recipe


class KilledError(Exception):
    """Stands for a kill."""


def kill(patch: pytest.MonkeyPatch, killed_in: int, killed_at: int) -> None:
    """Have training die at a step of the slice `killed_in`."""
    get_batch, start = Batches.__getitem__, Batches.start
    parts: dict[Batches, int] = {}

    def starting(self: Batches, part: int) -> None:
        start(self, part)
        parts[self] = part

    def killing(self: Batches, step: int) -> Any:
        if (parts[self], step) == (killed_in, killed_at):
            raise KilledError
        return get_batch(self, step)

    patch.setattr(Batches, "start", starting)
    patch.setattr(Batches, "__getitem__", killing)


@pytest.mark.parametrize(
    ("changes", "killed_in"),
    [
        ({}, 2),
        ({"optimizer": "sgd"}, 0),
        ({"optimizer": "adamw", "epochs": 2, "slices": 2, "lowest_rate": 0.1}, 3),
    ],
    ids=["adam", "sgd", "all of fine-tuning"],
)
def test_killed_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, changes: dict[str, Any], killed_in: int
) -> None:
    values, labels, rows = data()
    judged, how = (rows.choosing, rows.judging), recipe(**changes)
    undisturbed = network()
    history = fit(undisturbed, values, labels, judged, how, 0, tmp_path / "undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, killed_in, killed_at=2)
        with pytest.raises(Exception, match="KilledError"):
            fit(network(), values, labels, judged, how, 0, tmp_path / "killed")

    states = list((tmp_path / "killed").glob("*"))
    wanted_states = [] if killed_in == 0 else [f"{killed_in - 1:06d}"]
    assert [state.name for state in states] == wanted_states
    resumed = network()
    assert fit(resumed, values, labels, judged, how, 0, tmp_path / "killed") == history
    for found, wanted in zip(resumed.get_weights(), undisturbed.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_last_checkpoint_alone_stays_and_needs_no_more_training(tmp_path: Path) -> None:
    values, labels, rows = data()
    how = recipe()
    done, unwatched = network(), (rows.final, rows.shown)
    history = fit(done, values, labels, unwatched, how, 0, tmp_path)
    assert [state.name for state in tmp_path.glob("*")] == ["000003"]
    again = network(seed=9)
    found = fit(again, values, labels, unwatched, how, 0, tmp_path)
    np.testing.assert_equal(found, history)  # NaN where nothing is watched.
    np.testing.assert_equal(read_json(tmp_path / "000003/history.json"), history)
    for one, other in zip(again.get_weights(), done.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_unfinished_checkpoint_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / ".partial-000003").mkdir()
    model = network()
    model.compile("adam", "categorical_crossentropy")
    assert Checkpoints(tmp_path).restore(model) == 0


def test_the_newest_checkpoint_is_taken(tmp_path: Path) -> None:
    """A kill between the writing of a state and the removal of the one before leaves both."""
    values, labels, rows = data()
    how = recipe(epochs=1)
    history = fit(network(), values, labels, (rows.choosing, rows.judging), how, 0, tmp_path)
    shutil.copytree(tmp_path / "000000", tmp_path / "000001")
    write_json(tmp_path / "000001/history.json", {key: 2 * row for key, row in history.items()})
    model = network()
    model.compile(make_optimizer(how, 1), "categorical_crossentropy")
    keeper = Checkpoints(tmp_path)
    assert keeper.restore(model) == 2
    assert keeper.past["loss"] == 2 * history["loss"]
