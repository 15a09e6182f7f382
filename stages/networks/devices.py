"""All GPUs of a machine at once, by `tf.distribute`.

With one GPU or none nothing is distributed: all is computed as if this module were not there.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.networks.keras_quiet import tensorflow


def gpus() -> tuple[str, ...]:
    """The names of the GPUs that TensorFlow sees, such as `GPU:0`."""
    count = len(tensorflow.config.list_physical_devices("GPU"))
    return tuple(f"GPU:{number}" for number in range(count))


@cache
def _strategy_of(devices: tuple[str, ...]) -> tensorflow.distribute.Strategy:
    # TensorFlow mixes no two strategies, even of the same devices.
    if len(devices) > 1:
        return tensorflow.distribute.MirroredStrategy(devices)
    return tensorflow.distribute.get_strategy()


def all_gpus() -> tensorflow.distribute.Strategy:
    """The strategy of all GPUs; with one or none TensorFlow's default, which does nothing.

    Layers made in its scope have their weights on every device, and a model made in it trains on
    all of them. Keras's session must not be cleared in the scope.
    """
    return _strategy_of(gpus())


def on_each_device(
    function: Callable[[Any], Any], strategy: tensorflow.distribute.Strategy
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """`function` of a batch, (n, ...), as one of a batch for each device, (devices * n, ...).

    The first device takes the first n, and so on.
    """
    devices = strategy.num_replicas_in_sync
    if devices == 1:
        return lambda batch: np.asarray(function(tensorflow.constant(batch)).numpy())
    on_all = tensorflow.function(
        # Handed on itself, a function with a signature is refused.
        lambda shares: strategy.run(lambda share: function(share), (shares,))  # noqa: PLW0108
    )

    def apply(batch: NDArray[Any]) -> NDArray[Any]:
        shares = [tensorflow.constant(share) for share in np.split(batch, devices)]
        given = strategy.experimental_distribute_values_from_function(
            lambda context: shares[context.replica_id_in_sync_group]
        )
        results = strategy.experimental_local_results(on_all(given))
        return np.concatenate([result.numpy() for result in results])

    return apply
