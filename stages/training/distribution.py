"""Training on several GPUs of a machine, by `tf.distribute`."""

from typing import Any

from stages.networks.keras_quiet import keras, tensorflow


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
