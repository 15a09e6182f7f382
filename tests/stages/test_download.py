import gzip
import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from stages import download
from stages.common.command_line import UserError, run
from stages.download import check_archive, main
from stages.pictures.reading import read_members
from stages.sources import fetch, sets
from stages.sources.sets import SETS, ImageSet, SourceFile
from tests.hostile_site import Answer, Handler, Site, after, drip, reset, stall
from tests.tiny_set import ROOT

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
        self.url = ""
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
    place.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(sets, "BASE_URL", place.url)
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


def speak_ssh(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")


def send_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + b"X-More: and more\r\n" * 1000)


HOSTILE: dict[str, Callable[[Site], Answer]] = {
    "truncated": lambda site: site.answer(ARCHIVE, cut=1000),
    "another file": lambda site: site.answer(ARCHIVE[::-1]),
    "too long": lambda site: site.answer(ARCHIVE + b"more"),
    "too short": lambda site: site.answer(ARCHIVE[:-1]),
    "empty": lambda site: site.answer(b""),
    "a range that lies": lambda site: site.answer(
        ARCHIVE[:9], 206, Content_Range="bytes 0-8/9", Content_Length="9"
    ),
    "not satisfiable": lambda site: site.answer(b"", 416),
    "a redirect to itself": lambda site: site.answer(b"", 302, Location="/17/toy.tgz"),
    "a redirect to nowhere": lambda site: site.answer(b"", 302, Location="http://[::1"),
    "a redirect to a file": lambda site: site.answer(b"", 302, Location="file:///etc/passwd"),
    "a page": lambda site: site.answer(b"<html>please log in", Content_Type="text/html"),
    "a page called archive": lambda site: site.answer(b"<!DOCTYPE html>please log in"),
    "gzip around it": lambda site: site.answer(gzip.compress(ARCHIVE), Content_Encoding="gzip"),
    "reset at once": lambda _: reset,
    "reset in the middle": lambda site: after(site.answer(ARCHIVE, cut=1000), reset),
    "stalled": lambda site: after(site.answer(ARCHIVE, cut=1000), stall),
    "a slow drip": lambda site: after(site.answer(ARCHIVE, cut=1), drip(ARCHIVE[1:])),
    "no HTTP": lambda _: speak_ssh,
    "a length that is none": lambda site: site.answer(ARCHIVE[:9], Content_Length="many"),
    "a negative length": lambda site: site.answer(ARCHIVE[:9], Content_Length="-5"),
    "two lengths": lambda site: site.answer(ARCHIVE[:9], Content_Length="9, 10"),
    "too many headers": lambda _: send_headers,
    **{
        str(status): lambda site, status=status: site.answer(b"", status)  # type: ignore[misc]
        for status in (204, 300, 304, 400, 401, 403, 404, 410, 429, 451, 500, 502, 503, 504, 599)
    },
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_bad_download_is_one_line_and_never_gets_the_files_name(
    place: Place, site: Site, hostile: str
) -> None:
    """Nor does a set's folder appear; afterwards the file is had from where it is right."""
    place.monkeypatch.setattr(fetch, "TIMEOUT", (1, 0.2))
    site.answers = [HOSTILE[hostile](site)]
    started = time.monotonic()
    text = failure()
    assert time.monotonic() - started < 10
    assert "toy.tgz" in text
    assert "set FLOWERS_MIRROR to a folder that holds it, or run `make demo`" in text
    assert not list(place.raw.parent.rglob("*"))
    place.monkeypatch.setattr(sets, "BASE_URL", place.url)
    main(["--set", "toy"])
    assert (place.raw / "toy.tgz").read_bytes() == ARCHIVE


@pytest.mark.parametrize("source", ["site", "mirror"])
def test_a_label_file_with_a_changed_byte_is_refused_before_it_is_read(
    place: Place, source: str
) -> None:
    """Whichever it is: fifty of them."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"labels": np.ones((1, 3), np.uint8)})
    whole = buffer.getvalue()
    splits = replace(source_file("splits.mat", whole), size=len(whole))
    place.monkeypatch.setitem(SETS, "toy", replace(TOY, files=(TOY.files[0], splits)))
    if source == "mirror":
        place.fill_mirror(toy_tgz=ARCHIVE, splits_mat=whole)
    for at in np.linspace(0, len(whole) - 1, 50).astype(int):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        folder = place.site if source == "site" else place.mirror
        (folder / "splits.mat").write_bytes(changed)
        text = failure()
        assert "splits.mat" in text
        assert hashlib.new("md5" if source == "site" else "sha256", whole).hexdigest() in text
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


def tar_bytes(*members: tarfile.TarInfo, body: bytes = b"") -> bytes:
    """The headers of members, each followed by `body`, without a tar's end."""
    return b"".join(member.tobuf(tarfile.GNU_FORMAT) + body for member in members)


def repeated(block: bytes, times: int) -> bytes:
    """Gzip of a block over and over: members of gzip, put together, unpack to all of them."""
    return gzip.compress(block) * times


def member_of(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, to: str = "") -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, to
    return info


ZEROS = bytes(100_000_000)
HUGE = 100 * len(ZEROS)
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "an image of ten gigabytes": (
        lambda: gzip.compress(tar_bytes(member_of(NAMES[0], size=HUGE))) + repeated(ZEROS, 100),
        "has 10000000000 bytes, a picture at most 100000000",
    ),
    "another file of ten gigabytes": (
        lambda: gzip.compress(tar_bytes(member_of("extra", size=HUGE))) + repeated(ZEROS, 100),
        "it unpacks to more than",
    ),
    "zeros alone": (lambda: repeated(ZEROS, 100), "it unpacks to more than"),
    "zeros after the end": (lambda: ARCHIVE + repeated(ZEROS, 100), "it unpacks to more than"),
    "a name of ten gigabytes": (
        lambda: (
            gzip.compress(tar_bytes(member_of("x", tarfile.GNUTYPE_LONGNAME, HUGE)))
            + repeated(ZEROS, 100)
        ),
        "it has a header of 10000000",
    ),
    "a header of ten gigabytes": (
        lambda: (
            gzip.compress(tar_bytes(member_of("x", tarfile.XHDTYPE, HUGE))) + repeated(ZEROS, 100)
        ),
        "it has a header of 10000000",
    ),
    "a sparse image of four terabytes": (
        lambda: gzip.compress(sparse(NAMES[0], 4 << 40) + bytes(1024)),
        "has 4398046511104 bytes, a picture at most 100000000",
    ),
    "a million members": (
        lambda: repeated(tar_bytes(*[member_of("extra")] * 10_000), 100),
        "holds more than 1030 members for 3 images",
    ),
    "a million images": (
        lambda: repeated(tar_bytes(*[member_of(NAMES[0])] * 10_000), 100),
        "holds more than 1030 members for 3 images",
    ),
}
CHECK_WITHIN = """
import resource, sys
from pathlib import Path
from stages.common.command_line import UserError
from stages.download import check_archive
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    check_archive(Path(sys.argv[1]), sys.argv[3:])
except UserError as error:
    print(error)
"""


