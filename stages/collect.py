"""List the pictures of a folder of one's own, with their classes, so that they are a set.

    python -m stages.collect --set roses

Reads data/own/SET, see `stages.sources.own_folder` for its layouts, and writes data/raw/SET/:
pictures.csv, a row a picture with the digest of its bytes, and source.json. The pictures stay where
they are; by their digests a changed one is known.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stages.common.command_line import Parser, UserError, run
from stages.common.files import replacing, sha256, write_csv, write_json
from stages.sources.own_folder import (
    LABELS,
    check_classes,
    check_folders,
    find_pictures,
    places_by_folder,
    places_by_table,
    tidy_class_names,
)
from stages.sources.sets import COLUMNS, PICTURES, SETS

Row = tuple[str, str, str, str, str]


def check_name(name: str) -> None:
    """Raise UserError for a name that is a published set's, or that a command line would break."""
    if name in SETS:
        raise UserError(f"own: {name!r} is the name of a published set; rename data/own/{name}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(
            f"own: {name!r} is not of letters, digits and _ . - alone; rename the folder"
        )


def collect(folder: Path) -> tuple[list[Row], list[str]]:
    """Rows of COLUMNS for the pictures of a folder, and the files that are left out.

    Raises UserError where the folder is no set of pictures in classes.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; put the pictures there, a folder a class")
    found, others = find_pictures(folder)
    if not found:
        raise UserError(f"{folder} holds no picture; put them there, a folder a class")
    if (folder / LABELS).exists():
        places = places_by_table(folder / LABELS, found)
        others += sorted(set(found) - set(places))
    else:
        check_folders(folder, list(found))
        places = places_by_folder(list(found))
    places = tidy_class_names(places, folder)
    check_classes(places, folder)
    rows = [(path, *places[path], *found[path]) for path in found if path in places]
    return rows, others


def describe(rows: Sequence[Row]) -> list[str]:
    """Lines that tell how many pictures each class has, in each part where parts are given."""
    counts = Counter((row[1], row[2]) for row in rows)
    parts = [part for part in ("train", "val", "test", "") if any(row[2] == part for row in rows)]
    width = max(len(row[1]) for row in rows)
    lines = []
    for name in sorted({row[1] for row in rows}):
        cells = [f"{counts[name, part]:6} {part}".rstrip() for part in parts]
        lines.append(f"  {name:{width}} {'  '.join(cells)}")
    return lines


def main(arguments: Sequence[str]) -> None:
    """Parse the options, look into the folder, write the list."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    name = parser.parse_args(arguments).set
    check_name(name)
    rows, others = collect(Path("data/own", name))
    with replacing(Path("data/raw", name)) as folder:
        folder.mkdir()
        write_csv(folder / PICTURES, COLUMNS, rows)
        digest = sha256(folder / PICTURES)
        listed = {"from": f"data/own/{name}", "sha256": digest, "published": False}
        source = {"set": name, "source": "own", "files": {PICTURES: listed}, "missing": []}
        write_json(folder / "source.json", source)
    print(f"{name}: {len(rows)} pictures of {len({row[1] for row in rows})} classes")
    print("\n".join(describe(rows)))
    if others:
        first = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        print(f"left out, as no picture by name or not in {LABELS}: {len(others)} files: {first}")
    if rows[0][2]:
        print("its parts are those given, by `split.protocol: official`")


if __name__ == "__main__":
    run(main)
