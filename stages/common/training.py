"""Training and prediction on arrays of cached values: features, activations or pixels.

Arrays have the shape (images, views, ...). Training draws one view of each image a step, which is
what augmentation comes to with a frozen network; prediction averages over the views, or takes the
first.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.common.batches import Batches, Values
from stages.common.checkpoints import Checkpoints
from stages.common.command_line import Parser, UserError, any_seed, number, one_of
from stages.common.distribution import Crossentropy, Shared, check_agreement
from stages.common.epoch_progress import EpochProgress
from stages.common.files import release
from stages.common.imbalance import CLASS_WEIGHTS, ClassWeight, image_weights
from stages.common.keras_quiet import keras, tensorflow
from stages.common.progress import progress_bar
from stages.common.results import HISTORY_COLUMNS, History
from stages.common.splits import Rows

# Gradients are summed in as many parts as there are threads, and the rounding goes with the parts:
# with a number that is not the machine's, every machine gives the same bytes. TensorFlow reads it
# before it computes for the first time.
os.environ["TF_NUM_INTRAOP_THREADS"] = "8"

OPTIMIZERS = ("adam", "adamax", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")


def make_repeatable(seed: int) -> None:
    """Make what follows in this process depend on the seed alone.

    Seeds Python, NumPy and TensorFlow, has TensorFlow use deterministic operations, and has Keras
    count the names of its layers, which model files hold, from the start.
    """
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    tensorflow.config.experimental.enable_op_determinism()


@dataclass(frozen=True)
class Recipe:
    """How to train: optimizer, steps, what is done against overfitting, and stopping."""

    optimizer: Literal["adam", "adamax", "adamw", "sgd"]
    learning_rate: float
    schedule: Literal["constant", "cosine"]
    epochs: int
    batch_size: int
    warmup: float = 0
    """Share of all steps, 0 to 1, over which the learning rate rises from zero."""
    weight_decay: float = 0
    label_smoothing: float = 0
    lowest_rate: float = 1
    """Learning rate of the lowest layer that trains, as a share of the highest one's."""
    early_stopping: int = 0
    """Epochs, or slices, without a lower loss that end the choice of their number; 0: no choice."""
    slices: int = 1
    """Times that an epoch reports."""
    class_weight: ClassWeight = "none"


def add_training_options(parser: Parser, section: str, min_epochs: int) -> None:
    """Add what every training takes; `section` of params.yaml is named in errors."""
    parser.add_argument("--seed", type=any_seed, required=True)
    parser.add_argument("--refit", type=one_of(("true", "false"), "refit"), required=True)
    parser.add_argument(
        "--optimizer", type=one_of(OPTIMIZERS, f"{section}.optimizer"), required=True
    )
    parser.add_argument("--learning_rate", type=number(float, 0, 10, open_low=True), required=True)
    parser.add_argument("--schedule", type=one_of(SCHEDULES, f"{section}.schedule"), required=True)
    parser.add_argument("--epochs", type=number(int, min_epochs, 100_000), required=True)
    parser.add_argument("--batch_size", type=number(int, 1, 65_536), required=True)
    parser.add_argument("--weight_decay", type=number(float, 0, 10), required=True)
    parser.add_argument("--label_smoothing", type=number(float, 0, 0.9), required=True)
    parser.add_argument("--early_stopping", type=number(int, 0), required=True)
    parser.add_argument("--class_weight", type=one_of(CLASS_WEIGHTS, "class_weight"), required=True)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe that a stage's options describe; those it does not take keep their defaults."""
    given = vars(options)
    return Recipe(**{name: given[name] for name in Recipe.__dataclass_fields__ if name in given})


def rate_shares(model: keras.Model, lowest: float) -> dict[str, float]:
    """By its path, each trained variable's share of the learning rate: from `lowest` up to 1.

    The shares rise by the same factor from layer to layer, in the order of the model's variables:
    discriminative fine-tuning, Howard and Ruder, "Universal language model fine-tuning" (2018),
    section 3.2.
    """
    paths = [variable.path for variable in model.trainable_variables]
    layers = list(dict.fromkeys(path.rpartition("/")[0] for path in paths))
    rising = dict(zip(layers, np.geomspace(1, lowest, len(layers))[::-1].tolist(), strict=True))
    return {path: rising[path.rpartition("/")[0]] for path in paths}


