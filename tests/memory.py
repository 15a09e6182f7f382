"""What a test's own process takes of memory, for those that run one."""

import re
from pathlib import Path


def peak_megabytes() -> float:
    """Peak memory of this process in MB, on Linux.

    From proc(5): the peak of `resource.getrusage` begins with that of the process which started
    this one.
    """
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    assert peak
    return int(peak[1]) * 1024 / 1e6
