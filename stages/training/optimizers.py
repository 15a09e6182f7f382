"""The optimizer that a recipe describes."""

from typing import Any

import numpy as np

from stages.networks.keras_quiet import keras, tensorflow
from stages.training.recipe import Recipe


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
