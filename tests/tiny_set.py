"""A small set of images, and the stages run on it with the real parameters shrunk."""

import hashlib
import io
import os
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from stages.common.files import read_csv, write_csv, write_json
from stages.pictures.reading import read_members
from stages.pictures.table import PictureTable, table_path, write_table

ROOT = Path(__file__).parents[1]
CLASSES, IMAGES_A_CLASS = 3, 10
CLASS_NAMES = ("red", "green", "blue's")
IMAGES = [f"jpg/image_{number:04d}.jpg" for number in range(1, CLASSES * IMAGES_A_CLASS + 1)]
LABELS = np.arange(len(IMAGES)) % CLASSES
ARCHIVE = "data/raw/tiny/tiny.tgz"


def default_parameters() -> dict[str, Any]:
    """The content of the repository's params.yaml."""
    return dict(yaml.safe_load((ROOT / "params.yaml").read_text("utf-8")))


def as_options(section: Mapping[str, Any]) -> list[str]:
    """Command line options as DVC makes them of a section of params.yaml."""
    words = []
    for name, value in section.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)] if value else []
        elif value is True:
            words.append(f"--{name}")
        elif value is not False:
            words += [f"--{name}", str(value)]
    return words


def words_of(command: str, parameters: Mapping[str, Any], item: Mapping[str, str]) -> list[str]:
    """A stage's command line as DVC makes it of dvc.yaml's, without `python -m MODULE`."""
    words = []
    for word in command.split()[3:]:
        if not word.startswith("${"):
            words.append(word)
            continue
        value: Any = {**parameters, "item": item}
        for key in word.strip("${}").split("."):
            value = value[key]
        if isinstance(value, dict):
            words += as_options(value)
        else:
            words.append(str(value).lower() if isinstance(value, bool) else str(value))
    return words


