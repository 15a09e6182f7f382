"""Get the pictures of a set, and write the table that all other stages know of it.

    python -m stages.collect --set flowers17

Reads data/sets/SET. Where that holds set.yaml (see `stages.sources.published`) the set is a
published one: its files are downloaded, or copied from the folder of FLOWERS_MIRROR, or drawn, and
checked. Else the folder holds pictures of one's own (see `stages.sources.own_folder`), which stay
where they are. Writes data/raw/SET/: pictures.csv (see `stages.pictures.table`), source.json,
which says where each file came from, and the downloaded files.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from stages.common.command_line import Parser, UserError, run
from stages.common.files import replacing, write_json
from stages.pictures.names import Kind, describe_left_out
from stages.pictures.table import PictureTable, table_path, write_table
from stages.sources.archives import check_archive, obtain
from stages.sources.own_folder import LABELS, list_pictures, refuse
from stages.sources.places import (
    check_classes,
    check_folders,
    places_by_folder,
    places_by_table,
    tidy_class_names,
)
from stages.sources.published import FACTS, labels_of, read_published_set, splits_of
from stages.sources.sets import check_set

OWN_TERMS = "Those under which whoever made the set has them."

Row = tuple[str, str, str, str, str]


def collect(folder: Path) -> tuple[list[Row], dict[str, str]]:
    """A row a picture of a folder (image, class, part, digest, tar), and what is left out, and why.

    Raises UserError where the folder is no set of pictures in classes.
    """
    listing = list_pictures(folder)
    pictures = listing.pictures
    left_out = {path: kind.value for path, kind in listing.others.items() if kind != Kind.FOLDER}
    by_table = (folder / LABELS).exists()
    if not by_table:
        refuse(listing.others, folder, pictures=pictures)
    if not pictures:
        why = "".join(f" ({line})" for line in describe_left_out(left_out))
        raise UserError(f"{folder} holds no picture; put them there, a folder a class{why}")
    if by_table:
        places = places_by_table(folder / LABELS, pictures, listing.others)
    else:
        places = places_by_folder(list(pictures))
        check_folders(listing, places, folder)
    places = tidy_class_names(places, folder)
    check_classes(places, folder)
    rows = [(path, *places[path][:2], *pictures[path]) for path in pictures if path in places]
    left_out |= {path: f"not in {LABELS}" for path in pictures if path not in places}
    return rows, left_out


def describe_classes(rows: Sequence[Row]) -> list[str]:
    """Lines that tell how many pictures each class has, in each part where parts are given."""
    counts = Counter((row[1], row[2]) for row in rows)
    width = max(len(name) for name, _ in counts)
    lines = (f"  {name:{width}} {counts[name, part]:6} {part}" for name, part in sorted(counts))
    return [line.rstrip() for line in lines]


def own_table(name: str) -> tuple[PictureTable, dict[str, Any]]:
    """The table of one's own pictures in data/sets/NAME, and what source.json is to hold."""
    folder = Path("data/sets", name)
    rows, left_out = collect(folder)
    print("\n".join([*describe_classes(rows), *describe_left_out(left_out)]))
    images, classes, parts, digests, archives = map(list, zip(*rows, strict=True))
    names = sorted(set(classes))
    if parts[0]:
        print("its parts are those given, by `split.protocol: official`")
    table = PictureTable(
        images,
        np.array([names.index(each) for each in classes]),
        names,
        digests,
        [str(PurePosixPath("data/sets", name, each)) if each else "" for each in archives],
        {"official": [np.array(parts)]} if parts[0] else {},
    )
    return table, {"set": name, "source": "own", "files": {}, "missing": [], "terms": OWN_TERMS}


def published_table(name: str, raw: Path) -> tuple[PictureTable, dict[str, Any]]:
    """The table of a published set, and what source.json is to hold; its files go into `raw`."""
    facts = read_published_set(Path("data/sets", name))
    # Not under data/raw: DVC removes a stage's output before the stage runs.
    source = obtain(facts, raw, Path("data/downloads", name))
    digests = check_archive(raw / facts.archive, facts.images)
    labels = labels_of(facts, raw)
    archive = str(PurePosixPath("data/raw", name, facts.archive))
    splits = splits_of(facts, labels, raw)
    table = PictureTable(
        facts.images, labels, facts.classes, digests, [archive] * facts.count, splits
    )
    return table, source | {"terms": facts.terms.strip()}


def main(arguments: Sequence[str]) -> None:
    """Parse the options, get the pictures, write the table."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    name = parser.parse_args(arguments).set
    check_set(name)
    with replacing(Path("data/raw", name)) as raw:
        raw.mkdir()
        published = Path("data/sets", name, FACTS).is_file()
        table, source = published_table(name, raw) if published else own_table(name)
        write_table(raw / table_path(name).name, table)
        write_json(raw / "source.json", source)
    print(f"{name}: {len(table.images)} pictures of {len(table.class_names)} classes")


if __name__ == "__main__":
    run(main)
