"""Predictions from cached values: features, activations or pixels."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stages.common.files import release
from stages.common.progress import progress_bar
from stages.training.batches import Values


def predict(
    predict_batch: Callable[[Values], Values],
    values: Values,
    rows: NDArray[np.int64],
    views: int,
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """What `predict_batch` gives for some rows of `values`, (images, views, ...).

    Shape (rows, `views`, width): in the first `views` of each image, `batch_size` images at once.
    """
    predicted: list[NDArray[np.float32]] = []
    with progress_bar(total=len(rows), desc="predicting", unit=" images", delay=2) as bar:
        for start in range(0, len(rows), batch_size):
            block = values[rows[start : start + batch_size], :views].astype(np.float32)
            release(values)
            flat = np.asarray(predict_batch(block.reshape(-1, *block.shape[2:])), np.float32)
            predicted.append(flat.reshape(len(block), views, -1))
            bar.update(len(block))
    return np.concatenate(predicted)