def scale_rates(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, shares: dict[str, float]
) -> None:
    """Have `optimizer` take each variable's steps at its share of the learning rate.

    Weight decay stays at the whole rate. Where several devices train, to be called in the scope of
    their strategy.
    """
    copies = tensorflow.distribute.get_strategy().experimental_local_results
    by_reference = {
        copy.ref(): shares[variable.path]
        for variable in model.trainable_variables
        for copy in copies(variable.value)
    }
    plain = optimizer.update_step

    def update_step(gradient: Any, variable: Any, rate: Any) -> None:
        plain(gradient, variable, rate * by_reference[variable.ref()])

    optimizer.update_step = update_step


def make_optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """The recipe's optimizer for `steps` steps in all; sgd has Nesterov momentum 0.9.

    With the cosine schedule the rate rises linearly over the warm-up, then falls by half a cosine
    to zero: Loshchilov and Hutter, "SGDR" (2017), equation 5. Weight decay is decoupled from the
    gradient: the same, "Decoupled weight decay regularization" (2019).
    """
    rate: Any = recipe.learning_rate
    warmup = round(recipe.warmup * steps)
    if recipe.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate, max(1, steps - warmup), warmup_target=rate, warmup_steps=warmup
        )
    settings: dict[str, Any] = {
        "learning_rate": rate,
        "weight_decay": recipe.weight_decay,
    }
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(momentum=0.9, nesterov=True, **settings)
    return keras.optimizers.get({"class_name": recipe.optimizer, "config": settings})


def _compiled(model: keras.Model, recipe: Recipe, steps: int) -> keras.Model:
    """The model, ready to train for `steps` steps; where several devices do, one that shares it."""
    strategy = model.distribute_strategy
    several = strategy.num_replicas_in_sync > 1
    if several:
        model = Shared(model.inputs, model.outputs)
    with strategy.scope():
        optimizer = make_optimizer(recipe, steps)
        if recipe.lowest_rate != 1:
            scale_rates(optimizer, model, rate_shares(model, recipe.lowest_rate))
        model.compile(
            optimizer,
            Crossentropy(label_smoothing=recipe.label_smoothing),
            metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
            jit_compile=False,
        )
        if several:
            # In the first step, on each device by itself, is too late.
            optimizer.build(model.trainable_variables)
    return model


def fit(
    model: keras.Model,
    values: Values,
    labels: NDArray[np.int64],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    recipe: Recipe,
    seed: int,
    checkpoints: Path | None = None,
    reports: int | None = None,
    patience: int = 0,
) -> History:
    """Train `model` on the first of `rows`, watching the second; return the history.

    The history has an entry an epoch, or a slice of one; where no rows are watched the values of
    validation are NaN. Validation sees the first view alone, and weighs classes as training does.
    With a folder for checkpoints, training goes on from the newest one there. `reports` ends
    training after so many entries, in the midst of its schedule; `patience`, when the loss has not
    fallen for so many. A model that was made in the scope of a strategy trains on its devices, each
    of which takes a share of every batch.
    """
    train, watched = rows
    if recipe.slices > len(train):
        raise UserError(
            f"finetune.slices {recipe.slices} is more than the {len(train)} images that train; "
            "lower it"
        )
    targets = np.eye(model.output_shape[-1], dtype=np.float32)[labels]
    weights = image_weights(labels, train, targets.shape[1], recipe.class_weight)
    batches = Batches(values, targets, train, recipe.batch_size, seed, recipe.slices, weights)
    planned = recipe.epochs * recipe.slices
    strategy = model.distribute_strategy
    model = _compiled(model, recipe, max(1, planned * len(batches)))
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda part, _: batches.start(part)),
        EpochProgress(),
    ]
    done, past = 0, {name: list[float]() for name in HISTORY_COLUMNS}
    if checkpoints:
        keeper = Checkpoints(checkpoints)
        done = keeper.restore(model)
        past = {name: list(entries) for name, entries in keeper.past.items()}
        callbacks.append(keeper)
        if strategy.num_replicas_in_sync > 1:
            check_agreement(f"{checkpoints} after {done} epochs or slices", strategy)
    if patience:
        if _stalled(past["val_loss"], patience):
            return past
        callbacks.append(_Patience(patience, past["val_loss"]))
    validation = None
    if len(watched):
        validation = Batches(
            values[:, :1], targets, watched, recipe.batch_size, seed, weights=weights
        ).stream()
    with strategy.scope():
        history = model.fit(
            batches.stream(),
            validation_data=validation,
            initial_epoch=done,
            epochs=reports or planned,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        ).history
    # A file of the model would hold the optimizer's state.
    model.compiled, model.optimizer = False, None
    missing = [float("nan")] * len(history.get("loss", []))
    return {name: past[name] + history.get(name, missing) for name in HISTORY_COLUMNS}


