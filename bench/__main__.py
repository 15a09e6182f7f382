"""Measure the pipeline side by side with plain scripts and with what the machine can do at all.

    python -m bench --short
    python -m bench --only guide nothing --repeats 5 --output result.json

The pictures are generated, the weights random, as the time does not depend on them. The parts are
repeated in turn, ratios are taken within a repeat. Printed, and written as JSON, is the median of
each, with the least and the greatest.
"""

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.parts import PARTS, SIZES, Plan
from stages.common.command_line import Parser, number, one_of, run
from stages.common.files import write_json

FULL = Plan(1360, 510, 340, 672, networks=tuple(SIZES), repeats=3)
SHORT = Plan(170, 85, 119, 672, networks=("mobilenet",), repeats=1)
SHORT_PARTS = ["guide", "features", "nothing"]


def machine_of(cpuinfo: str) -> dict[str, Any]:
    """Processor and what it multiplies by, from the text of Linux's cpuinfo; cores and load."""
    name = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return {
        "processor": name[1].strip() if name else "unknown processor",
        "instruction_sets": sorted(set(re.findall(r"\b(?:avx2|avx512f|\w+_bf16)\b", cpuinfo))),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def measure(names: Sequence[str], plan: Plan, folder: Path) -> list[dict[str, float]]:
    """Measure the parts in turn, as often as the plan says."""
    parts = {name: PARTS[name](folder / name, plan) for name in names}
    repeats: list[dict[str, float]] = [{} for _ in range(plan.repeats)]
    for count, repeat in enumerate(repeats, 1):
        for name, part in parts.items():
            tell(f"{name}, {count} of {plan.repeats}")
            repeat.update(next(part))
    return repeats


def tell(text: str) -> None:
    """Say on stderr how far it is."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def summarize(repeats: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Median, least and greatest of each measurement; all repeats have the same ones."""
    columns = {name: [each[name] for each in repeats] for name in repeats[0]}
    return [
        {"name": name, "median": median(values), "least": min(values), "greatest": max(values)}
        for name, values in columns.items()
    ]


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """What `summarize` gives as lines with aligned columns."""
    width = max(len(each["name"]) for each in lines)
    row = f"{{name:{width}}} {{median:10,.3f}}  ({{least:,.3f}} to {{greatest:,.3f}})"
    return "\n".join(row.format(**each) for each in lines)


def main(arguments: Sequence[str]) -> None:
    """Parse the options, measure, print and write the result."""
    parser = Parser(__doc__, "")
    parser.add_argument("--short", action="store_true", help="few images, once")
    parser.add_argument("--only", nargs="+", type=one_of([*PARTS], "part"), help=" ".join(PARTS))
    parser.add_argument("--repeats", type=number(int, 1, 1000))
    parser.add_argument("--output", type=Path, default=Path("metrics/bench/result.json"))
    options = parser.parse_args(arguments)
    plan, names = (SHORT, SHORT_PARTS) if options.short else (FULL, [*PARTS])
    plan = plan._replace(repeats=options.repeats or plan.repeats)
    cpuinfo = Path("/proc/cpuinfo")
    result = machine_of(cpuinfo.read_text("utf-8") if cpuinfo.exists() else "")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        repeats = measure(options.only or names, plan, Path(folder))
    facts = [" ".join(value) if isinstance(value, list) else value for value in result.values()]
    print("{}, {}, {} cores; load before {}\n".format(*facts))
    lines = summarize(repeats)
    print(table(lines))
    write_json(options.output, result | plan._asdict() | {"lines": lines, "repeats": repeats})
    tell(f"written to {options.output}")


if __name__ == "__main__":
    run(main)
