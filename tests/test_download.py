import gzip
import hashlib
import io
import json
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stages import download
from stages.common import sets
from stages.common.command_line import UserError, run
from stages.common.sets import SETS, ImageSet, SourceFile
from stages.download import main

NAMES = ["jpg/image_0001.jpg", "jpg/image_0002.jpg", "jpg/image_0003.jpg"]


def make_archive(names: list[str]) -> bytes:
    """A .tgz of small files of noise-like bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            body = b"".join(hashlib.sha256(bytes([number, i])).digest() for i in range(100))
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


ARCHIVE = make_archive([*NAMES, "jpg/files.txt"])
SPLITS = b"the published parts"


def source_file(name: str, body: bytes, *, optional: bool = False) -> SourceFile:
    return SourceFile(name, "17", "md5", hashlib.md5(body).hexdigest(), optional=optional)


TOY = ImageSet(
    name="toy",
    archive="toy.tgz",
    files=(source_file("toy.tgz", ARCHIVE), source_file("splits.mat", SPLITS, optional=True)),
    image_pattern="jpg/image_{:04d}.jpg",
    images=3,
    class_names=("daisy",),
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Place:
    """An empty repository, a site that publishes the toy set, and room for a mirror."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, self.mirror = folder / "site" / "17", folder / "mirror"
        self.raw = folder / "repository/data/raw/toy"
        self.downloads = folder / "repository/data/downloads/toy"
        self.monkeypatch = monkeypatch
        for each in (self.site, self.mirror, folder / "repository"):
            each.mkdir(parents=True)
        (self.site / "toy.tgz").write_bytes(ARCHIVE)
        (self.site / "splits.mat").write_bytes(SPLITS)
        monkeypatch.chdir(folder / "repository")

    def fill_mirror(self, **files: bytes) -> None:
        """Put files there, `_` for `.` in their names, and set FLOWERS_MIRROR."""
        lines = ""
        for key, body in files.items():
            name = key.replace("_", ".")
            (self.mirror / name).write_bytes(body)
            lines += f"{hashlib.sha256(body).hexdigest()}  {name}\n"
        (self.mirror / "SHA256SUMS").write_text(lines)
        self.monkeypatch.setenv("FLOWERS_MIRROR", "../mirror")

    def go_offline(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.monkeypatch.setattr(
                sets, "BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}"
            )

    def source(self) -> Any:
        return json.loads((self.raw / "source.json").read_text())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(tmp_path, monkeypatch)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("FLOWERS_MIRROR", raising=False)
    monkeypatch.setattr(download, "PAUSES", (0.0,) * 4)
    monkeypatch.setitem(SETS, "toy", TOY)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(place.site.parent))
    )
    monkeypatch.setattr(sets, "BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield place
    server.shutdown()
    server.server_close()
    thread.join()


def failure() -> str:
    """The error that the stage ends in."""
    with pytest.raises(UserError) as caught:
        main(["--set", "toy"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_published_files(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--set", "toy"])
    assert sorted(path.name for path in place.raw.iterdir()) == [
        "source.json", "splits.mat", "toy.tgz",
    ]  # fmt: skip
    assert (place.raw / "toy.tgz").read_bytes() == ARCHIVE
    assert place.source() == {
        "set": "toy",
        "source": "published",
        "files": {
            file.name: {
                "from": file.url,
                "sha256": hashlib.sha256(body).hexdigest(),
                "published": True,
            }
            for file, body in zip(TOY.files, (ARCHIVE, SPLITS), strict=True)
        },
        "missing": [],
    }
    assert f"splits.mat: from {TOY.files[1].url}, 19 bytes\n" in capsys.readouterr().out


def test_a_second_run_downloads_nothing(place: Place) -> None:
    main(["--set", "toy"])
    place.go_offline()
    main(["--set", "toy"])
    assert place.source()["source"] == "published"
    assert (place.raw / "toy.tgz").samefile(place.downloads / "toy.tgz")


def test_a_second_run_writes_the_same_bytes(place: Place) -> None:
    main(["--set", "toy"])
    first = {path.name: path.read_bytes() for path in place.raw.iterdir()}
    main(["--set", "toy"])
    assert {path.name: path.read_bytes() for path in place.raw.iterdir()} == first


def test_a_whole_mirror_needs_no_network(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_archive(NAMES)
    place.fill_mirror(toy_tgz=other, splits_mat=SPLITS)
    place.go_offline()
    main(["--set", "toy"])
    assert (place.raw / "toy.tgz").read_bytes() == other
    assert not (place.raw / "toy.tgz").is_symlink()
    assert (place.raw / "toy.tgz").stat().st_nlink == 1
    source = place.source()
    assert source["source"] == "mirror"
    assert source["files"]["toy.tgz"] == {
        "from": "mirror",
        "sha256": hashlib.sha256(other).hexdigest(),
        "published": False,
    }
    assert source["files"]["splits.mat"]["published"] is True
    assert str(place.mirror) not in (place.raw / "source.json").read_text()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"toy.tgz: from the mirror, {len(other)} bytes; not the published file",
        "splits.mat: from the mirror, 19 bytes",
    ]


def test_published_files_from_a_mirror_count_as_published(place: Place) -> None:
    place.fill_mirror(toy_tgz=ARCHIVE, splits_mat=SPLITS)
    main(["--set", "toy"])
    assert place.source()["source"] == "published"
    assert place.source()["files"]["toy.tgz"]["from"] == "mirror"


def test_what_the_mirror_lacks_is_downloaded(place: Place) -> None:
    place.fill_mirror(toy_tgz=ARCHIVE)
    main(["--set", "toy"])
    assert [record["from"] for record in place.source()["files"].values()] == [
        "mirror",
        TOY.files[1].url,
    ]


def test_an_optional_file_may_be_missing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.fill_mirror(toy_tgz=ARCHIVE)
    place.go_offline()
    main(["--set", "toy"])
    assert place.source()["missing"] == ["splits.mat"]
    assert list(place.source()["files"]) == ["toy.tgz"]
    assert not (place.raw / "splits.mat").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert line.startswith("warning: no `split.protocol: official` for toy: cannot download")
    assert "splits.mat" in line


def test_an_optional_file_is_not_tried_for_long(place: Place) -> None:
    place.monkeypatch.setattr(download, "PAUSES", (0.0, 100.0, 100.0, 100.0))
    place.fill_mirror(toy_tgz=ARCHIVE)
    place.go_offline()
    main(["--set", "toy"])
    assert place.source()["missing"] == ["splits.mat"]


def test_a_broken_optional_file_in_the_mirror_is_an_error(place: Place) -> None:
    place.fill_mirror(toy_tgz=ARCHIVE, splits_mat=SPLITS)
    (place.mirror / "splits.mat").write_bytes(b"broken")
    assert "splits.mat has sha256" in failure()


def test_a_required_file_that_nobody_has(place: Place) -> None:
    place.fill_mirror(splits_mat=SPLITS)
    place.go_offline()
    text = failure()
    assert text.startswith("cannot download toy.tgz: 127.0.0.1")
    assert "FLOWERS_MIRROR=../mirror, which lacks it" in text
    assert "`make demo`" in text
    assert not place.raw.exists()


def test_no_network_is_one_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.go_offline()
    place.monkeypatch.setattr(sys, "argv", ["download", "--set", "toy"])
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot download toy.tgz: 127.0.0.1")
    assert "set FLOWERS_MIRROR" in line
    assert "`make demo`" in line


def test_an_error_keeps_what_is_downloaded(place: Place) -> None:
    splits = replace(TOY.files[1], optional=False)
    place.monkeypatch.setitem(SETS, "toy", replace(TOY, files=(TOY.files[0], splits)))
    (place.site / "splits.mat").unlink()
    assert "answers 404" in failure()
    assert (place.downloads / "toy.tgz").read_bytes() == ARCHIVE
    (place.site / "splits.mat").write_bytes(SPLITS)
    (place.site / "toy.tgz").unlink()
    main(["--set", "toy"])
    assert place.source()["source"] == "published"


def test_an_error_leaves_the_last_result(place: Place) -> None:
    main(["--set", "toy"])
    (place.downloads / "toy.tgz").unlink()
    (place.site / "toy.tgz").write_bytes(b"something else")
    assert "expected" in failure()
    assert (place.raw / "toy.tgz").read_bytes() == ARCHIVE
    assert [path.name for path in place.raw.parent.iterdir()] == ["toy"]


def mirrored_failure(place: Place, archive: bytes) -> str:
    """The error for an archive that the mirror vouches for."""
    place.fill_mirror(toy_tgz=archive, splits_mat=SPLITS)
    text = failure()
    assert "toy.tgz" in text
    assert "put the whole archive in its place" in text
    assert not place.raw.exists()
    return text


def test_an_archive_that_lacks_images(place: Place) -> None:
    text = mirrored_failure(place, make_archive(NAMES[:1]))
    assert "lacks 2 of 3 images, first jpg/image_0002.jpg" in text


def test_an_archive_with_an_image_twice(place: Place) -> None:
    text = mirrored_failure(place, make_archive([*NAMES, NAMES[1]]))
    assert "holds more than once 1 of 3 images, first jpg/image_0002.jpg" in text


def test_an_image_that_is_a_link(place: Place) -> None:
    buffer = io.BytesIO(make_archive(NAMES[:2]))
    with tarfile.open(fileobj=buffer) as whole:
        members = [(each, whole.extractfile(each)) for each in whole]
        linked = io.BytesIO()
        with tarfile.open(fileobj=linked, mode="w:gz") as archive:
            for member, body in members:
                archive.addfile(member, body)
            link = tarfile.TarInfo(NAMES[2])
            link.type, link.linkname = tarfile.SYMTYPE, NAMES[0]
            archive.addfile(link)
    assert "lacks 1 of 3 images, first jpg/image_0003.jpg" in mirrored_failure(
        place, linked.getvalue()
    )


@pytest.mark.parametrize("lost", [1, 8, 100, 9_000, len(ARCHIVE) - 5, len(ARCHIVE)])
def test_a_truncated_archive(place: Place, lost: int) -> None:
    assert "is no whole .tgz archive" in mirrored_failure(place, ARCHIVE[:-lost])


def test_an_archive_with_a_flipped_byte(place: Place) -> None:
    plain = bytearray(gzip.decompress(ARCHIVE))
    stored = bytearray(gzip.compress(bytes(plain), compresslevel=0))
    stored[1000] ^= 1
    assert "is no whole .tgz archive" in mirrored_failure(place, bytes(stored))


def test_something_that_is_no_archive(place: Place) -> None:
    assert "is no whole .tgz archive" in mirrored_failure(place, b"<!DOCTYPE html>")
    assert "is no whole .tgz archive" in mirrored_failure(place, gzip.compress(b"no tar" * 999))


def test_an_archive_with_garbage_after_it(place: Place) -> None:
    garbage = gzip.compress(b"")[:10] + b"\xff" * 100
    assert "is no whole .tgz archive" in mirrored_failure(place, ARCHIVE + garbage)


def test_a_folder_that_cannot_be_written(place: Place) -> None:
    place.raw.parent.parent.mkdir()
    place.raw.parent.write_text("a file in the way")
    with pytest.raises(FileExistsError):
        main(["--set", "toy"])


def test_the_demo_set_is_drawn(place: Place) -> None:
    def draw(folder: Path) -> None:
        (folder / "demo.tgz").write_bytes(make_archive(NAMES))
        (folder / "imagelabels.mat").write_bytes(b"labels")

    place.monkeypatch.setattr(download, "write_demo_set", draw)
    place.monkeypatch.setitem(SETS, "demo", replace(SETS["demo"], images=3))
    place.go_offline()
    main(["--set", "demo"])
    source = json.loads(Path("data/raw/demo/source.json").read_text())
    assert (source["set"], source["source"], source["missing"]) == ("demo", "generated", [])
    assert {name: record["from"] for name, record in source["files"].items()} == {
        "demo.tgz": "generated",
        "imagelabels.mat": "generated",
    }


def test_an_unknown_set() -> None:
    with pytest.raises(
        UserError, match="no set 'flowers18'; there are: flowers17, oxford102, demo"
    ):
        main(["--set", "flowers18"])
