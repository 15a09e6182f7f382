"""One way of showing how far a stage is."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LOG_INTERVAL = 10.0
"""Seconds between two lines in a log."""


class _Lines:
    """A stream on which a bar that would be drawn over becomes a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n")
        if text:
            self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()


def say(text: str) -> None:
    """Write on stderr what begins, where it cannot be said how far it is."""
    print(text, file=sys.stderr, flush=True)


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """A `tqdm` bar on stderr: live on a terminal, a line every ten seconds in a log.

    `options` go to tqdm: `desc`, `total`, `unit`, and so on.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, dynamic_ncols=True, **options)
    log: Any = _Lines(sys.stderr)
    return tqdm(iterable, mininterval=LOG_INTERVAL, maxinterval=LOG_INTERVAL, file=log, **options)
