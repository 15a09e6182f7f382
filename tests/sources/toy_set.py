"""A published set of three small files that stand for pictures, and tars like its own."""

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

NAMES = ["jpg/image_0001.jpg", "jpg/image_0002.jpg", "jpg/image_0003.jpg"]


def toy_picture(number: int) -> bytes:
    """3200 noise-like bytes, others for every number."""
    return b"".join(hashlib.sha256(bytes([number, i])).digest() for i in range(100))


def make_archive(names: Sequence[str]) -> bytes:
    """A .tgz whose members are the toy pictures 0, 1, 2, ..., called `names`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number, name in enumerate(names):
            body = toy_picture(number)
            archive.addfile(member_of(name, size=len(body)), io.BytesIO(body))
    return buffer.getvalue()


def member_of(
    name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, to: str = ""
) -> tarfile.TarInfo:
    """The header of a tar's member."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, to
    return info


ARCHIVE = make_archive([*NAMES, "jpg/files.txt"])
SPLITS = b"the published parts"


def toy_facts(url: str) -> dict[str, Any]:
    """What set.yaml says of the toy set, published at `url`/17/."""
    return {
        "page": f"{url}/17/",
        "terms": "none",
        "files": {
            "toy.tgz": {"md5": hashlib.md5(ARCHIVE).hexdigest()},
            "splits.mat": {"md5": hashlib.md5(SPLITS).hexdigest(), "optional": True},
        },
        "archive": "toy.tgz",
        "pictures": "jpg/image_{:04d}.jpg",
        "count": 3,
        "classes": ["daisy"],
    }


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write set.yaml into the folder of a set."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "set.yaml").write_text(yaml.safe_dump(dict(facts), sort_keys=False), "utf-8")
