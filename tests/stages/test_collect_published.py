"""A published set becomes data/raw/SET: downloaded, from a mirror or drawn, whole or not at all."""

import gzip
import hashlib
import io
import json
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml

from stages.collect import main
from stages.common.command_line import UserError, run
from stages.common.files import read_csv
from stages.pictures.reading import read_members
from stages.pictures.table import read_table
from stages.sources import archives, demo_flowers, fetch
from stages.sources.demo_flowers import SPECIES
from tests.hostile_site import Answer, Handler, Site, after, drip, reset, stall
from tests.sources.toy_set import (
    ARCHIVE,
    NAMES,
    SPLITS,
    make_archive,
    member_of,
    toy_facts,
    toy_picture,
    write_facts,
)
from tests.tiny_set import ROOT


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Place:
    """An empty repository, a site that publishes the toy set, and room for a mirror."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, self.mirror = folder / "site" / "17", folder / "mirror"
        self.raw = folder / "repository/data/raw/toy"
        self.downloads = folder / "repository/data/downloads/toy"
        self.facts = toy_facts("")
        self.monkeypatch = monkeypatch
        for each in (self.site, self.mirror, folder / "repository"):
            each.mkdir(parents=True)
        (self.site / "toy.tgz").write_bytes(ARCHIVE)
        (self.site / "splits.mat").write_bytes(SPLITS)
        monkeypatch.chdir(folder / "repository")

    def describe(self, **facts: Any) -> None:
        """Change entries of set.yaml."""
        self.facts |= facts
        write_facts(Path("data/sets/toy"), self.facts)

    def publish_at(self, url: str) -> None:
        self.describe(page=f"{url}/17/")

    def address(self, name: str) -> str:
        return f"{self.facts['page']}{name}"

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
            self.publish_at(f"http://127.0.0.1:{unused.getsockname()[1]}")

    def source(self) -> Any:
        return json.loads((self.raw / "source.json").read_text())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(tmp_path, monkeypatch)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("FLOWERS_MIRROR", raising=False)
    monkeypatch.setattr(archives, "PAUSES", (0.0,) * 4)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(place.site.parent))
    )
    place.publish_at(f"http://127.0.0.1:{server.server_address[1]}")
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
        "pictures.csv", "source.json", "splits.mat", "toy.tgz",
    ]  # fmt: skip
    assert (place.raw / "toy.tgz").read_bytes() == ARCHIVE
    assert place.source() == {
        "set": "toy",
        "source": "published",
        "files": {
            name: {
                "from": place.address(name),
                "sha256": hashlib.sha256(body).hexdigest(),
                "published": True,
            }
            for name, body in {"toy.tgz": ARCHIVE, "splits.mat": SPLITS}.items()
        },
        "missing": [],
        "terms": "none",
    }
    out = capsys.readouterr().out
    assert f"splits.mat: from {place.address('splits.mat')}, 19 bytes\n" in out


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
        f"toy.tgz: from mirror, {len(other)} bytes; not the published file",
        "splits.mat: from mirror, 19 bytes",
        "toy: 3 pictures of 1 classes",
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
        place.address("splits.mat"),
    ]


def test_an_optional_file_may_be_missing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.fill_mirror(toy_tgz=ARCHIVE)
    place.go_offline()
    main(["--set", "toy"])
    assert place.source()["missing"] == ["splits.mat"]
    assert list(place.source()["files"]) == ["toy.tgz"]
    assert not (place.raw / "splits.mat").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert line.startswith("warning: toy goes without splits.mat: cannot download splits.mat")


def test_an_optional_file_is_not_tried_for_long(place: Place) -> None:
    place.monkeypatch.setattr(archives, "PAUSES", (0.0, 100.0, 100.0, 100.0))
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
    right = place.facts["page"]
    place.publish_at(site.url)
    site.answers = [HOSTILE[hostile](site)]
    started = time.monotonic()
    text = failure()
    assert time.monotonic() - started < 10
    assert "toy.tgz" in text
    assert "set FLOWERS_MIRROR to a folder that holds it, or run `make demo`" in text
    assert not list(place.raw.parent.rglob("*"))
    place.describe(page=right)
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
    entry = {"md5": hashlib.md5(whole).hexdigest(), "size": len(whole)}
    place.describe(
        files=place.facts["files"] | {"splits.mat": entry},
        labels={"file": "splits.mat", "name": "labels"},
    )
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
    place.monkeypatch.setattr(sys, "argv", ["collect", "--set", "toy"])
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot download toy.tgz: 127.0.0.1")
    assert "set FLOWERS_MIRROR" in line
    assert "`make demo`" in line


def test_an_error_keeps_what_is_downloaded(place: Place) -> None:
    entry = {"md5": hashlib.md5(SPLITS).hexdigest()}
    place.describe(files=place.facts["files"] | {"splits.mat": entry})
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


@pytest.mark.parametrize(
    "archive",
    [
        make_archive(NAMES[:1]),
        make_archive([*NAMES, NAMES[1]]),
        make_archive([]),
        ARCHIVE[:-1],
        ARCHIVE + gzip.compress(b"")[:10],
        gzip.compress(b"no tar" * 999),
        b"<!DOCTYPE html>",
        b"",
    ],
    ids=["lacks", "twice", "no_image", "truncated", "garbage_after", "no_tar", "a_page", "empty"],
)
def test_a_wrong_archive_that_the_mirror_vouches_for(place: Place, archive: bytes) -> None:
    place.fill_mirror(toy_tgz=archive, splits_mat=SPLITS)
    text = failure()
    assert "toy.tgz" in text
    assert "put the whole archive in its place" in text
    assert not place.raw.exists()


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
    assert dict(read_members(place.raw / "pictures.csv", NAMES)) == dict.fromkeys(range(3), SPLITS)
    new = {path.name for path in tmp_path.rglob("*")} - {path.name for path in before}
    assert new == {"raw", "pictures.csv", "source.json"}
    assert sorted(path.name for path in place.raw.iterdir()) == [
        "pictures.csv", "source.json", "splits.mat", "toy.tgz",
    ]  # fmt: skip


def test_further_files_are_passed_over(place: Place) -> None:
    further = [f"notes/{number}.txt" for number in range(250)]
    place.fill_mirror(toy_tgz=make_archive([*NAMES, *further]), splits_mat=SPLITS)
    main(["--set", "toy"])
    assert place.source()["source"] == "mirror"


def test_a_folder_that_cannot_be_written(place: Place) -> None:
    place.raw.parent.write_text("a file in the way")
    with pytest.raises(FileExistsError):
        main(["--set", "toy"])


def describe_demo(**changes: Any) -> None:
    """The shipped set.yaml of the demo set, of one picture of each class, and with changes."""
    facts = yaml.safe_load((ROOT / "data/sets/demo/set.yaml").read_text("utf-8"))
    write_facts(Path("data/sets/demo"), facts | {"count": len(facts["classes"])} | changes)


def test_the_demo_set_is_drawn(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.go_offline()
    describe_demo()
    main(["--set", "demo"])
    raw = Path("data/raw/demo")
    assert sorted(path.name for path in raw.iterdir()) == [
        "demo.tgz", "pictures.csv", "source.json",
    ]  # fmt: skip
    assert not Path("data/downloads").exists()
    assert capsys.readouterr().out.splitlines() == [
        "demo.tgz: generated",
        "demo: 17 pictures of 17 classes",
    ]
    digest = hashlib.sha256((raw / "demo.tgz").read_bytes()).hexdigest()
    assert json.loads((raw / "source.json").read_text()) == {
        "set": "demo",
        "source": "generated",
        "files": {"demo.tgz": {"from": "generated", "sha256": digest, "published": False}},
        "missing": [],
        "terms": "Drawn by this project: nobody else's rights.",
    }
    table = read_table("demo")
    assert table.class_names == [species.name for species in SPECIES]
    assert table.labels.tolist() == list(range(17))
    drawn = dict(read_members(raw / "pictures.csv", table.images))
    assert drawn[16] == demo_flowers.image_of(SPECIES[16], demo_flowers.DEMO_SEED, 16)


@pytest.mark.parametrize(
    "classes",
    [
        ["rose", *[species.name for species in SPECIES[1:]]],
        [species.name for species in SPECIES[::-1]],
        [species.name for species in SPECIES[1:]],
    ],
    ids=["another", "in another order", "fewer"],
)
def test_a_drawn_set_of_other_classes_is_refused(place: Place, classes: list[str]) -> None:
    place.go_offline()
    describe_demo(classes=classes, count=len(classes))
    with pytest.raises(UserError, match=r"demo\.tgz cannot be drawn of other classes") as caught:
        main(["--set", "demo"])
    assert "\n" not in str(caught.value)
    assert all(species.name in str(caught.value) for species in SPECIES)
    assert not Path("data/raw/demo").exists()


def test_an_unknown_set(place: Place) -> None:
    with pytest.raises(UserError, match="no folder data/sets/flowers18; there are: toy;"):
        main(["--set", "flowers18"])
    assert not place.raw.parent.exists()


def test_a_set_whose_facts_are_wrong_is_not_asked_for(place: Place) -> None:
    place.go_offline()
    place.describe(count=0)
    assert "data/sets/toy/set.yaml does not describe a set (count 0" in failure()
    assert not place.raw.exists()
    assert not place.downloads.exists()


def mat(**variables: Any) -> bytes:
    """A MATLAB file of rows of numbers."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {name: np.atleast_2d(value) for name, value in variables.items()})
    return buffer.getvalue()


