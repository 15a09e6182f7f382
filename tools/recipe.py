"""Run a published recipe as a DVC experiment.

    python -m tools.recipe guide-dropout
    python -m tools.recipe article -S 'backbones=[mobilenet]' -n article-mobilenet

The recipes are in recipes.yaml; what follows the name goes to `dvc exp run`.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.command_line import Parser, UserError, one_of, run
from stages.common.parameters import names, read_yaml

RECIPES = Path("recipes.yaml")
PARAMETERS = Path("params.yaml")


def as_setting(name: str, value: Any) -> str:
    """A parameter as `dvc exp run -S` takes it; in quotes, texts such as 007 stay texts."""
    return f"{name}={json.dumps(value, ensure_ascii=False)}"


def command(name: str, recipe: Mapping[str, Any], further: Sequence[str]) -> list[str]:
    """The words of the command that runs a recipe; those of `further` go last and prevail."""
    settings = [as_setting(key, value) for key, value in recipe.items()]
    pairs = [word for setting in settings for word in ("-S", setting)]
    return [sys.executable, "-m", "dvc", "exp", "run", "--name", name, *pairs, *further]


def read_recipe(recipes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters that a recipe sets.

    Raises UserError where it, or else params.yaml, has no list of names for DVC to make stages of,
    on which DVC says no more than "unexpected error".
    """
    recipe = recipes[name]
    if not isinstance(recipe, dict):
        raise UserError(f"{RECIPES} has no parameters in {name}; write `PARAMETER: VALUE` below it")
    params = read_yaml(PARAMETERS)
    for key in ("sets", "backbones"):
        given, path = (recipe, RECIPES) if key in recipe else (params, PARAMETERS)
        names(given, key, path)
    return recipe


def main(arguments: Sequence[str]) -> None:
    """Parse the name, run DVC, and end as it does."""
    recipes = {str(name): recipe for name, recipe in read_yaml(RECIPES).items()}
    parser = Parser(__doc__)
    parser.add_argument("recipe", type=one_of([*recipes], "recipe"))
    options, further = parser.parse_known_args(arguments)
    recipe = read_recipe(recipes, options.recipe)
    done = subprocess.run(command(options.recipe, recipe, further), check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    run(main)
