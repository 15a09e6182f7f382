import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.networks.keras_quiet import keras
from stages.pictures.decoding import decode
from stages.pictures.reading import read_members
from tests.tiny_set import CLASS_NAMES, IMAGES, Stages
from tools.classifier import Likely, find_model, likeliest, load_classifier

MODEL = Path("models/tiny/demo_backbone")


def test_the_likeliest_come_first_and_equals_in_the_order_of_classes() -> None:
    probabilities = np.array([[0.25, 0.5, 0.25, 0], [0.1, 0.2, 0.3, 0.4]], np.float32)
    found = likeliest(probabilities, ["a", "b", "c", "d"], 2)
    assert found[0] == [Likely("b", 0.5), Likely("a", 0.25)]
    assert [each.name for each in found[1]] == ["d", "c"]
    assert found[1][0].probability == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["", "head.keras"])
def test_it_gives_the_probabilities_that_were_scored(ran: Stages, name: str) -> None:
    folder = ran.folder / MODEL
    classifier = load_classifier(folder / name)
    model = "head" if name else "finetuned"
    assert classifier.path.name == f"{model}.keras"
    assert (classifier.size, classifier.crop, classifier.set_name) == (32, "center", "tiny")
    assert classifier.description.endswith(f"{model}.keras: 3 classes of tiny, 32 px")
    members = sorted(read_members(ran.folder / "data/raw/tiny/pictures.csv", IMAGES))
    images = np.stack([decode(data, classifier.size, classifier.crop) for _, data in members])
    found = classifier.likeliest(images)
    scored = np.load(folder / f"{model}_probabilities.npy")
    for each, row in zip(found, scored, strict=True):
        assert [likely.name for likely in each] == [CLASS_NAMES[n] for n in np.argsort(-row)]
        np.testing.assert_allclose(
            [likely.probability for likely in each], -np.sort(-row), atol=2e-3
        )


def missing_input(folder: Path) -> None:
    (folder / "input.json").unlink()


def other_crop(folder: Path) -> None:
    (folder / "input.json").write_text(json.dumps({"set": "tiny", "crop": "left"}))


def broken_input(folder: Path) -> None:
    (folder / "input.json").write_text("{")


def missing_classes(folder: Path) -> None:
    (folder / "classes.json").unlink()


def other_classes(folder: Path) -> None:
    (folder / "classes.json").write_text('{"a": 1}')


def too_few_classes(folder: Path) -> None:
    (folder / "classes.json").write_text('["a", "b"]')


def no_model(folder: Path) -> None:
    (folder / "finetuned.keras").write_bytes(b"no model")


def other_model(folder: Path) -> None:
    features = keras.Input((7,))
    keras.Model(features, keras.layers.Dense(3)(features)).save(folder / "finetuned.keras")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing_input, r'input\.json is missing; `dvc repro` .*\{"set": "flowers17", "crop": "ce'),
        (other_crop, r"input\.json names no set or no crop of center, none; run `dvc repro`"),
        (broken_input, r"input\.json cannot be read \(.*\); `dvc repro` writes it"),
        (missing_classes, r"classes\.json is missing; `dvc repro` writes it"),
        (other_classes, r"classes\.json is no list of names; run `dvc repro`"),
        (too_few_classes, r"makes \(None, 3\) of .* of the 2 classes"),
        (no_model, r"finetuned\.keras is not a model that can be loaded \(it is damaged"),
        (other_model, r"makes \(None, 3\) of \(None, 7\), not probabilities"),
    ],
)
def test_what_does_not_fit_is_named(
    ran: Stages, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("finetuned.keras", "classes.json", "input.json"):
        shutil.copy(ran.folder / MODEL / name, folder)
    change(folder)
    with pytest.raises(UserError, match=message):
        load_classifier(folder)


def test_wrong_options_are_told_before_tensorflow_is_loaded() -> None:
    code = "import sys, tools.predict, tools.serve; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_folder_means_its_fine_tuned_model_before_its_head(tmp_path: Path) -> None:
    head, finetuned = tmp_path / "head.keras", tmp_path / "finetuned.keras"
    head.touch()
    assert find_model(tmp_path) == head
    finetuned.touch()
    assert find_model(tmp_path) == finetuned
    assert find_model(head) == head


def test_where_there_is_no_model_the_error_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "classes.json").touch()
    for path in (tmp_path, tmp_path / "classes.json", tmp_path / "none.keras"):
        with pytest.raises(UserError, match=f"^{re.escape(str(path))} is no .keras file"):
            find_model(path)
