"""The registry of backbones, stages/backbones.yaml: what is to be known of each network.

It is read without TensorFlow. A stage depends, by DVC's `params`, on the entry of its own backbone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from stages.common.command_line import UserError
from stages.common.parameters import read_yaml

Library = Literal["keras", "keras_hub", "demo"]
LIBRARIES: tuple[Library, ...] = ("keras", "keras_hub", "demo")
PATH = Path(__file__).parents[1] / "backbones.yaml"


@dataclass(frozen=True)
class Backbone:
    """One network: how to build it, its facts, and where fine-tuning begins by default.

    The comments of backbones.yaml say what each entry is.
    """

    name: str
    library: Library
    size: int
    width: int
    unfreeze: str
    constructor: str = ""
    module: str = ""
    preset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: Sequence[float] = ()
    deviation: Sequence[float] = ()
    any_size: bool = True
    never_trains: Sequence[str] = ()
    terms: str = ""


@cache
def registry() -> dict[str, dict[str, Any]]:
    """The entries of all backbones by their names, as they are written."""
    return dict(read_yaml(PATH))


def find_backbone(name: str) -> Backbone:
    """The backbone called `name`. Raises UserError where its entry is missing or wrong."""
    if name not in registry():
        raise UserError(f"no backbone {name!r}; there are: {', '.join(registry())}")
    try:
        backbone = Backbone(name, **registry()[name])
        if backbone.library not in LIBRARIES:
            raise ValueError(f"no library {backbone.library!r}")
        return backbone
    except (TypeError, ValueError) as error:
        raise UserError(f"{PATH} does not describe {name} ({error}); correct its entry") from None
