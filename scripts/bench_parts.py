"""The parts of `scripts.bench`: each measures one thing side by side with what it is held against.

A part is a class; making one prepares what its repeats share, and `measure` is one repeat.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np
import yaml

from scripts.bench_images import mirror, pictures, unpack, write_archive
from scripts.bench_statistics import marginal_seconds, scaled_seconds
from scripts.bench_workspace import Done, Workspace, run
from stages.common.command_line import UserError
from stages.common.files import read_csv, write_csv, write_json
from stages.sources.sets import SETS
from tools.recipe import RECIPES, command

SET = "flowers17"
EPOCHS = 10
"""Of the guide's recipe."""
LEAST_OF_A_CLASS = 7
"""Images, so that five train, of which the head stage holds a fifth out."""
SIZES = {"vgg19": 224, "inception_v3": 250, "mobilenet": 224}
"""Side of the images, in pixels, that a backbone is measured at."""
NETWORK = ("-m", "scripts.bench_network")


@dataclass(frozen=True)
class Plan:
    """How much of everything is measured."""

    images: int
    """Of the set, for the pipeline: a multiple of 17."""
    guide_images: int
    """Of these, those that the plain guide is timed on; its epochs are scaled by the images."""
    guide_epochs: int
    """Of ten, those that the plain guide is timed for."""
    article_images: int
    """For fine-tuning, by the plain article and by the pipeline: a multiple of 17."""
    features_images: int
    """For features against the forward pass: a multiple of 17."""
    batches: int
    """Forward passes of 32 images that are timed."""
    backbones: tuple[str, ...]
    """Whose features and forward passes are measured."""
    repeats: int
    scale: tuple[int, ...] = ()
    """Numbers of images of the part `scale` in place of its own."""


class Bench:
    """What the parts share: the folder, the plan, the images and the choice of weights."""

    def __init__(self, folder: Path, plan: Plan, weights: str) -> None:
        self.folder, self.plan, self.weights = folder, plan, weights
        self.made = 0
        self.images: list[str] = []
        """What was taken for images, for the reader."""

    def files(self, images: int) -> Path:
        """A folder that stands in for downloads, with `images` pictures as the set's archive."""
        folder = self.folder / f"files-{images}"
        archive = folder / SETS[SET].archive
        if not archive.exists():
            chosen, what = pictures(SET, images)
            write_archive(archive, SETS[SET].image_pattern, chosen)
            self.images.append(what)
        return folder

    def workspace(self, images: int, parameters: Mapping[str, Any]) -> Workspace:
        """A scratch copy whose set has `images` images, downloaded, with its backbones' weights."""
        self.made += 1
        workspace = Workspace(
            self.folder / f"workspace-{self.made}",
            self.files(images),
            {"sets": [SET], "weights": self.weights, **parameters},
            resized_set(SET, images),
        )
        workspace.dvc("repro", "download", "weights")
        return workspace


def resized_set(name: str, images: int) -> str:
    """Code after stages/sources/sets.py that makes a set one of `images` images in order of class.

    The share of each class that trains in the `ordered` protocol stays; there is no other file than
    the archive. Raises UserError where the classes do not come out even.
    """
    image_set = SETS[name]
    classes = len(image_set.class_names)
    least = LEAST_OF_A_CLASS * classes
    if images % classes or images < least:
        raise UserError(f"{images} images of {name} are no multiple of {classes} from {least}")
    ordered = (image_set.ordered_train or 0) * images // image_set.images
    return (
        f"\nfrom dataclasses import replace\n"
        f"SETS[{name!r}] = replace(SETS[{name!r}], images={images}, "
        f"ordered_train={max(1, ordered)}, label_file=None, official_file=None, "
        f"files=SETS[{name!r}].files[:1])\n"
    )


def recipe(name: str) -> dict[str, Any]:
    """A recipe's parameters."""
    return dict(yaml.safe_load(RECIPES.read_text("utf-8"))[name])


def stage_measures(workspace: Workspace) -> dict[str, float]:
    """Seconds and gigabytes of every stage that the last DVC command ran."""
    measured = {}
    for stage in workspace.stage_runs():
        measured[f"stage {stage.stage}"] = stage.seconds
        measured[f"peak {stage.stage}"] = stage.peak / 1e9
    return measured


