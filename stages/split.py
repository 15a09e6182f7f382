"""Decide which images train, which validate and, where the protocol has them, which test.

    python -m stages.split --set flowers17 --protocol stratified --fraction 0.2 --seed 42 --fold 1 \
        --group_duplicates --repeats 1

Writes `data/splits/SET.csv`: image, label (from 0), class name, group of duplicates, part; with
more than one repeat a column for each further one, `part_2` and so on, drawn with the next seed,
or of the next fold. An image that cannot be read is in no part: `unreadable` stands there; the
others are where they would be if it could.
"""

import hashlib
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import Parser, UserError, any_seed, number, one_of, run
from stages.common.files import read_csv, write_csv
from stages.pictures.readable import readable_rows
from stages.pictures.splits import UNREADABLE, part_columns
from stages.sources.sets import ImageSet, find_set, picture_keys, read_labels, read_mat

PARTS = ("train", "val", "test")
PROTOCOLS = ("stratified", "official", "ordered")
FOLDS = 3

Labels = NDArray[np.int64]
Parts = NDArray[np.str_]


def stratified(labels: Labels, fraction: float, seed: int) -> Parts:
    """`train` or `val` for each image: scikit-learn's stratified split of the file order.

    With fraction 0.2 and seed 42 it is the split that the article used. Raises UserError when a
    class or part would be too small to be split.
    """
    # Here, as it takes a second to load, in which an interrupt would be a traceback.
    from sklearn.model_selection import train_test_split

    try:
        _, val = train_test_split(
            np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels
        )
    except ValueError as error:
        raise UserError(f"split.fraction {fraction} leaves no stratified split: {error}") from error
    parts = np.full(len(labels), "train", dtype="<U5")
    parts[val] = "val"
    return parts


def drawn_by_content(
    labels: Labels, groups: Labels, keys: Sequence[str], fraction: float, seed: int
) -> Parts:
    """`train` or `val` for each image of a set that may grow, by `seed` and the image's own key.

    A picture that comes or goes moves one other of its class at most, but for duplicates, so scores
    before and after are of nearly the same val. Of each class, `fraction` is val, to the nearest
    whole number, and at least one image. `keys`, shape (images,), tell contents apart. Groups,
    shape (images,), are not divided within a class; one that is too large for val trains, unless
    val would be empty.
    """
    ranks = [hashlib.sha256(f"{seed} {key}".encode()).hexdigest() for key in keys]
    parts = np.full(len(labels), "train", dtype="<U5")
    for label in np.unique(labels):
        members: dict[int, list[int]] = {}
        for row in np.flatnonzero(labels == label).tolist():
            members.setdefault(int(groups[row]), []).append(row)
        ordered = sorted(members.values(), key=lambda rows: min(ranks[row] for row in rows))
        wanted = max(1, round(fraction * sum(map(len, ordered))))
        val: list[int] = []
        for rows in ordered[: len(ordered) - 1]:
            val += rows if len(val) + len(rows) <= wanted else []
        if not val and len(ordered) > 1:
            val = min(ordered, key=len)
        parts[val] = "val"
    return parts


def check_both_sides(parts: Parts, labels: Labels, names: Sequence[str], set_name: str) -> None:
    """Raise UserError for a class, shape (images,) as `parts`, that is not in train and in val."""
    for label, name in enumerate(names):
        own = set(parts[labels == label].tolist())
        for part in {"train", "val"} - own:
            raise UserError(
                f"class {name!r} of {set_name} has nothing in {part}: its pictures are duplicates "
                "of each other or of another class's, and stay with these; add others, see to "
                f"data/duplicates/{set_name}.csv, or set split.group_duplicates to false"
            )


def given_parts(image_set: ImageSet) -> Parts:
    """The parts that a set of one's own came with. Raises UserError where it has none."""
    parts = np.array([row["part"] for row in image_set.listed])
    if "" in parts:
        raise UserError(
            f"split.protocol: data/own/{image_set.name} has no parts of its own; choose "
            "stratified, or sort its pictures into train, val and test"
        )
    return parts


def ordered(labels: Labels, first: int) -> Parts:
    """`train` for the first `first` images of each class in file order, `val` for the others."""
    parts = np.full(len(labels), "val", dtype="<U5")
    for label in np.unique(labels):
        parts[np.flatnonzero(labels == label)[:first]] = "train"
    return parts


def published(images: int, train: Labels, val: Labels, test: Labels) -> Parts:
    """Parts from three lists of image numbers, counted from 1.

    Raises UserError unless every image stands in exactly one of them.
    """
    numbers = np.concatenate([train, val, test])
    if not np.array_equal(np.sort(numbers), np.arange(1, images + 1)):
        raise UserError(
            f"the published split names {len(np.unique(numbers))} of {images} images, "
            f"{len(numbers)} times in all; download its file again"
        )
    parts = np.full(images, "train", dtype="<U5")
    parts[val - 1] = "val"
    parts[test - 1] = "test"
    return parts


