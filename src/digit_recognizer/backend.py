"""Start Keras: the one door through which it, and TensorFlow behind it, come in.

Its start-up talk (which instructions it uses, which GPU it did not find) is held back; all else is passed on.
"""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHATTER = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations|Could not find cuda drivers"
    rb"|cuda_platform\.cc|cudart_stub\.cc|cuda_dso_loader|This TensorFlow binary is optimized"
    rb"|To enable the following instructions|Unable to register cu|computation_placer|Could not find TensorRT"
    rb"|NUMA node|Created device|gpu_device\.cc"
)


@contextmanager
def _chatter_held_back() -> Iterator[None]:
    """Catch what native code writes to standard error, and pass on the lines that are no start-up talk."""
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            caught.seek(0)
            for line in caught:
                if not _CHATTER.search(line):
                    os.write(screen, line)
            os.close(screen)


with _chatter_held_back():
    import keras

    keras.ops.zeros(1)  # the device starts, and talks, at the first operation
    if keras.backend.backend() != "tensorflow":
        with suppress(ImportError):  # Keras calls on it all the same where it is installed, later and as talkative
            import tensorflow  # noqa: F401

# A worker that predicts with one network after the other is warned of it ("triggered tf.function retracing").
logging.getLogger("tensorflow").setLevel(logging.ERROR)

__all__ = ["keras"]
