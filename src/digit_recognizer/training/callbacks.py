"""Keras callbacks of a member's training: checkpoint, deadline, timing, progress."""

import math
import time
from pathlib import Path
from typing import Any

from digit_recognizer import files
from digit_recognizer.models import architectures
from digit_recognizer.recipe import Recipe
from digit_recognizer.training.backend import keras
from digit_recognizer.training.executors.local import Reporter


class FoldCheckpoint(keras.callbacks.ModelCheckpoint):
    """Keeps the network alone, in float32: the augmentation around it is for training, and so is the precision."""

    def __init__(self, network: Any, recipe: Recipe, path: Path, first: int) -> None:
        super().__init__(str(path), monitor="val_loss", mode="min", save_best_only=True)
        self._first = first  # from here on epochs are not held against those before, which are kept until then
        self._trained, self._path = network, path
        self.network = architectures.build(recipe.network, dropout=recipe.dropout, preprocessing=recipe.preprocessing)

    def set_model(self, model: Any) -> None:
        super().set_model(self.network)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.network.set_weights(self._trained.get_weights())
        if epoch == self._first:
            self.best = math.inf
        with files.explained(self._path):
            super().on_epoch_end(epoch, logs)


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Halves the learning rate where the fold's loss has not fallen for two epochs, over several calls of ``fit``."""

    def __init__(self) -> None:
        super().__init__(monitor="val_loss", factor=0.5, patience=2, min_lr=1e-5)
        self._begun = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if not self._begun:
            super().on_train_begin(logs)
        self._begun = True


class Deadline(keras.callbacks.Callback):
    """Ends training at the deadline; the epoch that it interrupts is still validated and may become the checkpoint."""

    def __init__(self, deadline: float | None, epochs: int) -> None:
        super().__init__()
        self._deadline, self._epochs, self._epoch, self.over = deadline, epochs, 0, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        last = self._epoch + 1 == self._epochs and batch + 1 == self.params["steps"]
        if self._deadline is not None and not last and time.monotonic() > self._deadline:
            self.over = self.model.stop_training = True


class StepTimer(keras.callbacks.Callback):
    """Times the steps that follow the first, in which the model is compiled."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds, self.first, self.last, self.steps = seconds, 0.0, 0.0, -1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.steps += 1
        self.model.stop_training = self.steps > 0 and self.last - self.first > self._seconds


class ProgressReporter(keras.callbacks.Callback):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._reporter.batch(batch + 1, self.params["steps"], (logs or {})["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._reporter.epoch(epoch + 1, logs or {})
