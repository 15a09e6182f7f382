"""Send pictures to a running `tools.serve` from several threads, and say how it bore it.

python -m scripts.load_test http://127.0.0.1:8000 flowers/ --requests 200 --threads 8
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import NamedTuple

import numpy as np
import requests

from stages.common.command_line import UserError, number, run
from tools.pictures import find_pictures, printable


class Load(NamedTuple):
    """How a server bore a load."""

    seconds: float
    """From the first request to the last answer."""
    waits: list[float]
    """Seconds from each request to its answer, of those that were answered."""
    lost: int
    """Requests without an answer of status 200."""
    failures: dict[int, str]
    """By their places, the pictures that such requests held, and the last reason."""

    def describe(self) -> str:
        """Rate, median and 99th percentile of the waits, of which there are some, and the lost."""
        median, p99 = 1000 * np.percentile(self.waits, [50, 99])
        return (
            f"{len(self.waits) / self.seconds:.1f} requests/s, median {median:.0f} ms, "
            f"p99 {p99:.0f} ms, {self.lost} of {len(self.waits) + self.lost} lost"
        )


def put_under_load(address: str, pictures: Sequence[bytes], count: int, threads: int) -> Load:
    """Send `count` requests with pictures in turn, from so many threads at a time."""
    of_thread = local()

    failures: dict[int, str] = {}

    def ask(index: int) -> float | None:
        if not hasattr(of_thread, "session"):
            of_thread.session = requests.Session()
        start = time.perf_counter()
        place = index % len(pictures)
        try:
            answer = of_thread.session.post(f"{address}/predict", data=pictures[place], timeout=60)
            if answer.status_code == 200 and answer.json()["predictions"]:
                return time.perf_counter() - start
            failures[place] = f"{answer.status_code} {answer.text.strip()}"
        except requests.RequestException as error:
            failures[place] = str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        waits = list(pool.map(ask, range(count)))
        seconds = time.perf_counter() - start
    answered = [each for each in waits if each is not None]
    return Load(seconds, answered, count - len(answered), failures)


def main(arguments: Sequence[str]) -> None:
    """Parse the options, send the pictures, print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address", metavar="ADDRESS")
    parser.add_argument("pictures", type=Path, metavar="PICTURE_OR_FOLDER", nargs="+")
    parser.add_argument("--requests", type=number(int, 1), default=200)
    parser.add_argument("--threads", type=number(int, 1), default=8)
    options = parser.parse_args(arguments)
    paths = find_pictures(options.pictures)
    pictures = [path.read_bytes() for path in paths]
    if not pictures:
        raise UserError(f"no pictures in {options.pictures[0]}; name files, or a folder of some")
    load = put_under_load(options.address.rstrip("/"), pictures, options.requests, options.threads)
    if not load.waits:
        _, reason = load.failures.popitem()
        raise UserError(
            f"{options.address} answered none of {load.lost} requests ({reason}); "
            "give the address that `python -m tools.serve MODEL` prints"
        )
    print(load.describe())
    if load.lost:
        for place, reason in sorted(load.failures.items()):
            print(f"{printable(paths[place])}: {reason}", file=sys.stderr)
        raise UserError(f"{load.lost} requests to {options.address} were lost; see above")


if __name__ == "__main__":
    run(main)