def read_official(image_set: ImageSet, raw: Path, fold: int) -> Parts:
    """The published parts of a set; `fold` chooses among the three of the 17 flowers.

    Raises UserError when the set has none, or their file is not there.
    """
    if image_set.listed:
        return given_parts(image_set)
    if image_set.official_file is None:
        raise UserError(
            f"split.protocol: {image_set.name} has no official split; choose stratified or ordered"
        )
    keys = {
        "setid.mat": ("trnid", "valid", "tstid"),
        "datasplits.mat": (f"trn{fold}", f"val{fold}", f"tst{fold}"),
    }[image_set.official_file]
    path = raw / image_set.official_file
    return published(image_set.images, *(read_mat(path, key) for key in keys))


def keep_groups_together(parts: Parts, groups: Labels) -> Parts:
    """Parts, shape (images,), in which no group of images stands on two sides.

    A group that straddles goes as a whole to the earliest of train, val and test that it touches,
    so that whoever is judged on a picture has not learned from it; all else stays as it is.
    """
    places = np.array([PARTS.index(part) for part in parts])
    earliest = np.full(groups.max() + 1, len(PARTS))
    np.minimum.at(earliest, groups, places)
    return np.array(PARTS)[earliest[groups]]


def read_groups(path: Path, images: Sequence[str]) -> Labels:
    """Group of every image from a table of duplicates; one without a partner is its own group.

    A group's number is that of its first image, from 1.
    """
    groups = {image: number for number, image in enumerate(images, 1)}
    groups |= {row["image"]: int(row["group"]) for row in read_csv(path)}
    return np.array(list(groups.values()))


def choose_parts(
    image_set: ImageSet,
    labels: Labels,
    groups: Labels,
    raw: Path,
    protocol: str,
    fraction: float,
    seed: int,
    fold: int,
) -> Parts:
    """The part of every image by one of PROTOCOLS.

    Raises UserError when the set does not have that protocol.
    """
    if protocol == "stratified" and image_set.listed:
        if image_set.listed[0]["part"]:
            raise UserError(
                f"data/own/{image_set.name} has parts of its own; set split.protocol to official, "
                "or put its classes side by side to have them split at random"
            )
        return drawn_by_content(labels, groups, picture_keys(image_set, raw), fraction, seed)
    if protocol == "stratified":
        return stratified(labels, fraction, seed)
    if protocol == "official":
        return read_official(image_set, raw, fold)
    if image_set.ordered_train is None:
        raise UserError(
            f"split.protocol: ordered is for flowers17, {image_set.name} has no such order; "
            "choose stratified or official"
        )
    return ordered(labels, image_set.ordered_train)


def parse(arguments: Sequence[str]) -> Namespace:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--protocol", type=one_of(PROTOCOLS, "split.protocol"), required=True)
    parser.add_argument("--fraction", type=number(float, 0.01, 0.99), required=True)
    parser.add_argument("--seed", type=any_seed, required=True)
    parser.add_argument("--fold", type=number(int, 1, FOLDS), required=True)
    parser.add_argument("--group_duplicates", action="store_true")
    parser.add_argument("--repeats", type=number(int, 1, 1000), required=True)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Parse the options, read the labels, write the split."""
    options = parse(arguments)
    image_set = find_set(options.set)
    raw = Path("data/raw", image_set.name)
    if len(image_set.class_names) < 2:
        raise UserError(f"{image_set.name} has one class, and there is nothing to tell apart")
    labels = read_labels(image_set, raw)
    groups = read_groups(Path(f"data/duplicates/{image_set.name}.csv"), image_set.image_names)
    drawn = [
        choose_parts(
            image_set,
            labels,
            groups if options.group_duplicates else np.arange(len(labels)),
            raw,
            options.protocol,
            options.fraction,
            options.seed + repeat,
            (options.fold + repeat - 1) % FOLDS + 1,
        )
        for repeat in range(options.repeats)
    ]
    parts = drawn
    if options.group_duplicates:
        parts = [keep_groups_together(each, groups) for each in drawn]
    can_be_read = np.isin(np.arange(len(labels)), readable_rows(image_set.name))
    parts = [np.where(can_be_read, each, UNREADABLE) for each in parts]
    if image_set.listed and options.protocol == "stratified":
        for each in parts:
            check_both_sides(each, labels, image_set.class_names, image_set.name)
    names = [image_set.class_names[label] for label in labels]
    rows = zip(image_set.image_names, labels, names, groups, *parts, strict=True)
    columns = ["image", "label", "class", "group", *part_columns(options.repeats)]
    write_csv(Path(f"data/splits/{image_set.name}.csv"), columns, rows)
    counts = ", ".join(f"{count} {part}" for part, count in Counter(parts[0]).items())
    moved = ", ".join(str((a != b).sum()) for a, b in zip(drawn, parts, strict=True))
    print(f"{image_set.name}, {options.protocol}: {counts}; moved to their duplicates: {moved}")


if __name__ == "__main__":
    run(main)
