"""Reading and writing of .npy files, and their pages of memory."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError, first_line
from stages.common.files import replacing


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a .npy file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def read_array(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """The array of numbers of a .npy file, or with `mmap_mode` a view of the file.

    Raises UserError for anything else, objects above all: to read them would be to run them.
    """
    try:
        return np.asanyarray(np.load(path, mmap_mode, allow_pickle=False))
    except (EOFError, ValueError) as error:
        raise UserError(
            f"{path} is no array of numbers ({first_line(error)}); delete it and run `dvc repro`"
        ) from None
