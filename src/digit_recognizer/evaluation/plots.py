"""Plots of a run: learning curves, confusion matrix, errors, predictions of test images.

Each plot is a PNG in the run's folder, drawn with matplotlib's object interface, which needs no display.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import files
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Split
from digit_recognizer.ensemble.blend import Blend
from digit_recognizer.errors import printable
from digit_recognizer.evaluation.metrics import Score
from digit_recognizer.evaluation.scores import Scores

TRAINING, VALIDATION, GREY = "#3b6ea5", "#d1742b", "#8a8a8a"
ROWS, COLUMNS = 3, 10  # of images in a group
CERTAIN = 0.9  # probability from which a prediction is not emphasised

Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


def save_plots(folder: Path, blend: Blend, scores: Scores, split: Split, data: Dataset) -> str:
    """Draw the plots of a run into its folder, and return a text that lists them.

    A plot that cannot be drawn does not fail the run; the text then states the reason.
    """
    if scores.holdout:
        kind, judged, rows, probabilities = "holdout", scores.holdout, split.holdout, blend.holdout
    else:
        rows = np.flatnonzero(~np.isnan(blend.oof[:, 0]))
        kind, judged, probabilities = "out-of-fold rows", scores.oof, blend.oof[rows]
    figures: dict[str, Callable[[], Any]] = {
        "history.png": lambda: plot_history(
            blend.histories, blend.best_epochs, _title(folder, "members on their validation folds", scores.oof)
        ),
        "confusion.png": lambda: plot_confusion(scores.confusion, _title(folder, f"blend, {kind}", judged)),
        "errors.png": lambda: plot_errors(
            data.images[rows], data.labels[rows], probabilities, rows, _title(folder, f"errors, {kind}", judged)
        ),
        "predictions.png": lambda: plot_predictions(
            data.test_images, blend.test, f"{folder.name}: predictions of {len(blend.test):,} test images"
        ),
    }
    try:
        for name, figure in figures.items():
            with files.replacing(folder / name) as part:
                figure().savefig(part, format="png", dpi=110, metadata={"Software": None})
    except Exception as error:
        return f"plots: not drawn: {printable(f'{type(error).__name__}: {error}')}"
    return f"plots: runs/{folder.name}/\n  {', '.join(figures)}"


def why_not_drawable() -> str:
    """Return the reason why plots cannot be drawn; empty if they can."""
    try:
        _blank(1, 1)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def plot_history(histories: list[dict[str, list[float]]], best_epochs: tuple[int, ...] = (), title: str = "") -> Any:
    """Plot loss and error rate per epoch, on logarithmic scales.

    Args:
        histories: for each member, metric → value per epoch: loss, accuracy, val_loss, val_accuracy.
        best_epochs: for each member the epoch of its checkpoint, counted from 1, which is marked; empty for no marks.
        title: the figure's title.
    """
    from matplotlib.ticker import NullFormatter, PercentFormatter

    figure, (left, right) = _figure(10, 4.6, columns=2)
    figure.suptitle(title)
    for key, colour, label in (("", TRAINING, "training rows, augmented"), ("val_", VALIDATION, "validation fold")):
        losses = [np.array(member[f"{key}loss"]) for member in histories]
        errors = [1 - np.array(member[f"{key}accuracy"]) for member in histories]
        for axes, members in ((left, losses), (right, errors)):
            _plot_members(axes, members, colour, label)
            if key:
                for values, epoch in zip(members, best_epochs, strict=False):
                    axes.plot(epoch, values[epoch - 1], "o", color=colour, markersize=4)
    for axes, name in ((left, "loss (cross-entropy)"), (right, "errors")):
        axes.set_title(name, fontsize="medium")
        axes.set_yscale("log", nonpositive="clip")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, which="both")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    right.yaxis.set_minor_formatter(NullFormatter())
    right.legend(frameon=False)
    marks = "; dot: epoch of the checkpoint" if best_epochs else ""
    figure.supxlabel(f"epoch\nthin line: one member; thick line: mean{marks}", fontsize="small", color=GREY)
    return figure


def _plot_members(axes: Any, members: list[npt.NDArray[np.float64]], colour: str, label: str) -> None:
    """Draw a thin line for each member and a thick one for their mean."""
    for values in members:
        axes.plot(range(1, len(values) + 1), values, color=colour, alpha=0.35, linewidth=0.9)
    shortest = min(map(len, members))
    mean = np.mean([values[:shortest] for values in members], axis=0)
    marker = "o" if shortest == 1 else None
    axes.plot(range(1, shortest + 1), mean, color=colour, linewidth=2, label=label, marker=marker)


def plot_confusion(matrix: npt.NDArray[np.intp], title: str = "") -> Any:
    """Plot the confusion matrix, with the errors emphasised."""
    figure, axes = _figure(6, 5.8)
    figure.suptitle(title, fontsize="medium")
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    axes.imshow(errors, cmap="Oranges", vmin=0, vmax=max(1, int(errors.max())) * 1.4)
    for label, predicted in np.ndindex(matrix.shape):
        if count := matrix[label, predicted]:
            correct = label == predicted
            axes.text(predicted, label, f"{count:,}", ha="center", va="center", color=GREY if correct else "black")
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=range(10), yticks=range(10))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def plot_errors(
    images: Images, labels: npt.NDArray[np.uint8], probabilities: Probabilities, rows: npt.NDArray[np.intp], title: str
) -> Any:
    """Plot the wrong predictions, most confident first: label → prediction and its probability.

    Args:
        images: uint8 (n, 28, 28).
        labels: uint8 (n,).
        probabilities: float32 (n, 10).
        rows: integers (n,), the images' rows in the training table, counted from 0.
        title: the figure's title.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][: ROWS * COLUMNS]
    lines = max(1, -(-len(shown) // COLUMNS))
    figure = _blank(COLUMNS, 1.35 * lines + 1)
    figure.suptitle(title)
    cells = [(row, f"{labels[row]} → {predicted[row]}  {confidence[row]:.0%}", "black") for row in shown]
    _draw_images(figure, lines, images, cells, lambda row: f"row {rows[row] + 1}")
    more = f"; {len(wrong) - len(shown)} more are not shown" if len(wrong) > len(shown) else ""
    note = f"label → prediction, its probability; most confident first{more}" if len(wrong) else "no errors"
    figure.supxlabel(note, fontsize="small", color=GREY)
    return figure


def plot_predictions(images: Images, probabilities: Probabilities, title: str = "") -> Any:
    """Plot test images with their predictions: the first ones, and the least confident ones.

    Args:
        images: uint8 (m, 28, 28).
        probabilities: float32 (m, 10).
        title: the figure's title.
    """
    confidence = probabilities.max(axis=1)
    ranked = np.argsort(-probabilities, axis=1, kind="stable")
    shown = ROWS * COLUMNS
    groups = {
        "first images": np.arange(min(shown, len(images))),
        "least confident predictions": np.argsort(confidence, kind="stable")[:shown],
    }
    figure = _blank(COLUMNS, 2 * ROWS * 1.35 + 1.4)
    figure.suptitle(title)
    for part, (name, rows) in zip(figure.subfigures(2), groups.items(), strict=True):
        part.suptitle(name, x=0.01, ha="left", weight="bold", fontsize="medium")
        cells = []
        for row in rows:
            first, second = ranked[row, :2]
            text = f"{first}  {confidence[row]:.1%}"
            if confidence[row] < CERTAIN:
                text = f"{first} {confidence[row]:.0%}, {second} {probabilities[row, second]:.0%}"
            cells.append((row, text, VALIDATION if confidence[row] < CERTAIN else "black"))
        _draw_images(part, ROWS, images, cells, lambda row: f"id {row + 1}")
    note = f"digit and probability; orange: below {CERTAIN:.0%}, with the second most probable digit"
    figure.supxlabel(note, fontsize="small", color=GREY)
    return figure


def _draw_images(
    figure: Any, lines: int, images: Images, cells: list[tuple[int, str, str]], name: Callable[[int], str]
) -> None:
    """Draw images in a grid, each with a text in a colour above it and its name below it."""
    grid = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, (row, text, colour) in zip(grid, cells, strict=False):
        axes.imshow(images[row], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(text, fontsize=9, pad=2, color=colour)
        where = {"transform": axes.transAxes, "ha": "center", "va": "top"}
        axes.text(0.5, -0.02, name(row), fontsize=7, color=GREY, **where)


def _title(folder: Path, subject: str, score: Score) -> str:
    return f"{folder.name}\n{subject}: {score.wrong_rows}, accuracy {score.accuracy:.5f}"


def _blank(width: float, height: float) -> Any:
    if "matplotlib" not in sys.modules:
        # An unknown backend in MPLBACKEND would fail the import, and none is needed here.
        backend = os.environ.pop("MPLBACKEND", None)
        import matplotlib

        if backend is not None:
            os.environ["MPLBACKEND"] = backend
            with suppress(ValueError):
                matplotlib.rcParams["backend"] = backend
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _figure(width: float, height: float, *, columns: int = 1) -> tuple[Any, Any]:
    figure = _blank(width, height)
    return figure, figure.subplots(1, columns)
