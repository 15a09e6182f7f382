"""The recipe: the hyper-parameters of a training, and the optimizer that they make."""

import argparse
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stages.common.command_line import Parser, any_seed, number, one_of
from stages.networks.keras_quiet import keras, tensorflow
from stages.training.imbalance import CLASS_WEIGHTS, ClassWeight

OPTIMIZERS = ("adam", "adamax", "adamw", "sgd")


SCHEDULES = ("constant", "cosine")


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
