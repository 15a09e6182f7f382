"""Say whether two experiments differ in accuracy by more than chance.

    python -m tools.compare                  # HEAD against the workspace
    python -m tools.compare main loud-moth --set flowers17 --model head

A and B are Git revisions, branches, names of DVC experiments, or `workspace`. Prints a line for
each set, backbone and model that both have: their accuracies, how many images only A and only B has
right, and McNemar's exact test of the two. Of twenty comparisons of what is in truth the same, one
is expected to look real at 5 %.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from stages.common.command_line import Parser, UserError, one_of, run
from stages.scoring.scores import PairedTest, mcnemar

PREDICTIONS = "metrics/predictions"
WORKSPACE = "workspace"
LEVEL = 0.05


class Run(NamedTuple):
    """A model of a set and backbone, whose predictions are SET-BACKBONE-MODEL.csv."""

    set_name: str
    backbone: str
    model: str

    @property
    def path(self) -> str:
        """Of its predictions, in the repository."""
        return f"{PREDICTIONS}/{'-'.join(self)}.csv"


class Difference(NamedTuple):
    """Accuracies, 0 to 1, of two runs on the same images, and the test of the two."""

    images: int
    first: float
    second: float
    test: PairedTest


def open_revision(revision: str) -> Any:
    """The project's files, those in DVC's cache among them, as fsspec's file system.

    Raises UserError if there is no such revision.
    """
    if revision == WORKSPACE:
        return DirFileSystem(Path.cwd(), LocalFileSystem())
    try:
        # Its paths begin at the root of Git's repository, in which the project may be a folder.
        files = DVCFileSystem(rev=revision, subrepos=True)
        root = Path(files.repo.scm.root_dir).resolve()
    except DvcException as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"{revision!r} cannot be read ({text}); name a Git revision, an experiment of "
            f"`dvc exp show`, or {WORKSPACE}"
        ) from None
    return DirFileSystem(f"/{Path.cwd().resolve().relative_to(root).as_posix()}", files)


def find_runs(files: Any) -> set[Run]:
    """The runs whose predictions a revision holds."""
    names = [PurePosixPath(path).name for path in files.find(PREDICTIONS)]
    parts = (re.fullmatch(r"(.+)-([^-]+)-(head|finetuned)\.csv", name) for name in names)
    return {Run(*each.groups()) for each in parts if each}


def read_predictions(files: Any, revision: str, path: str) -> dict[str, tuple[str, str]]:
    """True and predicted class by image name.

    Raises UserError when the file is neither in the workspace nor in DVC's cache.
    """
    try:
        with files.open(path, "r", encoding="utf-8", newline="") as file:
            return {row["image"]: (row["truth"], row["prediction"]) for row in csv.DictReader(file)}
    except FileNotFoundError:
        raise UserError(
            f"{path} of {revision} is not in DVC's cache; `dvc fetch` it or run it again"
        ) from None


def compare(
    first: Mapping[str, tuple[str, str]], second: Mapping[str, tuple[str, str]]
) -> Difference:
    """Compare two runs' true and predicted classes by image name.

    Raises ValueError, which says why, unless both are of the same images with the same truth.
    """
    if first.keys() != second.keys():
        both = len(first.keys() & second.keys())
        raise ValueError(f"{len(first)} and {len(second)} images were scored, {both} the same")
    if any(first[image][0] != second[image][0] for image in first):
        raise ValueError("the images' true classes differ")
    first_right, second_right = (
        np.array([given[image][0] == given[image][1] for image in first])
        for given in (first, second)
    )
    accuracies = float(first_right.mean()), float(second_right.mean())
    return Difference(len(first), *accuracies, mcnemar(first_right, second_right))


def describe(difference: Difference, first: str, second: str) -> str:
    """One line on the difference of the revisions `first` and `second`."""
    images, accuracy, other, test = difference
    verdict = "real at 5 %" if test.p_value < LEVEL else "within chance"
    return (
        f"{images} images, accuracy {accuracy:.4f} in {first}, {other:.4f} in {second} "
        f"({other - accuracy:+.4f}); right in {first} alone {test.only_first_right}, "
        f"in {second} alone {test.only_second_right}; p = {test.p_value:.2g}: {verdict}"
    )


def compare_run(run: Run, revisions: Sequence[str], files: Sequence[Any]) -> str:
    """One line on the difference of two revisions in one run.

    Raises UserError when their predictions cannot be had, or are not of the same images.
    """
    first, second = (
        read_predictions(*each, run.path) for each in zip(files, revisions, strict=True)
    )
    try:
        return describe(compare(first, second), *revisions)
    except ValueError as error:
        raise UserError(
            f"{run.path} of {revisions[0]} and of {revisions[1]} cannot be compared: {error}; "
            "choose two of one protocol and split"
        ) from None


def main(arguments: Sequence[str]) -> None:
    """Parse the options, read both revisions' predictions, print a line for each run."""
    parser = Parser(__doc__, "(see `python -m tools.compare --help`)")
    parser.add_argument("first", metavar="A", nargs="?", default="HEAD")
    parser.add_argument("second", metavar="B", nargs="?", default=WORKSPACE)
    parser.add_argument("--set")
    parser.add_argument("--backbone")
    parser.add_argument("--model", type=one_of(("head", "finetuned"), "model"))
    options = parser.parse_args(arguments)
    wanted = (options.set, options.backbone, options.model)
    revisions = (options.first, options.second)
    files = [open_revision(revision) for revision in revisions]
    first, second = map(find_runs, files)

    def is_wanted(run: Run) -> bool:
        return all(want in (None, have) for want, have in zip(wanted, run, strict=True))

    common = sorted(filter(is_wanted, first & second))
    if not common:
        raise UserError(
            f"{revisions[0]} and {revisions[1]} have no such predictions in common; see what "
            f"`dvc ls --rev REVISION . {PREDICTIONS}` lists, or run `dvc repro`"
        )
    for each in common:
        print(f"{' '.join(each)}: {compare_run(each, revisions, files)}")
    for each in sorted(filter(is_wanted, first ^ second)):
        print(f"{' '.join(each)}: in {revisions[each in second]} alone")


if __name__ == "__main__":
    run(main)
