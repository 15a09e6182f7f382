"""What there is in a folder of pictures, and what of it is a picture: one set of rules for all."""

import os
import stat
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path, PurePath, PurePosixPath

from stages.pictures.tars import LARGEST_PICTURE

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff",
)  # fmt: skip
"""Names by which pictures are known, in upper case too."""
TARS = (".tar", ".tgz", ".tar.gz", ".tbz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
PACKED = (
    ".zip", ".7z", ".rar", ".tar.zst", ".tzst", ".tar.lz", ".tar.lz4", ".tar.lzma", ".tar.z",
    ".zip.001", ".7z.001",
)  # fmt: skip
FOREIGN = (
    ".heic", ".heif", ".hif", ".jxl", ".jp2",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
)  # fmt: skip
"""Pictures, as telephones and cameras write them, that Pillow does not read."""
HIDDEN = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "found.000",
    "system volume information", "icon\r", "temporary items", "network trash folder",
    "@eadir", "@__thumb", "@tmp", "@recycle", "#recycle", "#snapshot", "@recently-snapshot",
    "lost+found",
})  # fmt: skip
"""What Windows, macOS, Linux, and storage by Synology and QNAP put into folders, in any case."""


class Kind(Enum):
    """What an entry of a folder or tar is; the value tells why it is left out, and what helps."""

    FOLDER = "folders"
    PICTURE = "pictures"
    TAR = "tars, which are not looked into here; unpack them"
    PACKED = "archives, which are not looked into; unpack them"
    FOREIGN = "pictures of a kind that is not read; convert them by `mogrify -format jpg FILES`"
    LARGE = f"pictures of more than {LARGEST_PICTURE / 1e6:.0f} MB; take them away"
    LINK = "links to folders, which are not followed; move the folders themselves there"
    BROKEN = "links that lead nowhere; mend them or take them away"
    SPECIAL = "neither files nor folders, such as pipes and devices"
    HIDDEN = "hidden"
    OTHER = "no pictures by their names"


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a file or a folder above it is hidden, on any system."""
    return any(part.startswith((".", "__MACOSX")) or part.lower() in HIDDEN for part in path.parts)


def kind_by_name(path: str) -> Kind:
    """What a file is by its path and its ending."""
    name = path.lower()
    if is_hidden(PurePosixPath(path)):
        return Kind.HIDDEN
    kinds = {Kind.PICTURE: SUFFIXES, Kind.TAR: TARS, Kind.PACKED: PACKED, Kind.FOREIGN: FOREIGN}
    return next((kind for kind, ends in kinds.items() if name.endswith(ends)), Kind.OTHER)


def kind_of_file(file: Path, path: str) -> Kind:
    """What a file, or what it is a link to, is; it is not opened, as a pipe would never return."""
    kind = kind_by_name(path)
    if kind is Kind.HIDDEN:
        return kind
    try:
        status = file.stat()
    except OSError:  # Of those in a folder that can be listed, links alone.
        return Kind.BROKEN
    if not stat.S_ISREG(status.st_mode):
        return Kind.SPECIAL
    return Kind.LARGE if kind is Kind.PICTURE and status.st_size > LARGEST_PICTURE else kind


def list_folder(folder: Path) -> dict[str, Kind]:
    """What is below a folder, by path there, sorted; what hidden folders and links hold is not.

    The folder itself may be a link. Raises OSError where one of its folders cannot be read.
    """

    def stop(error: OSError) -> None:
        raise error

    found = {}
    for above, folders, names in os.walk(folder, onerror=stop):
        inside = PurePosixPath(Path(above).relative_to(folder).as_posix())
        for name in names:
            path = str(inside / name)
            found[path] = kind_of_file(Path(above, name), path)
        for name in folders:
            hidden, link = is_hidden(PurePosixPath(name)), Path(above, name).is_symlink()
            kind = Kind.HIDDEN if hidden else Kind.LINK if link else Kind.FOLDER
            found[str(inside / name)] = kind
        folders[:] = [name for name in folders if found[str(inside / name)] is Kind.FOLDER]
    return dict(sorted(found.items()))


def name_some(names: Sequence[str]) -> str:
    """The first few names, so that any number of them fits into a line."""
    return ", ".join(map(printable, names[:5])) + (", ..." if len(names) > 5 else "")


def describe_left_out(reasons: Mapping[str, str]) -> list[str]:
    """A line a reason, of a mapping from what is left out to why: how many, and the first few."""
    names: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        names.setdefault(reason, []).append(path)
    return [f"left out, {why}: {len(of)}: {name_some(of)}" for why, of in sorted(names.items())]


def printable(path: PurePath | str) -> str:
    """A path for people to read: what cannot be printed is shown as a replacement character."""
    return "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(path)
    )
