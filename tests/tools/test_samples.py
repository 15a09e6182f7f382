import io
from pathlib import Path

import numpy as np
from PIL import Image

from stages.pictures.splits import SplitTable
from tests.tiny_set import CLASS_NAMES, Stages
from tools.samples import SIDE, choose_samples, find_samples, read_samples


def test_samples_are_the_first_of_train_and_of_each_group_one() -> None:
    table = SplitTable(
        images=[f"{number}.jpg" for number in range(9)],
        labels=np.array([0, 0, 0, 0, 0, 0, 0, 1, 2]),
        groups=np.array([9, 1, 2, 2, 3, 4, 5, 6, 7]),
        parts=np.array([["train", "val", *["train"] * 5, "val", "test"]]),
        class_names=["a", "b", "c"],
    )
    assert choose_samples(table, ["a", "b", "c"]) == {
        "a": ["0.jpg", "2.jpg", "4.jpg", "5.jpg"], "b": [], "c": [],
    }  # fmt: skip


def model(folder: Path) -> Path:
    return folder / "models/tiny/demo_backbone/finetuned.keras"


def test_each_class_has_a_strip_of_its_pictures(ran: Stages) -> None:
    """They are found beside the model, wherever the server was started."""
    files = find_samples(model(ran.folder), "tiny")
    assert files
    strips = read_samples(*files, CLASS_NAMES)
    assert list(strips) == list(CLASS_NAMES)
    for label, strip in enumerate(strips.values()):
        image = Image.open(io.BytesIO(strip))
        assert image.size == (4 * SIDE, SIDE)
        means = np.asarray(image).reshape(SIDE, 4, SIDE, 3).mean(axis=(0, 2))
        assert (means.argmax(axis=1) == label).all()


def test_without_table_or_split_there_are_none(ran: Stages, tmp_path: Path) -> None:
    assert find_samples(model(ran.folder), "no set") is None
    assert find_samples(model(ran.folder), "flowers17") is None
    assert find_samples(model(tmp_path), "tiny") is None
