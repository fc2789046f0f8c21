"""Train one member: one network on one fold from one seed."""

import math
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import hints
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.models import architectures
from digit_recognizer.models.augmentation import RandomWarp
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import backend
from digit_recognizer.training.backend import keras
from digit_recognizer.training.callbacks import (
    Deadline,
    EpochRecorder,
    FoldCheckpoint,
    Plateau,
    ProgressReporter,
    StepTimer,
)
from digit_recognizer.training.executors import Reporter
from digit_recognizer.training.state import Training

Probabilities = npt.NDArray[np.float32]
PREDICT_BATCH = 1000  # images
ORDERS_PER_EPOCH = 2  # as Keras's ``fit`` consumes over several epochs, which older runs used
ROW_DTYPE = np.int32  # of row numbers; JAX has no int64 and would warn


@dataclass(frozen=True)
class TrainedMember:
    """A trained network with its history.

    Attributes:
        network: uncompiled keras.Model at the checkpoint, raw pixels → logits, float32.
        last_network: the same network with the weights after the last epoch, float32.
        history: loss, accuracy, learning_rate, val_loss and val_accuracy, each with one value per epoch; the last two
            are missing without validation rows.
        precision: float32, bfloat16 or float16, as used in training.
        best_epoch: the checkpoint's epoch, counted from 1: the lowest validation loss from ``first_epoch`` on; without
            validation rows the last epoch.
        stopped: True if the deadline ended training before the last step of the last epoch.
        seconds: time spent by earlier processes, from whose state this one continued.
    """

    network: Any
    last_network: Any
    history: dict[str, list[float]]
    precision: str
    best_epoch: int
    stopped: bool
    seconds: float


@dataclass(frozen=True)
class Pace:
    """Measured training times on this machine, in seconds.

    Attributes:
        start: building and compiling a network, including its first step.
        step: one training step.
        seconds: the whole measurement.
    """

    start: float
    step: float
    seconds: float


def train_member(
    recipe: Recipe,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    validation_images: npt.NDArray[np.uint8],
    validation_labels: npt.NDArray[np.uint8],
    *,
    seed: int,
    checkpoint: Path,
    reporter: Reporter,
    owner: str = "",
    deadline: float | None = None,
    logs: Path | None = None,
) -> TrainedMember:
    """Train a network and keep the epoch with the lowest validation loss (see ``TrainedMember.best_epoch``).

    After each epoch the state goes to ``reporter.save``. If ``reporter.saved`` is such a state of the same owner and
    recipe, training continues from it, and the result is the same as without the interruption.

    Args:
        recipe: network, augmentation and schedule.
        images: uint8 (n, 28, 28), the training rows.
        labels: uint8 (n,).
        validation_images: uint8 (m, 28, 28), the validation rows; they only choose the checkpoint. With none, it is
            the last epoch.
        validation_labels: uint8 (m,).
        seed: seed of the weights, the order of rows, the augmentation and dropout.
        checkpoint: path of the ``.keras`` file to write; ``keras.models.load_model`` reads it.
        reporter: receives each step and epoch.
        owner: digest of the run and member.
        deadline: value of ``time.monotonic`` after which no step starts.
        logs: a folder for TensorBoard's logs; None for no logs.

    Raises:
        KitError: the loss was never finite, usually because the learning rate is far too high.
        BadInput: the checkpoint cannot be written.
    """
    reporter.stage("building the network")
    network, trainer = build_trainer(recipe, images, validation_images, seed)
    precision = backend.precision(recipe.precision)
    stopper = Deadline(deadline, recipe.epochs)
    first = first_epoch(recipe)
    best_checkpoint = FoldCheckpoint(network, recipe, checkpoint, first, validated=len(validation_labels) > 0)
    plateau = Plateau() if recipe.schedule == "plateau" else None
    training = Training(recipe, owner, trainer, best_checkpoint, plateau, np.random.default_rng(seed))
    history = training.history
    recorder = EpochRecorder(history, stopper, lambda: reporter.save(training.capture()))
    tensorboard = keras.callbacks.TensorBoard(str(logs), write_graph=False) if logs else None
    # The state is stored before the epoch is reported, so that no reported epoch is lost.
    callbacks = [best_checkpoint, plateau, recorder, ProgressReporter(reporter), stopper, tensorboard]
    validation_rows = np.arange(len(images), len(images) + len(validation_images))
    validation = backend.batches(validation_rows.astype(ROW_DTYPE), validation_labels, size=PREDICT_BATCH)
    random, rows = training.random, np.arange(len(images))
    shuffle_seed = int(random.integers(1 << 31))
    if training.restore(reporter.saved):
        reporter.resume(training.epochs)
    # One call of ``fit`` per epoch: the order of its rows depends on the epoch alone, so that a restored training
    # continues with the same rows. With resampling the rows differ, too.
    while training.epochs < recipe.epochs and not stopper.stopped:
        epoch = training.epochs
        if recipe.resampling and epoch:
            rows = resample_rows(row_losses(network, images, labels), recipe.resampling, random)
            shuffle_seed = int(random.integers(1 << 31))
        trainer.fit(
            backend.batches(
                rows.astype(ROW_DTYPE),
                labels[rows],
                size=recipe.batch_size,
                shuffle_seed=shuffle_seed,
                order=0 if recipe.resampling else ORDERS_PER_EPOCH * epoch,
            ),
            initial_epoch=epoch,
            epochs=epoch + 1,
            validation_data=validation if len(validation_labels) else None,
            callbacks=[callback for callback in callbacks if callback],
            shuffle=False,  # the batches are shuffled; Keras would warn that it cannot shuffle them
            verbose=0,
        )
    losses = np.array(history["val_loss" if len(validation_labels) else "loss"])
    if len(losses) > first and np.isfinite(losses[first:]).any():
        losses[:first] = np.inf
    if not np.isfinite(losses).any():
        raise KitError(
            "training diverged: the loss was NaN or infinite in every epoch",
            hint=f"lower {hints.option('learning_rate')} (now {recipe.learning_rate:g})",
        )
    best_epoch = int(np.nanargmin(losses)) + 1 if len(validation_labels) else len(losses)
    reporter.stage("predicting")
    best = load_network(recipe, checkpoint)
    return TrainedMember(
        best, best_checkpoint.network, history, precision, best_epoch, stopper.stopped, training.seconds
    )


