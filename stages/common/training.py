"""Training and prediction on arrays of cached values: features, activations or pixels.

Arrays have the shape (images, views, ...). Training draws one view of each image a step, which is
what augmentation comes to with a frozen network; prediction averages over the views, or takes the
first.
"""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from stages.common.command_line import Parser, number, one_of
from stages.common.files import read_json, replacing, write_json
from stages.common.keras_quiet import keras, tensorflow
from stages.common.results import HISTORY_COLUMNS

Values = NDArray[Any]
History = dict[str, list[float]]

OPTIMIZERS = ("adam", "adamax", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
HELD_OUT = 0.1
"""Share of the training part that early stopping watches where val is the part reported."""


def make_repeatable(seed: int) -> None:
    """Make what follows in this process depend on the seed alone.

    Seeds Python, NumPy and TensorFlow, has TensorFlow use deterministic operations, and has Keras
    count the names of its layers, which model files hold, from the start.
    """
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    tensorflow.config.experimental.enable_op_determinism()


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of some rows of an array, in an order and in views drawn anew for each epoch.

    What an epoch draws depends on the seed and the epoch's number alone, so that resumed training
    goes on as if it had not stopped.
    """

    def __init__(
        self,
        values: Values,
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.values, self.labels, self.rows = values, labels, rows
        self.batch_size, self.seed = batch_size, seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Draw the order and the views of epoch number `epoch`, counted from 0."""
        rng = np.random.default_rng([self.seed, epoch])
        self.order = rng.permutation(self.rows)
        self.views = rng.integers(self.values.shape[1], size=len(self.rows))

    def __len__(self) -> int:
        """Count the batches of an epoch; the last one may be smaller."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, step: int) -> tuple[Values, NDArray[np.int64]]:
        """Batch number `step`: values (n, ...) as float32 and labels (n,)."""
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        rows = self.order[part]
        return self.values[rows, self.views[part]].astype(np.float32), self.labels[rows]


@dataclass(frozen=True)
class Recipe:
    """How to train: optimizer, steps and stopping."""

    optimizer: Literal["adam", "adamax", "adamw", "sgd"]
    learning_rate: float
    schedule: Literal["constant", "cosine"]
    epochs: int
    batch_size: int
    patience: int = 0
    """Epochs without a lower validation loss after which training stops; 0 never stops it."""


def add_training_options(parser: Parser, section: str, min_epochs: int) -> None:
    """Add what every training takes; `section` of params.yaml is named in errors."""
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), required=True)
    parser.add_argument(
        "--optimizer", type=one_of(OPTIMIZERS, f"{section}.optimizer"), required=True
    )
    parser.add_argument("--learning_rate", type=number(float, 0, 10, open_low=True), required=True)
    parser.add_argument("--schedule", type=one_of(SCHEDULES, f"{section}.schedule"), required=True)
    parser.add_argument("--epochs", type=number(int, min_epochs, 100_000), required=True)
    parser.add_argument("--batch_size", type=number(int, 1, 65_536), required=True)


def recipe_of(options: argparse.Namespace, patience: int = 0) -> Recipe:
    """The recipe that the options of `add_training_options` describe."""
    return Recipe(
        options.optimizer,
        options.learning_rate,
        options.schedule,
        options.epochs,
        options.batch_size,
        patience,
    )


def make_optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """The recipe's optimizer for `steps` steps in all; sgd has Nesterov momentum 0.9."""
    rate: Any = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps)
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    return keras.optimizers.get({"class_name": recipe.optimizer, "config": {"learning_rate": rate}})


def choose_rows(
    labels: NDArray[np.int64], parts: NDArray[np.str_], patience: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows to watch while training.

    The rows watched are val's. Early stopping (`patience` above 0) chooses by them, so where the
    protocol has no test part and val is what is reported, it watches a stratified tenth of train in
    their place.
    """
    train, val = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "val")
    if patience == 0 or "test" in parts:
        return train, val
    train, watched = train_test_split(
        train, test_size=HELD_OUT, random_state=seed, stratify=labels[train]
    )
    return np.sort(train), np.sort(watched)


class Checkpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the state of training after each epoch in a folder, so that a killed run goes on.

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
            values.append(logs[name])
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


def fit(
    model: keras.Model,
    values: Values,
    labels: NDArray[np.int64],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    recipe: Recipe,
    seed: int,
    checkpoints: Path | None = None,
) -> History:
    """Train `model` on the first of `rows`, watching the second; return the history by epoch.

    Validation sees the first view alone. With patience the weights of the best epoch stay. With a
    folder for checkpoints, training goes on from the newest one there.
    """
    train, watched = rows
    batches = Batches(values, labels, train, recipe.batch_size, seed)
    model.compile(
        make_optimizer(recipe, recipe.epochs * len(batches)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    start_epoch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, _: batches.start_epoch(epoch)
    )
    callbacks, done = [start_epoch], 0
    past: History = {name: [] for name in HISTORY_COLUMNS}
    if recipe.patience:
        callbacks.append(
            keras.callbacks.EarlyStopping(patience=recipe.patience, restore_best_weights=True)
        )
    if checkpoints:
        keeper = Checkpoints(checkpoints)
        done = keeper.restore(model)
        past = {name: list(epochs) for name, epochs in keeper.past.items()}
        callbacks.append(keeper)
    history = model.fit(
        batches,
        validation_data=Batches(values[:, :1], labels, watched, recipe.batch_size, seed),
        initial_epoch=done,
        epochs=recipe.epochs,
        shuffle=False,
        callbacks=callbacks,
        verbose=2,
    ).history
    return {name: past[name] + history.get(name, []) for name in HISTORY_COLUMNS}


def predict(
    predict_batch: Callable[[Values], Values], values: Values, views: int, batch_size: int = 64
) -> NDArray[np.float32]:
    """Probabilities of every image, (images, classes), averaged over its first `views` views."""
    blocks = []
    for start in range(0, len(values), batch_size):
        block = values[start : start + batch_size, :views].astype(np.float32)
        flat = predict_batch(block.reshape(-1, *block.shape[2:]))
        blocks.append(flat.reshape(len(block), views, -1).mean(axis=1))
    return np.asarray(np.concatenate(blocks), np.float32)
