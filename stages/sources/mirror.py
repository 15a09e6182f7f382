"""A folder of files that stand in for downloads, named by the variable FLOWERS_MIRROR."""

import os
from pathlib import Path

from stages.common.command_line import UserError
from stages.common.files import sha256

VARIABLE = "FLOWERS_MIRROR"
SUMS = "SHA256SUMS"


def find_in_mirror(name: str) -> Path | None:
    """The mirror's file `name`, checked, or None when there is no mirror or it lacks the file.

    FLOWERS_MIRROR is an absolute path or one relative to the repository. Raises UserError when it
    names no folder, when the folder has no readable SHA256SUMS, and when the file is not listed
    there or has another digest.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    folder = repository() / value
    if not folder.is_dir():
        raise UserError(f"{VARIABLE}={value} is no folder; give a folder, or unset {VARIABLE}")
    expected = _read_sums(folder / SUMS).get(name)
    path = folder / name
    if not path.is_file():
        return None
    if expected is None:
        raise UserError(f"{path} is not listed in {SUMS} beside it; add it with `sha256sum {name}`")
    actual = sha256(path)
    if actual != expected:
        raise UserError(
            f"{path} has sha256 {actual}, {SUMS} says {expected}; copy the file there again"
        )
    return path


def mirror_remedy() -> str:
    """What to do about a file that can be had neither from the network nor from the mirror."""
    value = os.environ.get(VARIABLE)
    add = (
        f"add it, with its line in {SUMS}, to the folder of {VARIABLE}={value}, which lacks it"
        if value
        else f"set {VARIABLE} to a folder that holds it"
    )
    return f"{add}, or run `make demo`, which needs no network"


def repository() -> Path:
    """The repository that runs; from inside `dvc exp run --temp`'s copy, the one it is a copy of.

    Stages run in the repository's root, and DVC puts such copies under its `.dvc/tmp/`.
    """
    return Path(Path.cwd().as_posix().partition("/.dvc/tmp/")[0])


def _read_sums(path: Path) -> dict[str, str]:
    """SHA-256 by file name, from a file such as `sha256sum` writes."""
    try:
        lines = path.read_text("utf-8").split("\n")  # Names may hold other breaks of lines.
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"{path} cannot be read; write it with `sha256sum * > {SUMS}`, or unset {VARIABLE}"
        ) from None
    pairs = [line.split(maxsplit=1) for line in lines]
    return {pair[1].removeprefix("*"): pair[0].lower() for pair in pairs if len(pair) == 2}
