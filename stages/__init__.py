"""The stages of dvc.yaml, and the programs that use what they make: `python -m stages.NAME`.

Python runs this file before a stage loads its libraries, so an interrupt meanwhile is told of, too.
"""

import os
import sys
from types import TracebackType


def tell_of_interrupt() -> None:
    """Write to stderr that the run was interrupted and, in a stage of DVC, what is kept."""
    in_stage = os.environ.get("DVC_STAGE")
    kept = ": finished stages are kept, `dvc repro` goes on from here" if in_stage else ""
    print(f"interrupted{kept}", file=sys.stderr)


def _show_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Show what no one caught: of an interrupt a line, of a fault of the project its traceback."""
    if issubclass(kind, KeyboardInterrupt):
        tell_of_interrupt()
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _show_uncaught
