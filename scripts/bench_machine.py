"""What machine and which versions a benchmark ran on."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
PACKAGES = ("dvc", "keras", "numpy", "pillow", "scikit-learn", "scipy", "tensorflow")


def processor_of(cpuinfo: str) -> dict[str, Any]:
    """Name of the processor and those of INSTRUCTION_SETS that it has, from Linux's cpuinfo."""
    name = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    flags = set(cpuinfo.split())
    return {
        "processor": name[1].strip() if name else platform.processor() or platform.machine(),
        "instruction_sets": [each for each in INSTRUCTION_SETS if each in flags],
    }


def machine_facts() -> dict[str, Any]:
    """Processor, cores, memory, load and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    facts = processor_of(cpuinfo.read_text("utf-8") if cpuinfo.exists() else "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return facts | {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
