import io
import tarfile
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from stages.common.command_line import UserError
from stages.common.files import read_csv
from stages.duplicates import (
    Pairs,
    difference_hash,
    find_pairs,
    nearest_partners,
    number_groups,
)
from tests.tiny_set import TINY, Stages


def draw(seed: int) -> Image.Image:
    """A smooth picture of its own for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((260, 200), Image.Resampling.BICUBIC)


def encode(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def difference(first: Image.Image, second: Image.Image) -> int:
    hashes = [difference_hash(np.asarray(image)) for image in (first, second)]
    return (hashes[0] ^ hashes[1]).bit_count()


def make_pairs(*rows: tuple[int, int, int]) -> Pairs:
    first, second, distance = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Pairs(first, second, distance)


def test_the_hash_says_where_the_picture_grows_brighter_to_the_right() -> None:
    steps = np.repeat(np.arange(9, dtype=np.uint8) * 20, 16)
    brighter = np.broadcast_to(steps[:, np.newaxis], (128, 144, 3))
    assert difference_hash(brighter) == 2**64 - 1
    assert difference_hash(brighter[:, ::-1]) == 0
    upper = np.concatenate([brighter[:64], brighter[:64, ::-1]])
    assert difference_hash(upper) == (2**32 - 1) << 32


def test_the_hash_outlasts_size_compression_and_brightness_but_not_another_picture() -> None:
    image = draw(0)
    with Image.open(io.BytesIO(encode(image, quality=20))) as compressed:
        assert difference(image, compressed) <= 2
    assert difference(image, image.resize((90, 60), Image.Resampling.BILINEAR)) <= 2
    assert difference(image, ImageEnhance.Brightness(image).enhance(0.6)) <= 2
    others = [difference(image, draw(seed)) for seed in range(1, 50)]
    assert min(others) > 10


def test_pairs_are_those_within_the_distance() -> None:
    hashes = np.array([0b0000, 0b1111, 0b0011, 2**63], np.uint64)
    assert [each.tolist() for each in find_pairs(hashes, 2)] == [[0, 0, 1], [2, 3, 2], [2, 1, 2]]
    assert [each.tolist() for each in find_pairs(hashes, 0)] == [[], [], []]


def test_groups_join_through_others_and_have_their_first_images_number() -> None:
    pairs = make_pairs((1, 4, 3), (2, 5, 0), (4, 6, 2))
    assert number_groups(pairs, 7).tolist() == [1, 2, 3, 4, 2, 3, 2]
    assert number_groups(make_pairs(), 3).tolist() == [1, 2, 3]


def test_the_nearest_partner_is_the_exact_one_then_the_first() -> None:
    pairs = make_pairs((0, 1, 0), (0, 2, 0), (1, 2, 0), (3, 4, 2), (4, 5, 2), (4, 6, 1))
    exact = np.array([False, True, False, False, False, False])
    assert nearest_partners(pairs, exact).tolist() == [
        [0, 2, 0, 1],
        [1, 0, 0, 0],
        [2, 0, 0, 1],
        [3, 4, 2, 0],
        [4, 6, 1, 0],
        [5, 4, 2, 0],
        [6, 4, 1, 0],
    ]
    assert nearest_partners(make_pairs(), np.zeros(0, bool)).shape == (0, 4)


def replace_pictures(stages: Stages, pictures: Mapping[int, bytes]) -> None:
    """Give TINY's images of these numbers, from 1, other pictures."""
    path = stages.folder / "data/raw/tiny" / TINY.archive
    with tarfile.open(path) as tar:
        members = {
            each.name: file.read() for each in tar if (file := tar.extractfile(each)) is not None
        }
    members |= {TINY.image_names[number - 1]: data for number, data in pictures.items()}
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_the_table_lists_exact_and_near_duplicates(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    image = draw(1)
    again = encode(image.resize((200, 154)), quality=60)
    replace_pictures(
        stages,
        {2: encode(draw(2)), 9: encode(image), 5: encode(draw(2)), 20: again, 30: encode(image)},
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
    replace_pictures(stages, {7: b"no picture"})
    with pytest.raises(UserError, match=r"jpg/image_0007\.jpg .* is not a readable picture"):
        stages.run_duplicates()


def test_the_same_pictures_give_the_same_table(stages: Stages) -> None:
    stages.run_duplicates(distance=16)
    path = stages.folder / "data/duplicates/tiny.csv"
    before = path.read_bytes()
    assert before.count(b"\n") > 1
    stages.run_duplicates(distance=16)
    assert path.read_bytes() == before
