"""Training on several devices, of one machine or of several, by `tf.distribute`."""

import json
import os
import zlib
from functools import cache
from typing import Any

from stages.common.command_line import UserError
from stages.common.progress import say
from stages.networks.devices import all_gpus
from stages.networks.keras_quiet import keras, tensorflow


def machines() -> int:
    """The number of machines in the variable `TF_CONFIG`, 1 without it.

    Raises UserError where it cannot be read, or does not say which of them this one is.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        cluster = config.get("cluster", {})
        count = sum(len(cluster.get(name, ())) for name in ("chief", "worker"))
        if count > 1:
            _ = cluster[config["task"]["type"]][config["task"]["index"]]
    except (ValueError, AttributeError, TypeError, LookupError) as error:
        raise UserError(
            f"TF_CONFIG is {text!r}, and not as in docs/machines.md; correct it, or unset it"
        ) from error
    return max(1, count)


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
