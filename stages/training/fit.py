"""Training on arrays of cached values: features, activations or pixels.

Arrays have the shape (images, views, ...). Training draws one view of each image a step, which is
what augmentation comes to with a frozen network; prediction averages over the views, or takes the
first.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.networks.keras_quiet import keras, tensorflow
from stages.pictures.splits import Rows
from stages.training.batches import Batches, Values
from stages.training.checkpoints import Checkpoints
from stages.training.distribution import Crossentropy, Shared, check_agreement
from stages.training.epoch_progress import EpochProgress
from stages.training.history import HISTORY_COLUMNS, History
from stages.training.imbalance import image_weights
from stages.training.recipe import Recipe, make_optimizer, rate_shares, scale_rates


def make_repeatable(seed: int) -> None:
    """Make what follows in this process depend on the seed alone.

    Seeds Python, NumPy and TensorFlow, has TensorFlow use deterministic operations, and has Keras
    count the names of its layers, which model files hold, from the start. To be called before
    TensorFlow computes for the first time.
    """
    # Gradients are summed in as many parts as there are threads, and the rounding goes with the
    # parts: with a number that is not the machine's, every machine gives the same bytes.
    os.environ["TF_NUM_INTRAOP_THREADS"] = "8"
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    tensorflow.config.experimental.enable_op_determinism()


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
