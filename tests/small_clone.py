"""A clone whose whole `dvc repro` is short: a drawn set of few pictures, and few epochs."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.test_repro import SHRUNK, Clone

IMAGES_OF_A_SPECIES = 8
EPOCHS = 6
CLASSES = 17


class SmallClone(Clone):
    """A clone on a tenth of the set `demo`; `copy` makes others of it."""

    def __init__(self, folder: Path) -> None:
        changes = SHRUNK | {r"^(  epochs:).*": rf"\1 {EPOCHS}"}
        del changes[r"^(  kind:).*"]  # The logistic head is as fast, and the one by default.
        super().__init__(folder, changes)
        self.edit(
            "data/sets/demo/set.yaml", "count: 1360", f"count: {CLASSES * IMAGES_OF_A_SPECIES}"
        )
        self.commit()

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text, which is there once, in a file."""
        path = self.folder / name
        text = path.read_text("utf-8")
        assert text.count(old) == 1, (name, old)
        path.write_text(text.replace(old, new), "utf-8")

    def copy(self, folder: Path) -> "SmallClone":
        """The same clone in another folder; links stay links, and a file's times what they were."""
        shutil.copytree(self.folder, folder, symlinks=True)
        clone = SmallClone.__new__(SmallClone)
        clone.folder, clone.environment = folder, self.environment
        return clone

    def locked_stages(self) -> set[str]:
        """The stages that dvc.lock holds."""
        path = self.folder / "dvc.lock"
        text = path.read_text("utf-8") if path.exists() else ""
        return set((yaml.safe_load(text) or {}).get("stages", {}))

    def outputs(self) -> dict[str, str]:
        """MD5 of each file that is there under the final name of an output, by its name."""
        folders = [self.folder / name for name in ("data", "models", "metrics")]
        paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        named = {path.relative_to(self.folder).as_posix(): path for path in paths}
        own = ("data/locks", "data/checkpoints", "data/downloads", "data/kept")
        return {
            name: md5(path)
            for name, path in named.items()
            if not name.startswith(own) and "/.partial-" not in name
        }

    def corrupt_cache(self) -> list[str]:
        """Objects of DVC's cache whose content is not what their name says."""
        folder = self.folder / ".dvc/cache/files/md5"
        objects = [path for path in folder.glob("??/*") if path.suffix != ".tmp"]
        return [
            path.relative_to(folder).as_posix()
            for path in objects
            if path.parent.name + path.name.removesuffix(".dir") != md5(path)
        ]

    def temporary_files(self) -> tuple[list[str], list[str]]:
        """What killed runs have left: under this project's temporary names, and DVC's."""
        own, dvcs = (
            sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob(pattern))
            for pattern in (".partial-*", "*.tmp")
        )
        return own, dvcs


@dataclass
class Reference:
    """An undisturbed run: a clone before it, one after it, what it left, and how long it took."""

    before: SmallClone
    after: SmallClone
    lock: bytes
    outputs: dict[str, str]
    seconds: float


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
