"""Import this in place of `keras`: the same module, without TensorFlow's start-up chatter.

TensorFlow's C++ part writes to the process's stderr before any setting of its own takes effect, so
stderr is turned away while it is imported.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from stages.common.progress import say

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Turn away what is written to stderr, by C++ code too, while the block runs."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


# It takes seconds, from a cold disk many. Said at once, as no other thread of Python's runs
# meanwhile, and only where it is seen as it comes: what a program reads has an error alone, if any.
if sys.stderr.isatty() or "DVC_STAGE" in os.environ:
    say("starting TensorFlow")
with quiet_stderr():
    import keras
    import tensorflow

tensorflow.get_logger().setLevel("ERROR")
# MobileNets have weights of several sizes and say so; those of their own size are wanted.
warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square", UserWarning)

__all__ = ["keras", "quiet_stderr", "tensorflow"]
