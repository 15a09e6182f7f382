"""A small set of images, and the stages run on it with the real parameters shrunk."""

import io
import os
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import yaml
from PIL import Image

from stages.common.files import write_json
from stages.sources.sets import ImageSet

ROOT = Path(__file__).parents[1]
CLASSES, IMAGES_A_CLASS = 3, 10
TINY = ImageSet(
    name="tiny",
    archive="tiny.tgz",
    files=(),
    image_pattern="jpg/image_{:04d}.jpg",
    images=CLASSES * IMAGES_A_CLASS,
    class_names=("red", "green", "blue's"),
    label_file="imagelabels.mat",
    official_file="setid.mat",
    ordered_train=7,
)


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


def picture(label: int, rng: np.random.Generator) -> bytes:
    """A noisy JPEG, wider than high, in which the channel `label` is the brightest."""
    pixels = rng.integers(0, 120, (100, 130, 3), dtype=np.uint8)
    pixels[..., label] += 100
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tiny_set(folder: Path) -> None:
    """Write the raw files of TINY; the archive holds them in an order of its own."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    labels = np.arange(TINY.images) % CLASSES
    members = [
        (name, picture(label, rng))
        for name, label in zip(TINY.image_names, labels.tolist(), strict=True)
    ]
    with tarfile.open(folder / TINY.archive, "w:gz") as archive:
        for index in rng.permutation(TINY.images):
            name, data = members[index]
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels[np.newaxis] + 1})
    numbers = np.arange(1, TINY.images + 1)
    parts = {"trnid": numbers[:9], "valid": numbers[9:15], "tstid": numbers[15:]}
    scipy.io.savemat(folder / "setid.mat", parts)
    write_json(
        folder / "source.json", {"set": "tiny", "source": "generated", "files": {}, "missing": []}
    )


class Stages:
    """Runs stages in a folder, on TINY or another set, and the demo's network."""

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
        self.head["finetune_early_stopping"] = 0
        self.class_weight = parameters["class_weight"]
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

        self.run(main, *self.SET, **{"repeats": 1} | self.split | changes)

    def run_features(self, **changes: Any) -> None:
        from stages.features import main

        self.run(main, *self.PAIR, **{"engine": self.engine} | self.features | changes)

    def run_prefix(self, **changes: Any) -> None:
        from stages.prefix import main

        cut = {name: self.finetune[name] for name in ("unfreeze", "batch_norm", "augment")}
        self.run(main, *self.PAIR, **cut | {"engine": self.engine} | self.features | changes)

    def run_head(self, **changes: Any) -> None:
        from stages.head import main

        values = (
            {"seed": 42, "dropout": self.dropout, "class_weight": self.class_weight}
            | self.head
            | self.predict
        )
        self.run(main, *self.PAIR, **values | changes)

    def run_finetune(self, **changes: Any) -> None:
        from stages.finetune import main

        self.run(
            main,
            *self.PAIR,
            **{"seed": 42, "class_weight": self.class_weight}
            | self.finetune
            | self.predict
            | changes,
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
        self.run_survey()
        self.run_duplicates()
        self.run_split()
        self.run_features()
        self.run_prefix()
        self.run_head()
        self.run_finetune()
        self.run_evaluate()
