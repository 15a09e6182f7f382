"""What the machine can do at most: the forward pass of a frozen network, and nothing else.

    python -m bench.forward vgg19 224

The last line of the output is JSON: images a second, by precision. The weights are random.
"""

import json
import sys
import time

import keras
import numpy as np
import tensorflow as tf

NETWORKS = {
    "vgg19": keras.applications.VGG19,
    "inception_v3": keras.applications.InceptionV3,
    "mobilenet": keras.applications.MobileNet,
}
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
BATCH = 32
LEAST_SECONDS = 5.0


def forward_speed(network: str, size: int, policy: str) -> float:
    """Images a second of the network and its pooling, on one batch that is prepared before."""
    keras.config.set_dtype_policy(policy)
    model = NETWORKS[network](
        include_top=False, weights=None, pooling="avg", input_shape=(size, size, 3)
    )
    forward = tf.function(lambda batch: model(batch, training=False))
    batch = tf.constant(np.random.default_rng(0).random((BATCH, size, size, 3), np.float32))
    forward(batch).numpy()
    started, images = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < LEAST_SECONDS:
        forward(batch).numpy()
        images += BATCH
    return images / seconds


if __name__ == "__main__":
    network, size = sys.argv[1:]
    speeds = {name: forward_speed(network, int(size), POLICIES[name]) for name in POLICIES}
    print(json.dumps(speeds))
