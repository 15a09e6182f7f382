"""What every stage's command line shares: option types, errors of one line, what a run took."""

import argparse
import atexit
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from stages import tell_of_interrupt
from stages.common.files import write_json

if sys.platform != "win32":
    import fcntl


class UserError(Exception):
    """Something that the user can put right; its text is one line: value, file, remedy."""


def first_line(error: BaseException) -> str:
    """What an error says first, or without a text what it is."""
    return [*str(error).strip().splitlines(), repr(error)][0]


class Parser(argparse.ArgumentParser):
    """An argument parser that takes whole option names only and whose errors are one line."""

    def __init__(
        self, description: str | None, remedy: str = "(the values come from params.yaml)"
    ) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.remedy = remedy

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """The options. Raises UserError for one that is given twice, of which one would be lost."""
        words = sys.argv[1:] if args is None else args
        for name, count in Counter(word.partition("=")[0] for word in words).items():
            if name.startswith("--") and count > 1:
                self.error(f"{name} is given {count} times")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise `message` as a UserError in place of printing the usage."""
        raise UserError(f"{message} {self.remedy}")


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Call `main` with the command line's arguments and exit.

    A UserError, and a file that is missing or cannot be read or written, is printed as one line on
    stderr, with exit status 1; an interrupt ends with status 130, as shells do it. Anything else is
    a fault of the project and keeps its traceback. What a run took is noted by `noting_use`; that a
    stage runs once at a time is seen to by `alone`.
    """
    try:
        with alone(), noting_use():
            main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"error: {error}; see to the file, its space and its access", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        tell_of_interrupt()
        sys.exit(130)
    # Taking down TensorFlow lasts; an interrupt meanwhile would call a finished stage failed.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    sys.exit(0)


def stage_name() -> str:
    """The stage that DVC runs in this process, such as `head@demo-vgg19`; empty without DVC."""
    # Run from elsewhere, DVC puts the path of its file and a colon before the name.
    return os.environ.get("DVC_STAGE", "").rpartition(":")[2]


PARENT = os.getppid()


def outlives_dvc() -> bool:
    """Whether what started this process, which is DVC for a stage of it, has ended before it."""
    return os.getppid() != PARENT


@contextmanager
def alone() -> Iterator[None]:
    """Run the block when no other process runs this stage of DVC, and hold the stage meanwhile.

    DVC keeps two of its own processes apart. But where DVC alone is killed its stage runs on, and
    the next DVC starts the stage again: both would write under the same temporary names. The lock
    is the system's, on a file data/locks/STAGE, and goes when its process ends, however it does.
    """
    stage = stage_name()
    if not stage or sys.platform == "win32":
        yield
        return
    path = Path("data/locks", stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            print(
                f"{stage} is still run by process {file.read()}, whose DVC has gone: waiting for "
                "its end (or end it by `kill`; finished epochs are kept)",
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def noting_use() -> Iterator[None]:
    """Write data/times/STAGE/MODULE.json when the block ends well, if DVC runs it on Linux.

    It holds `seconds` and `megabytes` (see `process_use`) and `commit` (see `head_commit`; of the
    start). It is no output of the stage, as outputs are the same whenever the stage runs. A file a
    module, as one stage may run several.
    """
    stage = stage_name()
    if not stage or sys.platform != "linux":
        yield
        return
    commit = head_commit()
    yield
    seconds, megabytes = process_use()
    use = {"seconds": round(seconds, 1), "megabytes": round(megabytes), "commit": commit}
    write_json(Path("data/times", stage, f"{Path(sys.argv[0]).stem}.json"), use)


def process_use() -> tuple[float, float]:
    """Seconds since this process began, loading of libraries included, and its peak memory in MB.

    From proc(5): the peak of `resource.getrusage` begins with that of the process which started
    this one, so a small stage would seem to take as much as DVC.
    """
    # The name, in parentheses, may hold spaces; the start is field 22, in ticks since the boot.
    fields = Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    return seconds, int(peak[1]) * 1024 / 1e6 if peak else 0.0


def head_commit() -> str:
    """The commit that is checked out, shortened; empty without Git or outside a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def number(
    convert: Callable[[str], float],
    low: float,
    high: float = float("inf"),
    *,
    open_low: bool = False,
) -> Callable[[str], float]:
    """An option type: a number from `low` to `high`, both included unless `open_low`.

    Raises argparse.ArgumentTypeError, with the range, for anything else.
    """
    kind = "a whole number" if convert is int else "a number"
    bound = ("above" if open_low else "from") + f" {low:g}"
    if high != float("inf"):
        bound += f" to {high:g}"

    def parse(text: str) -> float:
        try:
            value = convert(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high or value == float("inf") or (open_low and value == low):
            raise argparse.ArgumentTypeError(f"{text!r} is not {kind} {bound}")
        return value

    return parse


any_seed = number(int, 0, 2**32 - 1001)
"""An option type: a seed, from which up to 1000 repeats can count on."""


def one_of(options: Sequence[str], kind: str) -> Callable[[str], str]:
    """An option type: one of `options`; the error names `kind` and every option."""

    def parse(text: str) -> str:
        if text not in options:
            raise argparse.ArgumentTypeError(f"no {kind} {text!r}; there are: {', '.join(options)}")
        return text

    return parse
