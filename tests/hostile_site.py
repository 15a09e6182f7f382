"""A loopback server that answers as it is told, and never as it should."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BODY = bytes(range(256)) * 1200

Handler = BaseHTTPRequestHandler
Answer = Callable[[Handler], None]


class Site:
    """A loopback server that gives one scripted answer a request, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.sent = 0
        site = self

        class Scripted(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.ranges.append(self.headers["Range"])
                site.paths.append(self.path)
                assert self.headers["Accept-Encoding"] == "identity"
                answer = site.answers.pop(0) if len(site.answers) > 1 else site.answers[0]
                answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(
        self, body: bytes = BODY, status: int = 200, cut: int | None = None, **headers: str
    ) -> Answer:
        """Send `body`, but stop after `cut` bytes; `_` in a header's name stands for `-`."""

        def send(handler: Handler) -> None:
            handler.send_response(status)
            headers.setdefault("Content_Length", str(len(body)))
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            self.sent += len(body[:cut])
            handler.wfile.write(body[:cut])

        return send

    def rest(self, handler: Handler) -> None:
        """Honour the request's Range."""
        wanted = handler.headers["Range"]
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        where = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        self.answer(BODY[start:], 206 if wanted else 200, Content_Range=where)(handler)


def reset(handler: Handler) -> None:
    """Reset the connection, with what was sent on it."""
    no_lingering = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
    handler.connection.close()


def stall(handler: Handler) -> None:
    """Send nothing more for two seconds."""
    handler.wfile.flush()
    time.sleep(2)


def drip(body: bytes) -> Answer:
    """Send a byte twenty times a second, for ten seconds."""

    def send(handler: Handler) -> None:
        with suppress(OSError):
            for byte in body[:200]:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.05)

    return send


def after(answer: Answer, then: Answer) -> Answer:
    """One after the other."""

    def send(handler: Handler) -> None:
        answer(handler)
        then(handler)

    return send


@contextmanager
def serving(site: Site) -> Iterator[None]:
    """Let a site answer while the block runs."""
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        site.server.shutdown()
        site.server.server_close()
        thread.join()
