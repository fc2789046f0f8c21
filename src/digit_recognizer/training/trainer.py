"""Train one member: one network, one fold, one seed."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import files
from digit_recognizer.errors import KitError
from digit_recognizer.models import architectures
from digit_recognizer.models.augmentation import RandomAffine
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import backend
from digit_recognizer.training.backend import keras
from digit_recognizer.training.callbacks import Deadline, FoldCheckpoint, Plateau, ProgressReporter, StepTimer
from digit_recognizer.training.executors.local import Reporter

Probabilities = npt.NDArray[np.float32]
PREDICT_BATCH = 1000
ROW_DTYPE = np.int32  # of row numbers: JAX has no int64, and would say so


@dataclass(frozen=True)
class TrainedMember:
    """A member's network at its checkpoint, and what happened on the way.

    Attributes:
        network: uncompiled keras.Model at the checkpoint, raw pixels → logits, float32.
        last_network: the same network with the weights after the last epoch, float32 too.
        history: figure → value for each epoch: loss, accuracy, val_loss, val_accuracy.
        precision: what it was trained with.
        best_epoch: the epoch, counted from 1, that the checkpoint is of: of the least loss on the fold, from
            ``first_epoch`` on.
        stopped: True where the deadline ended training before the last step of the last epoch.
    """

    network: Any
    last_network: Any
    history: dict[str, list[float]]
    precision: str
    best_epoch: int
    stopped: bool


@dataclass(frozen=True)
class Pace:
    """How long things take here, seconds.

    Attributes:
        start: to build and compile a network, its first step included.
        step: a training step.
        seconds: all that was measured.
    """

    start: float
    step: float
    seconds: float


def train_member(
    recipe: Recipe,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    out_images: npt.NDArray[np.uint8],
    out_labels: npt.NDArray[np.uint8],
    *,
    seed: int,
    checkpoint: Path,
    reporter: Reporter,
    deadline: float | None = None,
) -> TrainedMember:
    """Train a network and keep the epoch with the least loss on the rows left out (see ``Trained.best_epoch``).

    Args:
        recipe: network, augmentation, schedule.
        images, labels: uint8 (n, 28, 28) and (n,), the rows to train on.
        out_images, out_labels: the rows left out; they choose the checkpoint and nothing else.
        seed: of the weights, the order of rows, the augmentation and dropout.
        checkpoint: a ``.keras`` file, the whole network, which ``keras.models.load_model`` reads.
        reporter: told of each step and epoch.
        deadline: a time of ``time.monotonic`` after which no step begins.

    Raises:
        KitError: the loss was never finite, as happens where the learning rate is far too high.
        BadInput: the checkpoint cannot be written.
    """
    reporter.stage("building the network")
    network, trainer = build_trainer(recipe, images, out_images, seed)
    precision = backend.precision(recipe.precision)
    clock = Deadline(deadline, recipe.epochs)
    first = first_epoch(recipe)
    keeper = FoldCheckpoint(network, recipe, checkpoint, first)
    callbacks = [keeper, ProgressReporter(reporter), clock]
    if recipe.schedule == "plateau":
        callbacks.append(Plateau())
    out_rows = np.arange(len(images), len(images) + len(out_images))
    fold = backend.batches(out_rows.astype(ROW_DTYPE), out_labels, size=PREDICT_BATCH)
    history: dict[str, list[float]] = {}
    draw = np.random.default_rng(seed)
    rows = np.arange(len(images))
    # One call for all epochs, or one for each where the rows change between them.
    pieces = range(recipe.epochs) if recipe.resampling else range(1)
    for piece in pieces:
        if piece:
            rows = resample_rows(row_losses(network, images, labels), recipe.resampling, draw)
        told = trainer.fit(
            backend.batches(
                rows.astype(ROW_DTYPE), labels[rows], size=recipe.batch_size, shuffle_seed=int(draw.integers(1 << 31))
            ),
            initial_epoch=piece,
            epochs=piece + 1 if recipe.resampling else recipe.epochs,
            validation_data=fold,
            callbacks=callbacks,
            shuffle=False,  # it is done already; without this Keras warns that it cannot
            verbose=0,
        ).history
        for name, values in told.items():
            history.setdefault(name, []).extend(map(float, values))
        if clock.over:
            break
    judged = np.array(history["val_loss"])
    if len(judged) > first and np.isfinite(judged[first:]).any():
        judged[:first] = np.inf
    if not np.isfinite(judged).any():
        raise KitError(
            "training diverged: the loss was NaN or infinite in every epoch",
            hint=f"lower LEARNING_RATE, which is {recipe.learning_rate:g}",
        )
    best_epoch = int(np.nanargmin(judged)) + 1
    reporter.stage("predicting")
    with files.explained(checkpoint):
        best = keras.models.load_model(checkpoint)
    return TrainedMember(best, keeper.network, history, precision, best_epoch, stopped=clock.over)


def first_epoch(recipe: Recipe) -> int:
    """The first epoch, counted from 0, that may become the checkpoint.

    Where the rate falls to the end, by one cycle or by decay, that of the last quarter: before it the rate is high, the
    fold's loss jumps, and the least of many epochs is luck. At a constant rate or one that follows the fold's loss a
    network may overfit at any time, so all epochs count.
    """
    return recipe.epochs * 3 // 4 if recipe.schedule in ("one-cycle", "decay") else 0


def row_losses(network: Any, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The cross-entropy of each row, float64 (n,), images unchanged."""
    likely = predict(network, images)[np.arange(len(labels)), labels]
    return -np.log(np.maximum(likely, 1e-7).astype(np.float64))


