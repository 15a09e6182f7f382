"""What every stage's command line shares: option types, and errors of one line."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class UserError(Exception):
    """Something that the user can put right; its text is one line: value, file, remedy."""


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

    def error(self, message: str) -> NoReturn:
        """Raise `message` as a UserError in place of printing the usage."""
        raise UserError(f"{message} {self.remedy}")


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Call `main` with the command line's arguments and exit.

    A UserError, and a file that is missing or cannot be read or written, is printed as one line on
    stderr, with exit status 1; an interrupt ends with status 130, as shells do it. Anything else is
    a fault of the project and keeps its traceback.
    """
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"error: {error}; see to the file, its space and its access", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(
            "interrupted: finished stages are kept, `dvc repro` goes on from here", file=sys.stderr
        )
        sys.exit(130)
    sys.exit(0)


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


def one_of(options: Sequence[str], kind: str) -> Callable[[str], str]:
    """An option type: one of `options`; the error names `kind` and every option."""

    def parse(text: str) -> str:
        if text not in options:
            raise argparse.ArgumentTypeError(f"no {kind} {text!r}; there are: {', '.join(options)}")
        return text

    return parse
