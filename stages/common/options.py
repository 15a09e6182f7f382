"""Command line options that more than one stage takes."""

from stages.common.backbones import BACKBONES
from stages.common.command_line import Parser, one_of
from stages.common.sets import SETS


def add_run_options(parser: Parser) -> None:
    """Add `--set` and `--backbone`, the pair that a run is about."""
    parser.add_argument("--set", type=one_of([*SETS], "set"), required=True)
    parser.add_argument("--backbone", type=one_of([*BACKBONES], "backbone"), required=True)


def add_unfreeze_options(parser: Parser) -> None:
    """Add what decides where fine-tuning cuts the network."""
    parser.add_argument("--unfreeze", required=True)
    parser.add_argument(
        "--batch_norm", type=one_of(("frozen", "train"), "finetune.batch_norm"), required=True
    )
