import gzip
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import requests

from stages.common.command_line import UserError
from stages.sources import fetch as module
from stages.sources.fetch import fetch
from stages.sources.published import SourceFile
from tests.hostile_site import BODY, Handler, Site, after, drip, reset, stall

SHA256 = hashlib.sha256(BODY).hexdigest()
AT_ONCE = (0.0, 0.0, 0.0, 0.0)


def file_at(url: str) -> SourceFile:
    """BODY as a site publishes it, without its size."""
    return SourceFile("file.tgz", f"{url}/17/file.tgz", "sha256", SHA256)


def sized_at(url: str) -> SourceFile:
    """The same with its size."""
    return replace(file_at(url), size=len(BODY))


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "partial" / "file.tgz"


def failure(file: SourceFile, partial: Path) -> str:
    """The one-line error that a fetch ends in."""
    with pytest.raises(UserError) as caught:
        fetch(file, partial, AT_ONCE)
    text = str(caught.value)
    assert "\n" not in text
    assert "file.tgz" in text
    assert "set FLOWERS_MIRROR to a folder that holds it" in text
    assert "`make demo`" in text
    return text


def test_downloads_the_file(site: Site, partial: Path) -> None:
    site.answers = [site.rest]
    fetch(sized_at(site.url), partial)
    assert partial.read_bytes() == BODY
    assert site.paths == ["/17/file.tgz"]
    assert site.ranges == [None]


def test_a_whole_partial_file_is_not_fetched_again(site: Site, partial: Path) -> None:
    partial.parent.mkdir()
    partial.write_bytes(BODY)
    fetch(file_at(site.url), partial)
    assert site.paths == []


