"""Training on arrays of cached values: features, activations or pixels.

Arrays have the shape (images, views, ...). Training draws one view of each image a step, which is
what augmentation comes to with a frozen network; prediction averages over the views, or takes the
first.
"""

import os
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.networks.keras_quiet import keras, tensorflow
from stages.training.batches import Batches, Values
from stages.training.checkpoints import Checkpoints
from stages.training.distribution import Crossentropy
from stages.training.epoch_progress import EpochProgress
from stages.training.history import HISTORY_COLUMNS, History
from stages.training.optimizers import make_optimizer, rate_shares, scale_rates
from stages.training.recipe import Recipe


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
        # Keras 3.12 fails with a model that was made in a scope: before it trains, it adds up the
        # devices' shares of the first batch, whose sizes may differ. So this one is made outside,
        # of layers from inside.
        model = keras.Model(model.inputs, model.outputs)
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
) -> History:
    """Train `model` on the first of `rows`, watching the second; return the history.

    The history has an entry an epoch, or a slice of one; where no rows are watched the values of
    validation are NaN. Validation sees the first view alone.
    With a folder for checkpoints, training goes on from the newest one there. A model that was made
    in the scope of a strategy trains on its devices, each of which takes a share of every batch.
    """
    train, watched = rows
    if recipe.slices > len(train):
        raise UserError(
            f"finetune.slices {recipe.slices} is more than the {len(train)} images that train; "
            "lower it"
        )
    targets = np.eye(model.output_shape[-1], dtype=np.float32)[labels]
    batches = Batches(values, targets, train, recipe.batch_size, seed, recipe.slices)
    planned = recipe.epochs * recipe.slices
    strategy = model.distribute_strategy
    model = _compiled(model, recipe, max(1, planned * len(batches)))
    progress = EpochProgress()
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda part, _: batches.start(part)),
        progress,
    ]
    done, past = 0, {name: list[float]() for name in HISTORY_COLUMNS}
    if checkpoints:
        keeper = Checkpoints(checkpoints)
        done = keeper.restore(model)
        past = {name: list(entries) for name, entries in keeper.past.items()}
        callbacks.append(keeper)
    validation = None
    if len(watched):
        validation = Batches(values[:, :1], targets, watched, recipe.batch_size, seed).stream()
    with strategy.scope(), closing(progress):
        history = model.fit(
            batches.stream(),
            validation_data=validation,
            initial_epoch=done,
            epochs=planned,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        ).history
    # A file of the model would hold the optimizer's state.
    model.compiled, model.optimizer = False, None
    missing = [float("nan")] * len(history.get("loss", []))
    return {name: past[name] + history.get(name, missing) for name in HISTORY_COLUMNS}
