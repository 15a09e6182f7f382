"""Command line options that more than one stage takes; TensorFlow is not needed for them."""

from typing import Literal

from stages.common.command_line import Parser, number, one_of
from stages.networks.registry import registry

Pooling = Literal["avg", "max"]
POOLINGS: tuple[Pooling, ...] = ("avg", "max")
Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16")
BatchNorm = Literal["frozen", "train"]
BATCH_NORMS: tuple[BatchNorm, ...] = ("frozen", "train")
Augment = Literal["none", "crop"]
AUGMENTS: tuple[Augment, ...] = ("none", "crop")

Normalize = Literal["none", "standard", "power"]
NORMALIZE: tuple[Normalize, ...] = ("none", "standard", "power")

color_share = number(float, 0, 0.9)


def add_run_options(parser: Parser) -> None:
    """Add `--set` and `--backbone`, the pair that a run is about."""
    parser.add_argument("--set", required=True)
    add_backbone_option(parser)


def add_backbone_option(parser: Parser) -> None:
    """Add `--backbone`, a name in the registry."""
    parser.add_argument("--backbone", type=one_of([*registry()], "backbone"), required=True)


def add_weights_option(parser: Parser) -> None:
    """Add `--weights`: the published ones or random ones."""
    parser.add_argument(
        "--weights", type=one_of(["imagenet", "random"], "choice of weights"), required=True
    )


def add_unfreeze_options(parser: Parser) -> None:
    """Add what decides where fine-tuning cuts the network."""
    parser.add_argument("--unfreeze", required=True)
    parser.add_argument(
        "--batch_norm", type=one_of(BATCH_NORMS, "finetune.batch_norm"), required=True
    )
    parser.add_argument("--augment", type=one_of(AUGMENTS, "finetune.augment"), required=True)


def reads_pixels(batch_norm: BatchNorm, augment: Augment) -> bool:
    """Whether fine-tuning needs the pictures themselves, and not activations at the cut.

    So it is where batch norm trains, below the cut too, and where the pictures are augmented.
    """
    return batch_norm == "train" or augment != "none"
