"""List every picture of a set with its size, and those that cannot be read.

    python -m stages.survey --set flowers17

Writes `metrics/survey/SET.csv`, a row for each image in the set's order: image, class, width and
height in pixels as it is shown, which are empty where it cannot be read.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from stages.common.command_line import Parser, one_of, run
from stages.common.files import write_csv
from stages.common.images import read_members
from stages.common.progress import progress_bar
from stages.common.sets import SETS, read_labels

COLUMNS = ("image", "class", "width", "height")
TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation with width and height exchanged."""


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a picture, turned as its EXIF data say; None if it cannot be read.

    It is decoded, as a picture can be broken behind a whole header; at an eighth where it is JPEG.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            width, height = file.size
            turned = file.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
            file.draft("RGB", (width // 8, height // 8))
            file.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        return None
    return (height, width) if turned else (width, height)


def main(arguments: Sequence[str]) -> None:
    """Parse the options, look at every picture, write the table."""
    parser = Parser(__doc__)
    parser.add_argument("--set", type=one_of([*SETS], "set"), required=True)
    image_set = SETS[parser.parse_args(arguments).set]
    raw, names = Path("data/raw", image_set.name), image_set.image_names
    classes = [image_set.class_names[label] for label in read_labels(image_set, raw)]
    members = read_members(raw / image_set.archive, names)
    bar = progress_bar(members, total=len(names), unit=" images")
    sizes = {position: picture_size(data) for position, data in bar}
    unreadable = [names[position] for position in sorted(sizes) if sizes[position] is None]
    write_csv(
        Path(f"metrics/survey/{image_set.name}.csv"),
        COLUMNS,
        [
            (name, classes[position], *(sizes[position] or ("", "")))
            for position, name in enumerate(names)
        ],
    )
    print(f"{image_set.name}: {len(names)} images, {len(unreadable)} unreadable {unreadable[:5]}")


if __name__ == "__main__":
    run(main)
