import io

import pytest
from PIL import Image

from stages.common.files import read_csv
from stages.survey import look_at
from tests.tiny_set import Stages


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "JPEG")
    return buffer.getvalue()


def image_of(kind: str, orientation: int) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.effect_noise((101, 60), 50).convert("RGB").save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_picture_as_it_is_shown(kind: str, orientation: int) -> None:
    size = (60, 101) if orientation > 4 else (101, 60)
    assert look_at(image_of(kind, orientation)) == (*size, "")


def test_a_broken_picture_has_no_size() -> None:
    data = jpeg(100, 60)
    for broken in (data[:-2000], b"no picture"):  # The first one's header is whole.
        with pytest.raises(ValueError, match=r"."):
            look_at(broken)


def test_a_damaged_picture_has_its_size_and_what_is_damaged() -> None:
    assert look_at(jpeg(100, 60)[:-2]) == (100, 60, "its end is missing")


def test_every_image_is_listed(stages: Stages) -> None:
    stages.run_survey()
    rows = read_csv(stages.folder / "metrics/survey/tiny.csv")
    assert [row["image"] for row in rows] == [f"jpg/image_{n:04}.jpg" for n in range(1, 31)]
    assert [row["class"] for row in rows[:3]] == ["red", "green", "blue's"]
    assert {(row["width"], row["height"]) for row in rows} == {("130", "100")}
    assert {row["damaged"] for row in rows} == {""}
