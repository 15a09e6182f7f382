"""Import this in place of `keras`: the same module, without TensorFlow's start-up chatter.

TensorFlow's C++ part writes to the process's stderr before any setting of its own takes effect, so
stderr is turned away while it is imported.
"""

import os
import sys
import tempfile

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

sys.stderr.flush()
_stderr = os.dup(2)
with tempfile.TemporaryFile() as _log:
    os.dup2(_log.fileno(), 2)
    try:
        import keras
        import tensorflow
    finally:
        os.dup2(_stderr, 2)
        os.close(_stderr)

tensorflow.get_logger().setLevel("ERROR")

__all__ = ["keras", "tensorflow"]
