"""Say which flowers are on pictures.

    python -m tools.predict models/flowers17/vgg19 rose.jpg holidays/

Takes pictures in JPEG, PNG, WebP, AVIF, GIF, BMP and TIFF; folders are searched to the bottom,
and what is left out, such as hidden files, is counted on stderr. Prints the five likeliest classes
of each with their probabilities. A file that cannot be read is named on stderr, and in its place in
CSV, JSON and HTML, with the reason; the rest goes on, and the exit status is then 1.
"""

import base64
import io
import json
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from stages.common.command_line import Parser, UserError, run
from stages.common.files import csv_writer, replacing
from stages.common.progress import progress_bar
from stages.pictures.decoding import Pixels
from stages.pictures.names import describe_left_out, printable
from tools.classifier import SHOWN, Classifier, Likely, load_classifier
from tools.pictures import find_pictures, read_pictures

BATCH_SIZE = 32
THUMBNAIL_SIDE = 160


class Found(NamedTuple):
    """What there is to say of a file: its likeliest classes, or why it cannot be read."""

    path: Path
    image: Pixels | None = None
    """As the model saw it."""
    likeliest: Sequence[Likely] = ()
    error: str = ""


def parse(arguments: Sequence[str]) -> Namespace:
    """The options."""
    parser = Parser(__doc__, "(see `python -m tools.predict --help`)")
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="models/SET/BACKBONE, or a .keras file in it"
    )
    parser.add_argument("pictures", type=Path, metavar="PICTURE_OR_FOLDER", nargs="+")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV: a row for each picture")
    form.add_argument("--json", action="store_true", help="print JSON: a list with every picture")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page of the pictures too"
    )
    return parser.parse_args(arguments)


def predict_all(
    classifier: Classifier, paths: Sequence[Path], broken: list[Path]
) -> Iterator[Found]:
    """What the files show, in their order; memory does not grow with their number.

    Those that cannot be read are named on stderr and added to `broken`.
    """
    # Where the table is read as it comes, it is the sign of life.
    quiet = sys.stdout.isatty() or len(paths) <= BATCH_SIZE
    with progress_bar(total=len(paths), desc="predicting", unit=" pictures", disable=quiet) as bar:
        for batch in read_pictures(paths, classifier.size, classifier.crop, BATCH_SIZE):
            images = [read for _, read in batch if not isinstance(read, ValueError)]
            likeliest = iter(classifier.likeliest(np.stack(images)) if images else [])
            for path, read in batch:
                if isinstance(read, ValueError):
                    broken.append(path)
                    print(f"{printable(path)} cannot be read: {read}", file=sys.stderr)
                    yield Found(path, error=str(read))
                else:
                    yield Found(path, read, next(likeliest))
            bar.update(len(batch))


def show_table(
    found: Iterator[Found], paths: Sequence[Path], class_names: Sequence[str]
) -> Iterator[Found]:
    """Print a line for each of the likeliest classes, in columns as wide as the longest entry.

    What is found is printed as it comes, and handed on, here and below.
    """
    wide = max(len(printable(path)) for path in [*paths, Path("picture")])
    name_wide = max(len(name) for name in [*class_names, "class"])
    print(f"{'picture':{wide}}  {'class':{name_wide}}  probability")
    for each in found:
        name = printable(each.path)
        for likely in each.likeliest:  # Of a file without them stderr has told.
            print(f"{name:{wide}}  {likely.name:{name_wide}}  {likely.probability:11.4f}")
            name = ""
        yield each


def show_csv(found: Iterator[Found], classes: int) -> Iterator[Found]:
    """Print a row for each file: its path, `classes` classes with probabilities, and any error."""
    columns = [f"{of}_{rank + 1}" for rank in range(classes) for of in ("class", "probability")]
    writer = csv_writer(sys.stdout)
    writer.writerow(["picture", *columns, "error"])
    for each in found:
        pairs = [(likely.name, f"{likely.probability:.6f}") for likely in each.likeliest]
        cells = [cell for pair in pairs for cell in pair] or [""] * len(columns)
        writer.writerow([printable(each.path), *cells, each.error])
        yield each


def show_json(found: Iterator[Found]) -> Iterator[Found]:
    """Print a list of objects, one a line: the picture, and the predictions for it or the error."""
    before = "[\n"
    for each in found:
        shown: dict[str, Any] = {"picture": str(each.path)}
        if each.error:
            shown["error"] = each.error
        else:
            shown["predictions"] = [
                {"class": likely.name, "probability": round(likely.probability, 6)}
                for likely in each.likeliest
            ]
        print(before + json.dumps(shown), end="")
        before = ",\n"
        yield each
    print("\n]")


def thumbnail(image: Pixels) -> str:
    """A small JPEG of an image as a data: address."""
    stream = io.BytesIO()
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def write_page(path: Path, found: Iterator[Found], classifier: Classifier) -> None:
    """Write a page of pictures with their predictions that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    environment.filters |= {"thumbnail": thumbnail, "printable": printable}
    page = environment.get_template("predict_page.html.j2")
    # Written as the predictions come, so that memory does not grow with their number.
    stream = page.stream(classifier=classifier, found=found, side=THUMBNAIL_SIDE)
    with replacing(path) as temporary:
        stream.dump(str(temporary), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Parse the options, load the model, and show what it says of each picture."""
    options = parse(arguments)
    paths, left_out = find_pictures(options.pictures)
    for line in describe_left_out(left_out):
        print(line, file=sys.stderr)
    if not paths:
        folders = ", ".join(map(str, options.pictures))
        raise UserError(f"no pictures in {folders}; name files, or a folder that holds some")
    print(f"loading {options.model}", file=sys.stderr)
    classifier = load_classifier(options.model)
    print(classifier.description, file=sys.stderr)
    broken: list[Path] = []
    found = predict_all(classifier, paths, broken)
    if options.csv:
        found = show_csv(found, min(SHOWN, len(classifier.class_names)))
    elif options.json:
        found = show_json(found)
    else:
        found = show_table(found, paths, classifier.class_names)
    if options.html:
        write_page(options.html, found, classifier)
        print(f"wrote {options.html}", file=sys.stderr)
    deque(found, maxlen=0)
    if broken:
        raise UserError(f"{len(broken)} of {len(paths)} files could not be read; see above")


if __name__ == "__main__":
    run(main)
