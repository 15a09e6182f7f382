"""A trained model with what is beside its file: its class names, and what it wants to be shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.files import read_json
from stages.pictures.decoding import CROPS, Crop, Pixels

if TYPE_CHECKING:
    from stages.networks.keras_quiet import keras

SHOWN = 5
"""How many of the likeliest classes are shown."""


class Likely(NamedTuple):
    """A class and its probability, from 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Classifier:
    """A model that takes `size` pixels square of a picture cropped as `crop` says."""

    path: Path
    model: "keras.Model"
    class_names: list[str]
    set_name: str
    crop: Crop

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return int(self.model.input_shape[1])

    @property
    def description(self) -> str:
        """What is loaded, in one line."""
        return f"{self.path}: {len(self.class_names)} classes of {self.set_name}, {self.size} px"

    def likeliest(self, images: Pixels) -> list[list[Likely]]:
        """The SHOWN likeliest classes of images (n, size, size, 3), the likeliest first."""
        return likeliest(self.model.predict_on_batch(images), self.class_names, SHOWN)


def likeliest(
    probabilities: NDArray[np.float32], class_names: Sequence[str], count: int
) -> list[list[Likely]]:
    """The `count` likeliest classes for each row of `probabilities` (n, classes)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return [
        [Likely(class_names[each], float(row[each])) for each in best]
        for row, best in zip(probabilities, order, strict=True)
    ]


def find_model(path: Path) -> Path:
    """The model file that a path means: itself, or of a folder the fine-tuned one before the head.

    Raises UserError when there is none.
    """
    if path.suffix == ".keras" and path.is_file():
        return path
    for name in ("finetuned.keras", "head.keras"):
        if (path / name).is_file():
            return path / name
    raise UserError(
        f"{path} is no .keras file and no folder with one; give models/SET/BACKBONE, which "
        "`dvc repro` makes"
    )


def load_classifier(path: Path) -> Classifier:
    """Load the model that a path means, with classes.json and input.json beside it.

    Raises UserError when one of them is missing or does not fit.
    """
    # Here, as TensorFlow takes seconds to load: wrong options are told before.
    from stages.networks.model_files import load_model

    file = find_model(path)
    names = _read(file.with_name("classes.json"), "`dvc repro` writes it")
    shown = _read(
        file.with_name("input.json"),
        "`dvc repro` writes it; for a model of an older version write by hand, with what it was "
        'trained on, {"set": "flowers17", "crop": "center"}',
    )
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file.with_name('classes.json')} is no list of names; run `dvc repro`")
    if not isinstance(shown, dict) or shown.get("crop") not in CROPS or "set" not in shown:
        raise UserError(
            f"{file.with_name('input.json')} names no set or no crop of {', '.join(CROPS)}; "
            "run `dvc repro`"
        )
    model = load_model(file)
    shapes = (model.input_shape, model.output_shape)
    size = model.input_shape[1] if len(model.input_shape) == 4 else None
    if size is None or shapes != ((None, size, size, 3), (None, len(names))):
        raise UserError(
            f"{file} makes {shapes[1]} of {shapes[0]}, not probabilities of the {len(names)} "
            "classes in classes.json of square pictures; name a model that `dvc repro` made"
        )
    model.compile(jit_compile=False)
    return Classifier(file, model, names, str(shown["set"]), shown["crop"])


def _read(path: Path, remedy: str) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from None