def test_the_table_of_a_set_with_labels_and_folds(place: Place) -> None:
    """As oxford102 has labels, and flowers17 three folds; the pictures are not in their order."""
    archive = make_archive([NAMES[2], NAMES[0], NAMES[1]])
    splits = mat(
        labels=[2, 1, 2],
        trn1=[3], val1=[1], tst1=[2],
        trn2=[1], val2=[2], tst2=[3],
        trn3=[2, 3], val3=np.zeros((1, 0)), tst3=[1],
    )  # fmt: skip
    folds = {part: [f"{key}{n}" for n in (1, 2, 3)] for part, key in KEYS.items()}
    place.describe(
        files={
            name: {"sha256": hashlib.sha256(body).hexdigest()}
            for name, body in {"toy.tgz": archive, "splits.mat": splits}.items()
        },
        classes=["rose", "daisy"],
        labels={"file": "splits.mat", "name": "labels"},
        splits={"official": {"file": "splits.mat", **folds}, "ordered": {"first": 1}},
    )
    (place.site / "toy.tgz").write_bytes(archive)
    (place.site / "splits.mat").write_bytes(splits)
    main(["--set", "toy"])
    digests = [hashlib.sha256(toy_picture(number)).hexdigest() for number in (1, 2, 0)]
    tgz = "data/raw/toy/toy.tgz"
    assert (place.raw / "pictures.csv").read_text().splitlines() == [
        "image,class,label,sha256,archive,official,official_2,official_3,ordered",
        f"{NAMES[0]},daisy,1,{digests[0]},{tgz},val,train,test,train",
        f"{NAMES[1]},rose,0,{digests[1]},{tgz},test,val,train,train",
        f"{NAMES[2]},daisy,1,{digests[2]},{tgz},train,test,train,val",
    ]
    table = read_table("toy")
    assert table.class_names == ["rose", "daisy"]
    assert table.labels.tolist() == [1, 0, 1]
    assert {name: len(folds) for name, folds in table.splits.items()} == {
        "official": 3,
        "ordered": 1,
    }
    members = dict(read_members(place.raw / "pictures.csv", NAMES))
    assert [members[place] for place in range(3)] == [toy_picture(n) for n in (1, 2, 0)]


