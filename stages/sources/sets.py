"""The sets that there are: the folders of data/sets, published sets and one's own."""

import re
from pathlib import Path

from stages.common.command_line import UserError

FOLDER = Path("data/sets")


def check_set(name: str) -> None:
    """Raise UserError unless there is a set `name`, and the name suits a command line."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(
            f"sets: {name!r} is not of letters, digits and _ . - alone; rename its folder"
        )
    if not (FOLDER / name).is_dir():
        there = ", ".join(sorted(path.name for path in FOLDER.glob("*") if path.is_dir()))
        raise UserError(
            f"sets: there is no folder {FOLDER / name}; there are: {there}; put pictures of your "
            f"own into {FOLDER}/NAME, a folder a class, and NAME into `sets` of params.yaml"
        )
