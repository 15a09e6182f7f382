from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.training.batches import Batches


def distinct(rows: int = 10) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Values that tell their row and view, 10 * row + view, and targets that tell the row."""
    values = 10 * np.arange(rows)[:, None, None] + np.arange(3)[None, :, None]
    return values.astype(np.float16), np.eye(rows, dtype=np.float32)


def part_of(batches: Batches, part: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values, and the rows that the targets tell, of a slice."""
    batches.start(part)
    values, targets = zip(*(batches[step] for step in range(len(batches))), strict=True)
    return np.concatenate(values), np.concatenate(targets).argmax(axis=1)


def test_an_epoch_covers_its_rows_once_in_batches_of_one_size() -> None:
    rows = np.array([1, 2, 3, 5, 7, 8, 9])
    batches = Batches(*distinct(), rows, batch_size=3, seed=0)
    assert [len(batches[step][1]) for step in range(len(batches))] == [3, 2, 2]
    values, found = part_of(batches, 0)
    assert sorted(found) == rows.tolist()
    np.testing.assert_array_equal(values[:, 0] // 10, found)


@pytest.mark.parametrize(("rows", "steps"), [(8, 2), (9, 3), (3, 1)])
def test_no_batch_is_larger_than_asked_for(rows: int, steps: int) -> None:
    batches = Batches(*distinct(), np.arange(rows), batch_size=4, seed=0)
    assert len(batches) == steps
    assert max(len(batches[step][1]) for step in range(steps)) <= 4


def test_values_of_a_batch_are_float32() -> None:
    values, targets = Batches(*distinct(), np.arange(4), 4, seed=0)[0]
    assert values.dtype == targets.dtype == np.float32
    assert (values.shape, targets.shape) == ((4, 1), (4, 10))


def test_views_are_drawn_for_each_image_from_all_that_there_are() -> None:
    batches = Batches(*distinct(100), np.arange(100), 7, seed=0)
    views = part_of(batches, 0)[0][:, 0] % 10
    assert set(views) == {0, 1, 2}


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    def drawn(seed: int, *epochs: int) -> list[float]:
        batches = Batches(*distinct(), np.arange(10), 4, seed)
        return [part_of(batches, epoch)[0].ravel().tolist() for epoch in epochs][-1]

    assert drawn(1, 0, 1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 1)
    assert drawn(1, 2) != drawn(2, 2)


def test_the_slices_of_an_epoch_cover_it_once_in_its_order() -> None:
    whole = Batches(*distinct(23), np.arange(23), batch_size=2, seed=3)
    sliced = Batches(*distinct(23), np.arange(23), batch_size=2, seed=3, slices=4)
    assert (len(whole), len(sliced)) == (12, 3)
    for epoch in (0, 1):
        parts = [part_of(sliced, 4 * epoch + part) for part in range(4)]
        for found, wanted in zip(zip(*parts, strict=True), part_of(whole, epoch), strict=True):
            np.testing.assert_array_equal(np.concatenate(found), wanted)


def test_slices_have_the_same_number_of_batches_where_rows_do_not_divide() -> None:
    batches = Batches(*distinct(), np.arange(10), batch_size=2, seed=0, slices=3)
    parts = [part_of(batches, part)[1] for part in range(3)]
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(np.concatenate(parts)) == list(range(10))
    assert len(batches) == 2


def test_a_stream_has_the_batches_of_the_slice_that_is_dealt() -> None:
    batches = Batches(*distinct(), np.arange(10), 4, seed=0)
    stream = batches.stream()
    assert stream.cardinality() == len(batches) == 3
    for part in (0, 1):
        batches.start(part)
        for step, found in enumerate(stream.as_numpy_iterator()):
            for streamed, wanted in zip(found, batches[step], strict=True):
                np.testing.assert_array_equal(streamed, wanted)


def test_no_thread_tunes_a_stream() -> None:
    """The end of each epoch would wait for it, at times for a quarter of the epoch."""
    assert not Batches(*distinct(), np.arange(10), 4, seed=0).stream().options().autotune.enabled
