"""Which class and part each picture of a folder belongs to, by its folders or by a table.

See `stages.sources.own_folder` for the layouts.
"""

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stages.common.command_line import UserError
from stages.pictures.names import Kind, name_some, printable
from stages.pictures.tars import LARGEST_PICTURE
from stages.sources.own_folder import LABELS, Listing

MORE = r"[-_ .]?(?:set|split|data|dataset|images?|imgs?|pictures|photos|aug|augmented)"
PARTS = {
    part: re.compile(rf"(?:(?:seg|data|dataset|images?)[-_ .])?(?:{words})(?:{MORE})*[-_ .]?\d*")
    for part, words in (
        ("train", "train|training"),
        ("val", "val|valid|validation|validate|dev"),
        ("test", "test|testing|eval|evaluation"),
    )
}
"""What folders that are parts are called in public data sets, as seg_train, Training, test_set."""


class Place(NamedTuple):
    """A picture's class and the part it was given, or an empty text."""

    class_name: str
    part: str
    folder: PurePosixPath = PurePosixPath()
    """The class's folder, where folders give the classes."""


def part_of(name: str) -> str:
    """The part that a folder, or a value of a column, of this name stands for, or an empty text."""
    return next((part for part, names in PARTS.items() if names.fullmatch(name.lower())), "")


def check_folders(listing: Listing, places: Mapping[str, Place], folder: Path) -> None:
    """Raise UserError for a folder without a picture, which may have been meant to be a class.

    Published tars have folders of other things too: of theirs, those beside classes' alone count.
    """
    full = {above for path in listing.pictures for above in PurePosixPath(path).parents}
    beside = {place.folder.parent for place in places.values()}
    beside |= {above.parent for above in beside if any(place.part for place in places.values())}
    loose = {PurePosixPath(path) for path, kind in listing.others.items() if kind is Kind.FOLDER}
    meant = loose | {each for each in listing.in_tars if each.parent in beside}
    for each in sorted(meant - full):
        where = "" if each in loose else ", of a tar,"
        raise UserError(f"{folder / each}{where} holds no picture; put some in or take it away")


def places_by_folder(paths: Sequence[str]) -> dict[str, Place]:
    """Class and part of pictures by the folders they are in. Raises UserError for one in none.

    The outermost folder is the class, or the part and the next one the class. Folders that hold
    everything else are passed over, so that an archive can be unpacked as it is. Raises UserError
    too where some of the folders are named as parts and others are not.
    """
    folders = {path: PurePosixPath(path).parent.parts for path in paths}
    shortest, depth = min(map(len, folders.values())), 0
    while depth + 1 < shortest and len({own[depth] for own in folders.values()}) == 1:
        depth += 1
    below: dict[str, set[str]] = {}
    for path, own in folders.items():
        if len(own) <= depth:
            raise no_class(path)
        below.setdefault(own[depth], set()).update(own[depth + 1 : depth + 2])
    if len(below) > 1 and any(map(part_of, below)):
        check_part_names(below)
        # Archives of Kaggle's have training_set/training_set/CLASS.
        twice = {top for top, inner in below.items() if {*map(part_of, inner)} == {part_of(top)}}
        return {
            path: place_at(path, depth + (2 if own[depth] in twice else 1), part_of(own[depth]))
            for path, own in folders.items()
        }
    parts = sorted(filter(part_of, set().union(*below.values())))
    if len(set(map(part_of, parts))) > 1:
        top = min(below)
        raise UserError(
            f"the folders of classes, such as {top!r}, hold folders of parts: {name_some(parts)}; "
            f"put the classes' folders into the parts', as train/{top}, or give classes and parts "
            f"in {LABELS}"
        )
    return {path: place_at(path, depth, "") for path in paths}


def place_at(path: str, depth: int, part: str) -> Place:
    """The place of a picture whose class's folder is so far down. Raises UserError without one."""
    parts = PurePosixPath(path).parts
    if len(parts) < depth + 2:
        raise no_class(path)
    return Place(parts[depth], part, PurePosixPath(*parts[: depth + 1]))


def no_class(path: str) -> UserError:
    """The error for a picture that is in no class's folder, and what its folder is taken for."""
    folder = PurePosixPath(path).parent.name
    part = part_of(folder)
    taken = f" ({folder!r} is taken for the part {part})" if part else ""
    return UserError(f"{path} is in no class's folder{taken}; put it into one, or take it away")


def check_part_names(tops: Collection[str]) -> None:
    """Raise UserError unless all folders are named as parts."""
    others = sorted(top for top in tops if not part_of(top))
    if others:
        parts = [f"{top!r} ({part_of(top)})" for top in sorted(tops) if part_of(top)]
        raise UserError(
            f"by their names {name_some(parts)} are parts, but not {name_some(others)}; take "
            f"these away, or rename them to train, val or test where they are parts; where all are "
            f"classes, rename the former or list the pictures in {LABELS}"
        )


