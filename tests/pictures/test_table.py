from pathlib import Path

import numpy as np
import pytest

from stages.common.command_line import UserError
from stages.pictures.table import PictureTable, read_table, table_path, write_table

PARTS = (["train", "val", "test"], ["test", "train", "val"])
TABLE = PictureTable(
    ["a, b/1.jpg", 'a, b/"2".jpg', "गुलाब/3.jpg"],
    np.array([1, 1, 0]),
    ["गुलाब", "a, b"],
    ["0" * 64, "1" * 64, "2" * 64],
    ["", "data/sets/x/a, b/more.tar", ""],
    {"official": [np.array(fold) for fold in PARTS], "ordered": [np.array(["val"] * 3)]},
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table_path("x").parent.mkdir(parents=True)


def test_what_is_written_is_read() -> None:
    write_table(table_path("x"), TABLE)
    read = read_table("x")
    assert (read.images, read.digests, read.archives) == (
        TABLE.images, TABLE.digests, TABLE.archives
    )  # fmt: skip
    assert (read.class_names, read.labels.tolist()) == (TABLE.class_names, [1, 1, 0])
    assert read.classes == ["a, b", "a, b", "गुलाब"]
    found = {name: [fold.tolist() for fold in folds] for name, folds in read.splits.items()}
    assert found == {"official": [*PARTS], "ordered": [["val"] * 3]}


def test_a_split_has_a_column_a_fold() -> None:
    write_table(table_path("x"), TABLE)
    header = table_path("x").read_text("utf-8").splitlines()[0]
    assert header == "image,class,label,sha256,archive,official,official_2,ordered"


def test_a_missing_table_is_named_with_what_helps() -> None:
    with pytest.raises(
        UserError, match=r"^data/raw/x/pictures\.csv is missing; run `dvc repro collect@x`$"
    ):
        read_table("x")
