"""Obtain a set's archive and label files, from the network, a mirror, or by drawing them.

    python -m stages.download --set flowers17

Writes data/raw/SET/: the files under their published names, and source.json, which says where
each came from and whether it is the published one. Files that the folder of FLOWERS_MIRROR holds
stand in for downloads.
"""

import gzip
import shutil
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.common.command_line import Parser, UserError, one_of, run
from stages.common.files import digest, link_or_copy, replacing, sha256, write_json
from stages.common.progress import progress_bar
from stages.sources.demo_flowers import write_demo_set
from stages.sources.fetch import PAUSES, fetch
from stages.sources.mirror import find_in_mirror
from stages.sources.sets import SETS, ImageSet, SourceFile

MOST_UNPACKED = (100_000_000, 20)
"""What an archive may unpack to: so many bytes, and so many times its own size.

Pictures are compressed already, and tar's padding shrinks tenfold at most; gzip can do a
thousandfold."""
MOST_MEMBERS = (1000, 10)
"""How many members an archive may have: so many, and so many for each image of the set."""
LARGEST_PICTURE = 100_000_000
"""In bytes. Pictures are read whole, a batch of them at a time."""
BLOCK = 1 << 20
"""Bytes that are read of an archive at a time."""


def obtain(image_set: ImageSet, folder: Path, downloads: Path) -> dict[str, Any]:
    """Put every file of the set into `folder` and return what source.json is to hold.

    Downloads grow in the folder `downloads` and stay there: neither an error nor a stage that runs
    again, say because its code changed, loads a file twice.
    """
    records = {}
    missing = []
    for file in image_set.files:
        found = find_in_mirror(file.name)
        if found is None:
            try:
                fetch(file, downloads / file.name, PAUSES[:1] if file.optional else PAUSES)
            except UserError as error:
                if not file.optional:
                    raise
                print(
                    f"warning: no `split.protocol: official` for {image_set.name}: {error}",
                    file=sys.stderr,
                )
                missing.append(file.name)
                continue
        if found:
            shutil.copyfile(found, folder / file.name)
        else:
            link_or_copy(downloads / file.name, folder / file.name)
        origin = "mirror" if found else file.url
        records[file.name] = describe(file, folder / file.name, origin)
    published = all(record["published"] for record in records.values())
    return {
        "set": image_set.name,
        "source": "published" if published else "mirror",
        "files": records,
        "missing": missing,
    }


def describe(file: SourceFile, path: Path, origin: str) -> dict[str, Any]:
    """Log where a file came from, and return its record in source.json."""
    published = digest(path, file.algorithm) == file.digest
    size = path.stat().st_size
    print(
        f"{file.name}: from {'the mirror' if origin == 'mirror' else origin}, "
        + (f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes")
        + ("" if published else "; not the published file"),
        flush=True,
    )
    return {"from": origin, "sha256": sha256(path), "published": published}


def draw(image_set: ImageSet, folder: Path) -> dict[str, Any]:
    """Draw the demo set into `folder` and return what source.json is to hold."""
    write_demo_set(folder)
    print(f"{image_set.archive}: generated", flush=True)
    records = {
        path.name: {"from": "generated", "sha256": sha256(path), "published": False}
        for path in sorted(folder.iterdir())
    }
    return {"set": image_set.name, "source": "generated", "files": records, "missing": []}


class Bounded:
    """What an archive unpacks to, read forwards: at most so many bytes, and few of them at a time.

    The next one is an OSError. tarfile reads a member's name in one go, whatever size it declares.
    """

    def __init__(self, unpacked: gzip.GzipFile, most: int) -> None:
        self.unpacked, self.most, self.position = unpacked, most, 0

    def tell(self) -> int:
        """How many bytes have been read."""
        return self.position

    def seek(self, position: int) -> None:
        """Read on to a position, or to the end."""
        while self.position < position and self.read(min(position - self.position, BLOCK)):
            pass

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        if size > BLOCK:
            raise OSError(f"it has a header of {size} bytes")
        block = self.unpacked.read(size)
        self.position += len(block)
        if self.position > self.most:
            raise OSError(f"it unpacks to more than {self.most / 1e6:.0f} MB")
        return block


def check_archive(path: Path, names: Sequence[str]) -> None:
    """Read a .tgz to its end; each of `names` must be in it once, as a regular file.

    This is where archives are checked, so that the stages that read pictures out of one need not:
    it ends within MOST_UNPACKED and MOST_MEMBERS, and no picture in it is larger than
    LARGEST_PICTURE. Raises UserError when one is missing, doubled or too large, or when the archive
    is broken or past those bounds.
    """
    remedy = "put the whole archive in its place and run again"
    counts: Counter[str] = Counter()
    wanted = frozenset(names)
    most = MOST_UNPACKED[0] + MOST_UNPACKED[1] * path.stat().st_size
    most_members = MOST_MEMBERS[0] + MOST_MEMBERS[1] * len(names)
    try:
        with gzip.open(path) as unpacked:
            stream = Bounded(unpacked, most)
            with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
                members = progress_bar(
                    archive, desc="checking", total=len(names), unit=" files", delay=2
                )
                for number, member in enumerate(members, 1):
                    if number > most_members:
                        raise UserError(
                            f"{path.name} holds more than {most_members} members for {len(names)} "
                            f"images; {remedy}"
                        )
                    if member.isfile() and member.name in wanted:
                        counts[member.name] += 1
                        if member.size > LARGEST_PICTURE:
                            raise UserError(
                                f"{member.name} in {path.name} has {member.size} bytes, a picture "
                                f"at most {LARGEST_PICTURE}; {remedy}"
                            )
            while stream.read(BLOCK):
                pass
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise UserError(f"{path.name} is no whole .tgz archive ({error}); {remedy}") from None
    missing = [name for name in names if counts[name] == 0]
    doubled = [name for name in names if counts[name] > 1]
    for wrong, what in ((missing, "lacks"), (doubled, "holds more than once")):
        if wrong:
            raise UserError(
                f"{path.name} {what} {len(wrong)} of {len(names)} images, "
                f"first {wrong[0]}; {remedy}"
            )


def main(argv: Sequence[str]) -> None:
    """Run the stage with command line arguments `argv`."""
    parser = Parser(
        __doc__, "(the values come from params.yaml; what is in data/own goes into its list `own`)"
    )
    parser.add_argument("--set", type=one_of(list(SETS), "set"), required=True)
    image_set = SETS[parser.parse_args(argv).set]
    # Not under data/raw: DVC removes a stage's output before the stage runs.
    downloads = Path("data/downloads") / image_set.name
    with replacing(Path("data/raw") / image_set.name) as folder:
        folder.mkdir()
        source = (
            obtain(image_set, folder, downloads) if image_set.files else draw(image_set, folder)
        )
        check_archive(folder / image_set.archive, image_set.image_names)
        write_json(folder / "source.json", source)


if __name__ == "__main__":
    run(main)
