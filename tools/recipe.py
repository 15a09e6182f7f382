"""Run a published recipe as a DVC experiment.

    python -m tools.recipe guide-dropout
    python -m tools.recipe article -S 'backbones=[mobilenet]' -n article-mobilenet

The recipes are in recipes.yaml; what follows the name goes to `dvc exp run`.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stages.common.command_line import Parser, one_of, run

RECIPES = Path("recipes.yaml")


def as_setting(name: str, value: Any) -> str:
    """A parameter as `dvc exp run -S` takes it."""
    if isinstance(value, list):
        return f"{name}=[{','.join(map(str, value))}]"
    return f"{name}={str(value).lower() if isinstance(value, bool) else value}"


def command(name: str, recipe: Mapping[str, Any], further: Sequence[str]) -> list[str]:
    """The words of the command that runs a recipe; those of `further` go last and prevail."""
    settings = [as_setting(key, value) for key, value in recipe.items()]
    pairs = [word for setting in settings for word in ("-S", setting)]
    return [sys.executable, "-m", "dvc", "exp", "run", "--name", name, *pairs, *further]


def main(arguments: Sequence[str]) -> None:
    """Parse the name, run DVC, and end as it does."""
    recipes = yaml.safe_load(RECIPES.read_text("utf-8"))
    parser = Parser(__doc__)
    parser.add_argument("recipe", type=one_of([*recipes], "recipe"))
    options, further = parser.parse_known_args(arguments)
    done = subprocess.run(command(options.recipe, recipes[options.recipe], further), check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    run(main)
