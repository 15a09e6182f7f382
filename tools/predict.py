"""Say which flowers are on pictures.

    python -m tools.predict models/flowers17/vgg19 rose.jpg holidays/

Takes pictures in JPEG, PNG, WebP, AVIF, GIF, BMP and TIFF; folders are searched to the bottom,
hidden files left out. Prints the five likeliest classes of each with their probabilities. A file
that cannot be read is named on stderr, and in its place in CSV, JSON and HTML, with the reason; the
rest goes on, and the exit status is then 1.
"""

import base64
import csv
import io
import json
import os
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from stages.common.command_line import Parser, UserError, run
from stages.common.files import replacing
from stages.common.progress import progress_bar
from stages.pictures.decoding import Pixels
from tools.classifier import SHOWN, Classifier, Likely, load_classifier
from tools.pictures import find_pictures, printable, read_pictures

BATCH_SIZE = 32
THUMBNAIL_SIDE = 160
TEMPLATES = Path(__file__).parent


class Prediction(NamedTuple):
    """A picture's file, its pixels as the model saw them, and its likeliest classes."""

    path: Path
    image: Pixels
    likeliest: list[Likely]


class Unreadable(NamedTuple):
    """A file that cannot be read, and why."""

    path: Path
    error: str


Found = Iterator[Prediction | Unreadable]
Show = Callable[[Found], Found]
"""Prints what was found as it comes, and hands it on."""


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
    classifier: Classifier, paths: Sequence[Path], failed: Callable[[Unreadable], None]
) -> Found:
    """What the files show, in their order; memory does not grow with their number.

    As soon as a file turns out not to be readable, `failed` is called.
    """
    errors: dict[Path, str] = {}

    def note(path: Path, error: ValueError) -> None:
        errors[path] = str(error)
        failed(Unreadable(path, str(error)))

    rest = iter(paths)
    # Where the table is read as it comes, it is the sign of life.
    quiet = sys.stdout.isatty() or len(paths) <= BATCH_SIZE
    with progress_bar(total=len(paths), desc="predicting", unit=" pictures", disable=quiet) as bar:
        for batch, images in read_pictures(
            paths, classifier.size, classifier.crop, BATCH_SIZE, note
        ):
            for found in map(Prediction, batch, images, classifier.likeliest(images)):
                for path in takewhile(errors.__contains__, rest):
                    yield Unreadable(path, errors[path])
                yield found
            bar.update(len(batch))
    for path in rest:
        yield Unreadable(path, errors[path])


def table(paths: Sequence[Path], class_names: Sequence[str]) -> Show:
    """Shows a line for each of the likeliest classes, in columns as wide as the longest entry."""
    wide = max(len(printable(path)) for path in [*paths, Path("picture")])
    name_wide = max(len(name) for name in [*class_names, "class"])

    def show(found: Found) -> Found:
        print(f"{'picture':{wide}}  {'class':{name_wide}}  probability")
        for each in found:
            if isinstance(each, Prediction):  # Of what is not, stderr has told.
                name = printable(each.path)
                for likely in each.likeliest:
                    print(f"{name:{wide}}  {likely.name:{name_wide}}  {likely.probability:11.4f}")
                    name = ""
            yield each

    return show


def comma_separated(classes: int) -> Show:
    """Shows a row for each picture: its path, classes and probabilities in turn, and any error."""
    columns = [f"{of}_{rank + 1}" for rank in range(classes) for of in ("class", "probability")]

    def show(found: Found) -> Found:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["picture", *columns, "error"])
        for each in found:
            if isinstance(each, Unreadable):
                cells, error = [""] * len(columns), each.error
            else:
                pairs = [(likely.name, f"{likely.probability:.6f}") for likely in each.likeliest]
                cells, error = [cell for pair in pairs for cell in pair], ""
            writer.writerow([printable(each.path), *cells, error])
            yield each

    return show


def show_json(found: Found) -> Found:
    """Show a list of objects, one a line: the picture, and the predictions for it or the error."""
    before = "[\n"
    for each in found:
        shown: dict[str, Any] = {"picture": str(each.path)}
        if isinstance(each, Unreadable):
            shown["error"] = each.error
        else:
            shown["predictions"] = [
                {"class": likely.name, "probability": round(likely.probability, 6)}
                for likely in each.likeliest
            ]
        print(before + json.dumps(shown), end="")
        before = ",\n"
        yield each
    print("\n]" if before == ",\n" else "[]")


def thumbnail(image: Pixels) -> str:
    """A small JPEG of an image as a data: address."""
    stream = io.BytesIO()
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def write_page(path: Path, found: Found, classifier: Classifier) -> None:
    """Write a page of pictures with their predictions that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True
    )
    environment.filters |= {"thumbnail": thumbnail, "printable": printable}
    page = environment.get_template("predict_page.html.j2")
    # Written as the predictions come, so that memory does not grow with their number.
    stream = page.stream(classifier=classifier, found=found, side=THUMBNAIL_SIDE)
    with replacing(path) as temporary:
        stream.dump(str(temporary), encoding="utf-8")


def predict(options: Namespace) -> None:
    """Load the model and show what it says of each picture."""
    paths = find_pictures(options.pictures)
    if not paths:
        folders = ", ".join(map(str, options.pictures))
        raise UserError(f"no pictures in {folders}; name files, or a folder that holds some")
    print(f"loading {options.model}", file=sys.stderr)
    classifier = load_classifier(options.model)
    print(classifier.description, file=sys.stderr)
    broken = []

    def failed(file: Unreadable) -> None:
        broken.append(file)
        print(f"{printable(file.path)} cannot be read: {file.error}", file=sys.stderr)

    show = table(paths, classifier.class_names)
    if options.csv:
        show = comma_separated(min(SHOWN, len(classifier.class_names)))
    elif options.json:
        show = show_json
    found = show(predict_all(classifier, paths, failed))
    if options.html:
        write_page(options.html, found, classifier)
        print(f"wrote {options.html}", file=sys.stderr)
    deque(found, maxlen=0)
    if broken:
        raise UserError(f"{len(broken)} of {len(paths)} files could not be read; see above")


def main(arguments: Sequence[str]) -> None:
    """Parse the options and predict; end quietly when nobody reads on."""
    options = parse(arguments)
    try:
        predict(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run(main)
