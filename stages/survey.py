"""List every picture of a set with its size, and those that cannot be read.

    python -m stages.survey --set flowers17 --unreadable stop

Writes `metrics/survey/SET.csv`, a row for each image in the set's order: image, class, width and
height in pixels as it is shown, which are empty where it cannot be read, and what is damaged in it
where it can be read nevertheless. Nothing is written where there are images that cannot, unless
`--unreadable skip` says to go on without them: the stages that follow leave out what has no size in
the table, and none of them decides anew what can be read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.common.command_line import Parser, UserError, one_of, run
from stages.common.files import write_csv
from stages.common.progress import progress_bar
from stages.pictures.decoding import read_picture
from stages.pictures.readable import survey_path
from stages.pictures.reading import read_members
from stages.pictures.table import read_table, table_path

COLUMNS = ("image", "class", "width", "height", "damaged")
UNREADABLE = ("stop", "skip")
"""What is done about pictures that cannot be read."""
Found = tuple[int, int, str]
"""Width and height of a picture, turned as its EXIF data say, and what of it is damaged."""


def look_at(data: bytes) -> Found:
    """What is found of a picture.

    Raises ValueError where `decode` does. It is decoded as in the stages that follow, as a picture
    can be broken behind a whole header; at an eighth of its size where it is JPEG.
    """
    picture = read_picture(data, 1)
    return picture.width, picture.height, picture.damage


def look_at_all(table: Path, names: Sequence[str]) -> tuple[dict[int, Found], dict[int, str]]:
    """What is found of the pictures `names` of a set's table, and what is wrong with the others.

    Both by their position in `names`. Raises UserError when one cannot be had.
    """
    found, broken = {}, {}
    members = read_members(table, names)
    for position, data in progress_bar(
        members, desc="measuring pictures", total=len(names), unit=" images"
    ):
        try:
            found[position] = look_at(data)
        except ValueError as error:
            broken[position] = " ".join(str(error).split())
    return found, broken


def check_readable(names: Sequence[str], broken: Mapping[int, str], unreadable: str) -> None:
    """Print every broken picture's name and what is wrong with it.

    Raises UserError where there is one, unless `unreadable` is `skip`.
    """
    for position in sorted(broken):
        print(f"{names[position]} cannot be read: {broken[position]}", flush=True)
    if broken and unreadable == "stop":
        first = ", ".join(names[position] for position in sorted(broken)[:5])
        more = ", ..., all listed above" if len(broken) > 5 else ""
        raise UserError(
            f"{len(broken)} of {len(names)} images cannot be read: {first}{more}; put whole ones "
            "into the archive, or leave these out by the parameter `unreadable: skip`"
        )


def main(arguments: Sequence[str]) -> None:
    """Parse the options, look at every picture, write the table."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--unreadable", type=one_of(UNREADABLE, "unreadable"), required=True)
    options = parser.parse_args(arguments)
    table = read_table(options.set)
    names, classes = table.images, table.classes
    found, broken = look_at_all(table_path(options.set), names)
    check_readable(names, broken, options.unreadable)
    write_csv(
        survey_path(options.set),
        COLUMNS,
        [
            (name, classes[position], *found.get(position, ("", "", "")))
            for position, name in enumerate(names)
        ],
    )
    damaged = sorted(position for position in found if found[position][2])
    for position in damaged:
        print(f"{names[position]} is damaged, but is read: {found[position][2]}")
    counts = f"{len(broken)} unreadable" + (f", {len(damaged)} damaged" if damaged else "")
    print(f"{options.set}: {len(names)} images, {counts}")


if __name__ == "__main__":
    run(main)
