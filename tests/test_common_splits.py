from pathlib import Path

import numpy as np
import pytest

from stages.common.splits import SplitTable, read_split

TABLE = """image,label,class,group,part
jpg/2.jpg,1,"rose, red",1,val
jpg/1.jpg,0,daisy,2,train
jpg/3.jpg,16,iris,1,train
"""


def test_a_split_is_read_in_the_files_order(tmp_path: Path) -> None:
    path = tmp_path / "demo.csv"
    path.write_text(TABLE)
    table = read_split(path)
    assert table.images == ["jpg/2.jpg", "jpg/1.jpg", "jpg/3.jpg"]
    assert table.labels.tolist() == [1, 0, 16]
    assert table.labels.dtype == np.int64
    assert table.groups.tolist() == [1, 2, 1]
    assert table.parts.tolist() == [["val", "train", "train"]]


@pytest.mark.parametrize(
    ("parts", "reported"),
    [(["train", "val"], "val"), (["train", "val", "test"], "test"), (["test", "train"], "test")],
)
def test_test_is_reported_where_there_is_one(parts: list[str], reported: str) -> None:
    none = np.zeros(0, int)
    assert SplitTable([], none, none, np.array([parts])).reported_part == reported