KEYS = {"train": "trn", "val": "val", "test": "tst"}
COUNT, TRAIN, VAL = 1360, 680, 340


def made_splits() -> tuple[bytes, list[list[str]]]:
    """A datasplits.mat as that of flowers17 is, of parts drawn at random, and its parts."""
    rng, variables, folds = np.random.default_rng(0), {}, []
    for fold in (1, 2, 3):
        numbers = np.split(rng.permutation(COUNT) + 1, [TRAIN, TRAIN + VAL])
        parts = [""] * COUNT
        for (part, key), own in zip(KEYS.items(), numbers, strict=True):
            variables[f"{key}{fold}"] = own.astype(np.uint16)
            for number in own:
                parts[number - 1] = part
        folds.append(parts)
    return mat(**variables), folds


@pytest.mark.parametrize("given", [True, False], ids=["with splits", "without"])
def test_the_table_of_flowers17(place: Place, given: bool) -> None:
    """By its set.yaml as it is shipped, from a mirror with a made archive and made splits."""
    facts = yaml.safe_load((ROOT / "data/sets/flowers17/set.yaml").read_text("utf-8"))
    write_facts(Path("data/sets/flowers17"), facts | {"page": place.facts["page"]})
    names = [f"jpg/image_{number:04d}.jpg" for number in range(1, COUNT + 1)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number, name in reversed([*enumerate(names)]):
            body = b"%d" % number
            archive.addfile(member_of(name, size=len(body)), io.BytesIO(body))
    splits, folds = made_splits()
    files = {"17flowers_tgz": buffer.getvalue()} | ({"datasplits_mat": splits} if given else {})
    place.fill_mirror(**files)
    main(["--set", "flowers17"])
    rows = read_csv(Path("data/raw/flowers17/pictures.csv"))
    official = ["official", "official_2", "official_3"] if given else []
    columns = ["image", "class", "label", "sha256", "archive", *official, "ordered"]
    assert list(rows[0]) == columns
    assert [row["image"] for row in rows] == names
    assert [int(row["label"]) for row in rows] == [n // 80 for n in range(COUNT)]
    assert [row["class"] for row in rows] == [facts["classes"][n // 80] for n in range(COUNT)]
    digests = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(COUNT)]
    assert [row["sha256"] for row in rows] == digests
    assert {row["archive"] for row in rows} == {"data/raw/flowers17/17flowers.tgz"}
    for column, parts in zip(official, folds, strict=False):
        assert [row[column] for row in rows] == parts
    ordered = ["train" if n % 80 < 65 else "val" for n in range(COUNT)]
    assert [row["ordered"] for row in rows] == ordered


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"trn": [1], "val": [2], "tst": [2]}, "names 2 of 3 images, 3 times in all"),
        ({"trn": [1], "val": [2], "tst": [4]}, "names 3 of 3 images, 3 times in all"),
        ({"trn": [0, 1], "val": [2], "tst": [3]}, "names 4 of 3 images, 4 times in all"),
        ({"trn": [1], "val": [2]}, "no usable variable 'tst'"),
    ],
    ids=["twice", "out of range", "counted from 0", "no test"],
)
def test_splits_that_do_not_fit_are_one_line_and_no_folder(
    place: Place, numbers: dict[str, list[int]], words: str
) -> None:
    splits = mat(**numbers)
    entry = {"md5": hashlib.md5(splits).hexdigest()}
    place.describe(
        files=place.facts["files"] | {"splits.mat": entry},
        splits={"official": {"file": "splits.mat"} | {part: [key] for part, key in KEYS.items()}},
    )
    place.fill_mirror(toy_tgz=ARCHIVE, splits_mat=splits)
    text = failure()
    assert "splits.mat" in text
    assert words in text
    assert not place.raw.exists()
