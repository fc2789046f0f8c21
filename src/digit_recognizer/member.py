"""Train one member: one network, one fold, one seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import networks
from digit_recognizer.augment import RandomWarp
from digit_recognizer.backend import keras
from digit_recognizer.engines import Reporter
from digit_recognizer.recipe import Recipe

Probabilities = npt.NDArray[np.float32]
PREDICT_BATCH = 1000


@dataclass(frozen=True)
class Trained:
    """A member's network at its checkpoint, and what happened on the way.

    Attributes:
        network: uncompiled keras.Model, raw pixels → logits.
        history: figure → value for each epoch: loss, accuracy, val_loss, val_accuracy.
        best_epoch: the epoch, counted from 1, that the checkpoint is of.
    """

    network: Any
    history: dict[str, list[float]]
    best_epoch: int


def train(
    recipe: Recipe,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    out_images: npt.NDArray[np.uint8],
    out_labels: npt.NDArray[np.uint8],
    *,
    seed: int,
    checkpoint: Path,
    reporter: Reporter,
) -> Trained:
    """Train a network and keep the epoch with the least loss on the rows left out.

    Args:
        recipe: network, augmentation, schedule.
        images, labels: uint8 (n, 28, 28) and (n,), the rows to train on.
        out_images, out_labels: the rows left out; they choose the checkpoint and nothing else.
        seed: of the weights, the order of rows, the augmentation and dropout.
        checkpoint: a ``.keras`` file, the whole network, which ``keras.models.load_model`` reads.
        reporter: told of each step and epoch.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    network = networks.build(recipe.network, dropout=recipe.dropout)
    warp = RandomWarp(rotation=recipe.rotation, zoom=recipe.zoom, shift=recipe.shift, shear=recipe.shear, seed=seed)
    trainer = keras.Sequential([keras.Input((28, 28, 1)), warp, network])
    steps = recipe.epochs * -(-len(images) // recipe.batch_size)
    trainer.compile(
        optimizer=keras.optimizers.AdamW(one_cycle(recipe, steps), weight_decay=recipe.weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = trainer.fit(
        images[..., None],
        labels,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(out_images[..., None], out_labels),
        validation_batch_size=PREDICT_BATCH,
        callbacks=[_Checkpoint(network, checkpoint), _Telling(reporter)],
        verbose=0,
    ).history
    best_epoch = int(np.argmin(history["val_loss"])) + 1
    return Trained(network=keras.models.load_model(checkpoint), history=history, best_epoch=best_epoch)


def one_cycle(recipe: Recipe, steps: int) -> Any:
    """The learning rate over ``steps``: a straight climb to the recipe's peak, then half a cosine down to 0."""
    climb = round(recipe.warmup * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=recipe.learning_rate / 25 if climb else recipe.learning_rate,
        decay_steps=max(steps - climb, 1),
        warmup_target=recipe.learning_rate if climb else None,
        warmup_steps=climb,
    )


def probabilities(network: Any, images: npt.NDArray[np.uint8]) -> Probabilities:
    """Give a network's probabilities, float32 (n, 10), rows summing to 1, for uint8 images (n, 28, 28)."""
    if not len(images):
        return np.empty((0, 10), np.float32)
    logits = network.predict(images[..., None], batch_size=PREDICT_BATCH, verbose=0)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


class _Checkpoint(keras.callbacks.ModelCheckpoint):
    """Keeps the network alone: the augmentation around it is for training."""

    def __init__(self, network: Any, path: Path) -> None:
        super().__init__(str(path), monitor="val_loss", mode="min", save_best_only=True)
        self._network = network

    def set_model(self, model: Any) -> None:
        super().set_model(self._network)


class _Telling(keras.callbacks.Callback):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._reporter.batch(batch + 1, self.params["steps"], (logs or {})["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._reporter.epoch(epoch + 1, logs or {})
