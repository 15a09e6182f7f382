"""What stages took, for the report's page.

It is in a script beside the page, not in it, so that the page is the same whatever they took.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple


class Use(NamedTuple):
    """What a module that DVC ran took, or all modules of a run."""

    name: str
    """The stage's, with that of its place in the matrix, such as `head@flowers17-vgg19`."""
    seconds: float
    megabytes: int
    commit: str

    @property
    def stage(self) -> str:
        """The stage's name alone, that of sets of one's own included."""
        return self.name.partition("@")[0].removeprefix("own-")

    @property
    def place(self) -> str:
        """The name of its place in the matrix; empty for a stage that has none."""
        return self.name.partition("@")[2]


def parse_use(name: str, note: Mapping[str, Any]) -> Use:
    """What `stages.common.command_line.noting_use` wrote of the stage `name`.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    return Use(name, float(note["seconds"]), int(note["megabytes"]), str(note["commit"]))


def group(uses: Iterable[Use], key: Callable[[Use], str]) -> list[tuple[str, list[Use]]]:
    """The uses of each value of `key`."""
    return [(value, [*own]) for value, own in groupby(sorted(uses, key=key), key)]


def add_up(name: str, uses: Sequence[Use]) -> Use:
    """The seconds of all, the memory of the largest, and the commits."""
    commits = sorted({each.commit for each in uses} - {""})
    seconds = round(sum(each.seconds for each in uses), 1)
    return Use(name, seconds, max(each.megabytes for each in uses), ", ".join(commits))


def tabulate_times(
    modules: Iterable[Use], sets: Sequence[str], backbones: Sequence[str]
) -> dict[str, list[list[Any]]]:
    """Rows of two tables, what took longest first, of the runs on `sets` and `backbones`.

    `stages` has stage, number of runs, seconds and peak MB, and a last row of all of them; `runs`
    has stage, set, backbone, seconds, peak MB and commit. The modules of a stage are one run.
    """
    places = {"": ("", "")}
    places |= {name: (name, "") for name in sets} | {name: ("", name) for name in backbones}
    places |= {f"{one}-{other}": (one, other) for one in sets for other in backbones}
    shown = [each for each in modules if each.place in places]
    if not shown:
        return {"stages": [], "runs": []}
    runs = [add_up(name, own) for name, own in group(shown, lambda each: each.name)]
    stages = [(add_up(stage, own), len(own)) for stage, own in group(runs, lambda each: each.stage)]
    stages.sort(key=lambda pair: (-pair[0].seconds, pair[0].name))
    runs.sort(key=lambda run: (-run.seconds, run.name))
    return {
        "stages": [
            [use.name, count, use.seconds, use.megabytes]
            for use, count in [*stages, (add_up("all", runs), len(runs))]
        ],
        "runs": [
            [each.stage, *places[each.place], each.seconds, each.megabytes, each.commit]
            for each in runs
        ],
    }


def as_script(tables: Mapping[str, Any]) -> str:
    """JavaScript that assigns `tables` to the variable `stageTimes`.

    A page that is opened without a server may run a script beside it, but not read other files.
    """
    return f"var stageTimes = {json.dumps(tables)};\n"
