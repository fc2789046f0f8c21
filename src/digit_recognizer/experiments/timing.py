"""Measure the pace of training and the time of prediction, and estimate the time of a whole recipe from its pace."""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import submission
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import knn
from digit_recognizer.recipe import Recipe, load_recipe
from digit_recognizer.training import budget, devices, numerics
from digit_recognizer.training.executors import Reporter, local
from digit_recognizer.training.progress import Progress

if TYPE_CHECKING:
    from digit_recognizer.training import trainer
PACE_SECONDS = 20.0  # of each measurement of a pace
PREDICTING_MEMBERS = 4
MATRIX_SIDE = 2048  # of the measured matrix products
MATRIX_SECONDS = 5.0
BACKWARD = 2  # multiply-adds of a step's gradients, of the inputs and of the weights, for each one of its prediction


def training_pace(recipe: Recipe, digits: Dataset) -> float:
    """Return images per second in training steps, all workers together, augmentation included."""
    workers, _ = devices.plan_workers(recipe.members)
    return workers * recipe.batch_size / max(pace.step for pace in _measure_paces(recipe, digits).values())


def matrix_product_shares(recipe: Recipe, digits: Dataset) -> dict[str, float]:
    """Return the training speed of each network of a recipe as a share of the machine's matrix-product speed.

    Both are in multiply-adds per second, in the same precision, with all workers busy. Those of a training step are
    the multiply-adds of its convolutions and dense layers, forward and backward; all other work only takes time.
    """
    precision = numerics.resolved_precision(recipe.precision)
    workers, threads = devices.plan_workers(recipe.members)
    speeds: list[float] = []
    local.run_jobs(
        partial(_multiply_matrices, precision),
        range(workers),
        _silent(),
        workers=workers,
        threads=threads,
        done=lambda _, speed: speeds.append(speed),
    )
    shares = {}
    for network in dict.fromkeys(recipe.network.split("+")):
        multiply_adds = (1 + BACKWARD) * _multiply_adds(network)
        shares[network] = training_pace(recipe.changed(network=network), digits) * multiply_adds / sum(speeds)
    return shares


def plain_keras_pace(digits: Dataset) -> float:
    """Return images per second of ``model.fit`` with the network and batch size of ``standard``.

    One process on all cores, Keras' default settings, float32, no augmentation.
    """
    paces: list[float] = []
    job = partial(_fit_plain_keras, load_recipe("standard"), digits, PACE_SECONDS)
    local.run_jobs(job, [0], _silent(), workers=1, threads=devices.cores(), done=lambda _, pace: paces.append(pace))
    return paces[0]


def prediction_seconds(home: Path, data: Path | None) -> float:
    """Return the seconds from the files to a checked submission by members that are already trained, with re-ranking.

    Args:
        home: folder of ``data/``, which is used if ``data`` is None.
        data: folder or zip of the competition's files.
    """
    from digit_recognizer.models import architectures

    standard = load_recipe("standard")
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / f"{index}.keras" for index in range(PREDICTING_MEMBERS)]
        for index, path in enumerate(paths):
            member = standard.of_member(index)
            architectures.build(member.network, dropout=0, preprocessing=member.preprocessing).save(path)
        began = time.monotonic()
        digits = dataset.load(data, default=home / "data", cache=Path(scratch) / "cache")
        images = digits.test_images
        workers, threads = devices.plan_workers(PREDICTING_MEMBERS)
        predictions: list[Any] = []
        local.run_jobs(
            partial(_predict, paths, images),
            range(PREDICTING_MEMBERS),
            _silent(),
            workers=workers,
            threads=threads,
            done=lambda _, probabilities: predictions.append(probabilities),
        )
        # Untrained networks find every image ambiguous, so as many are re-ranked as trained ones leave ambiguous.
        probabilities = np.eye(10, dtype=np.float32)[np.zeros(len(images), int)]
        probabilities[:: round(1 / knn.AMBIGUOUS_SHARE), [0, 3]] = 0.5
        queries = knn.Queries(images, (probabilities,), np.arange(len(digits.labels)))
        knn.rerank([queries], digits.images, digits.labels, weight=standard.knn_weight)
        submission.write(Path(scratch) / "submission.csv", np.mean(predictions, axis=0).argmax(axis=1))
        return time.monotonic() - began


