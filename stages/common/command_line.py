"""What every stage's command line shares: option types, and errors of one line."""

import argparse
import atexit
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

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
    stderr, with exit status 1; an interrupt ends with status 130, as shells do it. Where nobody
    reads on, as after `| head`, it ends with status 141 and without a word, as programs do that the
    system ends by SIGPIPE; 0 would tell DVC that the stage is finished. Anything else is a fault of
    the project and keeps its traceback. That a stage runs once at a time is seen to by `alone`.
    """
    # Pillow warns of large and of damaged pictures without a name; the survey names the latter.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    status: int | str = 0
    try:
        status = _run_to_its_end(main)
        sys.stdout.flush()
    except OSError as error:
        # Another error of stdout, such as of a full disk, has been told: only what is left fails.
        status = status or (141 if isinstance(error, BrokenPipeError) else 1)
        _let_go_of_output()
    # Taking down TensorFlow lasts; an interrupt meanwhile would call a finished stage failed.
    if status == 0:
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)


def _run_to_its_end(main: Callable[[Sequence[str]], None]) -> int | str:
    """Call `main`, tell what the user can put right, and return the exit status."""
    try:
        with alone():
            main(sys.argv[1:])
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {error}; see to the file, its space and its access", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        tell_of_interrupt()
        return 130
    except SystemExit as end:  # Of --help, which has written to stdout, too.
        return end.code or 0
    return 0


def tell_of_interrupt() -> None:
    """Write to stderr that the run was interrupted and, in a stage of DVC, what is kept."""
    kept = ": finished stages are kept, `dvc repro` goes on from here" if stage_name() else ""
    print(f"interrupted{kept}", file=sys.stderr)


def _let_go_of_output() -> None:
    """Have what is still written to stdout and stderr, at the end by Python itself, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


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


any_seed = number(int, 0, 2**32 - 1)
"""An option type: a seed."""


def truth(kind: str) -> Callable[[str], bool]:
    """An option type: `true` or `false`; the error names `kind`."""

    def parse(text: str) -> bool:
        return one_of(("true", "false"), kind)(text) == "true"

    return parse


def one_of(options: Sequence[str], kind: str) -> Callable[[str], str]:
    """An option type: one of `options`; the error names `kind` and every option."""

    def parse(text: str) -> str:
        if text not in options:
            raise argparse.ArgumentTypeError(f"no {kind} {text!r}; there are: {', '.join(options)}")
        return text

    return parse
