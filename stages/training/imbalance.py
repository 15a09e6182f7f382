"""What is done about classes of which there are more images than of others."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

ClassWeight = Literal["none", "balanced"]
CLASS_WEIGHTS: tuple[ClassWeight, ...] = ("none", "balanced")


def image_weights(
    labels: NDArray[np.int64], train: NDArray[np.int64], classes: int, how: ClassWeight
) -> NDArray[np.float32] | None:
    """How much the loss of each image, (images,), counts; None where all count the same.

    `balanced`: the images that train, at the rows `train`, weigh one in the mean, and those of each
    class together as much as those of another; as King and Zeng, "Logistic regression in rare
    events data" (2001), section 4.1, and scikit-learn.
    """
    if how == "none":
        return None
    counts = np.bincount(labels[train], minlength=classes)
    weights = len(train) / np.count_nonzero(counts) / np.maximum(counts, 1)
    return np.asarray(weights[labels], np.float32)
