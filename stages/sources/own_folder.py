"""A folder of one's own pictures: what is in it, and what of that must not be lost in silence.

Layouts, below the folder of the set: CLASS/*, or train/CLASS/* beside val/ and test/, both at any
depth and inside one folder more; or labels.csv with the columns path and label, and part where
parts are given. A tar counts as what is in it, unpacked where it lies. What is hidden is left out.
"""

import hashlib
import tarfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stages.common.command_line import UserError
from stages.common.files import sha256
from stages.pictures.names import Kind, kind_by_name, list_folder, printable
from stages.pictures.tars import LARGEST_PICTURE, read_forwards

LABELS = "labels.csv"
LOST = (Kind.LINK, Kind.BROKEN, Kind.LARGE, Kind.PACKED, Kind.TAR, Kind.FOREIGN)
"""What must not be left out of a set in silence: it holds pictures, or is one."""


class Listing(NamedTuple):
    """What a folder holds, by paths as if its tars were unpacked beside themselves."""

    pictures: dict[str, tuple[str, str]]
    """Digest, and the tar or, of a file of its own, an empty text."""
    others: dict[str, Kind]
    in_tars: set[PurePosixPath]
    """Folders that the tars hold, with pictures or without."""


def list_pictures(folder: Path) -> Listing:
    """What a folder and its tars hold.

    Raises UserError for a link to a folder, for a table of labels that is not where it is read, for
    two pictures of one path, and for a path that is no UTF-8.
    """
    found = list_folder(folder)
    refuse(found, folder, (Kind.LINK,))
    labels = found.pop(LABELS, None)
    if labels not in (None, Kind.OTHER):
        raise UserError(f"{folder / LABELS} is no file that can be read; put the table there")
    read = (Kind.PICTURE, Kind.TAR)
    loose, tars = ([path for path, each in found.items() if each is kind] for kind in read)
    with ThreadPoolExecutor() as pool:
        digests = pool.map(sha256, [folder / path for path in loose])
        pictures = {path: (digest, "") for path, digest in zip(loose, digests, strict=True)}
    others = {path: kind for path, kind in found.items() if kind not in read}
    listing = Listing(pictures, others, set())
    for tar in tars:
        add_tar(listing, folder, tar)
    for path in others:
        if labels is None and PurePosixPath(path).name.lower() == LABELS:
            raise UserError(
                f"{folder / path} is not read as a table of labels; put it into {folder / LABELS}, "
                "with paths from there, or give it another name"
            )
    for path in pictures:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise UserError(f"the name {path!r} in {folder} is not UTF-8; rename it") from None
    return Listing(dict(sorted(pictures.items())), others, listing.in_tars)


def add_tar(listing: Listing, folder: Path, tar: str) -> None:
    """Add what a tar holds.

    Raises UserError where it cannot be read to its end, or holds what would be lost.
    """
    try:
        for member in read_forwards(folder / tar):
            kind = kind_of_member(member.info, folder / tar)
            place = PurePosixPath(tar).parent / member.info.name
            path = str(place)
            if path in listing.pictures:
                raise UserError(f"{folder / path} is there twice, also in {tar}; remove one")
            if kind is Kind.PICTURE:
                listing.pictures[path] = (hashlib.sha256(member.read()).hexdigest(), tar)
            elif kind is not Kind.FOLDER:
                listing.others.setdefault(path, kind)
            if kind is not Kind.HIDDEN:
                listing.in_tars.update(place.parents, [place] if kind is Kind.FOLDER else [])
    except ValueError as error:
        raise UserError(f"{folder / tar} cannot be read ({error}); put it there anew") from None


def kind_of_member(info: tarfile.TarInfo, archive: Path) -> Kind:
    """What a member of a tar is.

    Raises UserError for a name that leads out of where the tar lies, for a link, and for a picture
    that is too large.
    """
    name = PurePosixPath(info.name)
    where = f"{printable(name)} in {archive}"
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"{where} leads out of it; pack it anew by `tar -cf FILE -C FOLDER .`")
    kind = kind_by_name(str(name))
    if kind is Kind.HIDDEN:
        return kind
    if info.isdir():
        return Kind.FOLDER
    if info.issym() or (info.islnk() and kind is not Kind.OTHER):
        raise UserError(
            f"{where} is a link; pack it anew by `tar --dereference --hard-dereference`"
        )
    if not (info.isfile() or info.islnk()):
        return Kind.SPECIAL
    if kind is Kind.PICTURE and info.size > LARGEST_PICTURE:
        raise UserError(f"{where} has {info.size} bytes, a picture at most {LARGEST_PICTURE}")
    return kind


def refuse(
    others: Mapping[str, Kind],
    folder: Path,
    kinds: Collection[Kind] = LOST,
    pictures: Collection[str] = (),
) -> None:
    """Raise UserError for the first of some kinds, with their number.

    What is converted stands beside the result, one of `pictures`, which has its name but for the
    ending.
    """
    stems = {PurePosixPath(path).with_suffix("") for path in pictures}
    for kind in kinds:
        names = [path for path, each in others.items() if each is kind]
        if kind is Kind.FOREIGN:
            names = [path for path in names if PurePosixPath(path).with_suffix("") not in stems]
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(f"{folder / printable(names[0])}{more} would be left out: {kind.value}")
