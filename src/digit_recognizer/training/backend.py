"""Import Keras and TensorFlow with settings that do not depend on the user's files, and without start-up messages.

The backend-dependent parts of training are here too: fused batch normalisation, and batches of rows.
"""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer.training import numerics
from digit_recognizer.training.executors import processes
from digit_recognizer.training.numerics import resolved_precision as precision

_STARTUP_MESSAGES = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations|Could not find cuda drivers"
    rb"|cuda_platform\.cc|cudart_stub\.cc|cuda_dso_loader|This TensorFlow binary is optimized"
    rb"|To enable the following instructions|Unable to register cu|computation_placer|Could not find TensorRT"
    rb"|NUMA node|Created device|gpu_device\.cc"
)


@contextmanager
def _without_startup_messages() -> Iterator[None]:
    """Capture what native code writes to standard error, and pass on all lines but start-up messages."""
    sys.stderr.flush()
    stderr = os.dup(2)
    # A named file, which the parent process reads if this one is killed.
    with tempfile.NamedTemporaryFile(prefix=processes.temporary_prefix(os.getpid())) as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            captured.seek(0)
            for line in captured:
                if not _STARTUP_MESSAGES.search(line):
                    os.write(stderr, line)
            os.close(stderr)


@contextmanager
def _default_settings() -> Iterator[None]:
    """Hide ``keras.json`` and variables that shorten training from an import of Keras."""
    os.environ["KERAS_BACKEND"] = numerics.keras_backend()
    for name in numerics.REMOVED:
        os.environ.pop(name, None)
    home = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory(prefix=processes.temporary_prefix(os.getpid())) as empty_folder:
        os.environ["KERAS_HOME"] = empty_folder
        try:
            yield
        finally:
            del os.environ["KERAS_HOME"]
            if home is not None:
                os.environ["KERAS_HOME"] = home


with _without_startup_messages(), _default_settings():
    import keras

    # A notebook may have imported Keras before.
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.ops.zeros(1)  # the first operation starts the device, which writes messages
    with suppress(ImportError):  # Keras imports it later with every backend
        import tensorflow

# TensorFlow warns ("triggered tf.function retracing") where a worker predicts with one network after another.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def batches(*arrays: npt.NDArray[Any], size: int, shuffle_seed: int | None = None, order: int = 0) -> Any:
    """Return arrays of one length as batches for ``fit`` and ``predict``.

    With shuffling the last, incomplete batch of an epoch is dropped: a dozen rows would change the weights and the
    means of batch normalisation as much as a full batch.

    TensorFlow's pipeline tuning is off. There is nothing to tune, and its thread sleeps for growing intervals. An epoch
    on a single core waited for it and took up to twice as long.

    Args:
        arrays: arrays of the same length.
        size: number of rows of a batch.
        shuffle_seed: seed of the rows' order, which differs between epochs; None keeps the order and all rows.
        order: number of the first epoch's order in the sequence that the seed defines.
    """
    if keras.backend.backend() != "tensorflow":
        return _Batches(arrays, size, shuffle_seed, order)
    dataset = tensorflow.data.Dataset.from_tensor_slices(arrays)
    shuffled = shuffle_seed is not None
    if shuffled:
        dataset = dataset.shuffle(len(arrays[0]), seed=shuffle_seed)
    options = tensorflow.data.Options()
    options.autotune.enabled = False
    batched = dataset.batch(size, drop_remainder=shuffled and len(arrays[0]) >= size).with_options(options)
    for _ in range(order):
        iter(batched)  # takes one order of the sequence
    return batched


class _Batches(keras.utils.PyDataset):
    """Batches for backends other than TensorFlow."""

    def __init__(self, arrays: tuple[npt.NDArray[Any], ...], size: int, shuffle_seed: int | None, order: int) -> None:
        super().__init__()
        self._arrays, self._size, self._rows = arrays, size, np.arange(len(arrays[0]))
        self._random = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
        for _ in range(order + 1):
            self.on_epoch_end()

    def __len__(self) -> int:
        return max(1, len(self._rows) // self._size) if self._random else -(-len(self._rows) // self._size)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[Any], ...]:
        rows = self._rows[index * self._size : (index + 1) * self._size]
        return tuple(array[rows] for array in self._arrays)

    def on_epoch_end(self) -> None:
        if self._random:
            self._random.shuffle(self._rows)


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Make new layers compute with float32, bfloat16 or float16; their weights stay in float32."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation for 16-bit training by TensorFlow's fused op.

    Keras's own layer casts its input to float32 and reads it several times. With float32 the fused op is slower on
    processors. Other backends and inputs of a rank other than 4 use Keras's implementation.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise by the batch in training, else by the moving mean and variance."""
        if not training or len(inputs.shape) != 4 or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tensorflow.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return outputs


__all__ = ["BatchNormalization", "batches", "computing", "keras", "precision"]