def first_epoch(recipe: Recipe) -> int:
    """Return the first epoch, counted from 0, that may become the checkpoint.

    With the schedules one-cycle and decay this is the first epoch of the last quarter. Before it the learning rate is
    high, the validation loss fluctuates, and its minimum over many epochs is optimistic. With a constant or plateau
    schedule a network may overfit at any time, so every epoch qualifies.
    """
    return recipe.epochs * 3 // 4 if recipe.schedule in ("one-cycle", "decay") else 0


def row_losses(network: Any, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the cross-entropy of each row, float64 (n,), without augmentation."""
    label_probabilities = predict(network, images)[np.arange(len(labels)), labels]
    return -np.log(np.maximum(label_probabilities, 1e-7).astype(np.float64))


def resample_rows(
    losses: npt.NDArray[np.float64], fraction: float, random: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Draw the rows of an epoch: some uniformly without replacement, the others in proportion to their loss.

    Args:
        losses: float (n,), each row's loss after the previous epoch, at least 0.
        fraction: fraction of the rows that are drawn by loss, with replacement; 0 returns every row once.
        random: source of randomness.

    Returns:
        integers (n,): row numbers; augmentation differs between repetitions of a row.
    """
    n = len(losses)
    hard = round(fraction * n)
    uniform = random.permutation(n)[: n - hard]
    weights = losses + 1e-6
    return np.concatenate((uniform, random.choice(n, hard, p=weights / weights.sum())))


def measure_pace(
    recipe: Recipe, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], *, seconds: float
) -> Pace:
    """Train a network for about ``seconds`` and at least two steps, discard it, and return the measured times."""
    start_time = time.monotonic()
    _, trainer = build_trainer(recipe, images, images[:0], seed=0)
    timer = StepTimer(seconds)
    rows = backend.batches(np.arange(len(images), dtype=ROW_DTYPE), labels, size=recipe.batch_size, shuffle_seed=0)
    trainer.fit(rows, epochs=1_000_000, callbacks=[timer], shuffle=False, verbose=0)
    step = (timer.last - timer.first) / timer.steps
    return Pace(start=timer.first - start_time, step=step, seconds=time.monotonic() - start_time)


