"""Predictions from cached values: features, activations or pixels."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from stages.common.files import release
from stages.common.progress import progress_bar
from stages.training.batches import Values


def _predict_blocks(
    predict_batch: Callable[[Values], Values],
    values: Values,
    rows: NDArray[np.int64],
    views: int,
    batch_size: int,
) -> Iterator[NDArray[np.float32]]:
    with progress_bar(total=len(rows), desc="predicting", unit=" images", delay=2) as bar:
        for start in range(0, len(rows), batch_size):
            block = values[rows[start : start + batch_size], :views].astype(np.float32)
            release(values)
            flat = np.asarray(predict_batch(block.reshape(-1, *block.shape[2:])), np.float32)
            yield flat.reshape(len(block), views, -1)
            bar.update(len(block))


def predict_views(
    predict_batch: Callable[[Values], Values],
    values: Values,
    rows: NDArray[np.int64],
    views: int,
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Probabilities (rows, views, classes) of some rows of `values`, in their first `views`."""
    return np.concatenate([*_predict_blocks(predict_batch, values, rows, views, batch_size)])


def predict(
    predict_batch: Callable[[Values], Values], values: Values, views: int, batch_size: int = 64
) -> NDArray[np.float32]:
    """Probabilities of every image, (images, classes), averaged over its first `views` views."""
    rows = np.arange(len(values))
    blocks = _predict_blocks(predict_batch, values, rows, views, batch_size)
    return np.concatenate([block.mean(axis=1) for block in blocks])
