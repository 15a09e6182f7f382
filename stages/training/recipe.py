"""The recipe: the hyper-parameters of a training, and which layers fine-tuning trains."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from stages.common.command_line import Parser, any_seed, number, one_of, truth
from stages.networks.options import Augment, BatchNorm, Precision

OPTIMIZERS = ("adam", "adamax", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Recipe:
    """How to train: optimizer, steps, and what is done against overfitting."""

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
    slices: int = 1
    """Times that an epoch reports."""


@dataclass(frozen=True)
class UpperLayers:
    """Which layers of a backbone train, and how; see the section `finetune` of params.yaml."""

    backbone: str
    unfreeze: str
    batch_norm: BatchNorm
    batch_norm_momentum: float
    augment: Augment
    color_jitter: float
    precision: Precision
    dropout: float


def add_training_options(parser: Parser, section: str, min_epochs: int) -> None:
    """Add what every training takes; `section` of params.yaml is named in errors."""
    parser.add_argument("--seed", type=any_seed, required=True)
    parser.add_argument("--refit", type=truth("refit"), required=True)
    parser.add_argument(
        "--optimizer", type=one_of(OPTIMIZERS, f"{section}.optimizer"), required=True
    )
    parser.add_argument("--learning_rate", type=number(float, 0, 10, open_low=True), required=True)
    parser.add_argument("--schedule", type=one_of(SCHEDULES, f"{section}.schedule"), required=True)
    parser.add_argument("--epochs", type=number(int, min_epochs, 100_000), required=True)
    parser.add_argument("--batch_size", type=number(int, 1, 65_536), required=True)
    parser.add_argument("--weight_decay", type=number(float, 0, 10), required=True)
    parser.add_argument("--label_smoothing", type=number(float, 0, 0.9), required=True)


def take_recipe(options: dict[str, Any]) -> Recipe:
    """The recipe that a stage's options describe, which are taken out of `options`.

    What the stage does not take keeps its default.
    """
    names = [field.name for field in fields(Recipe) if field.name in options]
    return Recipe(**{name: options.pop(name) for name in names})
