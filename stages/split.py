"""Decide which images train, which validate and, where the protocol has them, which test.

    python -m stages.split --set flowers17 --protocol stratified --fraction 0.2 --seed 42 --fold 1 \
        --group_duplicates

Writes `data/splits/SET.csv`: image, label (from 0), class name, group of duplicates, part. An image
that cannot be read is in no part: `unreadable` stands there; the others are where they would be if
it could.
"""

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.common.command_line import Parser, UserError, any_seed, number, one_of, run
from stages.common.files import read_csv, read_json, write_csv
from stages.pictures.protocols import (
    PROTOCOLS,
    check_parts,
    choose_parts,
    keep_groups_together,
)
from stages.pictures.readable import readable_rows
from stages.pictures.splits import UNREADABLE
from stages.pictures.table import Labels, Parts, PictureTable, read_table, table_path

FOLDS = 3


def parse(arguments: Sequence[str]) -> Namespace:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--protocol", type=one_of(PROTOCOLS, "split.protocol"), required=True)
    parser.add_argument("--fraction", type=number(float, 0.01, 0.99), required=True)
    parser.add_argument("--seed", type=any_seed, required=True)
    parser.add_argument("--fold", type=number(int, 1, FOLDS), required=True)
    parser.add_argument("--group_duplicates", action="store_true")
    return parser.parse_args(arguments)


def read_groups(path: Path, images: Sequence[str]) -> Labels:
    """Group of every image from a table of duplicates; one without a partner is its own group.

    A group's number is that of its first image, from 1.
    """
    groups = {image: number for number, image in enumerate(images, 1)}
    groups |= {row["image"]: int(row["group"]) for row in read_csv(path)}
    return np.array(list(groups.values()))


def draw_parts(
    table: PictureTable, grows: bool, groups: Labels, readable: Labels, options: Namespace
) -> tuple[Parts, int]:
    """The part of every picture, and how many pictures moved to their duplicates.

    `groups` is the group of every picture, `readable` the rows of those that can be read. Raises
    UserError where nobody could learn or be judged.
    """
    lone = np.arange(len(groups))
    drawn = choose_parts(
        table, grows, groups if options.group_duplicates else lone, options.protocol,
        options.fraction, options.seed, options.fold,
    )  # fmt: skip
    together = keep_groups_together(drawn, groups) if options.group_duplicates else drawn
    parts = np.where(np.isin(lone, readable), together, UNREADABLE)
    check_parts(drawn, together, parts, table, grows and options.protocol == "stratified")
    return parts, int((drawn != together).sum())


def main(arguments: Sequence[str]) -> None:
    """Parse the options, read the table of pictures, write the split."""
    options = parse(arguments)
    table = read_table(options.set)
    if len(table.class_names) < 2:
        raise UserError(f"{options.set} has one class, and there is nothing to tell apart")
    groups = read_groups(Path(f"data/duplicates/{options.set}.csv"), table.images)
    source = read_json(table_path(options.set).with_name("source.json"))["source"]
    readable = readable_rows(options.set)
    try:
        parts, moved = draw_parts(table, source == "own", groups, readable, options)
    except UserError as error:
        raise UserError(f"{options.set}: {error}") from None
    rows = zip(table.images, table.labels, table.classes, groups, parts, strict=True)
    columns = ["image", "label", "class", "group", "part"]
    write_csv(Path(f"data/splits/{options.set}.csv"), columns, rows)
    counts = ", ".join(f"{count} {part}" for part, count in Counter(parts).items())
    print(f"{options.set}, {options.protocol}: {counts}; moved to their duplicates: {moved}")


if __name__ == "__main__":
    run(main)
