"""A download killed by SIGKILL at random moments goes on from the bytes that it has."""

import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.sources.toy_set import write_facts
from tests.tiny_set import ROOT

IMAGES = 8
CHUNK = 1 << 16
PAUSE = 0.02
"""Seconds between two chunks: the archive of 4 MB takes about a second and a half."""
KILLS = 6


def make_archive() -> bytes:
    buffer, rng = io.BytesIO(), random.Random(0)
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(1, IMAGES + 1):
            info = tarfile.TarInfo(f"jpg/{number}.jpg")
            info.size = 1 << 19
            archive.addfile(info, io.BytesIO(rng.randbytes(info.size)))
    return buffer.getvalue()


class SlowServer(ThreadingHTTPServer):
    """Serves one file slowly, from the byte that is asked for, and counts what it sends."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.sent, self.starts = content, 0, list[int]()


class Handler(BaseHTTPRequestHandler):
    server: SlowServer

    def do_GET(self) -> None:
        size = len(self.server.content)
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.server.starts.append(start)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(size - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        try:
            for place in range(start, size, CHUNK):
                self.server.sent += self.wfile.write(self.server.content[place : place + CHUNK])
                time.sleep(PAUSE)
        except OSError:
            pass  # The other side was killed.

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with SlowServer(make_archive()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.slow
def test_a_killed_download_goes_on(server: SlowServer, tmp_path: Path) -> None:
    facts = {
        "page": f"http://127.0.0.1:{server.server_port}/17/",
        "terms": "none",
        "files": {"toy.tgz": {"md5": hashlib.md5(server.content).hexdigest()}},
        "archive": "toy.tgz",
        "pictures": "jpg/{}.jpg",
        "count": IMAGES,
        "classes": ["daisy"],
    }
    write_facts(tmp_path / "data/sets/toy", facts)
    command = [sys.executable, "-m", "stages.collect", "--set", "toy"]
    environment = {name: value for name, value in os.environ.items() if name != "FLOWERS_MIRROR"}
    environment |= {"PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"}
    partial, final = tmp_path / "data/downloads/toy/toy.tgz", tmp_path / "data/raw/toy"
    rng, sizes = random.Random(0), [0]
    for _ in range(KILLS):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment)
        goal = rng.uniform(sizes[-1], min(sizes[-1] + len(server.content) / KILLS, 4e6))
        while not partial.exists() or partial.stat().st_size <= goal:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
        sizes.append(partial.stat().st_size)
        assert not final.exists()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert (final / "toy.tgz").read_bytes() == server.content
    assert server.starts == sizes
    assert list(tmp_path.rglob(".partial-*")) == []
