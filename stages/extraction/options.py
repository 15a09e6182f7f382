"""What the frozen network is shown, and where it runs: options of several stages."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from stages.common.command_line import Parser, number, one_of
from stages.networks.options import (
    POOLINGS,
    PRECISIONS,
    Pooling,
    Precision,
    add_run_options,
)
from stages.networks.registry import find_backbone
from stages.pictures.decoding import CROPS, Crop
from stages.pictures.views import VIEWS

MIN_SIDE, MAX_SIDE = 32, 1024
Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")


@dataclass(frozen=True)
class ImageOptions:
    """A set, a backbone, and the section `features` of params.yaml."""

    set: str
    backbone: str
    image_size: str | int
    crop: Crop
    pooling: Pooling
    views: Sequence[str]
    precision: Precision

    @property
    def side(self) -> int:
        """Side of the square images in pixels.

        `native` is the size the backbone was trained on, `larger` 8/7 of that where it takes other
        sizes: networks trained on random crops see objects larger than they are in a centred crop,
        and do better when that is made up for. Touvron et al., "Fixing the train-test resolution
        discrepancy" (2019), section 3.
        """
        backbone = find_backbone(self.backbone)
        if self.image_size == "larger" and backbone.any_size:
            return round(backbone.size * 8 / 7)
        return backbone.size if isinstance(self.image_size, str) else self.image_size


@dataclass(frozen=True)
class ExtractionOptions(ImageOptions):
    """What is extracted, and where the network runs."""

    engine: Engine


def add_image_options(parser: Parser) -> None:
    """Add `--set`, `--backbone` and what the section `features` of params.yaml holds."""
    add_run_options(parser)
    parser.add_argument("--image_size", type=_side, required=True)
    parser.add_argument("--crop", type=one_of(CROPS, "features.crop"), required=True)
    parser.add_argument("--pooling", type=one_of(POOLINGS, "features.pooling"), required=True)
    parser.add_argument(
        "--views", type=one_of(VIEWS, "view in features.views"), nargs="+", required=True
    )
    parser.add_argument("--precision", type=one_of(PRECISIONS, "features.precision"), required=True)


def add_extraction_options(parser: Parser) -> None:
    """Add `--engine` to the options of `add_image_options`."""
    add_image_options(parser)
    parser.add_argument("--engine", type=_engine, required=True)


def _engine(text: str) -> str:
    engine = one_of(ENGINES, "engine")(text)
    if engine == "ray" and find_spec("ray") is None:
        raise argparse.ArgumentTypeError("ray is not installed; run `make ray`, or set it to local")
    return engine


def _side(text: str) -> str | int:
    return text if text in ("native", "larger") else int(number(int, MIN_SIDE, MAX_SIDE)(text))
