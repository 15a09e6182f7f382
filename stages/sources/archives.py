"""Archives of published sets: downloaded, copied from a mirror or drawn, and checked."""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.common.command_line import UserError
from stages.common.files import digest, link_or_copy, sha256
from stages.common.progress import progress_bar
from stages.pictures.tars import read_forwards
from stages.sources.fetch import PAUSES, fetch
from stages.sources.mirror import find_in_mirror
from stages.sources.published import PublishedSet, SourceFile

MOST_MEMBERS = (1000, 10)
"""How many members an archive may have: so many, and so many for each image of the set."""


def obtain(facts: PublishedSet, folder: Path, downloads: Path) -> dict[str, Any]:
    """Put every file of the set into `folder` and return what source.json is to hold.

    Downloads grow in the folder `downloads` and stay there: neither an error nor a stage that runs
    again, say because its code changed, loads a file twice.
    """
    if facts.drawn:
        return draw_archive(facts, folder)
    records, missing = {}, []
    for file in facts.files:
        found = find_in_mirror(file.name)
        if found is None:
            try:
                fetch(file, downloads / file.name, PAUSES[:1] if file.optional else PAUSES)
            except UserError as error:
                if not file.optional:
                    raise
                print(f"warning: {facts.name} goes without {file.name}: {error}", file=sys.stderr)
                missing.append(file.name)
                continue
        if found:
            shutil.copyfile(found, folder / file.name)
        else:
            link_or_copy(downloads / file.name, folder / file.name)
        records[file.name] = describe_file(
            file, folder / file.name, "mirror" if found else file.url
        )
    published = all(record["published"] for record in records.values())
    source = "published" if published else "mirror"
    return {"set": facts.name, "source": source, "files": records, "missing": missing}


def describe_file(file: SourceFile, path: Path, origin: str) -> dict[str, Any]:
    """Log where a file came from, and return its record in source.json."""
    published = digest(path, file.algorithm) == file.digest
    doubt = "" if published else "; not the published file"
    print(f"{file.name}: from {origin}, {path.stat().st_size} bytes{doubt}", flush=True)
    return {"from": origin, "sha256": sha256(path), "published": published}


def draw_archive(facts: PublishedSet, folder: Path) -> dict[str, Any]:
    """Draw the demo set into `folder` and return what source.json is to hold."""
    # Here, as it reads the species from the demo's folder, which others do without.
    from stages.sources.demo_flowers import write_demo_set

    write_demo_set(folder / facts.archive, facts.images, facts.classes)
    print(f"{facts.archive}: generated", flush=True)
    digest = sha256(folder / facts.archive)
    records = {facts.archive: {"from": "generated", "sha256": digest, "published": False}}
    return {"set": facts.name, "source": "generated", "files": records, "missing": []}


def check_archive(path: Path, names: Sequence[str]) -> list[str]:
    """SHA-256 of the pictures `names`, each of which must be in a tar once, as a regular file.

    The tar is read to its end, within the bounds of `read_forwards` and MOST_MEMBERS, so that the
    stages that read pictures out of it need not check it. Raises UserError when a picture is
    missing, doubled or too large, or when the archive is broken or past those bounds.
    """
    remedy = "put the whole archive in its place and run again"
    digests, doubled = dict.fromkeys(names, ""), set()
    most = MOST_MEMBERS[0] + MOST_MEMBERS[1] * len(names)
    members = progress_bar(
        read_forwards(path), desc="checking", total=len(names), unit=" files", delay=2
    )
    try:
        for number, member in enumerate(members, 1):
            if number > most:
                raise ValueError(f"it holds more than {most} members for {len(names)} images")
            name = member.info.name
            if member.info.isfile() and name in digests:
                doubled |= {name} if digests[name] else set()
                digests[name] = hashlib.sha256(member.read()).hexdigest()
    except ValueError as error:
        raise UserError(f"{path.name} is no whole archive ({error}); {remedy}") from None
    missing = [name for name in names if not digests[name]]
    for wrong, what in ((missing, "lacks"), (sorted(doubled), "holds more than once")):
        if wrong:
            raise UserError(
                f"{path.name} {what} {len(wrong)} of {len(names)} images, "
                f"first {wrong[0]}; {remedy}"
            )
    return [*digests.values()]
