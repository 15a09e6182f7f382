import io

import numpy as np
from PIL import Image, ImageEnhance

from stages.pictures.duplicates import (
    Pairs,
    difference_hash,
    find_pairs,
    nearest_partners,
    number_groups,
)


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