def sparse(name: str, size: int) -> bytes:
    """The header of a file without data that unpacks to `size` zeros, as GNU tar writes it."""
    info = member_of(name, tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux's /proc")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_one_line_soon_and_in_little_memory(tmp_path: Path, bomb: str) -> None:
    """In 50 MB above what the process had when its modules were loaded."""
    make, words = BOMBS[bomb]
    path = tmp_path / "toy.tgz"
    path.write_bytes(make())
    assert path.stat().st_size < 11_000_000
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CHECK_WITHIN, str(path), "50000000", *NAMES],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert time.monotonic() - started < 30
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert "toy.tgz" in line
    assert words in line
    assert "put the whole archive in its place" in line


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_nothing_is_written_outside_whatever_members_are_called(
    place: Place, tmp_path: Path, format_: int
) -> None:
    outside = str(tmp_path / "outside")
    hostile = [
        member_of(outside),
        member_of("../../../../outside"),
        member_of("jpg/../../../../../outside"),
        member_of("jpg/link", tarfile.SYMTYPE, to=str(tmp_path)),
        member_of("jpg/link/outside"),
        member_of("jpg/hard", tarfile.LNKTYPE, to="../../../../outside"),
        member_of("jpg/device", tarfile.CHRTYPE),
        member_of("jpg/disk", tarfile.BLKTYPE),
        member_of("jpg/pipe", tarfile.FIFOTYPE),
        member_of("jpg", tarfile.DIRTYPE),
        member_of("jpg/" + 200 * "long"),
        member_of("jpg/\N{ROSETTE}\n.jpg"),
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=format_) as archive:
        for info in hostile:
            archive.addfile(info)
        for name in NAMES:
            archive.addfile(member_of(name, size=len(SPLITS)), io.BytesIO(SPLITS))
    place.fill_mirror(toy_tgz=buffer.getvalue(), splits_mat=SPLITS)
    before = {*tmp_path.rglob("*")}
    main(["--set", "toy"])
    assert dict(read_members(place.raw / "toy.tgz", NAMES)) == dict.fromkeys(range(3), SPLITS)
    new = {path.name for path in tmp_path.rglob("*")} - {path.name for path in before}
    assert new == {"data", "raw", "toy", "source.json"}
    assert sorted(path.name for path in place.raw.iterdir()) == [
        "source.json", "splits.mat", "toy.tgz",
    ]  # fmt: skip