def resample_rows(loss: npt.NDArray[np.float64], share: float, draw: np.random.Generator) -> npt.NDArray[np.intp]:
    """Draw the rows of an epoch: all of them once but for a ``share``, and that by their loss, the hardest most often.

    Args:
        loss: float (n,), each row's loss after the epoch before, at least 0.
        share: 0 gives every row once, 1 draws all by loss.
        draw: where randomness comes from.

    Returns:
        integers (n,): row numbers; a row that comes several times is augmented anew each time.
    """
    n = len(loss)
    hard = round(share * n)
    kept = draw.permutation(n)[: n - hard]
    weights = loss + 1e-6
    return np.concatenate((kept, draw.choice(n, hard, p=weights / weights.sum())))


def measure_pace(
    recipe: Recipe, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], *, seconds: float
) -> Pace:
    """Train a network that is thrown away, for some ``seconds`` and at least two steps, and return how long it took."""
    began = time.monotonic()
    _, trainer = build_trainer(recipe, images, images[:0], seed=0)
    clock = StepTimer(seconds)
    rows = backend.batches(np.arange(len(images), dtype=ROW_DTYPE), labels, size=recipe.batch_size, shuffle_seed=0)
    trainer.fit(rows, epochs=1_000_000, callbacks=[clock], shuffle=False, verbose=0)
    step = (clock.last - clock.first) / clock.steps
    return Pace(start=clock.first - began, step=step, seconds=time.monotonic() - began)


def build_trainer(
    recipe: Recipe, images: npt.NDArray[np.uint8], out_images: npt.NDArray[np.uint8], seed: int
) -> tuple[Any, Any]:
    """A network, and the compiled model that trains it: rows of ``images``, then of ``out_images`` → logits."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    precision = backend.precision(recipe.precision)
    network = architectures.build(
        recipe.network, dropout=recipe.dropout, preprocessing=recipe.preprocessing, precision=precision
    )
    warp = RandomAffine(rotation=recipe.rotation, zoom=recipe.zoom, shift=recipe.shift, shear=recipe.shear, seed=seed)
    pixels = np.concatenate((images, out_images))[..., None]
    preprocessing, layers = architectures.split_preprocessing(network)
    if preprocessing:  # applied once, before the augmentation, which it would undo
        pixels = preprocessing.predict(backend.batches(pixels, size=PREDICT_BATCH), verbose=0).round().astype(np.uint8)
    with backend.computing(precision):  # so that compile scales the loss where float16 needs it
        trainer = keras.Sequential(
            [keras.Input((), dtype="int32"), RowLookup(pixels), *([warp] if warp.moves else []), *layers]
        )
    steps = max(1, len(images) // recipe.batch_size)  # of an epoch
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
    # A first step that has variables to make is traced twice, so all are made here; a metric's name would not make its.
    trainer.optimizer.build(trainer.trainable_variables)
    return network, trainer


def predict(network: Any, images: npt.NDArray[np.uint8]) -> Probabilities:
    """Give a network's probabilities, float32 (n, 10), rows summing to 1, for uint8 images (n, 28, 28)."""
    if not len(images):
        return np.empty((0, 10), np.float32)
    logits = network.predict(backend.batches(images[..., None], size=PREDICT_BATCH), verbose=0)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate over ``steps``: a straight climb from a 25th of the peak to it, then half a cosine down to 0.

    Without branches, unlike Keras' own CosineDecay: the optimizer asks for the rate once for each weight it decays, and
    a branch for each doubled the time that a step takes to be traced. (One cycle: L. N. Smith and N. Topin, 2017.)

    Args:
        peak: the highest rate.
        warmup: fraction of the steps that climb.
        steps: of the whole training.
    """

    def __init__(self, peak: float, warmup: float, steps: int) -> None:
        self.peak, self.climb, self.fall = peak, round(warmup * steps), max(1, steps - round(warmup * steps))

    def __call__(self, step: Any) -> Any:
        """The rate at a step counted from 0."""
        done = keras.ops.cast(step, "float32")
        up = 0.04 + 0.96 * done / max(1, self.climb)
        fallen = keras.ops.clip((done - self.climb) / self.fall, 0.0, 1.0)
        down = 0.5 + 0.5 * keras.ops.cos(math.pi * fallen)
        return self.peak * keras.ops.where(done < self.climb, up, down)


class RowLookup(keras.layers.Layer):
    """Row numbers, int32 (batch,) → those rows of an array, which is brought to the device once and stays there."""

    def __init__(self, rows: npt.NDArray[np.uint8]) -> None:
        super().__init__(trainable=False)
        self._rows = self.add_weight(shape=rows.shape, dtype="uint8", initializer="zeros", trainable=False)
        self._rows.assign(rows)

    def call(self, numbers: Any) -> Any:
        """Look the rows up."""
        return keras.ops.cast(keras.ops.take(self._rows, numbers, axis=0), self.compute_dtype)
