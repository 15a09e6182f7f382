"""List every picture of a set with its size, and those that cannot be read.

    python -m stages.survey --set flowers17 --unreadable stop

Writes `metrics/survey/SET.csv`, a row for each image in the set's order: image, class, width and
height in pixels as it is shown, which are empty where it cannot be read. Nothing is written where
there are such images, unless `--unreadable skip` says to go on without them: the stages that follow
leave out what has no size in the table, and none of them decides anew what can be read.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import ExifTags, Image

from stages.common.command_line import Parser, UserError, one_of, run
from stages.common.files import write_csv
from stages.common.progress import progress_bar
from stages.pictures.decoding import FORMATS, decode
from stages.pictures.readable import survey_path
from stages.pictures.reading import read_members
from stages.sources.sets import find_set, read_labels

COLUMNS = ("image", "class", "width", "height")
UNREADABLE = ("stop", "skip")
"""What is done about pictures that cannot be read."""
TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation with width and height exchanged."""

Size = tuple[int, int]


def picture_size(data: bytes) -> tuple[int, int]:
    """Width and height of a picture, turned as its EXIF data say.

    Raises ValueError where `decode` does. It is decoded as in the stages that follow, as a picture
    can be broken behind a whole header; at an eighth of its size where it is JPEG.
    """
    decode(data, 1, "none")
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        width, height = file.size
        turned = file.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
    return (height, width) if turned else (width, height)


def measure(archive: Path, names: Sequence[str]) -> tuple[dict[int, Size], dict[int, str]]:
    """Sizes of the pictures `names` of an archive, and what is wrong with the others.

    Both by their position in `names`. Raises UserError when the archive cannot be read.
    """
    sizes, broken = {}, {}
    members = read_members(archive, names)
    for position, data in progress_bar(
        members, desc="measuring pictures", total=len(names), unit=" images"
    ):
        try:
            sizes[position] = picture_size(data)
        except ValueError as error:
            broken[position] = " ".join(str(error).split())
    return sizes, broken


def check_readable(
    names: Sequence[str], classes: Sequence[str], broken: Mapping[int, str], unreadable: str
) -> None:
    """Print every broken picture's name and what is wrong with it.

    Raises UserError where there is one, unless `unreadable` is `skip`; and where a class is left
    without a picture.
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
    left = {name for position, name in enumerate(classes) if position not in broken}
    for name in classes:
        if name not in left:
            raise UserError(
                f"no image of class {name!r} can be read; put whole ones in their place"
            )


def main(arguments: Sequence[str]) -> None:
    """Parse the options, look at every picture, write the table."""
    parser = Parser(__doc__)
    parser.add_argument("--set", required=True)
    parser.add_argument("--unreadable", type=one_of(UNREADABLE, "unreadable"), required=True)
    options = parser.parse_args(arguments)
    image_set = find_set(options.set)
    raw, names = Path("data/raw", image_set.name), image_set.image_names
    classes = [image_set.class_names[label] for label in read_labels(image_set, raw)]
    sizes, broken = measure(raw / image_set.archive, names)
    check_readable(names, classes, broken, options.unreadable)
    write_csv(
        survey_path(image_set.name),
        COLUMNS,
        [
            (name, classes[position], *sizes.get(position, ("", "")))
            for position, name in enumerate(names)
        ],
    )
    print(f"{image_set.name}: {len(names)} images, {len(broken)} unreadable")


if __name__ == "__main__":
    run(main)