def places_by_table(
    table: Path, paths: Collection[str], others: Mapping[str, Kind]
) -> dict[str, Place]:
    """Class and part of the pictures that a table lists, whose paths must be among `paths`.

    `others` are files that are no pictures. Raises UserError that names the line for anything else.
    """
    find = path_finder(table.parent, paths, others)
    places: dict[str, Place] = {}
    for line, row in read_label_table(table):
        where = f"{table}, line {line}"
        try:
            path = find(row["path"])
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        if path in places:
            raise UserError(f"{where}: {path!r} is listed twice; remove one")
        if not row["label"]:
            raise UserError(f"{where}: {path!r} has no label")
        part = part_of(row.get("part", ""))
        if "part" in row and not part:
            raise UserError(f"{where}: no part {row['part']!r}; there are: train, val, test")
        places[path] = Place(row["label"], part)
    if not places:
        raise UserError(f"{table} lists no picture")
    return places


def read_label_table(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines and rows of a table of labels without the blanks around cells; missing cells are empty.

    Raises UserError for other columns, for more cells than those, and where it is no CSV in UTF-8.
    """
    if table.stat().st_size > LARGEST_PICTURE:
        raise UserError(
            f"{table} has more than {LARGEST_PICTURE} bytes; put a table of labels there"
        )
    try:
        text = table.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{table} is not UTF-8 ({error}); save it as that") from None
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if sorted(header) not in (["label", "path"], ["label", "part", "path"]):
            raise UserError(
                f"{table} has the columns {printable(', '.join(header)[:200]) or '(none)'}; they "
                "must be path,label or path,label,part, with commas between them"
            )
        for cells in rows:
            if len(cells) > len(header):
                raise csv.Error("it has more cells than the header")
            if cells:
                row = dict(zip_longest(header, map(str.strip, cells), fillvalue=""))
                yield rows.line_num, row
    except csv.Error as error:
        raise UserError(
            f"{table}, line {rows.line_num} cannot be read ({error}); see to its commas and quotes"
        ) from None


def path_finder(
    folder: Path, paths: Collection[str], others: Mapping[str, Kind]
) -> Callable[[str], str]:
    """A function that finds the path of the picture that a cell of a table means.

    It raises ValueError where there is none, or no single one.
    """
    tops = [
        unicodedata.normalize("NFC", each.as_posix()) + "/"
        for each in (folder.absolute(), folder.resolve())
    ]

    def normal(path: str) -> str:
        """The path from the folder, with slashes and composed accents."""
        path = posixpath.normpath(unicodedata.normalize("NFC", path.strip()).replace("\\", "/"))
        return path.removeprefix(tops[0]).removeprefix(tops[1])

    by_normal: dict[str, list[str]] = {}
    for path in paths:
        by_normal.setdefault(normal(path), []).append(path)

    def find(cell: str) -> str:
        found = [cell] if cell in paths else by_normal.get(normal(cell), [])
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{cell!r} may be {len(found)} pictures; give them other names")
        if kind := others.get(normal(cell)):
            raise ValueError(f"{cell!r} is left out: {kind.value}")
        raise ValueError(
            f"there is no picture {cell!r} in {folder}; paths are from there, such as "
            f"{min(paths)!r}"
        )

    return find


def tidy_class_names(places: Mapping[str, Place], folder: Path) -> dict[str, Place]:
    """The places with class names without blanks around them and in Unicode's composed form.

    Some file systems take accents apart, so both forms are one class. Raises UserError for two that
    a person, or another file system, would take for one.
    """
    names: dict[str, str] = {}
    for raw in sorted({place.class_name for place in places.values()}):
        if not raw.isprintable() or not raw.strip():
            raise UserError(f"the class {raw!r} in {folder} cannot be printed; rename it")
        key = unicodedata.normalize("NFKC", raw).casefold().strip()
        other = names.setdefault(key, raw)
        if unicodedata.normalize("NFC", other) != unicodedata.normalize("NFC", raw):
            raise UserError(
                f"the classes {other!r} and {raw!r} in {folder} are one to the eye; rename or join"
            )
    return {
        path: place._replace(class_name=unicodedata.normalize("NFC", place.class_name).strip())
        for path, place in places.items()
    }


def check_classes(places: Mapping[str, Place], folder: Path) -> None:
    """Raise UserError unless there are two classes; `split` sees to it that each can be learned."""
    names = {place.class_name for place in places.values()}
    if len(names) < 2:
        raise UserError(f"{folder} has one class, {min(names)!r}; there must be two at least")
