"""Where in a picture a classifier looks: Grad-CAM."""

import numpy as np
from numpy.typing import NDArray

from stages.networks.keras_quiet import keras, tensorflow
from stages.pictures.decoding import Pixels


def class_maps(
    classifier: keras.Model, backbone: str, images: Pixels, labels: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Where in each image something speaks for its label, shape (n, height, width), 0 to 1.

    Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2): the last
    feature map, weighted by the gradient of the class's score before softmax, without its negative
    part. The score depends on the map by its pooled features alone; summed over the places the
    gradient is that of the features, whether they are means or maxima.
    """
    head = classifier.get_layer("head")
    last = head.get_layer("classes")
    before_last = keras.Model(head.input, last.input)
    places = classifier.get_layer(backbone)(images.astype(np.float32))
    features = classifier.get_layer("pool")(places)
    with tensorflow.GradientTape() as tape:
        tape.watch(features)
        scores = keras.ops.matmul(before_last(features), last.kernel) + last.bias
        own = tensorflow.gather(scores, labels, batch_dims=1)
    weights = tape.gradient(own, features)
    maps = np.maximum(np.einsum("nhwc,nc->nhw", np.asarray(places, np.float32), weights), 0)
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.asarray(maps / np.where(highest > 0, highest, 1), np.float32)


def has_places(classifier: keras.Model, backbone: str) -> bool:
    """Whether the network's last feature map has more than one place to look at."""
    _, *places, _ = classifier.get_layer(backbone).output_shape
    return bool(np.prod(places) > 1)
