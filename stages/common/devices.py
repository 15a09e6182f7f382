"""All GPUs of a machine, and several machines, at once by `tf.distribute`.

With one GPU or none nothing is distributed: all is computed as if this module were not there.
"""

import json
import os
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.command_line import UserError
from stages.common.keras_quiet import keras, tensorflow
from stages.common.progress import say


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


def machines() -> int:
    """The number of machines in the variable `TF_CONFIG`, 1 without it.

    Raises UserError where it cannot be read.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        cluster = json.loads(text).get("cluster", {})
        return max(1, sum(len(cluster.get(name, ())) for name in ("chief", "worker")))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"TF_CONFIG is {text!r}, and not as in docs/machines.md; correct it, or unset it"
        ) from error


def all_machines() -> tensorflow.distribute.Strategy:
    """The strategy of all GPUs of the machines of `TF_CONFIG`; without it that of this machine's.

    To be asked for before TensorFlow computes. Waits for the other machines, on each of which the
    same program has to run. Raises UserError as `machines` does.
    """
    return _over_machines() if machines() > 1 else all_gpus()


@cache
def _over_machines() -> tensorflow.distribute.Strategy:
    say(f"waiting for all {machines()} machines of TF_CONFIG")
    return tensorflow.distribute.MultiWorkerMirroredStrategy()


def check_agreement(state: str, strategy: tensorflow.distribute.Strategy) -> None:
    """Raise UserError where `state` is not the same on all machines of a strategy."""
    digest = zlib.crc32(state.encode())
    digests = strategy.gather(
        strategy.run(lambda: tensorflow.constant([digest], tensorflow.int64)), axis=0
    )
    if len(set(digests.numpy().tolist())) > 1:
        raise UserError(
            f"the machines of TF_CONFIG do not go on from the same state, which is {state} on this "
            "one; give all of them the same parameters and inputs, and the data/checkpoints of one"
        )


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


def share_batch_norm(network: keras.Model) -> None:
    """In a scope of several devices, have batch norm train on the batch as a whole."""
    if tensorflow.distribute.get_strategy().num_replicas_in_sync > 1:
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


class Crossentropy(keras.losses.CategoricalCrossentropy):  # type: ignore[misc]
    """Keras's, with the right gradient where devices have unequal shares of a batch.

    Keras would follow the mean of the devices' means. The loss that it reports is the mean over all
    images, as it weighs what a device reports by the number of its images.
    """

    def __call__(self, targets: Any, outputs: Any, weights: Any = None) -> Any:
        """The mean loss of a device's share of the batch, a scalar."""
        mean = super().__call__(targets, outputs, weights)
        context = tensorflow.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return mean
        images = tensorflow.cast(tensorflow.shape(outputs)[0], mean.dtype)
        share = images / context.all_reduce("SUM", images)
        followed = mean * share * context.num_replicas_in_sync
        return followed + tensorflow.stop_gradient(mean - followed)


class Shared(keras.Model):  # type: ignore[misc]
    """A model that trains on several devices, to be made of another's inputs and outputs.

    Keras 3.12 fails with a model that was made in a scope: before it trains, it adds up the
    devices' shares of the first batch, whose sizes may differ, and which may be on other machines.
    So this one is made outside, of layers from inside. Of other machines it also wants the results
    of a step to be vectors.
    """

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train on a device's share of a batch; the results are of the shape (1,)."""
        return _as_vectors(super().train_step(data))

    def test_step(self, data: Any) -> dict[str, Any]:
        """Judge a device's share of a batch; the results are of the shape (1,)."""
        return _as_vectors(super().test_step(data))


def _as_vectors(results: dict[str, Any]) -> dict[str, Any]:
    return {name: tensorflow.reshape(value, (1,)) for name, value in results.items()}
