"""One way of showing how far a stage is."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """A `tqdm` bar on stderr: live on a terminal, a line every ten seconds in a log.

    `options` go to tqdm: `desc`, `total`, `unit`, and so on.
    """
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(iterable, mininterval=interval, maxinterval=interval, dynamic_ncols=True, **options)
