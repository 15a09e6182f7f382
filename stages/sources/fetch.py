"""Download of one published file: resumed, tried again where that may help, and checked."""

import ssl
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from stages.common.command_line import UserError
from stages.common.files import digest
from stages.common.progress import progress_bar
from stages.sources.mirror import mirror_remedy
from stages.sources.published import SourceFile

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new attempt in a row that brought nothing."""
LONGEST_PAUSE = 60.0
"""Seconds that a server may ask to wait."""
TIMEOUT = (10, 30)
"""Seconds to connect, and between two pieces of an answer."""
SLOWEST = 1000
"""Bytes a second, over TIMEOUT's second entry; less is as good as nothing."""
REDIRECTS = 5
CHUNK = 1 << 16

FINAL, BRIEF, FULL = 0, 2, len(PAUSES)
"""How many new attempts a failure is worth."""

UNREACHABLE = (requests.exceptions.ProxyError, NewConnectionError, ConnectTimeoutError)


class AttemptError(Exception):
    """An attempt that failed: the reason, how many more it is worth, the seconds to wait."""

    def __init__(self, reason: str, retries: int, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.retries = retries
        self.pause = pause


def fetch(file: SourceFile, partial: Path, pauses: Sequence[float] = PAUSES) -> None:
    """Download `file` to `partial`, going on from the bytes that are there, and check it.

    On return `partial` is the published file. A file of another size or digest is downloaded once
    more from its start. What a failed download has brought stays in `partial` for the next call.

    Raises UserError, with the address, the reason and the remedy, when the file cannot be had.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists() and _difference(file, partial) is None:
        return
    for _ in range(2):
        _complete(file, partial, pauses)
        difference = _difference(file, partial)
        if difference is None:
            return
        partial.unlink()
    raise UserError(f"{file.url} is not the published file: {difference}; {mirror_remedy()}")


def _difference(file: SourceFile, path: Path) -> str | None:
    """What sets the file at `path` apart from the published one."""
    size = path.stat().st_size
    if file.size not in (None, size):
        return f"got {size} bytes, expected {file.size}"
    actual = digest(path, file.algorithm)
    if actual != file.digest:
        return f"got {file.algorithm} {actual}, expected {file.digest}"
    return None


def _complete(file: SourceFile, partial: Path, pauses: Sequence[float]) -> None:
    """Download until the server says that the file is whole.

    Progress resets the attempts, if it is more than what the slowest server brings in one.
    """
    longest, attempt = _size(partial), 0
    while True:
        try:
            return _transfer(file, partial)
        except AttemptError as failure:
            if _size(partial) >= longest + SLOWEST * TIMEOUT[1]:
                longest, attempt = _size(partial), 0
            if attempt >= min(failure.retries, len(pauses)):
                raise UserError(
                    f"cannot download {file.name}: {failure}; {mirror_remedy()}"
                ) from None
            pause = max(pauses[attempt], min(failure.pause, LONGEST_PAUSE))
            print(f"{file.name}: {failure}; trying again in {pause:g} s", flush=True)
            time.sleep(pause)
            attempt += 1


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(file: SourceFile, partial: Path) -> None:
    """Append to `partial` what it lacks, or write it anew where the server sends everything.

    Bytes are stored as they come, whatever encoding the server declares: the digest is of those.
    """
    try:
        with _open(file.url, _size(partial)) as response:
            offset = _check_answer(file, response, partial)
            remaining = response.raw.length_remaining
            chunks = _pieces(file.url, response)
            first = next(chunks, b"")
            if first.lstrip().lower().startswith((b"<!doctype", b"<html")):
                raise AttemptError(f"{response.url} is a web page, not the file", FINAL)
            with (
                partial.open("ab" if offset else "wb") as output,
                progress_bar(
                    chain([first], chunks),
                    desc=file.name,
                    total=None if remaining is None else offset + remaining,
                    initial=offset,
                    unit="B",
                    unit_scale=True,
                ) as bar,
            ):
                for chunk in bar.iterable:
                    output.write(chunk)
                    bar.update(len(chunk))
    except HTTPError as error:
        raise AttemptError(f"{file.url} broke off ({_root(error)})", FULL) from error


def _pieces(url: str, response: requests.Response) -> Iterator[bytes]:
    """What is sent, as it comes. Raises AttemptError when that is slower than SLOWEST."""
    began, got = time.monotonic(), 0
    while piece := response.raw.read1(CHUNK, decode_content=False):
        got += len(piece)
        seconds = time.monotonic() - began
        if seconds > TIMEOUT[1]:
            if got < SLOWEST * seconds:
                raise AttemptError(f"{url} sends less than {SLOWEST} bytes a second", FULL)
            began, got = time.monotonic(), 0
        yield piece


def _open(url: str, offset: int) -> requests.Response:
    """The answer to a request for the bytes from `offset` on, after redirects.

    A redirect never leads from https to something else.
    """
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    start = url
    for _ in range(REDIRECTS + 1):
        try:
            response = requests.get(
                url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False
            )
        # A ValueError comes of a Location that is no address.
        except (requests.RequestException, ValueError) as error:
            raise _connection_failure(url, error) from error
        if not response.is_redirect:
            return response
        response.close()
        url = urljoin(url, response.headers["Location"])
        if urlsplit(url).scheme not in ("https", urlsplit(start).scheme):
            raise AttemptError(f"{start} redirects to {url}, which is not https", FINAL)
    raise AttemptError(f"{start} redirects more than {REDIRECTS} times, last to {url}", FINAL)


def _connection_failure(url: str, error: Exception) -> AttemptError:
    """What a request that got no answer means."""
    host = urlsplit(url).netloc
    if _caused_by(error, ssl.SSLCertVerificationError):
        return AttemptError(f"the certificate of {host} is not trusted ({_root(error)})", FINAL)
    if _caused_by(error, UNREACHABLE):
        return AttemptError(f"{host} cannot be reached ({_root(error)})", BRIEF)
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return AttemptError(f"{host} does not answer ({_root(error)})", FULL)
    return AttemptError(f"{url} cannot be asked for ({_root(error)})", FINAL)


def _caused_by(
    error: BaseException | None, kind: type[Exception] | tuple[type[Exception], ...]
) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


def _root(error: BaseException) -> str:
    """The innermost reason, in few words: urllib3's own texts nest whole objects."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def _check_answer(file: SourceFile, response: requests.Response, partial: Path) -> int:
    """The place in the file of the answer's first byte; drops a `partial` that cannot go on.

    Raises AttemptError for an answer that is not the file.
    """
    status, headers = response.status_code, response.headers
    wanted = _size(partial)
    if status == 429 or status >= 500:
        asked = headers.get("Retry-After", "")
        pause = float(asked) if asked.isdecimal() else 0.0
        raise AttemptError(f"{response.url} answers {status} {response.reason}", FULL, pause)
    if status not in (200, 206, 416):
        raise AttemptError(f"{response.url} answers {status} {response.reason}", FINAL)
    if status != 416 and headers.get("Content-Type", "").startswith("text/html"):
        raise AttemptError(f"{response.url} is a web page, not the file", FINAL)
    offset = 0 if status == 200 else wanted
    remaining = response.raw.length_remaining
    fits = file.size is None or remaining is None or offset + remaining == file.size
    goes_on = headers.get("Content-Range", "").startswith(f"bytes {wanted}-")
    if status != 200 and not (status == 206 and goes_on and fits):
        partial.unlink(missing_ok=True)
        raise AttemptError(f"{response.url} does not go on from byte {wanted}", FULL)
    if not fits:
        raise AttemptError(f"{response.url} has {remaining} bytes, expected {file.size}", FINAL)
    return offset
