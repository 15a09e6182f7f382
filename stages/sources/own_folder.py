"""A folder of one's own pictures: what is in it, and which class and part each picture belongs to.

Layouts, below data/own/NAME: CLASS/*, or train/CLASS/* beside val/ and test/, both at any depth
and inside one folder more; or labels.csv with the columns path and label, and part where parts are
given. A tar counts as what is in it, unpacked where it lies. What is hidden is left out.
"""

import csv
import hashlib
import io
import os
import tarfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stages.common.command_line import UserError
from stages.common.files import sha256
from stages.pictures.reading import SUFFIXES

LABELS = "labels.csv"
TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
PARTS = {each: each for each in ("train", "val", "test")} | {"valid": "val", "validation": "val"}
"""Names of folders, in any case, and values of a column, that give parts."""


class Place(NamedTuple):
    """A picture's class and the part it was given, or an empty text."""

    class_name: str
    part: str


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a file or a folder above it is hidden, on any system."""
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def list_files(folder: Path) -> list[str]:
    """Paths below `folder` of all files that are not hidden, sorted; linked folders too."""
    found = []
    for above, folders, names in os.walk(folder, followlinks=True):
        inside = PurePosixPath(Path(above).relative_to(folder).as_posix())
        folders[:] = [name for name in folders if not is_hidden(PurePosixPath(name))]
        found += [str(inside / name) for name in names if not is_hidden(PurePosixPath(name))]
    return sorted(found)


def read_tar_digests(folder: Path, archive: str) -> Iterator[tuple[str, str]]:
    """Path, as if unpacked beside the tar, and SHA-256 of every picture in it.

    Raises UserError where it cannot be read to its end.
    """
    above = PurePosixPath(archive).parent
    try:
        with tarfile.open(folder / archive, "r|*") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                file = tar.extractfile(member) if member.isfile() else None
                if file and not is_hidden(name) and name.name.lower().endswith(SUFFIXES):
                    yield str(above / name), hashlib.sha256(file.read()).hexdigest()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{folder / archive} cannot be read ({error}); put it there anew") from None


def find_pictures(folder: Path) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """The pictures of a folder, and its other files that are neither tars nor LABELS.

    By their paths, sorted, the pictures' digests and tars; the tar of a file of its own is an empty
    text. Raises UserError for two of one path, and for a path that is no UTF-8.
    """
    files = list_files(folder)
    loose = [path for path in files if path.lower().endswith(SUFFIXES)]
    tars = [path for path in files if path.lower().endswith(TARS)]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(sha256, [folder / path for path in loose])
        found = {path: (digest, "") for path, digest in zip(loose, digests, strict=True)}
    for tar in tars:
        for path, digest in read_tar_digests(folder, tar):
            if path in found:
                raise UserError(f"{folder / path} is there twice, also in {tar}; remove one")
            found[path] = (digest, tar)
    for path in found:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise UserError(f"the name {path!r} in {folder} is not UTF-8; rename it") from None
    others = [path for path in files if path not in found and path not in tars and path != LABELS]
    return dict(sorted(found.items())), others


def places_by_folder(paths: Sequence[str]) -> dict[str, Place]:
    """Class and part of pictures by the folders they are in. Raises UserError for one in none.

    The outermost folder is the class, or the part and the next one the class. Folders that hold
    everything else are passed over, so that an archive can be unpacked as it is.
    """
    split = {path: PurePosixPath(path).parts for path in paths}
    while True:
        tops = {parts[0] for parts in split.values()}
        given = {top.lower() for top in tops} <= set(PARTS) and len(tops) > 1
        if given or len(tops) > 1 or min(map(len, split.values())) < 3:
            break
        split = {path: parts[1:] for path, parts in split.items()}
    depth = 2 if given else 1
    for path, parts in split.items():
        if len(parts) <= depth:
            raise UserError(f"{path} is in no class's folder; put it into one, or take it away")
    return {
        path: Place(parts[depth - 1], PARTS[parts[0].lower()] if given else "")
        for path, parts in split.items()
    }


def places_by_table(table: Path, paths: Mapping[str, object]) -> dict[str, Place]:
    """Class and part of the pictures that a table lists, whose paths must be among `paths`.

    Raises UserError that names the line for anything else.
    """
    try:
        text = table.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{table} is not UTF-8 ({error}); save it as that") from None
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = set(rows.fieldnames or ())
    if columns not in ({"path", "label"}, {"path", "label", "part"}):
        raise UserError(
            f"{table} has the columns {', '.join(rows.fieldnames or ()) or '(none)'}; "
            "they must be path,label or path,label,part"
        )
    places: dict[str, Place] = {}
    for row in rows:
        where, path = f"{table}, line {rows.line_num}", row["path"] or ""
        if path not in paths:
            raise UserError(f"{where}: there is no picture {path!r} in {table.parent}")
        if path in places:
            raise UserError(f"{where}: {path!r} is listed twice; remove one")
        if not row["label"]:
            raise UserError(f"{where}: {path!r} has no label")
        part = row.get("part", "")
        if "part" in columns and (part or "").lower() not in PARTS:
            raise UserError(f"{where}: no part {part!r}; there are: train, val, test")
        places[path] = Place(row["label"], PARTS[part.lower()] if part else "")
    if not places:
        raise UserError(f"{table} lists no picture")
    return places


def tidy_class_names(places: Mapping[str, Place], folder: Path) -> dict[str, Place]:
    """The places with class names in Unicode's composed form, which some file systems take apart.

    Raises UserError for two that a person, or another file system, would take for one.
    """
    names: dict[str, str] = {}
    for raw in sorted({place.class_name for place in places.values()}):
        if not raw.isprintable():
            raise UserError(f"the class {raw!r} in {folder} cannot be printed; rename it")
        key = unicodedata.normalize("NFKC", raw).casefold().strip()
        other = names.setdefault(key, raw)
        if other != raw:
            raise UserError(
                f"the classes {other!r} and {raw!r} in {folder} are one to the eye; rename or join"
            )
    return {
        path: Place(unicodedata.normalize("NFC", place.class_name), place.part)
        for path, place in places.items()
    }


def check_classes(places: Mapping[str, Place], folder: Path) -> None:
    """Raise UserError unless there are two classes and each can be both learned and judged."""
    parts: dict[str, list[str]] = {}
    for place in places.values():
        parts.setdefault(place.class_name, []).append(place.part)
    if len(parts) < 2:
        raise UserError(
            f"{folder} has one class, {next(iter(parts))!r}; there must be two at least"
        )
    given = {place.part for place in places.values()}
    if given != {""} and ("train" not in given or len(given) < 2):
        raise UserError(
            f"{folder} has {', '.join(sorted(given))} alone; there must be train, and val or test"
        )
    for name, own in parts.items():
        if given == {""} and len(own) < 2:
            raise UserError(
                f"class {name!r} in {folder} has one picture, and needs one to learn from and "
                "another to be judged by; add some or take the class away"
            )
        if given != {""} and "train" not in own:
            raise UserError(f"class {name!r} in {folder} has pictures in {own[0]}, none in train")


def check_folders(folder: Path, paths: Sequence[str]) -> None:
    """Raise UserError for a folder, not hidden, in which no file nor one further down is a picture.

    Its files or folders may have been meant to be a class.
    """
    full = {above for path in paths for above in PurePosixPath(path).parents}
    for above, folders, _ in os.walk(folder, followlinks=True):
        inside = PurePosixPath(Path(above).relative_to(folder).as_posix())
        folders[:] = sorted(name for name in folders if not is_hidden(PurePosixPath(name)))
        for name in folders:
            if inside / name not in full:
                raise UserError(
                    f"{folder / inside / name} holds no picture; put some in or take it away"
                )
