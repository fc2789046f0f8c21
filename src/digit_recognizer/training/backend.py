"""Import Keras, and TensorFlow behind it, with settings that do not depend on the user's files.

Their start-up messages (which instructions they use, which GPU they did not find) are held back; all others are passed
on. What depends on the backend stands here too: batch normalisation in one op, and how rows are fed to a network.
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
    # By name, so that the process that waits for this one finds the text where this one dies.
    with tempfile.NamedTemporaryFile(prefix=processes.stderr_file(os.getpid())) as caught:
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


@contextmanager
def _own_settings() -> Iterator[None]:
    """Keep ``keras.json`` and the variables that shorten a training from what imports Keras within."""
    os.environ["KERAS_BACKEND"] = numerics.keras_backend()
    for name in numerics.REMOVED:
        os.environ.pop(name, None)
    home = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["KERAS_HOME"] = empty
        try:
            yield
        finally:
            del os.environ["KERAS_HOME"]
            if home is not None:
                os.environ["KERAS_HOME"] = home


with _chatter_held_back(), _own_settings():
    import keras

    # The same where a notebook imported Keras before.
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.ops.zeros(1)  # the device starts, and talks, at the first operation
    with suppress(ImportError):  # Keras calls on it whatever the backend, later and as talkative
        import tensorflow

# TensorFlow warns ("triggered tf.function retracing") where a worker predicts with one network after another.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def batches(*arrays: npt.NDArray[Any], size: int, shuffle_seed: int | None = None) -> Any:
    """Arrays of one length as ``fit`` and ``predict`` take them: batch by batch.

    Where they are shuffled, to train on, the rows that fill no batch are left out until the next epoch shuffles anew: a
    last batch of a dozen rows would move the weights, and batch normalisation's means, as much as a whole one.

    TensorFlow would tune the pipeline that Keras makes of arrays, which has nothing to tune, in a thread that sleeps
    longer each time; in a process that has one core alone an epoch then waited for it, and lasted up to twice as long.

    Args:
        size: rows of a batch.
        shuffle_seed: of the rows' order, another one each epoch; None keeps them as they are, and all of them.
    """
    if keras.backend.backend() != "tensorflow":
        return _Batches(arrays, size, shuffle_seed)
    dataset = tensorflow.data.Dataset.from_tensor_slices(arrays)
    shuffled = shuffle_seed is not None
    if shuffled:
        dataset = dataset.shuffle(len(arrays[0]), seed=shuffle_seed)
    options = tensorflow.data.Options()
    options.autotune.enabled = False
    return dataset.batch(size, drop_remainder=shuffled and len(arrays[0]) >= size).with_options(options)


class _Batches(keras.utils.PyDataset):
    """The same on other backends."""

    def __init__(self, arrays: tuple[npt.NDArray[Any], ...], size: int, shuffle_seed: int | None) -> None:
        super().__init__()
        self._arrays, self._size, self._rows = arrays, size, np.arange(len(arrays[0]))
        self._draw = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return max(1, len(self._rows) // self._size) if self._draw else -(-len(self._rows) // self._size)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[Any], ...]:
        rows = self._rows[index * self._size : (index + 1) * self._size]
        return tuple(array[rows] for array in self._arrays)

    def on_epoch_end(self) -> None:
        if self._draw:
            self._draw.shuffle(self._rows)


@contextmanager
def computing(numbers: str) -> Iterator[None]:
    """Make the layers that are made within compute with float32, bfloat16 or float16, their weights in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(numbers if numbers == "float32" else f"mixed_{numbers}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' own, which in training reads and writes its input several times in float32; here TensorFlow's one op.

    The op takes half-length numbers as they are. With float32 it is slower on processors. Other backends, and images of
    another rank than (batch, height, width, channels), go Keras' way.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise by the batch in training, else by the means so far."""
        if not training or len(inputs.shape) != 4 or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tensorflow.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return outputs


__all__ = ["BatchNormalization", "batches", "computing", "keras", "precision"]
