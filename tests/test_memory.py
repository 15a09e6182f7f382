"""What is mapped from a file takes no more memory than a batch of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.common.files import release
from stages.extraction.extract import extract
from stages.extraction.forward import compute_here
from stages.extraction.kept import Kept
from stages.training.batches import Batches
from stages.training.prediction import predict

STATM = Path("/proc/self/statm")
pytestmark = pytest.mark.skipif(not STATM.exists(), reason="needs Linux's /proc")
IMAGES, MAP = 100, 1_000_000
"""200 MB as float16."""
MOST = 60e6
"""Bytes that a few images of it may take; the whole file is three times as many."""


def mapped() -> int:
    """Bytes of this process's memory that are a file's."""
    return int(STATM.read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def values(tmp_path: Path) -> NDArray[np.float16]:
    path = tmp_path / "values.npy"
    np.save(path, np.ones((IMAGES, 1, MAP), np.float16))
    return np.asanyarray(np.load(path, mmap_mode="r"))


def test_pages_are_let_go_of_and_come_back(values: NDArray[np.float16]) -> None:
    before = mapped()
    assert int(values[:, 0, ::512].sum(dtype=int)) == IMAGES * -(-MAP // 512)
    assert mapped() > before + 2 * MOST
    release(values[:, :1])
    assert mapped() < before + MOST / 4
    assert values[7, 0, 7] == 1
    release(np.ones(3))


def test_what_is_written_is_there_after_it_was_let_go_of(tmp_path: Path) -> None:
    before, seen = mapped(), []

    def read(rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        for start in range(0, len(rows), 5):
            seen.append(mapped() - before)
            positions = rows[start : start + 5]
            yield positions, positions.astype(np.uint8)[:, None, None, None]

    def network(images: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(images[:, 0, 0], (len(images), MAP))

    path = tmp_path / "values.npy"
    for count in (IMAGES // 2, IMAGES):
        keys = [str(number) for number in range(count)]
        kept = Kept(tmp_path / "kept", keys, ["plain"], {}, (MAP,), "float16")
        seen.append(mapped() - before)  # What was copied of the half.
        extract(compute_here(network, read, kept.lacking_views), np.arange(count), kept, path)
        del kept
    assert max(seen) < MOST
    assert np.array_equal(np.load(path)[:, 0, 5], np.arange(IMAGES))


def test_training_and_prediction_take_a_batch_at_a_time(values: NDArray[np.float16]) -> None:
    before, seen = mapped(), []
    targets = np.zeros((IMAGES, 2), np.float32)
    batches = Batches(values, targets, np.arange(IMAGES), 5, 0)
    for step in range(len(batches)):
        assert batches[step][0].shape == (5, MAP)
        seen.append(mapped() - before)

    def probabilities(block: NDArray[Any]) -> NDArray[Any]:
        seen.append(mapped() - before)
        return block[:, :2]

    rows = np.arange(IMAGES)
    assert predict(probabilities, values, rows, 1, batch_size=5).shape == (IMAGES, 1, 2)
    assert max(seen) < MOST
