"""Measure the pipeline side by side with plain scripts and with what the machine can do at all.

    python -m scripts.bench --short
    python -m scripts.bench --output new.json --compare old.json
    python -m scripts.bench --only memory scale rows --repeats 1

The images are those of the folder FLOWERS_MIRROR, or of ../shared/mirror; else they are generated.
The parts are repeated in turn. Printed are the medians with their spread, ratios of what was
measured in the same repeat, and beside each the goal, where there is one. `memory`, `scale` and
`rows` run for hours and only where `--only` names them, or `--long` is given.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.bench_images import mirror
from scripts.bench_lines import LINES, shares
from scripts.bench_machine import machine_facts
from scripts.bench_parts import FULL_PARTS, PARTS, SIZES, Bench, Plan
from scripts.bench_statistics import comparison_table, goal_table, result_table, summarize, table
from stages.common.command_line import Parser, UserError, number, one_of, run
from stages.common.files import read_json, write_json
from stages.sources.sets import SETS

OUTPUT = Path("metrics/bench/result.json")
FULL = Plan(
    images=SETS["flowers17"].images,
    guide_images=510,
    guide_epochs=1,
    article_images=340,
    features_images=340,
    batches=4,
    backbones=tuple(SIZES),
    repeats=3,
)
SHORT = Plan(
    images=170,
    guide_images=34,
    guide_epochs=1,
    article_images=119,
    features_images=170,
    batches=1,
    backbones=("mobilenet",),
    repeats=1,
)
FEWER = ("guide_images", "features_images")
"""Numbers in a plan that are at most that of all images."""
SHORT_PARTS = ("guide", "features", "nothing")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; raises UserError where they are out of range."""
    parser = Parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="few images, once: two minutes")
    parser.add_argument("--long", action="store_true", help="with memory, scale and rows: hours")
    names = [*PARTS, *FULL_PARTS]
    parser.add_argument("--only", nargs="+", type=one_of(names, "part"), help=" ".join(names))
    parser.add_argument("--repeats", type=number(int, 1, 1000))
    parser.add_argument(
        "--images", type=number(int, 119, 1360), help="of the set, for the pipeline"
    )
    parser.add_argument("--backbones", nargs="+", type=one_of([*SIZES], "backbone"))
    parser.add_argument("--scale", nargs="+", type=number(int, 119), help="in place of its sizes")
    parser.add_argument("--weights", choices=["imagenet", "random"], default="random")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON; %(default)s")
    parser.add_argument("--compare", type=Path, help="the JSON of an earlier run")
    return parser.parse_args(arguments)


def plan_of(options: argparse.Namespace) -> Plan:
    """The short or the full plan, with what the options change of it."""
    plan = SHORT if options.short else FULL
    changes: dict[str, Any] = {"repeats": options.repeats, "images": options.images}
    changes["backbones"] = tuple(options.backbones or ())
    changes["scale"] = tuple(options.scale or ())
    plan = replace(plan, **{name: value for name, value in changes.items() if value})
    fewer = {name: min(getattr(plan, name), plan.images) for name in FEWER}
    return replace(plan, **fewer)


def measure(bench: Bench, names: Sequence[str]) -> list[dict[str, float]]:
    """Prepare the parts, then measure them in turn, as often as the plan says."""
    parts: dict[str, Any] = {}
    for name in names:
        tell(f"preparing {name}")
        parts[name] = (PARTS | FULL_PARTS)[name](bench)
    repeats: list[dict[str, float]] = [{} for _ in range(bench.plan.repeats)]
    for count, repeat in enumerate(repeats, 1):
        for name, part in parts.items():
            started = time.monotonic()
            repeat.update(part.measure())
            tell(f"{name} {count} of {len(repeats)}: {time.monotonic() - started:.0f} s")
        repeat.update(forward_alone(repeat, bench.plan.images))
    return repeats


def forward_alone(repeat: Mapping[str, float], images: int) -> dict[str, float]:
    """Seconds of the guide's forward pass and nothing else, where its speed was measured."""
    name = "forward vgg19"
    return {"guide forward": images / repeat[name]} if name in repeat else {}


def tell(text: str) -> None:
    """Say on stderr how far it is."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def notes(bench: Bench, names: Sequence[str], whole_set: bool) -> list[str]:
    """What a reader has to know about how the figures of these parts came about."""
    plan = bench.plan
    lines = [f"Images: {'; '.join(bench.images) or 'none needed'}."]
    lines.append(f"Weights: {bench.weights}; the time does not depend on their values.")
    if "guide" in names:
        lines.append(
            f"Plain guide: {plan.guide_epochs} epoch of {plan.guide_images} of {plan.images} "
            "images timed, ten of all counted; start-up counted once."
        )
    if "features" in names:
        lines.append(
            f"Features: {plan.features_images} images; the forward pass alone: {plan.batches} "
            "batches of 32 in each precision."
        )
    if "article" in names:
        lines.append(
            f"Fine-tuning: {plan.article_images} images; the second of two epochs of the plain "
            "script; of the pipeline a third of what four epochs take more than one."
        )
    return lines + ([] if whole_set else ["Fewer images: goals for all of them are left out."])


def show(result: Mapping[str, Any]) -> str:
    """The result as text."""
    machine = result["machine"]
    sets = " ".join(machine["instruction_sets"]) or "none of those looked for"
    text = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{sets}; load before {machine['load_before']}",
        *result["notes"],
        "",
        result_table(result["lines"]),
    ]
    goals = goal_table(result["lines"])
    if goals:
        text += ["", "The goals, as Markdown", "", goals]
    if result["parts"]:
        text += ["", "Where the features stage spends its time, in seconds", table(result["parts"])]
    return "\n".join(text)


def main(arguments: Sequence[str]) -> None:
    """Parse the options, measure, print and write the result."""
    options = parse(arguments)
    old = read_old(options.compare) if options.compare else None
    plan, machine = plan_of(options), machine_facts()
    names = options.only or (SHORT_PARTS if options.short else [*PARTS])
    if options.long and not options.only:
        names = [*names, *FULL_PARTS]
    where = mirror()
    tell(f"images of {where}" if where else "no mirror: images are generated")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(Path(folder), plan, options.weights)
        repeats = measure(bench, names)
    whole_set = plan.images == FULL.images and not plan.scale
    result: dict[str, Any] = {
        "machine": machine,
        "notes": notes(bench, names, whole_set),
        "lines": summarize(LINES, repeats, whole_set),
        "parts": shares(repeats[0], plan.backbones),
        "repeats": repeats,
    }
    print(show(result))
    write_json(options.output, result)
    if old:
        print(f"\nAgainst {options.compare}\n{comparison_table(old['lines'], result['lines'])}")
    tell(f"written to {options.output}")


def read_old(path: Path) -> Any:
    """An earlier result. Raises UserError where the file is none."""
    try:
        old = read_json(path)
        old["lines"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is no result of an earlier run; name one written by --output"
        ) from None
    return old


if __name__ == "__main__":
    run(main)
