"""Batches of cached values to train on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.files import release
from stages.networks.keras_quiet import tensorflow

Values = NDArray[Any]


class Batches:
    """Batches of some rows of an array, in an order and in views drawn anew for each epoch.

    What an epoch draws depends on the seed and the epoch's number alone, so that resumed training
    goes on as if it had not stopped. With `slices` above 1 an epoch is dealt out in so many parts
    of the same number of batches.
    """

    def __init__(
        self,
        values: Values,
        targets: NDArray[np.float32],
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int,
        slices: int = 1,
    ) -> None:
        self.values, self.targets, self.rows = values, targets, rows
        self.seed, self.slices = seed, slices
        self.steps = -(-len(rows) // (batch_size * slices))
        self.start(0)

    def start(self, part: int) -> None:
        """Deal slice number `part`, counted from 0 over all epochs."""
        epoch, part = divmod(part, self.slices)
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.rows)
        views = rng.integers(self.values.shape[1], size=len(self.rows))
        batches = slice(part * self.steps, (part + 1) * self.steps)
        count = self.steps * self.slices
        self.dealt = list(
            zip(
                np.array_split(order, count)[batches],
                np.array_split(views, count)[batches],
                strict=True,
            )
        )

    def __len__(self) -> int:
        """Count the batches of a slice; their sizes differ by one image at most."""
        return self.steps

    def __getitem__(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Batch number `step`: values (n, ...), and targets (n, classes)."""
        rows, views = self.dealt[step]
        values, targets = self.values[rows, views].astype(np.float32), self.targets[rows]
        release(self.values)
        return values, targets

    def stream(self) -> tensorflow.data.Dataset:
        """The batches of a slice as TensorFlow takes them, made ahead of the step that needs them.

        Not by Keras's own PyDataset: that has tf.data tune itself, in a thread for which the end of
        each epoch waits, at times for a quarter of the epoch.
        """
        shapes = [(None, *part.shape[1:]) for part in self[0]]
        signature = tuple(tensorflow.TensorSpec(shape, tensorflow.float32) for shape in shapes)
        options = tensorflow.data.Options()
        options.autotune.enabled = False
        dataset = tensorflow.data.Dataset.from_generator(
            lambda: (self[step] for step in range(len(self))), output_signature=signature
        )
        counted = dataset.apply(tensorflow.data.experimental.assert_cardinality(len(self)))
        return counted.prefetch(1).with_options(options)