def build_trainer(
    recipe: Recipe, images: npt.NDArray[np.uint8], validation_images: npt.NDArray[np.uint8], seed: int
) -> tuple[Any, Any]:
    """Build a network and the compiled model that trains it.

    The model's input is row numbers, int32 (batch,), into ``images`` followed by ``validation_images``.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    precision = backend.precision(recipe.precision)
    network = architectures.build(
        recipe.network, dropout=recipe.dropout, preprocessing=recipe.preprocessing, precision=precision
    )
    augmentation = RandomWarp(
        rotation=recipe.rotation,
        zoom=recipe.zoom,
        shift=recipe.shift,
        shear=recipe.shear,
        distortion=recipe.distortion,
        seed=seed,
    )
    pixels = np.concatenate((images, validation_images))[..., None]
    preprocessing, layers = architectures.split_preprocessing(network)
    if preprocessing:  # applied once before the augmentation, which it would otherwise undo
        pixels = preprocessing.predict(backend.batches(pixels, size=PREDICT_BATCH), verbose=0).round().astype(np.uint8)
    with backend.computing(precision):  # makes compile scale the loss for float16
        trainer = keras.Sequential(
            [
                keras.Input((), dtype="int32"),
                RowLookup(pixels),
                *([augmentation] if augmentation.active else []),
                *layers,
            ]
        )
    steps = max(1, len(images) // recipe.batch_size)  # per epoch
    rate: Any = recipe.learning_rate
    if recipe.schedule == "one-cycle":
        rate = OneCycle(recipe.learning_rate, recipe.warmup, recipe.epochs * steps)
    elif recipe.schedule == "decay":
        rate = keras.optimizers.schedules.ExponentialDecay(recipe.learning_rate, steps, 0.95, staircase=True)
    trainer.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    # A first step that creates variables is traced twice, so the optimizer's are created here.
    trainer.optimizer.build(trainer.trainable_variables)
    return network, trainer


def predict(network: Any, images: npt.NDArray[np.uint8]) -> Probabilities:
    """Return a network's probabilities, float32 (n, 10), for uint8 images (n, 28, 28); each row sums to 1."""
    if not len(images):
        return np.empty((0, 10), np.float32)
    if len(images) == 1:  # TensorFlow's graph optimizer fails on a network's first batch if that is one image
        pair = np.repeat(images[..., None], 2, axis=0)
        logits = network.predict_on_batch(pair)[:1]  # faster than ``predict``
    else:
        logits = network.predict(backend.batches(images[..., None], size=PREDICT_BATCH), verbose=0)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)


def load_network(recipe: Recipe, checkpoint: Path) -> Any:
    """Build the network of a recipe and load the weights of a checkpoint: a keras.Model, raw pixels → logits, float32.

    The network comes from this package and not from the file, which may come from elsewhere.

    Raises:
        BadInput: the checkpoint cannot be read, or it is of another network.
    """
    network = architectures.build(recipe.network, dropout=recipe.dropout, preprocessing=recipe.preprocessing)
    try:
        network.load_weights(checkpoint)
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:  # of Python and h5py
        raise BadInput(f"{checkpoint}: not a checkpoint of {recipe.network}", hint="train the recipe again") from error
    return network


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """A one-cycle schedule: a linear rise from 1/25 of the peak rate, then a cosine decay to 0.

    Source: L. N. Smith and N. Topin, "Super-Convergence" (2017). It has no branches, unlike Keras's CosineDecay: the
    optimizer evaluates the rate once for each decayed weight, and a branch in each doubled the time to trace a step.

    Args:
        peak: the highest learning rate.
        warmup: fraction of the steps in which the rate rises.
        steps: number of steps of the whole training.
    """

    def __init__(self, peak: float, warmup: float, steps: int) -> None:
        self.peak, self.rise_steps = peak, round(warmup * steps)
        self.fall_steps = max(1, steps - self.rise_steps)

    def __call__(self, step: Any) -> Any:
        """Return the rate at a step counted from 0."""
        done = keras.ops.cast(step, "float32")
        up = 0.04 + 0.96 * done / max(1, self.rise_steps)
        fall = keras.ops.clip((done - self.rise_steps) / self.fall_steps, 0.0, 1.0)
        down = 0.5 + 0.5 * keras.ops.cos(math.pi * fall)
        return self.peak * keras.ops.where(done < self.rise_steps, up, down)


class RowLookup(keras.layers.Layer):
    """Return rows of an array by their numbers, int32 (batch,); the array is copied to the device once."""

    def __init__(self, rows: npt.NDArray[np.uint8]) -> None:
        super().__init__(trainable=False)
        self._rows = self.add_weight(shape=rows.shape, dtype="uint8", initializer="zeros", trainable=False)
        self._rows.assign(rows)

    def call(self, numbers: Any) -> Any:
        """Return the rows with these numbers."""
        return keras.ops.cast(keras.ops.take(self._rows, numbers, axis=0), self.compute_dtype)
