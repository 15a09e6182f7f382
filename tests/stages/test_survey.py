import io

import pytest
from PIL import Image

from stages.common.files import read_csv
from stages.survey import picture_size
from tests.tiny_set import Stages


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.effect_noise((width, height), 50).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (101, 100)), (3, (101, 100)), (6, (100, 101)), (8, (100, 101))]
)
def test_the_size_is_that_of_the_picture_as_it_is_shown(
    orientation: int, size: tuple[int, int]
) -> None:
    assert picture_size(jpeg(101, 100, orientation)) == size


def test_a_broken_picture_has_no_size() -> None:
    data = jpeg(100, 60)
    for broken in (data[:-2000], b"no picture"):  # The first one's header is whole.
        with pytest.raises(ValueError, match=r"."):
            picture_size(broken)


def test_every_image_is_listed(stages: Stages) -> None:
    stages.run_survey()
    rows = read_csv(stages.folder / "metrics/survey/tiny.csv")
    assert [row["image"] for row in rows] == [f"jpg/image_{n:04}.jpg" for n in range(1, 31)]
    assert [row["class"] for row in rows[:3]] == ["red", "green", "blue's"]
    assert {(row["width"], row["height"]) for row in rows} == {("130", "100")}
