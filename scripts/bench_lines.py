"""The lines that `scripts.bench` prints, and the goals that they are held against."""

from collections.abc import Mapping, Sequence

from scripts.bench_parts import SIZES
from scripts.bench_statistics import Goal, Line, digits

STAGES = (
    "survey",
    "duplicates",
    "split",
    "features",
    "prefix",
    "head",
    "finetune",
    "evaluate",
    "report",
)
SHARES = {"vgg19": 0.85, "inception_v3": 0.85, "mobilenet": 0.7}
"""Of the forward pass's images a second that the features stage is to reach."""
MEMORY = Goal(high=2.5)
CONSTANT = Goal(0.9, 1.1)
PARTS = ("start-up", "read", "decode", "resize", "wait", "forward", "write")
BESIDE = ("read", "decode", "resize")
"""Parts that go on in threads of their own, beside the others."""

FORWARD = "guide forward"

FIRST = [
    Line(
        "guide, cold: pipeline against plain", "times", "plain guide", "guide cold", Goal(40), True
    ),
    Line(
        "guide, other dropout: pipeline against plain",
        "times",
        "plain guide",
        "guide dropout",
        Goal(120),
        True,
    ),
    Line("guide, other dropout", "s", "guide dropout", None, Goal(high=15)),
    Line("guide, cold", "s", "guide cold"),
    Line("limit: guide, cold, were it the forward pass alone", "times", "plain guide", FORWARD),
    Line("guide, cold: share of that limit", "times", FORWARD, "guide cold"),
    Line("plain guide, ten epochs", "s", "plain guide"),
    Line(
        "fine-tuning epoch: pipeline against plain",
        "times",
        "plain article epoch",
        "fine-tuning epoch",
        Goal(8),
    ),
    Line("fine-tuning epoch", "s", "fine-tuning epoch"),
    Line("plain fine-tuning epoch", "s", "plain article epoch"),
    Line("dvc repro, nothing to do", "s", "nothing to do", None, Goal(high=2)),
    Line("dvc --version", "s", "dvc version"),
    Line("evaluate, one set and backbone", "s", "evaluate", None, Goal(high=1.5)),
]


def network_lines() -> list[Line]:
    """For each backbone: features against the forward pass, two views against one, and limits."""
    lines = []
    for name, size in SIZES.items():
        speed = ("images/s", f"features {name}")
        lines += [
            Line(
                f"features {name} over forward pass alone",
                "times",
                f"features {name}",
                f"forward {name}",
                Goal(SHARES[name]),
            ),
            Line(
                f"two views over one, {name}",
                "times",
                f"two {name}",
                f"one {name}",
                Goal(high=1.9),
            ),
            Line(
                f"two views over one, {name}, whole process",
                "times",
                f"whole two {name}",
                f"whole one {name}",
            ),
            Line(f"features {name}, {size} px, once started", *speed),
            Line(f"features {name}, whole process", "images/s", f"features whole {name}"),
        ]
        lines += [
            Line(f"limit: forward {name}, {precision}", "images/s", f"forward {name} {precision}")
            for precision in ("float32", "bfloat16")
        ]
    return lines


LIMITS = [
    Line("limit: decoding to 224 px", "images/s", "decode"),
    Line("limit: matrix product, float32", "GFLOP/s", "matrix float32"),
    Line("limit: matrix product, bfloat16", "GFLOP/s", "matrix bfloat16"),
]


def stage_lines() -> list[Line]:
    """Seconds and peak memory of the guide's stages; memory and time at other sizes."""
    lines = [Line(f"guide, cold: {stage}", "s", f"stage {stage}") for stage in STAGES]
    lines.append(Line("guide, cold: DVC itself", "s", "guide DVC"))
    lines += [
        Line(f"guide, cold: {stage}", "GB", f"peak {stage}", None, MEMORY) for stage in STAGES
    ]
    for name in SIZES:
        lines += [
            Line(f"102 flowers, {name}: {stage}", "GB", f"full {name} {stage}") for stage in STAGES
        ]
        lines.append(Line(f"102 flowers, {name}: any stage", "GB", f"full {name}", None, MEMORY))
    return [*lines, *growth_lines()]


def growth_lines() -> list[Line]:
    """Processor time of a further image, and memory, from the fewest images to the most."""
    lines = []
    kinds = [
        f"rows {kind} {stage}" for kind in ("logistic", "mlp") for stage in ("head", "evaluate")
    ]
    for name in [*(f"scale {stage}" for stage in STAGES), *kinds]:
        label = name.removeprefix("scale ")
        memory = None if name == "rows logistic head" else MEMORY
        lines += [
            Line(
                f"{label}: further images, last over first",
                "times",
                f"{name} last",
                f"{name} first",
                CONSTANT,
                whole_set=True,
            ),
            Line(f"{label}: a further image", "core s", f"{name} last"),
            Line(f"{label}: fewest images", "GB", f"{name} least"),
            Line(f"{label}: most images", "GB", f"{name} peak", None, memory),
        ]
    return lines


LINES = [*FIRST, *network_lines(), *LIMITS, *stage_lines()]


def shares(measured: Mapping[str, float], backbones: Sequence[str]) -> list[list[str]]:
    """A table of seconds by part and their share of the process; empty where none were measured."""
    rows = [["", *PARTS, "whole"]]
    for name in backbones:
        whole = measured.get(f"whole one {name}")
        if whole:
            seconds = [measured[f"part {part} {name}"] for part in PARTS]
            rows.append([name, *map(digits, seconds), digits(whole)])
            rows.append(["", *(f"{value / whole:.0%}" for value in seconds), ""])
    if len(rows) == 1:
        return []
    return [*rows, ["", *("beside" if part in BESIDE else "" for part in PARTS), ""]]