class Guide:
    """The guide's recipe: by the pipeline, cold and with another dropout, and by the script."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def measure(self) -> dict[str, float]:
        """Both ways, one after the other."""
        bench, plan = self.bench, self.bench.plan
        workspace = bench.workspace(plan.images, {"backbones": ["vgg19"]})
        words = command("guide", recipe("guide"), ["-S", f"weights={bench.weights}"])
        cold = workspace.dvc(*words[3:])
        measured = {"guide cold": cold.seconds} | stage_measures(workspace)
        measured["guide DVC"] = cold.seconds - sum(run.seconds for run in workspace.stage_runs())
        again = workspace.dvc("exp", "run", "-S", "dropout=0.3", f"evaluate@{SET}-vgg19")
        ran = {run.stage for run in workspace.stage_runs()}
        if ran != {"head", "finetune", "evaluate"}:
            raise UserError(f"dropout=0.3 ran {sorted(ran)}, not head, finetune and evaluate")
        measured["guide dropout"] = again.seconds
        pair = ("--set", SET, "--backbone", "vgg19")
        evaluate = workspace.python("-m", "stages.evaluate", *pair, "--protocol", "ordered")
        return measured | {"evaluate": evaluate.seconds} | self.plain(workspace)

    def plain(self, workspace: Workspace) -> dict[str, float]:
        """The plain script's ten epochs, scaled from those that the plan has it run."""
        plan, folder = self.bench.plan, self.bench.folder / "guide"
        rows = read_csv(workspace.folder / f"data/splits/{SET}.csv")
        some = rows[:: max(1, plan.images // plan.guide_images)]
        if not folder.exists():
            chosen = [(row["image"], row["class"], row["part"]) for row in some]
            unpack(self.bench.files(plan.images) / SETS[SET].archive, chosen, folder)
        done = plain(
            "plain_guide", str(folder), "--epochs", str(plan.guide_epochs),
            "--weights", self.bench.weights, workspace=workspace,
        )  # fmt: skip
        epochs, larger = done[1], len(rows) / len(some)
        return {"plain guide": scaled_seconds(done[0], epochs, EPOCHS, larger)}


def plain(script: str, *words: str, workspace: Workspace) -> tuple[float, list[float]]:
    """Run a plain script; return the seconds of the process and of each epoch."""
    words = (sys.executable, "-m", f"scripts.{script}", *words)
    done = run(words, workspace.folder, workspace.environment)
    return done.seconds, done.result()["epochs"]


class Article:
    """An epoch of fine-tuning InceptionV3's last 50 layers: from the cache, and by the script."""

    epochs: ClassVar = (1, 4)
    """Of the two trainings whose difference gives the seconds of an epoch alone."""

    def __init__(self, bench: Bench) -> None:
        self.bench, images = bench, bench.plan.article_images
        changed = {"sets": [SET], "backbones": ["inception_v3"], "finetune.epochs": 1}
        changed |= {"finetune.batch_norm": "frozen", "finetune.precision": "auto"}
        changed |= {"finetune.slices": 1}
        self.workspace = bench.workspace(images, recipe("article") | changed)
        self.workspace.dvc("repro", f"finetune@{SET}-inception_v3")
        self.prepared = {f"article {run.stage}": run.seconds for run in self.workspace.stage_runs()}
        lock = yaml.safe_load((self.workspace.folder / "dvc.lock").read_text("utf-8"))
        self.words = shlex.split(lock["stages"][f"finetune@{SET}-inception_v3"]["cmd"])[1:]

    def measure(self) -> dict[str, float]:
        """Both ways, one after the other."""
        few, many = self.epochs
        seconds = [self.finetune(epochs) for epochs in (few, many)]
        archive = self.bench.files(self.bench.plan.article_images) / SETS[SET].archive
        labels = self.workspace.folder / f"data/splits/{SET}.csv"
        _, epochs = plain(
            "plain_article", str(archive), str(labels), "--epochs", "2",
            "--weights", self.bench.weights, workspace=self.workspace,
        )  # fmt: skip
        each = (seconds[1] - seconds[0]) / (many - few)
        return self.prepared | {"fine-tuning epoch": each, "plain article epoch": epochs[-1]}

    def finetune(self, epochs: int) -> float:
        """Seconds of the stage with so many epochs."""
        at = self.words.index("--epochs") + 1
        words = [*self.words[:at], str(epochs), *self.words[at + 1 :]]
        return self.workspace.python(*words).seconds


class Features:
    """Each backbone's features, in one view and in two, against its forward pass alone."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        backbones = [*bench.plan.backbones]
        self.workspace = bench.workspace(bench.plan.features_images, {"backbones": backbones})
        self.workspace.dvc("repro", "survey")

    def measure(self) -> dict[str, float]:
        """All backbones in turn, and the limits that belong to none."""
        run = self.workspace.python
        measured = {
            f"matrix {name}": value for name, value in run(*NETWORK, "matrix").result().items()
        }
        decode = run(*NETWORK, "decode", "--set", SET, "--size", "224").result()
        measured["decode"] = decode["decode"]
        for backbone in self.bench.plan.backbones:
            measured |= self.backbone(backbone, str(SIZES[backbone]))
        return measured

    def backbone(self, name: str, size: str) -> dict[str, float]:
        """Images a second by the forward pass and by the stage, and the stage's parts."""
        run, batches = self.workspace.python, str(self.bench.plan.batches)
        options = ("--backbone", name, "--size", size, "--batches", batches)
        forward = run(*NETWORK, "forward", *options).result()
        measured = {f"forward {name} {key}": value for key, value in forward.items()}
        measured[f"forward {name}"] = max(forward.values())
        for count, views in (("one", ["plain"]), ("two", ["plain", "mirror"])):
            done = run(
                *NETWORK, "features", "--set", SET, "--backbone", name, "--image_size", size,
                "--crop", "center", "--pooling", "avg", "--precision", "auto", "--engine", "local",
                "--views", *views,
            )  # fmt: skip
            parts = done.result()
            measured[f"{count} {name}"] = parts["rest"] / parts["rest_images"]
            measured[f"whole {count} {name}"] = done.seconds
            if count == "one":
                measured |= {f"part {part} {name}": seconds for part, seconds in parts.items()}
                measured[f"part start-up {name}"] = done.seconds - parts["loop"]
                measured[f"features {name}"] = parts["rest_images"] / parts["rest"]
                measured[f"features whole {name}"] = self.bench.plan.features_images / done.seconds
        return measured


class NoOp:
    """`dvc repro` with nothing to do, for the default matrix."""

    def __init__(self, bench: Bench) -> None:
        self.workspace = Workspace(bench.folder / "no-op", bench.folder, {})
        self.workspace.python("-m", "scripts.bench_no_op")
        self.workspace.dvc("repro")
        if self.workspace.stage_runs():
            raise UserError("`dvc repro` ran stages where there was nothing to do")

    def measure(self) -> dict[str, float]:
        """One call, and the start of DVC that is part of it."""
        return {
            "nothing to do": self.workspace.dvc("repro").seconds,
            "dvc version": self.workspace.dvc("--version").seconds,
        }


class Memory:
    """Peak memory of every stage at the size of the larger set, by default parameters.

    Fine-tuning has one epoch, as more of them take no more memory.
    """

    set_name: ClassVar = "oxford102"

    def __init__(self, bench: Bench) -> None:
        self.bench, image_set, folder = bench, SETS[self.set_name], mirror()
        self.files, self.code, what = folder, "", f"all of the mirror's {image_set.archive}"
        if folder is None or not (folder / image_set.archive).is_file():
            images = image_set.images // len(image_set.class_names) * len(image_set.class_names)
            chosen, what = pictures(self.set_name, images)
            self.files, self.code = (
                bench.folder / "files-memory",
                resized_set(self.set_name, images),
            )
            write_archive(self.files / image_set.archive, image_set.image_pattern, chosen)
        bench.images.append(what)

    def measure(self) -> dict[str, float]:
        """One run of everything for each backbone."""
        measured: dict[str, float] = {}
        for name in self.bench.plan.backbones:
            self.bench.made += 1
            workspace = Workspace(
                self.bench.folder / f"workspace-{self.bench.made}",
                self.files or self.bench.folder,
                {
                    "sets": [self.set_name],
                    "backbones": [name],
                    "weights": self.bench.weights,
                    "finetune.epochs": 1,
                },
                self.code,
            )
            workspace.dvc("repro")
            peaks = {run.stage: run.peak / 1e9 for run in workspace.stage_runs()}
            measured |= {f"full {name} {stage}": peak for stage, peak in peaks.items()}
            measured[f"full {name}"] = max(peaks.values())
            shutil.rmtree(workspace.folder)
        return measured


class Scale:
    """Time for each further image, and peak memory, up to a hundred thousand images."""

    sizes: ClassVar = (1_020, 10_030, 100_300)
    """Multiples of the classes."""
    backbone: ClassVar = "demo_backbone"
    pictures: ClassVar = 10
    """Different ones of each class; the archive holds them again and again."""
    parameters: ClassVar = {"sets": [SET], "backbones": [backbone], "finetune.epochs": 1}

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.images.append(f"for scale, {self.pictures} of each class again and again")
        self.workspaces = [self.prepare(size) for size in bench.plan.scale or self.sizes]

    def prepare(self, images: int) -> Workspace:
        """A workspace with so many images and no duplicates among them; nothing goes by DVC."""
        image_set, folder = SETS[SET], self.bench.folder / f"scale-{images}"
        workspace = Workspace(folder, folder, self.parameters, resized_set(SET, images))
        classes = len(image_set.class_names)
        chosen = [*pictures(SET, classes * self.pictures)[0]]
        per_class = images // classes
        repeated = (
            chosen[n // per_class * self.pictures + n % self.pictures] for n in range(images)
        )
        raw = workspace.folder / "data/raw" / SET
        write_archive(raw / image_set.archive, image_set.image_pattern, repeated)
        write_json(raw / "source.json", {"set": SET, "source": "mirror", "files": {}})
        # All of them are duplicates, which would leave nothing to split.
        write_csv(workspace.folder / f"data/duplicates/{SET}.csv", ["image", "group"], [])
        options = ("--backbone", self.backbone, "--weights", "imagenet", "--seed", "42")
        workspace.python("-m", "stages.weights", *options)
        return workspace

    def measure(self) -> dict[str, float]:
        """Each stage at each size: gigabytes at the largest, seconds an image from size to size."""
        sizes = self.bench.plan.scale or self.sizes
        commands = [stage_commands(workspace.folder) for workspace in self.workspaces]
        measured = {}
        for stage in ("survey", "split", "features", "prefix", "head", "finetune", "evaluate"):
            done = self.run_in_turn([words[stage] for words in commands])
            each = marginal_seconds(sizes, [median(run.processor for run in runs) for runs in done])
            measured[f"scale {stage} first"], measured[f"scale {stage} last"] = each[0], each[-1]
            measured[f"scale {stage} least"] = done[0][0].peak / 1e9
            measured[f"scale {stage} peak"] = done[-1][0].peak / 1e9
        return measured

    def run_in_turn(self, commands: Sequence[Sequence[str]]) -> list[list[Done]]:
        """Runs of a stage by each workspace's command: of each but the largest, four.

        Two before the largest's and two after it, as other work on the machine comes and goes.
        """
        done: list[list[Done]] = [[] for _ in commands]
        *smaller, largest = range(len(commands))
        for place in (*smaller, *smaller, largest, *smaller, *smaller):
            workspace = self.workspaces[place]
            # What a run keeps of the network's values would spare the next one the network.
            shutil.rmtree(workspace.folder / "data/kept", ignore_errors=True)
            done[place].append(workspace.python(*commands[place]))
        return done


class Rows:
    """Time for each further image, and peak memory, of what reads features: up to a million rows.

    The features are generated, of one view; `--scale` names other numbers of rows.
    """

    sizes: ClassVar = (1_003, 10_013, 100_011, 1_000_008)
    """Multiples of the classes."""
    backbone: ClassVar = "demo_backbone"
    width: ClassVar = 256
    parameters: ClassVar = {
        "sets": [SET],
        "backbones": [backbone],
        "features.views": ["plain"],
        "head.strengths": [0.01],
    }

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.images.append(f"for rows, none: {self.width} generated features of each")

    def measure(self) -> dict[str, float]:
        """Each kind of head, and its scores, at each size."""
        measured: dict[str, float] = {}
        sizes = self.bench.plan.scale or self.sizes
        for kind in ("logistic", "mlp"):
            done = [self.run_stages(size, kind) for size in sizes]
            for stage in done[0]:
                name = f"rows {kind} {stage}"
                each = marginal_seconds(sizes, [stages[stage].processor for stages in done])
                measured[f"{name} first"], measured[f"{name} last"] = each[0], each[-1]
                measured[f"{name} least"] = done[0][stage].peak / 1e9
                measured[f"{name} peak"] = done[-1][stage].peak / 1e9
        return measured

    def run_stages(self, images: int, kind: str) -> dict[str, Done]:
        """Write the features, then run the stages with the commands that DVC would give them."""
        folder = self.bench.folder / f"rows-{images}-{kind}"
        parameters = {**self.parameters, "head.kind": kind, "head.epochs": 2}
        workspace = Workspace(folder, folder, parameters, resized_set(SET, images))
        self.write_inputs(workspace, images)
        commands = stage_commands(workspace.folder)
        done = {"head": workspace.python(*commands["head"])}
        models = workspace.folder / "models" / SET / self.backbone
        shutil.copy(models / "head_probabilities.npy", models / "finetuned_probabilities.npy")
        done["evaluate"] = workspace.python(*commands["evaluate"])
        shutil.rmtree(folder)
        return done

    def write_inputs(self, workspace: Workspace, images: int) -> None:
        """A split and features of so many images, and the backbone's weights."""
        options = ("--backbone", self.backbone, "--weights", "imagenet", "--seed", "42")
        workspace.python("-m", "stages.weights", *options)
        data, names = workspace.folder / "data", SETS[SET].class_names
        rng = np.random.default_rng(0)
        labels = np.sort(rng.permutation(images) % len(names))
        parts = np.array(["train", "train", "train", "val", "test"])[rng.integers(5, size=images)]
        write_csv(
            data / f"splits/{SET}.csv",
            ["image", "label", "class", "part", "group"],
            (
                (SETS[SET].image_pattern.format(n + 1), label, names[label], parts[n], n)
                for n, label in enumerate(labels.tolist())
            ),
        )
        path = data / f"features/{SET}/{self.backbone}.npy"
        path.parent.mkdir(parents=True)
        shape = (images, 1, self.width)
        features = np.lib.format.open_memmap(path, mode="w+", dtype="float32", shape=shape)  # type: ignore[no-untyped-call]
        centres = rng.random((len(names), self.width), np.float32)
        for rows in np.array_split(np.arange(images), -(-images // 10_000)):
            noise = rng.random((len(rows), self.width), np.float32)
            features[rows, 0] = centres[labels[rows]] + 4 * noise
        features.flush()
        info = {"image_size": 96, "crop": "center", "views": ["plain"], "pooling": "avg"}
        info |= {"precision": "float32", "width": self.width}
        source = {"source": "generated", "files": {}}
        facts = {"set": SET, "backbone": self.backbone, "images": source, "weights": source}
        write_json(path.with_suffix(".json"), facts | {"features": info})


def stage_commands(folder: Path) -> dict[str, list[str]]:
    """The words after `python` of each stage's command, for the first set and backbone."""
    code = (
        "import json; from dvc.repo import Repo\n"
        "print(json.dumps({s.name.split('@')[0]: s.cmd for s in Repo().index.stages "
        "if isinstance(s.cmd, str)}))"
    )
    done = run((sys.executable, "-c", code), folder, os.environ)
    return {name: shlex.split(cmd)[1:] for name, cmd in done.result().items()}


PARTS = {"guide": Guide, "article": Article, "features": Features, "nothing": NoOp}
FULL_PARTS = {"memory": Memory, "scale": Scale, "rows": Rows}
