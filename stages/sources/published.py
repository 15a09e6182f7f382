"""Published sets: their facts in data/sets/NAME/set.yaml, and the table of pictures made of them.

docs/own-images.md explains the entries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.parameters import read_yaml
from stages.pictures.protocols import PROTOCOLS
from stages.pictures.table import PARTS, Parts

FACTS = "set.yaml"
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class SourceFile:
    """A published file: its name, its address, and what it must match."""

    name: str
    url: str
    algorithm: str
    """Of the published digest: `md5` or `sha256`."""
    digest: str
    size: int | None = None
    """In bytes, where it is published."""
    optional: bool = False
    """Whether a run goes on without it."""


class Variable(NamedTuple):
    """A variable of a published MATLAB file."""

    file: str
    name: str


class Split(NamedTuple):
    """A published split: by the first pictures of each class, or by a file's variables."""

    first: int = 0
    file: str = ""
    train: Sequence[str] = ()
    val: Sequence[str] = ()
    test: Sequence[str] = ()


@dataclass(frozen=True)
class PublishedSet:
    """What set.yaml says of a set."""

    name: str
    files: Sequence[SourceFile]
    labels: Variable | None
    splits: Mapping[str, Split]
    archive: str
    pictures: str
    count: int
    classes: Sequence[str]
    terms: str
    drawn: bool = False

    @property
    def images(self) -> list[str]:
        """Names of all pictures inside the archive, in the set's order."""
        return [self.pictures.format(number) for number in range(1, self.count + 1)]


def read_published_set(folder: Path) -> PublishedSet:
    """The set whose facts are in the file FACTS of a folder.

    Raises UserError where an entry is missing, unknown, or would make a wrong set in silence.
    """
    path = folder / FACTS
    facts = read_yaml(path)
    try:
        page, labels = facts.pop("page", ""), facts.pop("labels", None)
        found = PublishedSet(
            folder.name,
            [_source_file(page, *file) for file in facts.pop("files", {}).items()],
            None if labels is None else Variable(**labels),
            {name: Split(**entry) for name, entry in facts.pop("splits", {}).items()},
            **facts,
        )
        _check(found)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} does not describe a set ({reason}); see data/sets/flowers17/{FACTS} for one"
        ) from None
    return found


def _source_file(page: str, name: str, entry: Mapping[str, Any]) -> SourceFile:
    algorithm = "md5" if "md5" in entry else "sha256"
    facts = {key: value for key, value in entry.items() if key != algorithm}
    url = f"{page.rstrip('/')}/{name}"
    file = SourceFile(name, url, algorithm, str(entry[algorithm]), **facts)
    _require(isinstance(file.optional, bool), f"optional of {name} is neither true nor false")
    return file


def _check(found: PublishedSet) -> None:
    """Raise ValueError, or TypeError, for what would be a wrong set in silence, or a traceback."""
    count, classes = found.count, found.classes
    for name in (found.archive, *(file.name for file in found.files)):
        _require(
            Path(name).name == name not in ("", ".."), f"{name!r} is not the plain name of a file"
        )
    _require(found.drawn is (not found.files), "there must be either files or `drawn: true`")
    texts = isinstance(classes, list) and all(isinstance(each, str) for each in classes)
    _require(texts and 0 < len(set(classes)) == len(classes), "classes is no list of other names")
    _require(
        len({*found.images}) == count > 0,
        f"count {count} of {found.pictures!r} is no number of names",
    )
    even = found.labels is not None or count % len(classes) == 0
    _require(even, f"count {count} is not as many of each of {len(classes)} classes")
    _require(isinstance(found.terms, str), "terms is not a text")
    for name, split in found.splits.items():
        _require(name in PROTOCOLS[1:], f"splits {name!r} is none of {', '.join(PROTOCOLS[1:])}")
        folds = {len(variables) for variables in (split.train, split.val, split.test)}
        first = type(split.first) is int and split.first > 0
        _require(
            (len(folds) == 1 and 0 not in folds) if split.file else first,
            f"splits {name} is neither `first` nor a file and as many variables of each part",
        )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def read_variable(path: Path, name: str) -> Numbers:
    """Variable `name` of a MATLAB file, flattened, as whole numbers.

    Raises UserError when the file is unreadable or lacks the variable, and where that holds
    something else.
    """
    try:
        values = np.asarray(scipy.io.loadmat(path)[name]).ravel()
        if values.dtype.kind not in "iuf" or not (values % 1 == 0).all():
            raise ValueError("not whole numbers")
        return values.astype(np.int64)
    except Exception as error:  # noqa: BLE001  SciPy raises whatever it stumbles on in a broken file.
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} holds no usable variable {name!r} ({reason}); download it again"
        ) from None


def labels_of(facts: PublishedSet, raw: Path) -> Numbers:
    """Label of every picture, from 0; `raw` is the folder of the downloaded files.

    Raises UserError when the label file does not fit the set: another count, labels out of range,
    a class without pictures.
    """
    classes = len(facts.classes)
    if facts.labels is None:
        return np.arange(facts.count) * classes // facts.count
    path = raw / facts.labels.file
    labels = read_variable(path, facts.labels.name) - 1
    if len(labels) != facts.count:
        raise UserError(
            f"{path} has {len(labels)} labels for {facts.count} images; download it again"
        )
    found = np.unique(labels)
    if not np.array_equal(found, np.arange(classes)):
        raise UserError(
            f"{path} has {len(found)} different labels from {found[0] + 1} to {found[-1] + 1}, "
            f"not each of 1 to {classes}; download it again"
        )
    return labels


def first_of_each_class(labels: Numbers, first: int) -> Parts:
    """`train` for the first `first` pictures of each class in the set's order, `val` for others."""
    parts = np.full(len(labels), "val", dtype="<U5")
    for label in np.unique(labels):
        parts[np.flatnonzero(labels == label)[:first]] = "train"
    return parts


def parts_by_number(count: int, numbers: Sequence[Numbers], where: str) -> Parts:
    """Parts from a list of picture numbers, counted from 1, for each of PARTS.

    Raises UserError, which names the file `where`, unless every picture stands in exactly one.
    """
    listed = np.concatenate(numbers)
    if not np.array_equal(np.sort(listed), np.arange(1, count + 1)):
        raise UserError(
            f"the split in {where} names {len(np.unique(listed))} of {count} images, "
            f"{len(listed)} times in all; download it again"
        )
    return np.repeat(PARTS, [len(own) for own in numbers])[np.argsort(listed)]


def splits_of(facts: PublishedSet, labels: Numbers, raw: Path) -> dict[str, list[Parts]]:
    """The folds of each published split whose file is in the folder `raw`.

    Raises UserError for a file that is not a split of the set's pictures.
    """
    splits = {}
    for name, split in facts.splits.items():
        path = raw / split.file
        if split.first:
            splits[name] = [first_of_each_class(labels, split.first)]
        elif path.is_file():
            splits[name] = [
                parts_by_number(facts.count, [read_variable(path, key) for key in keys], str(path))
                for keys in zip(split.train, split.val, split.test, strict=True)
            ]
    return splits
