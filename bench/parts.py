"""The parts of the benchmark: each measures one thing side by side with what it is held against.

A part is a generator: it prepares what its repeats share, then measures once for each that is asked
of it. What it measures goes by a name, which ends with the unit, the ratios first.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.workspace import Workspace, write_folder
from stages.common.command_line import UserError

SIZES = {"vgg19": 224, "inception_v3": 250, "mobilenet": 224}  # Sides of the images, in pixels.
Measured = Iterator[dict[str, float]]
FEW = 32
"""Images of the smaller of two sets, whose difference is free of the start."""


class Plan(NamedTuple):
    """How much is measured; of the guide's images the plain script has some, for an epoch."""

    guide_images: int
    plain_images: int
    article_images: int
    features_images: int
    networks: tuple[str, ...]
    repeats: int


def recipe(name: str) -> dict[str, Any]:
    """A recipe's parameters, for sets whose parts are given."""
    values = yaml.safe_load(Path("recipes.yaml").read_text("utf-8"))[name]
    return {**values, "split.protocol": "official"}


def prepare(folder: Path, parameters: dict[str, Any], **sets: int) -> Workspace:
    """A workspace with sets that are collected and random weights that are made."""
    folder.mkdir(exist_ok=True)
    parameters = {"weights": "random", **parameters}
    workspace = Workspace(Path(tempfile.mkdtemp(dir=folder)), sets, parameters)
    workspace.dvc("repro", "collect", "weights")
    return workspace


def forward_pass(workspace: Workspace, network: str) -> tuple[float, dict[str, float]]:
    """Images a second of a network's forward pass alone: the most, and by precision."""
    _, speeds = workspace.module("bench.forward", network, str(SIZES[network]))
    named = {f"limit: {network}, {key} [images/s]": speed for key, speed in speeds.items()}
    return max(speeds.values()), named


def run_again(workspace: Workspace, target: str) -> float:
    """Seconds of a stage alone, run whether or not anything has changed."""
    _, (run,) = workspace.dvc("repro", "--force", "--single-item", target)
    return run.seconds


def guide(folder: Path, plan: Plan) -> Measured:
    """The guide's recipe: by the pipeline, cold and with another dropout, and by the script."""
    write_folder(folder / "pictures", plan.plain_images)
    words = ("guide", str(folder / "pictures"), "--epochs", "1")
    while True:
        workspace = prepare(folder, recipe("guide"), bench=plan.guide_images)
        cold, runs = workspace.dvc("repro")
        target = "evaluate@bench-vgg19"
        again, others = workspace.dvc("exp", "run", "-S", "dropout=0.3", target)
        if "features" in (ran := [run.stage for run in others]) or "head" not in ran:
            raise UserError(f"dropout=0.3 ran {ran}; expected head and not features")
        process, result = workspace.module("bench.plain", *words)
        (epoch,) = result["epochs"]
        plain = process - epoch + 10 * epoch * plan.guide_images / plan.plain_images
        speed, limits = forward_pass(workspace, "vgg19")
        limit = plan.guide_images / speed
        yield {
            "guide, cold: times as fast as plain": plain / cold,
            "guide, other dropout: times as fast as plain": plain / again,
            "guide, were it the forward pass alone: times as fast as plain": plain / limit,
            "guide, cold: share of that limit": limit / cold,
            "plain guide, ten epochs [s]": plain,
            "guide, other dropout [s]": again,
            "guide, cold [s]": cold,
            "guide, cold: DVC itself [s]": cold - sum(run.seconds for run in runs),
            **{f"guide, cold: {run.stage} [s]": run.seconds for run in runs},
            **{f"guide, cold: {run.stage} [GB]": run.gigabytes for run in runs},
            **limits,
        }


def article(folder: Path, plan: Plan) -> Measured:
    """An epoch of fine-tuning InceptionV3's last 50 layers: from the cache, and by the script.

    The pipeline's epoch is a third of what four take more than one, the script's its second.
    """
    changed = {"batch_norm": "frozen", "precision": "auto", "slices": 1}
    parameters = recipe("article") | {f"finetune.{name}": each for name, each in changed.items()}
    workspace = prepare(folder, parameters, bench=plan.article_images)
    target = "finetune@bench-inception_v3"
    workspace.dvc("repro", target)
    write_folder(folder / "pictures", plan.article_images)
    archive = shutil.make_archive(str(folder / "pictures"), "gztar", folder / "pictures")
    words = ("article", archive, "--epochs", "2")
    while True:
        seconds = []
        for epochs in (1, 4):
            workspace.set_parameters({"finetune.epochs": epochs})
            seconds.append(run_again(workspace, target))
        epoch = (seconds[1] - seconds[0]) / 3
        plain = workspace.module("bench.plain", *words)[1]["epochs"][-1]
        yield {
            "fine-tuning epoch: times as fast as plain": plain / epoch,
            "fine-tuning epoch [s]": epoch,
            "plain fine-tuning epoch [s]": plain,
        }


def features(folder: Path, plan: Plan) -> Measured:
    """Each network's features against its forward pass alone."""
    parameters = {"backbones": [*plan.networks], "features.views": ["plain"]}
    images = plan.features_images
    workspace = prepare(folder, parameters, few=FEW, many=images)
    workspace.dvc("repro", "survey")
    while True:
        measured = {}
        for name in plan.networks:
            workspace.set_parameters({"features.image_size": SIZES[name]})
            limit, limits = forward_pass(workspace, name)
            few = run_again(workspace, f"features@few-{name}")
            many = run_again(workspace, f"features@many-{name}")
            # Or the next repeat would have nothing to compute.
            shutil.rmtree(workspace.folder / "data/kept")
            speed = (images - FEW) / (many - few)
            measured[f"features, {name}: share of the forward pass alone"] = speed / limit
            measured[f"features, {name} [images/s]"] = speed
            measured[f"features, {name}, start included [images/s]"] = images / many
            measured |= limits
        yield measured


def nothing(folder: Path, plan: Plan) -> Measured:  # noqa: ARG001
    """`dvc repro` with nothing to do, for the default matrix, and the start of DVC in it."""
    workspace = Workspace(folder, {}, {})
    workspace.run(sys.executable, "-m", "bench.up_to_date")
    while True:
        seconds, runs = workspace.dvc("repro")
        if runs:
            raise UserError("`dvc repro` ran stages where there was nothing to do")
        version, _ = workspace.dvc("--version")
        yield {"dvc repro, nothing to do [s]": seconds, "dvc --version [s]": version}


PARTS = {"guide": guide, "article": article, "features": features, "nothing": nothing}
