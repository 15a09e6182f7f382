"""Values of images that an earlier run of a stage computed, so that only new images are computed.

DVC removes a stage's output before the stage runs; what is kept lies outside of it, in
data/kept/STAGE/SET/BACKBONE/: values.npy, shape (images, views, ...), done.npy, shape (images,
views), which says what of it is there, and rows.json, with the key of every image, the views, and
the conditions: all else that decides a value. Of each set and backbone there are the values of the
last run, and while one is under way those that it has. On a disk with hard links values.npy is the
same file as the stage's output and takes no more space. Remove data/kept to have all computed anew.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stages.common.arrays import read_array
from stages.common.files import link_or_copy, read_json, release, replacing, reserve, write_json

BLOCK = 64
"""Images that are copied at a time."""


class Kept:
    """An array of values that is being filled, beginning with what earlier runs have of it.

    `keys`, one an image, tell the images' bytes apart; `conditions`, of strings and numbers, are
    equal where the same image and view have the same values. What is in `values` and marked by
    `mark` outlives this process, however it ends. Raises OSError where the disk has no room.
    """

    def __init__(
        self, folder: Path, keys: Sequence[str], views: Sequence[str],
        conditions: Mapping[str, Any], shape: Sequence[int], dtype: DTypeLike,
    ) -> None:  # fmt: skip
        self.folder, self.keys, self.views = folder, keys, views
        self.conditions = dict(conditions)
        self.work = folder.with_name(f"{folder.name}.unfinished")
        earlier = folder.with_name(f"{folder.name}.earlier")
        if self.work.exists() and not earlier.exists():
            self.work.rename(earlier)
        # A run that was killed while it copied from `earlier` has nothing that is not there.
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        try:
            self.values = self._create("values.npy", (len(keys), len(views), *shape), dtype)
            self.done = self._create("done.npy", (len(keys), len(views)), np.bool_)
            facts = {"conditions": self.conditions, "views": [*views], "keys": [*keys]}
            write_json(self.work / "rows.json", facts)
        except OSError as error:
            shutil.rmtree(self.work)
            raise OSError(error.errno, error.strerror, str(folder)) from error
        for source in (folder, earlier):
            self._copy_from(source)
        shutil.rmtree(earlier, ignore_errors=True)

    def _create(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        path = self.work / name
        array = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            path, mode="w+", dtype=dtype, shape=shape
        )
        reserve(path)
        return array

    def _copy_from(self, source: Path) -> None:
        if not (source / "rows.json").exists():
            return
        facts = read_json(source / "rows.json")
        if facts.get("conditions") != self.conditions:
            return
        values = read_array(source / "values.npy", "r")
        done = read_array(source / "done.npy")
        places = {key: row for row, key in enumerate(facts["keys"])}
        own = np.array([places.get(key, -1) for key in self.keys])
        for column, view in enumerate(self.views):
            if view not in facts["views"]:
                continue
            other = facts["views"].index(view)
            known = (own >= 0) & done[own, other] & ~self.done[:, column]
            rows = np.flatnonzero(known)
            for block in np.split(rows, range(BLOCK, len(rows), BLOCK)):
                self.values[block, column] = values[own[block], other]
                self.mark(block, column)
                release(values)

    def lacking_views(self, rows: NDArray[np.int64]) -> list[str]:
        """The views in which the values of some of the images `rows` are not there yet."""
        known = self.done[rows].all(axis=0)
        return [view for view, all_known in zip(self.views, known, strict=True) if not all_known]

    def mark(self, rows: NDArray[np.int64], column: int) -> None:
        """Say that the values of images `rows` in a view, given by its place, are there."""
        # First the values, so that even a machine that loses power has marked nothing that is lost.
        self.values.flush()
        self.done[rows, column] = True
        release(self.values)

    def finish(self, path: Path) -> None:
        """Keep what there is for the next run, and make it the file `path`."""
        self.values.flush()
        self.done.flush()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.work.rename(self.folder)
        with replacing(path) as temporary:
            link_or_copy(self.folder / "values.npy", temporary)
