from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.training.prediction import predict


def test_prediction_is_of_the_first_views() -> None:
    values = np.arange(24, dtype=np.float16).reshape(4, 3, 2)

    def first_share(batch: NDArray[Any]) -> NDArray[Any]:
        assert batch.dtype == np.float32
        share = batch[:, :1] / 100
        return np.hstack([share, 1 - share])

    one = predict(first_share, values, np.arange(4), views=1, batch_size=3).mean(axis=1)
    np.testing.assert_allclose(one[:, 0], [0, 0.06, 0.12, 0.18], atol=1e-7)
    two = predict(first_share, values, np.arange(4), views=2, batch_size=3).mean(axis=1)
    np.testing.assert_allclose(two[:, 0], [0.01, 0.07, 0.13, 0.19], atol=1e-7)
    np.testing.assert_allclose(two.sum(1), 1)
    assert two.dtype == np.float32


def test_prediction_of_pixels_keeps_their_shape() -> None:
    values = np.full((3, 2, 4, 4, 3), 7, np.uint8)

    def mean(batch: NDArray[Any]) -> NDArray[Any]:
        assert batch.shape[1:] == (4, 4, 3)
        return np.asarray(batch.mean(axis=(1, 2)))

    found = predict(mean, values, np.array([2, 0]), views=2)
    np.testing.assert_array_equal(found, np.full((2, 2, 3), 7))