@pytest.mark.parametrize("file", [file_at, sized_at], ids=["size unknown", "size known"])
def test_a_dropped_connection_is_resumed(
    site: Site, partial: Path, file: Callable[[str], SourceFile]
) -> None:
    site.answers = [site.answer(cut=100_000), site.rest]
    fetch(file(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY
    assert site.ranges == [None, "bytes=100000-"]
    assert site.sent == len(BODY)


def test_the_next_run_resumes_what_a_failed_one_has_brought(site: Site, partial: Path) -> None:
    site.answers = [site.answer(cut=100_000), site.answer(b"", 404)]
    failure(file_at(site.url), partial)
    site.answers, site.ranges = [site.rest], []
    fetch(file_at(site.url), partial)
    assert site.ranges == ["bytes=100000-"]
    assert partial.read_bytes() == BODY


def test_progress_resets_the_attempts(site: Site, partial: Path) -> None:
    def piece(handler: Handler) -> None:
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        rest, where = BODY[start:], f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        cut = 30_000
        site.answer(rest, 206 if start else 200, cut, Content_Range=where)(handler)

    site.answers = [piece]
    fetch(sized_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY
    assert len(site.ranges) > len(AT_ONCE) + 1


def test_drops_without_progress_end(site: Site, partial: Path) -> None:
    site.answers = [site.answer(cut=100)]
    assert "broke off" in failure(file_at(site.url), partial)
    assert len(site.ranges) == 1 + len(AT_ONCE)


def test_a_server_without_ranges_starts_anew(site: Site, partial: Path) -> None:
    site.answers = [site.answer(cut=100_000), site.answer()]
    fetch(file_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY
    assert site.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    "where", ["bytes 0-307199/307200", "bytes 100001-307199/307200", "nonsense", ""]
)
def test_a_lying_range_starts_anew(
    site: Site, partial: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lie = site.answer(BODY[:-100_000], 206, Content_Range=where)
    site.answers = [site.answer(cut=100_000), lie, site.rest]
    fetch(file_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY
    assert site.ranges == [None, "bytes=100000-", None]
    assert "does not go on from byte 100000" in capsys.readouterr().out


def test_a_range_of_a_file_of_another_size_starts_anew(site: Site, partial: Path) -> None:
    lie = site.answer(bytes(5), 206, Content_Range="bytes 100000-100004/100005")
    site.answers = [site.answer(cut=100_000), lie, site.rest]
    fetch(sized_at(site.url), partial, (0.0, 0.0))
    assert partial.read_bytes() == BODY
    assert site.ranges == [None, "bytes=100000-", None]


def test_a_range_with_other_bytes_starts_anew(site: Site, partial: Path) -> None:
    lie = site.answer(bytes(len(BODY) - 100_000), 206, Content_Range="bytes 100000-307199/307200")
    site.answers = [site.answer(cut=100_000), lie, site.rest]
    fetch(file_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY
    assert site.ranges == [None, "bytes=100000-", None]


def test_a_partial_file_that_is_too_long_starts_anew(site: Site, partial: Path) -> None:
    partial.parent.mkdir()
    partial.write_bytes(BODY + b"more")
    site.answers = [site.answer(b"<html>", 416, Content_Type="text/html"), site.rest]
    fetch(file_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY
    assert site.ranges == ["bytes=307204-", None]


def test_a_wrong_digest_is_tried_once_more_from_the_start(site: Site, partial: Path) -> None:
    other = BODY[::-1]
    site.answers = [site.answer(other)]
    text = failure(sized_at(site.url), partial)
    assert f"got sha256 {hashlib.sha256(other).hexdigest()}, expected {SHA256}" in text
    assert site.ranges == [None, None]
    assert not partial.exists()


def test_a_wrong_digest_once_is_forgiven(site: Site, partial: Path) -> None:
    site.answers = [site.answer(BODY[::-1]), site.rest]
    fetch(file_at(site.url), partial)
    assert partial.read_bytes() == BODY


def test_a_wrong_declared_size_fails_at_once(site: Site, partial: Path) -> None:
    site.answers = [site.answer(BODY + b"more")]
    assert "has 307204 bytes, expected 307200" in failure(sized_at(site.url), partial)
    assert len(site.ranges) == 1


def test_a_short_file_of_undeclared_size_fails(site: Site, partial: Path) -> None:
    def short(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(BODY[:1000])

    site.answers = [short]
    assert "got 1000 bytes, expected 307200" in failure(sized_at(site.url), partial)
    assert not partial.exists()


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_not_tried_again(site: Site, partial: Path, status: int) -> None:
    site.answers = [site.answer(b"gone", status)]
    assert f"answers {status}" in failure(file_at(site.url), partial)
    assert len(site.ranges) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_tried_again(site: Site, partial: Path, status: int) -> None:
    site.answers = [site.answer(b"<html>", status, Content_Type="text/html"), site.rest]
    fetch(file_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY


def test_a_server_that_stays_busy_is_given_up(site: Site, partial: Path) -> None:
    site.answers = [site.answer(b"", 500)]
    assert "answers 500" in failure(file_at(site.url), partial)
    assert len(site.ranges) == 1 + len(AT_ONCE)


def test_pauses_grow(site: Site, partial: Path) -> None:
    times: list[float] = []

    def note(handler: Handler) -> None:
        times.append(time.monotonic())
        site.answer(b"", 500)(handler)

    site.answers = [note, note, note, site.rest]
    fetch(file_at(site.url), partial, (0.05, 0.15, 0.3))
    first, second = times[1] - times[0], times[2] - times[1]
    assert first >= 0.05
    assert second >= 0.15


def test_retry_after_is_honoured(
    site: Site, partial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers = [site.answer(b"", 429, Retry_After="1"), site.rest]
    started = time.monotonic()
    fetch(file_at(site.url), partial, AT_ONCE)
    assert time.monotonic() - started >= 1
    assert "answers 429 Too Many Requests; trying again in 1 s\n" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT", "-5", "soon"])
def test_retry_after_has_a_cap_and_may_be_senseless(
    site: Site, partial: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.1)
    site.answers = [site.answer(b"", 429, Retry_After=asked), site.rest]
    started = time.monotonic()
    fetch(file_at(site.url), partial, AT_ONCE)
    assert time.monotonic() - started < 2


def test_a_redirect_is_followed(site: Site, partial: Path) -> None:
    site.answers = [site.answer(b"", 302, Location="/elsewhere"), site.rest]
    fetch(file_at(site.url), partial)
    assert partial.read_bytes() == BODY
    assert site.paths == ["/17/file.tgz", "/elsewhere"]


def test_a_redirect_keeps_the_range(site: Site, partial: Path) -> None:
    partial.parent.mkdir()
    partial.write_bytes(BODY[:10])
    site.answers = [site.answer(b"", 301, Location="/elsewhere"), site.rest]
    fetch(file_at(site.url), partial)
    assert site.ranges == ["bytes=10-", "bytes=10-"]
    assert partial.read_bytes() == BODY


def test_a_redirect_loop_ends(site: Site, partial: Path) -> None:
    site.answers = [site.answer(b"", 302, Location="/17/file.tgz")]
    assert "redirects more than 5 times" in failure(file_at(site.url), partial)
    assert len(site.ranges) == 6


def test_a_redirect_never_leaves_https(
    site: Site, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(url: str, **_: Any) -> requests.Response:
        asked.append(url)
        response = requests.Response()
        response.status_code = 302
        response.headers["Location"] = f"{site.url}/file.tgz"
        response.raw = socket.socket()
        return response

    asked: list[str] = []
    monkeypatch.setattr(requests, "get", get)
    assert "which is not https" in failure(file_at("https://flowers.invalid"), partial)
    assert asked == ["https://flowers.invalid/17/file.tgz"]


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (b"please log in", "text/html; charset=utf-8"),
        (b"\n <!DOCTYPE html><p>please log in", "application/x-gzip"),
        (b"<HTML>please log in", "application/x-gzip"),
    ],
)
def test_a_web_page_is_named(site: Site, partial: Path, page: bytes, kind: str) -> None:
    partial.parent.mkdir()
    partial.write_bytes(BODY[:10])
    site.answers = [site.answer(page, Content_Type=kind)]
    assert "is a web page, not the file" in failure(file_at(site.url), partial)
    assert len(site.ranges) == 1
    assert partial.read_bytes() == BODY[:10], "the page must not cost what is there"


def test_an_archive_declared_as_gzip_is_stored_as_sent(site: Site, partial: Path) -> None:
    archive = gzip.compress(BODY, mtime=0)
    digest = hashlib.sha256(archive).hexdigest()
    file = replace(file_at(site.url), digest=digest, size=len(archive))
    site.answers = [site.answer(archive, Content_Encoding="gzip")]
    fetch(file, partial)
    assert partial.read_bytes() == archive


def test_an_answer_that_was_compressed_on_the_way_is_refused(site: Site, partial: Path) -> None:
    site.answers = [site.answer(gzip.compress(BODY), Content_Encoding="gzip")]
    assert "expected" in failure(sized_at(site.url), partial)
    assert not partial.exists()


def test_a_refused_connection_is_given_up_soon(
    site: Site, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        attempts: list[float] = []
        monkeypatch.setattr("stages.sources.fetch.time.sleep", attempts.append)
        with pytest.raises(UserError) as caught:
            fetch(file_at(f"http://{host}"), partial)
    text = str(caught.value)
    assert text.startswith(
        f"cannot download file.tgz: {host} cannot be reached (Connection refused); "
    )
    assert attempts == [1, 2]
    assert site.ranges == []


def test_an_unknown_host_is_named(partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWERS_MIRROR", raising=False)
    assert "flowers.invalid cannot be reached" in failure(
        file_at("https://flowers.invalid"), partial
    )


def test_a_silent_server_times_out(
    site: Site, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def stay_silent(_: Handler) -> None:
        released.wait(5)

    monkeypatch.setattr(module, "TIMEOUT", (1, 0.1))
    site.answers = [stay_silent, site.rest]
    started = time.monotonic()
    fetch(file_at(site.url), partial, AT_ONCE)
    assert time.monotonic() - started < 4
    released.set()
    assert partial.read_bytes() == BODY


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of a second of silence is too long, and so is less than 30,000 bytes in it."""
    monkeypatch.setattr(module, "TIMEOUT", (1, 0.3))
    monkeypatch.setattr(module, "SLOWEST", 100_000)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("length", ["307200", "100000000000000"])
def test_a_slow_drip_is_given_up_and_resumed(site: Site, partial: Path, length: str) -> None:
    slow = after(site.answer(cut=100_000, Content_Length=length), drip(BODY[100_000:]))
    site.answers = [slow, site.rest]
    started = time.monotonic()
    fetch(file_at(site.url), partial, AT_ONCE)
    assert time.monotonic() - started < 3
    assert partial.read_bytes() == BODY
    assert int((site.ranges[1] or "")[6:-1]) > 100_000


@pytest.mark.usefixtures("impatient")
def test_a_server_that_only_drips_ends(site: Site, partial: Path) -> None:
    """Though every attempt brings some bytes more."""

    def few(handler: Handler) -> None:
        at = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        where = f"bytes {at}-307199/307200"
        site.answer(BODY[at:], 206 if at else 200, 1, Content_Range=where)(handler)
        drip(BODY[at + 1 :])(handler)

    site.answers = [few]
    started = time.monotonic()
    assert "/17/file.tgz sends less than 100000 bytes a second" in failure(
        file_at(site.url), partial
    )
    assert time.monotonic() - started < 5
    assert len(site.ranges) == 1 + len(AT_ONCE)
    assert partial.stat().st_size > 5


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("then", [stall, reset])
@pytest.mark.parametrize("cut", [0, 1, 100_000])
def test_a_connection_that_stalls_or_is_reset_is_resumed(
    site: Site, partial: Path, cut: int, then: Callable[[Handler], None]
) -> None:
    site.answers = [after(site.answer(cut=cut), then), site.rest]
    fetch(file_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY
    assert len(site.ranges) == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("then", [stall, reset])
def test_a_connection_that_stalls_or_is_reset_without_an_answer_is_tried_again(
    site: Site, partial: Path, then: Callable[[Handler], None]
) -> None:
    site.answers = [then, site.rest]
    fetch(file_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY


def test_a_server_that_always_resets_is_named(site: Site, partial: Path) -> None:
    site.answers = [reset]
    assert "does not answer (Connection reset by peer)" in failure(file_at(site.url), partial)
    assert len(site.ranges) == 1 + len(AT_ONCE)


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b""])
def test_an_answer_in_chunks_is_put_together(site: Site, partial: Path, end: bytes) -> None:
    """And where its end is missing, asked for once more."""

    def send(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(BODY), 50_000):
            piece = BODY[start : start + 50_000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(end)

    site.answers = [send, site.answer(b"", 416), site.rest]
    fetch(file_at(site.url), partial, AT_ONCE)
    assert partial.read_bytes() == BODY


def self_signed(folder: Path) -> Path:
    """A file with a certificate for 127.0.0.1 that nobody vouches for, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today, week = datetime.now(timezone.utc), timedelta(days=7)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today - week).not_valid_after(today + week)
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, *plain))
    return path


def test_a_certificate_that_does_not_verify_is_refused(
    site: Site, partial: Path, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
    site.answers = [site.rest]
    file = file_at(site.url.replace("http:", "https:"))
    assert "certificate of 127.0.0.1:" in failure(file, partial)
    assert site.ranges == []
    assert not partial.exists()


def test_a_bad_certificate_is_not_tried_again(
    partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(url: str, **_: Any) -> requests.Response:
        asked.append(url)
        try:
            raise ssl.SSLCertVerificationError(1, "certificate verify failed")
        except ssl.SSLCertVerificationError:
            raise requests.exceptions.SSLError("max retries exceeded") from None

    asked: list[str] = []
    monkeypatch.delenv("FLOWERS_MIRROR", raising=False)
    monkeypatch.setattr(requests, "get", get)
    file = file_at("https://www.robots.ox.ac.uk")
    assert "certificate of www.robots.ox.ac.uk is not trusted" in failure(file, partial)
    assert len(asked) == 1


def test_the_remedy_names_the_mirror_that_lacks_the_file(
    site: Site, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWERS_MIRROR", "some/mirror")
    site.answers = [site.answer(b"", 404)]
    with pytest.raises(UserError, match="FLOWERS_MIRROR=some/mirror, which lacks it"):
        fetch(file_at(site.url), partial, AT_ONCE)
