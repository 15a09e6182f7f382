import pytest

from stages.common.command_line import UserError
from stages.common.files import read_csv
from tests.pictures.test_duplicates import draw, encode
from tests.tiny_set import Stages, replace_pictures


def test_the_table_lists_exact_and_near_duplicates(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    image = draw(1)
    again = encode(image.resize((200, 154)), quality=60)
    replace_pictures(
        stages.folder,
        {1: encode(draw(2)), 8: encode(image), 4: encode(draw(2)), 19: again, 29: encode(image)},
    )
    stages.run_duplicates()
    rows = read_csv(stages.folder / "data/duplicates/tiny.csv")
    pairs = [(row["image"], row["group"], row["kind"], row["partner"]) for row in rows]
    assert pairs == [
        ("jpg/image_0002.jpg", "2", "exact", "jpg/image_0005.jpg"),
        ("jpg/image_0005.jpg", "2", "exact", "jpg/image_0002.jpg"),
        ("jpg/image_0009.jpg", "9", "exact", "jpg/image_0030.jpg"),
        ("jpg/image_0020.jpg", "9", "near", "jpg/image_0009.jpg"),
        ("jpg/image_0030.jpg", "9", "exact", "jpg/image_0009.jpg"),
    ]
    assert [row["class"] for row in rows] == ["green", "green", "blue's", "green", "blue's"]
    assert {row["distance"] for row in rows if row["kind"] == "exact"} == {"0"}
    assert "5 images in 2 groups; 2 pairs are exact, 2 of two classes" in capsys.readouterr().out


def test_a_set_without_duplicates_has_an_empty_table(ran: Stages) -> None:
    text = (ran.folder / "data/duplicates/tiny.csv").read_text()
    assert text == "image,class,group,kind,partner,distance\n"


@pytest.mark.parametrize("distance", [-1, 17, 2.5])
def test_a_wrong_distance_is_named(stages: Stages, distance: float) -> None:
    with pytest.raises(UserError, match=f"--distance: '{distance}' is not a whole number from 0 t"):
        stages.run_duplicates(distance=distance)


def test_a_picture_that_cannot_be_read_is_named(stages: Stages) -> None:
    replace_pictures(stages.folder, {6: b"no picture"})
    with pytest.raises(UserError, match=r"jpg/image_0007\.jpg .* is not a readable picture"):
        stages.run_duplicates()


def test_the_same_pictures_give_the_same_table(stages: Stages) -> None:
    stages.run_duplicates(distance=16)
    path = stages.folder / "data/duplicates/tiny.csv"
    before = path.read_bytes()
    assert before.count(b"\n") > 1
    stages.run_duplicates(distance=16)
    assert path.read_bytes() == before