def estimate_recipe_seconds(recipe: Recipe, digits: Dataset) -> float:
    """Estimate the seconds of a run: start, steps and predictions of its members, shared among workers; re-ranking.

    The start and the step of a member are measured with all workers busy.
    """
    paces = _measure_paces(recipe, digits)
    start = max(pace.start for pace in paces.values())
    outside_holdout = len(digits.labels) * (1 - recipe.holdout)
    held_out = len(digits.labels) - outside_holdout
    judged = recipe.members - recipe.full_members
    durations = []
    for index in range(recipe.members):
        validation = outside_holdout / recipe.folds if index < judged else 0
        train = outside_holdout - validation if validation else len(digits.labels)
        predicted = len(digits.test_images) + (held_out + validation if validation else 0)
        images = recipe.epochs * (train + budget.PREDICT_SHARE * validation) + budget.PREDICT_SHARE * predicted
        durations.append(start + budget.step_seconds(paces, recipe, index) / recipe.batch_size * images)
    workers, _ = devices.plan_workers(recipe.members)
    predictions = round(held_out + judged * outside_holdout / recipe.folds) + len(digits.test_images)
    return budget.schedule(durations, workers) + knn.estimate_rerank_seconds(recipe, predictions)


def _measure_paces(recipe: Recipe, digits: Dataset) -> "dict[str, trainer.Pace]":
    """Measure the start and the step of each network with all workers busy."""
    split = splits.split(
        digits.labels, folds=recipe.folds, members=recipe.members, holdout=recipe.holdout, seed=recipe.seed
    )
    return budget.measure_paces(recipe, digits, split, range(recipe.members), seconds=PACE_SECONDS)


def _multiply_matrices(precision: str, index: int, reporter: Reporter) -> float:
    """Return the multiply-adds per second of products of square matrices."""
    from digit_recognizer.training.backend import keras

    ops = keras.ops
    matrix = ops.cast(keras.random.uniform((MATRIX_SIDE, MATRIX_SIDE), seed=0), precision)
    products, began = 0, 0.0
    while products < 2 or time.monotonic() - began < MATRIX_SECONDS:
        # Reading a value waits for an accelerator. NumPy cannot read a bfloat16.
        float(ops.convert_to_numpy(ops.cast(ops.matmul(matrix, matrix)[0, 0], "float32")))
        products += 1
        if products == 1:  # the first product includes the start of the library
            began = time.monotonic()
    return (products - 1) * MATRIX_SIDE**3 / (time.monotonic() - began)


def _multiply_adds(network: str) -> int:
    """Return the multiply-adds of a network for one image."""
    counts: list[int] = []
    local.run_jobs(
        partial(_count_multiply_adds, network),
        [0],
        _silent(),
        workers=1,
        threads=1,
        done=lambda _, count: counts.append(count),
    )
    return counts[0]


def _count_multiply_adds(network: str, index: int, reporter: Reporter) -> int:
    from digit_recognizer.models import architectures

    return architectures.size(architectures.build(network, dropout=0))[1]


def _fit_plain_keras(recipe: Recipe, digits: Dataset, seconds: float, index: int, reporter: Reporter) -> float:
    from digit_recognizer.models import architectures
    from digit_recognizer.training import callbacks
    from digit_recognizer.training.backend import keras

    network = architectures.build(recipe.of_member(0).network, dropout=recipe.dropout)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    timer = callbacks.StepTimer(seconds)
    pixels = digits.images[..., None].astype("float32")
    network.fit(pixels, digits.labels, batch_size=recipe.batch_size, callbacks=[timer], verbose=0)
    return recipe.batch_size * timer.steps / (timer.last - timer.first)


def _predict(paths: list[Path], images: npt.NDArray[np.uint8], index: int, reporter: Reporter) -> Any:
    from digit_recognizer.training import trainer
    from digit_recognizer.training.backend import keras

    return trainer.predict(keras.models.load_model(paths[index]), images)


def _silent() -> Progress:
    return Progress(0, 0, (), 0)