class _Patience(keras.callbacks.Callback):  # type: ignore[misc]
    # Keras's EarlyStopping forgets, when training is resumed, what came before.

    def __init__(self, patience: int, losses: list[float]) -> None:
        super().__init__()
        self.patience, self.losses = patience, list(losses)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        self.losses.append(logs["val_loss"])
        self.model.stop_training = _stalled(self.losses, self.patience)


def _lowest(losses: list[float]) -> int:
    # A diverged loss is not a number, which NumPy takes for the lowest.
    return int(np.argmin(np.nan_to_num(losses, nan=np.inf)))


def _stalled(losses: list[float], patience: int) -> bool:
    return bool(losses) and len(losses) - 1 - _lowest(losses) >= patience


def choose_reports(
    make_model: Callable[[], keras.Model],
    values: Values,
    labels: NDArray[np.int64],
    rows: Rows,
    recipe: Recipe,
    seed: int,
    checkpoints: Path | None = None,
) -> int | None:
    """The number of epochs, or of slices, with the lowest loss on the rows that judge.

    None, for all of them, where the recipe has no early stopping.
    """
    if recipe.early_stopping == 0 or recipe.epochs == 0:
        return None
    judged = (rows.choosing, rows.judging)
    patience = recipe.early_stopping
    history = fit(
        make_model(), values, labels, judged, recipe, seed, checkpoints, patience=patience
    )
    best = _lowest(history["val_loss"]) + 1
    print(f"lowest loss after {best} of {recipe.epochs * recipe.slices}: training anew so far")
    return best


def _predict_blocks(
    predict_batch: Callable[[Values], Values],
    values: Values,
    rows: NDArray[np.int64],
    views: int,
    batch_size: int,
) -> Iterator[NDArray[np.float32]]:
    with progress_bar(total=len(rows), desc="predicting", unit=" images", delay=2) as bar:
        for start in range(0, len(rows), batch_size):
            block = values[rows[start : start + batch_size], :views].astype(np.float32)
            release(values)
            flat = np.asarray(predict_batch(block.reshape(-1, *block.shape[2:])), np.float32)
            yield flat.reshape(len(block), views, -1)
            bar.update(len(block))


def predict_views(
    predict_batch: Callable[[Values], Values],
    values: Values,
    rows: NDArray[np.int64],
    views: int,
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Probabilities (rows, views, classes) of some rows of `values`, in their first `views`."""
    return np.concatenate([*_predict_blocks(predict_batch, values, rows, views, batch_size)])


def predict(
    predict_batch: Callable[[Values], Values], values: Values, views: int, batch_size: int = 64
) -> NDArray[np.float32]:
    """Probabilities of every image, (images, classes), averaged over its first `views` views."""
    rows = np.arange(len(values))
    blocks = _predict_blocks(predict_batch, values, rows, views, batch_size)
    return np.concatenate([block.mean(axis=1) for block in blocks])
