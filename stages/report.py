"""Write metrics/report/: one page of pictures, results, curves, confusions and predictions.

Reads params.yaml, what other stages wrote into metrics/, the tables in data/duplicates/ and
data/splits/, and the sets' pictures. The page opens without a server and without a network.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from stages.common.command_line import Parser, UserError, run
from stages.common.files import replacing
from stages.common.parameters import names, read_yaml
from stages.reporting.page import copy_pictures, render, write_pictures
from stages.reporting.sets import read_set

PARAMETERS = (
    "dropout", "seed", "refit", "sets", "backbones",
    "weights", "unreadable", "engine",
    "duplicates", "split", "features", "inspect", "predict", "head", "finetune",
)  # fmt: skip
"""What params.yaml holds at its top level."""


def read_params(path: Path) -> dict[str, Any]:
    """Read the parameters.

    Raises UserError unless they name one set and one backbone at least, and for a name that no
    stage takes: a name that is misspelt in a section ends that section's stage, but DVC passes over
    one that stands outside of them.
    """
    params = read_yaml(path)
    for name in params:
        if name not in PARAMETERS:
            near = ", ".join(get_close_matches(str(name), PARAMETERS, 1, 0.6)) or "no other"
            raise UserError(
                f"{path} has {name!r}, which nothing reads, perhaps for {near}; correct it"
            )
    lists = {name: names(params, name, path) for name in ("sets", "backbones")}
    return {**params, **lists}


def main(arguments: Sequence[str]) -> None:
    """Read what there is, render the page, write it with its pictures."""
    Parser(__doc__).parse_args(arguments)
    params = read_params(Path("params.yaml"))
    sets = [read_set(name, params["backbones"]) for name in params["sets"]]
    with replacing(Path("metrics/report")) as folder:
        folder.mkdir()
        for each in sets:
            write_pictures(each, folder)
            for run_view in each.runs:
                copy_pictures(run_view, folder)
        (folder / "index.html").write_text(render(params, sets), "utf-8", newline="\n")


if __name__ == "__main__":
    run(main)
