"""Plots of a run: learning curves, confusion matrix, predictions of test images.

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
from digit_recognizer.errors import printable

TRAINING, VALIDATION, GREY = "#3b6ea5", "#d1742b", "#8a8a8a"
ROWS, COLUMNS = 3, 10  # of images in each half of the figure


def save_plots(
    folder: Path,
    histories: list[dict[str, list[float]]],
    confusion: npt.NDArray[np.intp],
    images: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
) -> str:
    """Draw ``history.png``, ``confusion.png`` and ``predictions.png``, and return a text that lists them.

    A plot that cannot be drawn does not fail the run; the text then states the reason.

    Args:
        folder: the run's folder.
        histories: for each member, metric → value per epoch: loss, accuracy, val_loss, val_accuracy.
        confusion: integers (10, 10), true digits down and predictions across.
        images: uint8 (m, 28, 28), the test images.
        probabilities: float32 (m, 10), the blend's predictions.
    """
    figures: dict[str, Callable[[], Any]] = {
        "history.png": lambda: plot_history(histories),
        "confusion.png": lambda: plot_confusion(confusion),
        "predictions.png": lambda: plot_predictions(images, probabilities),
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


def plot_history(histories: list[dict[str, list[float]]]) -> Any:
    """Plot loss and accuracy per epoch: a thin line per member, a thick line for their mean."""
    figure, (left, right) = _figure(10, 4, columns=2)
    for axes, name in ((left, "loss"), (right, "accuracy")):
        for key, colour, label in (
            (name, TRAINING, "training (augmented)"),
            (f"val_{name}", VALIDATION, "validation fold"),
        ):
            for member in histories:
                axes.plot(range(1, len(member[key]) + 1), member[key], color=colour, alpha=0.35, linewidth=0.9)
            shortest = min(len(member[key]) for member in histories)
            mean = np.mean([member[key][:shortest] for member in histories], axis=0)
            marker = "o" if shortest == 1 else None
            axes.plot(range(1, shortest + 1), mean, color=colour, linewidth=2, label=label, marker=marker)
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    left.set_yscale("log")
    lowest = min(min(member["val_accuracy"][len(member["val_accuracy"]) // 4 :]) for member in histories)
    right.set_ylim(max(0.0, 1 - 2.5 * (1 - lowest)) if lowest < 1 else 0.9, 1)
    right.legend(frameon=False, loc="lower right")
    return figure


def plot_confusion(matrix: npt.NDArray[np.intp]) -> Any:
    """Plot the confusion matrix, with the errors emphasised."""
    figure, axes = _figure(6, 5.6)
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    axes.imshow(errors, cmap="Oranges", vmin=0, vmax=max(1, int(errors.max())) * 1.4)
    for label, predicted in np.ndindex(matrix.shape):
        if count := matrix[label, predicted]:
            correct = label == predicted
            axes.text(predicted, label, f"{count:,}", ha="center", va="center", color=GREY if correct else "black")
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=range(10), yticks=range(10))
    axes.set_title(f"{errors.sum():,} errors in {matrix.sum():,} rows")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def plot_predictions(images: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32]) -> Any:
    """Plot test images with their predictions and confidence: the first ones, and the least confident ones."""
    confidence = probabilities.max(axis=1)
    shown = ROWS * COLUMNS
    halves = {
        "first test images": np.arange(min(shown, len(images))),
        "test images with the least confident predictions": np.argsort(confidence, kind="stable")[:shown],
    }
    figure = _blank(COLUMNS, 2 * ROWS * 1.35 + 0.8)
    for part, (title, rows) in zip(figure.subfigures(2), halves.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", weight="bold")
        cells = part.subplots(ROWS, COLUMNS).ravel()
        for axes in cells:
            axes.axis("off")
        for axes, row in zip(cells, rows, strict=False):
            axes.imshow(images[row], cmap="gray_r", vmin=0, vmax=255)
            colour = VALIDATION if confidence[row] < 0.9 else "black"
            axes.set_title(f"{probabilities[row].argmax()}  {confidence[row]:.1%}", fontsize=9, pad=2, color=colour)
            where = {"transform": axes.transAxes, "ha": "center", "va": "top"}
            axes.text(0.5, -0.02, f"id {row + 1}", fontsize=7, color=GREY, **where)
    return figure


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
