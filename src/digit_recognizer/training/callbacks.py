"""Keras callbacks for training a member: checkpoint, learning rate, deadline, timing and progress."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digit_recognizer import files
from digit_recognizer.models import architectures
from digit_recognizer.recipe import Recipe
from digit_recognizer.training.backend import keras
from digit_recognizer.training.executors import Reporter


class FoldCheckpoint(keras.callbacks.ModelCheckpoint):
    """Save the network in float32 at the lowest validation loss, without the augmentation.

    From epoch ``first``, counted from 0, earlier epochs no longer compete; until then the best so far is kept. Without
    validation rows every epoch is saved, and the last one remains.
    """

    def __init__(self, network: Any, recipe: Recipe, path: Path, first: int, *, validated: bool) -> None:
        super().__init__(str(path), monitor="val_loss", mode="min", save_best_only=validated)
        self._trained, self.path, self._first = network, path, first
        self.network = architectures.build(recipe.network, dropout=recipe.dropout, preprocessing=recipe.preprocessing)

    def set_model(self, model: Any) -> None:
        """Let Keras save the float32 copy instead of the model in training."""
        super().set_model(self.network)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Copy the weights and save them if the validation loss is the lowest."""
        self.copy_weights()
        if epoch == self._first:
            self.best = math.inf
        with files.explained(self.path):
            super().on_epoch_end(epoch, logs)

    def copy_weights(self) -> None:
        """Copy the weights of the network in training to the float32 copy."""
        self.network.set_weights(self._trained.get_weights())


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Halve the learning rate after two epochs without a lower validation loss; ``fit`` may be called several times."""

    def __init__(self) -> None:
        super().__init__(monitor="val_loss", factor=0.5, patience=2, min_lr=1e-5)
        self._started = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Reset the state in the first call of ``fit`` only."""
        if not self._started:
            super().on_train_begin(logs)
        self._started = True

    def state(self) -> dict[str, float]:
        """Return the values that change, without the learning rate, which is a variable of the optimizer."""
        return {"best": self.best, "wait": self.wait}

    def resume(self, state: dict[str, float]) -> None:
        """Continue from the values of ``state``."""
        self.on_train_begin()
        self.best, self.wait = state["best"], state["wait"]


class Deadline(keras.callbacks.Callback):
    """Stop training at the deadline; Keras still validates the interrupted epoch, which may become the checkpoint.

    Args:
        deadline: value of ``time.monotonic``; None for no deadline.
        epochs: number of epochs planned.
    """

    def __init__(self, deadline: float | None, epochs: int) -> None:
        super().__init__()
        self._deadline, self._epochs, self._epoch, self.stopped = deadline, epochs, 0, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop if the deadline has passed and steps remain."""
        last = self._epoch + 1 == self._epochs and batch + 1 == self.params["steps"]
        if self._deadline is not None and not last and time.monotonic() > self._deadline:
            self.stopped = self.model.stop_training = True


class EpochRecorder(keras.callbacks.Callback):
    """Record the metrics and the learning rate of each epoch; call ``finished`` unless the deadline cut it short.

    Args:
        history: metric → value per epoch, which is extended.
        stopper: the callback that may cut an epoch short.
        finished: called at the end of each complete epoch.
    """

    def __init__(self, history: dict[str, list[float]], stopper: Deadline, finished: Callable[[], None]) -> None:
        super().__init__()
        self._history, self._stopper, self._finished = history, stopper, finished

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Record the epoch."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        for name, value in ((logs or {}) | {"learning_rate": rate}).items():
            self._history.setdefault(name, []).append(float(value))
        if not self._stopper.stopped:
            self._finished()


class StepTimer(keras.callbacks.Callback):
    """Time the steps after the first, in which the model is compiled, and stop after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds, self.first, self.last, self.steps = seconds, 0.0, 0.0, -1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Count the step and stop if the time is up."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.steps += 1
        self.model.stop_training = self.steps > 0 and self.last - self.first > self._seconds


class ProgressReporter(keras.callbacks.Callback):
    """Pass steps and epochs on to a reporter."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Report the step."""
        self._reporter.batch(batch + 1, self.params["steps"], (logs or {})["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Report the epoch."""
        self._reporter.epoch(epoch + 1, logs or {})