def picture(label: int, rng: np.random.Generator) -> bytes:
    """A noisy JPEG, wider than high, in which the channel `label` is the brightest."""
    pixels = rng.integers(0, 120, (100, 130, 3), dtype=np.uint8)
    pixels[..., label] += 100
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a gzipped tar of files, by their names."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_tiny_set(folder: Path, source: str = "generated") -> None:
    """What `collect` writes of a set of 30 pictures; its archive holds them in an order of its own.

    Its official split is 9 of train, 6 of val and 15 of test; its ordered one has 7 of each class
    in train.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    contents = [picture(label, rng) for label in LABELS.tolist()]
    order = rng.permutation(len(IMAGES)).tolist()
    write_tar(folder / "tiny.tgz", {IMAGES[row]: contents[row] for row in order})
    digests = [hashlib.sha256(each).hexdigest() for each in contents]
    splits = {
        "official": [np.repeat(["train", "val", "test"], [9, 6, 15])],
        "ordered": [np.repeat(["train", "val"], [7 * CLASSES, 3 * CLASSES])],
    }
    archives = [f"data/raw/{folder.name}/tiny.tgz"] * len(IMAGES)
    table = PictureTable(IMAGES, LABELS, CLASS_NAMES, digests, archives, splits)
    write_table(folder / "pictures.csv", table)
    facts = {"set": folder.name, "source": source, "files": {}, "missing": [], "terms": "none"}
    write_json(folder / "source.json", facts)


def replace_pictures(folder: Path, contents: Mapping[int, bytes]) -> None:
    """Give rows of the tiny set in a project's folder other bytes; the archive's order stays."""
    table = table_path("tiny", folder)
    members = {IMAGES[row]: contents.get(row, data) for row, data in read_members(table, IMAGES)}
    write_tar(folder / ARCHIVE, members)
    rows = [
        {**row, "sha256": hashlib.sha256(members[row["image"]]).hexdigest()}
        for row in read_csv(table)
    ]
    write_csv(table, list(rows[0]), [[*row.values()] for row in rows])


class Stages:
    """Runs stages in a folder, on the tiny set or another, and the demo's network."""

    def __init__(self, folder: Path, set_name: str = "tiny") -> None:
        self.folder = folder
        self.SET = ("--set", set_name)
        self.PAIR = (*self.SET, "--backbone", "demo_backbone")
        parameters = default_parameters()
        self.head = parameters["head"] | {
            "epochs": 3,
            "hidden": [8],
            "kind": "mlp",
            "refit": "true",
        }
        self.finetune = parameters["finetune"] | {"epochs": 2, "refit": "true"}
        self.features = parameters["features"] | {"image_size": 32, "precision": "float32"}
        self.engine = parameters["engine"]
        self.duplicates = parameters["duplicates"]
        self.split = parameters["split"]
        self.predict = parameters["predict"] | {"calibrate": False}
        self.dropout = parameters["dropout"]

    def run(self, main: Callable[[list[str]], None], *words: str, **section: Any) -> None:
        """Call a stage's `main` in the folder; what `section` has goes before `words`."""
        before = Path.cwd()
        if "backbone" in section and "--backbone" in words:
            at = words.index("--backbone")
            words = words[:at] + words[at + 2 :]
        os.chdir(self.folder)
        try:
            main([*words, *as_options(section)])
        finally:
            os.chdir(before)
            if keras := sys.modules.get("keras"):  # Not imported here: some stages do without it.
                keras.config.set_dtype_policy("float32")

    def run_weights(self) -> None:
        from stages.weights import main

        self.run(main, *self.PAIR[2:], weights="random", seed=42)

    def run_imagenet(self, **changes: Any) -> None:
        from stages.imagenet import main

        self.run(main, *self.PAIR[2:], **{"weights": "random", "classifier": True} | changes)

    def run_collect(self) -> None:
        from stages.collect import main

        self.run(main, *self.SET)

    def run_duplicates(self, **changes: Any) -> None:
        from stages.duplicates import main

        self.run(main, *self.SET, **self.duplicates | changes)

    def run_survey(self, unreadable: str = "stop") -> None:
        from stages.survey import main

        self.run(main, *self.SET, unreadable=unreadable)

    def run_inspect(self, **changes: Any) -> None:
        from stages.inspect import main

        values = {"augment": "none", "color_jitter": 0, "seed": 42} | self.features
        self.run(main, *self.PAIR, **values | changes)

    def run_split(self, **changes: Any) -> None:
        from stages.split import main

        self.run(main, *self.SET, **self.split | changes)

    def run_features(self, **changes: Any) -> None:
        from stages.features import main

        self.run(main, *self.PAIR, **{"engine": self.engine} | self.features | changes)

    def run_prefix(self, **changes: Any) -> None:
        from stages.prefix import main

        cut = {name: self.finetune[name] for name in ("unfreeze", "batch_norm", "augment")}
        self.run(main, *self.PAIR, **cut | {"engine": self.engine} | self.features | changes)

    def run_head(self, **changes: Any) -> None:
        from stages.head import main

        values = {"seed": 42, "dropout": self.dropout} | self.head | self.predict
        self.run(main, *self.PAIR, **values | changes)

    def run_finetune(self, **changes: Any) -> None:
        from stages.finetune import main

        self.run(
            main,
            *self.PAIR,
            **{"seed": 42, "dropout": self.dropout} | self.finetune | self.predict | changes,
        )

    def run_evaluate(self, **changes: Any) -> None:
        from stages.evaluate import main

        self.run(main, *self.PAIR, **{"protocol": "stratified"} | changes)

    def run_explain(self) -> None:
        from stages.explain import main

        self.run(main, *self.PAIR, "--crop", self.features["crop"])

    def run_all(self) -> None:
        write_tiny_set(self.folder / "data/raw/tiny")
        self.run_from_weights()

    def run_from_weights(self) -> None:
        self.run_weights()
        self.run_imagenet()
        self.run_survey()
        self.run_duplicates()
        self.run_split()
        self.run_features()
        self.run_prefix()
        self.run_head()
        self.run_finetune()
        self.run_evaluate()