def test_an_archive_without_images(place: Place) -> None:
    text = mirrored_failure(place, make_archive(["jpg/files.txt", "README"]))
    assert "lacks 3 of 3 images, first jpg/image_0001.jpg" in text


def test_further_files_are_passed_over(place: Place) -> None:
    further = [f"notes/{number}.txt" for number in range(250)]
    place.fill_mirror(toy_tgz=make_archive([*NAMES, *further]), splits_mat=SPLITS)
    main(["--set", "toy"])
    assert place.source()["source"] == "mirror"


@pytest.mark.parametrize(
    "headers", [{"GNU.sparse.size": "x"}, {"size": "-9"}, {"path": ""}, {"hdrcharset": "BINARY"}]
)
def test_senseless_headers_are_one_line_or_passed_over(
    place: Place, headers: dict[str, str]
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        odd = member_of("extra")
        odd.pax_headers = headers
        archive.addfile(odd)
    assert "toy.tgz" in mirrored_failure(place, buffer.getvalue())


def changed_at_random(rng: np.random.Generator, case: int) -> bytes:
    """The archive with up to eight other bytes: of the gzip, or near the headers of the tar.

    The headers' sums are right, so that their other fields are looked at.
    """
    changed = bytearray(ARCHIVE if case % 4 == 0 else gzip.decompress(ARCHIVE))
    starts = [at for at in range(0, len(changed), 512) if changed[at : at + 4] == b"jpg/"]
    for _ in range(rng.integers(1, 9)):
        anywhere, near = rng.integers(len(changed)), rng.integers(512)
        changed[rng.choice(starts) + near if case % 4 else anywhere] = rng.integers(256)
    if case % 4 == 0:
        return bytes(changed)
    for start in starts:
        changed[start + 148 : start + 156] = b" " * 8
        total = sum(changed[start : start + 512])
        changed[start + 148 : start + 156] = f"{total:06o}\0 ".encode()
    return gzip.compress(changed, 1)


def test_an_archive_changed_at_random_is_whole_or_one_line(tmp_path: Path) -> None:
    rng, path, lines = np.random.default_rng(0), tmp_path / "toy.tgz", []
    for case in range(1000):
        path.write_bytes(changed_at_random(rng, case))
        try:
            check_archive(path, NAMES)
        except UserError as error:
            lines.append(str(error))
    assert 300 < len(lines) < 1000
    assert all("\n" not in line and "toy.tgz" in line for line in lines)


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
