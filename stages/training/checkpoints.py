"""The state of training after each epoch, so that a killed run goes on."""

import shutil
from pathlib import Path

import numpy as np

from stages.common.files import read_json, replacing, write_json
from stages.networks.keras_quiet import keras
from stages.training.history import HISTORY_COLUMNS, History


class Checkpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the state of training after each epoch in a folder.

    Keras's BackupAndRestore keeps no history, and would leave the resumed run's file without the
    epochs before.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.past: History = {name: [] for name in HISTORY_COLUMNS}

    def restore(self, model: keras.Model) -> int:
        """Load the newest state, if any, into a compiled model; return the epochs done."""
        states = sorted(self.folder.glob("[0-9]*"))
        if not states:
            return 0
        model.optimizer.build(model.trainable_variables)
        with np.load(states[-1] / "state.npz") as state:
            for variable, name in zip(_variables(model), state.files, strict=True):
                variable.assign(state[name])
        self.past = read_json(states[-1] / "history.json")
        return len(self.past["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Save all variables and the history under the epoch's number; drop older states."""
        for name, values in self.past.items():
            values.append(logs.get(name, float("nan")))
        older = sorted(self.folder.glob("[0-9]*"))
        with replacing(self.folder / f"{epoch:06d}") as temporary:
            temporary.mkdir()
            state = [variable.numpy() for variable in _variables(self.model)]
            np.savez(temporary / "state.npz", *state)
            write_json(temporary / "history.json", self.past)
        for folder in older:
            shutil.rmtree(folder)


def _variables(model: keras.Model) -> list[keras.Variable]:
    # A file of weights lacks the state of dropout's random numbers.
    return [*model.variables, *model.optimizer.variables]
