"""Command line options that more than one stage takes."""

import argparse

from stages.common.command_line import Parser, number, one_of
from stages.networks.backbones import BACKBONES


def add_run_options(parser: Parser) -> None:
    """Add `--set` and `--backbone`, the pair that a run is about."""
    parser.add_argument("--set", required=True)
    parser.add_argument("--backbone", type=one_of([*BACKBONES], "backbone"), required=True)


AUGMENTATIONS = ("none", "crop")
color_share = number(float, 0, 0.9)


def reads_pixels(options: argparse.Namespace) -> bool:
    """Whether fine-tuning needs the pictures themselves, and not activations at the cut.

    So it is where batch norm trains, below the cut too, and where the pictures are augmented.
    """
    return bool(options.batch_norm == "train" or options.augment != "none")


def add_unfreeze_options(parser: Parser) -> None:
    """Add what decides where fine-tuning cuts the network."""
    parser.add_argument("--unfreeze", required=True)
    parser.add_argument(
        "--batch_norm", type=one_of(("frozen", "train"), "finetune.batch_norm"), required=True
    )
    parser.add_argument("--augment", type=one_of(AUGMENTATIONS, "finetune.augment"), required=True)
