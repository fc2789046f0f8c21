"""Pictures of a run: how its members learned, what they confuse, what they say of the test images.

Each picture is a PNG in the run's folder, drawn with matplotlib's object interface, which needs no screen.
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

TRAINING, VALIDATION, QUIET = "#3b6ea5", "#d1742b", "#8a8a8a"
ROWS, COLUMNS = 3, 10  # images in each half of the grid


def save_plots(
    folder: Path,
    histories: list[dict[str, list[float]]],
    confusion: npt.NDArray[np.intp],
    images: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
) -> str:
    """Draw ``history.png``, ``confusion.png`` and ``predictions.png``, and return a line that says so.

    A picture that cannot be drawn ends no run: the line says why instead.

    Args:
        folder: the run's folder.
        histories: a member each, figure → value for each epoch: loss, accuracy, val_loss, val_accuracy.
        confusion: integers (10, 10), labels down and answers across.
        images: uint8 (m, 28, 28), the test images.
        probabilities: float32 (m, 10), what the blend says of them.
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
        return f"pictures: not drawn, {printable(f'{type(error).__name__}: {error}')}"
    return f"pictures: runs/{folder.name}/{', '.join(figures)}"


def why_not_drawable() -> str:
    """Why pictures cannot be drawn here; empty where they can."""
    try:
        _blank(1, 1)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def plot_history(histories: list[dict[str, list[float]]]) -> Any:
    """Loss and accuracy over epochs, a thin line for each member and a thick one for their mean."""
    figure, (left, right) = _figure(10, 4, columns=2)
    for axes, name in ((left, "loss"), (right, "accuracy")):
        for key, colour, label in ((name, TRAINING, "training, augmented"), (f"val_{name}", VALIDATION, "its fold")):
            for one in histories:
                axes.plot(range(1, len(one[key]) + 1), one[key], color=colour, alpha=0.35, linewidth=0.9)
            shortest = min(len(one[key]) for one in histories)
            mean = np.mean([one[key][:shortest] for one in histories], axis=0)
            marker = "o" if shortest == 1 else None
            axes.plot(range(1, shortest + 1), mean, color=colour, linewidth=2, label=label, marker=marker)
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    left.set_yscale("log")
    lowest = min(min(one["val_accuracy"][len(one["val_accuracy"]) // 4 :]) for one in histories)
    right.set_ylim(max(0.0, 1 - 2.5 * (1 - lowest)) if lowest < 1 else 0.9, 1)
    right.legend(frameon=False, loc="lower right")
    return figure


def plot_confusion(matrix: npt.NDArray[np.intp]) -> Any:
    """The confusion matrix; what is right stays pale, so that the errors are what is seen."""
    figure, axes = _figure(6, 5.6)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, int(wrong.max())) * 1.4)
    for label, answer in np.ndindex(matrix.shape):
        if count := matrix[label, answer]:
            right = label == answer
            axes.text(answer, label, f"{count:,}", ha="center", va="center", color=QUIET if right else "black")
    axes.set(xlabel="answer", ylabel="label", xticks=range(10), yticks=range(10))
    axes.set_title(f"{wrong.sum():,} of {matrix.sum():,} rows wrong")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def plot_predictions(images: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32]) -> Any:
    """Test images with the blend's answers and how sure it is: the first ones, and those it is least sure of."""
    sure = probabilities.max(axis=1)
    shown = ROWS * COLUMNS
    halves = {
        "the first test images": np.arange(min(shown, len(images))),
        "those that the blend is least sure of": np.argsort(sure, kind="stable")[:shown],
    }
    figure = _blank(COLUMNS, 2 * ROWS * 1.35 + 0.8)
    for part, (title, rows) in zip(figure.subfigures(2), halves.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", weight="bold")
        cells = part.subplots(ROWS, COLUMNS).ravel()
        for axes in cells:
            axes.axis("off")
        for axes, row in zip(cells, rows, strict=False):
            axes.imshow(images[row], cmap="gray_r", vmin=0, vmax=255)
            colour = VALIDATION if sure[row] < 0.9 else "black"
            axes.set_title(f"{probabilities[row].argmax()}  {sure[row]:.1%}", fontsize=9, pad=2, color=colour)
            where = {"transform": axes.transAxes, "ha": "center", "va": "top"}
            axes.text(0.5, -0.02, f"id {row + 1}", fontsize=7, color=QUIET, **where)
    return figure


def _blank(width: float, height: float) -> Any:
    if "matplotlib" not in sys.modules:
        # A backend in MPLBACKEND that is not there would stop the import, and no backend is needed here.
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
