"""Plots of a run."""

import struct
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer import recipe
from digit_recognizer.data import splits
from digit_recognizer.ensemble.blend import Blend
from digit_recognizer.evaluation import plots, scores
from stored_runs import DIGITS

RECIPE = recipe.load_recipe("quick")
SPLIT = splits.split(DIGITS.labels, folds=2, members=2, holdout=0.1, seed=0)
NAMES = {"history.png", "confusion.png", "errors.png", "predictions.png"}


def png_size(content: bytes) -> tuple[int, int]:
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def predictions(rows: np.ndarray, wrong: int) -> np.ndarray:
    """Return probabilities of 0.91 for the label of each row, or for the next digit in the first ``wrong`` rows."""
    digits = DIGITS.labels[rows].astype(int)
    digits[:wrong] = (digits[:wrong] + 1) % 10
    return np.where(np.eye(10, dtype=bool)[digits], 0.91, 0.01).astype(np.float32)


def blend(epochs: int, wrong: int, *, holdout: bool = True) -> Blend:
    steps = np.linspace(0, 1, epochs)
    history = {name: list(0.9 + 0.1 * steps if "accuracy" in name else 1 / (1 + steps))
               for name in ("loss", "accuracy", "val_loss", "val_accuracy")}  # fmt: skip
    oof = np.full((len(DIGITS.labels), 10), np.nan, np.float32)
    members = tuple(predictions(fold.validation, wrong) for fold in SPLIT.folds)
    for fold, probabilities in zip(SPLIT.folds, members, strict=True):
        oof[fold.validation] = probabilities
    held = predictions(SPLIT.holdout if holdout else SPLIT.holdout[:0], wrong)
    test = np.random.default_rng(0).dirichlet(np.ones(10), len(DIGITS.test_images)).astype(np.float32)
    return Blend(
        oof=oof,
        oof_last=oof,
        holdout=held,
        test=test,
        full_members=0,
        folds=SPLIT.folds,
        fold_members=members,
        fold_members_last=members,
        holdout_members=(held, held),
        holdout_members_last=(held, held),
        histories=[history, history],
        best_epochs=(epochs, epochs),
        epochs=epochs,
        stopped=False,
    )


def draw(folder: Path, epochs: int, wrong: int, *, holdout: bool = True) -> str:
    split = SPLIT if holdout else splits.Split(SPLIT.holdout[:0], SPLIT.folds)
    result = blend(epochs, wrong, holdout=holdout)
    return plots.save_plots(folder, result, scores.score_blend(result, RECIPE, split, DIGITS), split, DIGITS)


@pytest.mark.parametrize(("epochs", "wrong", "holdout"), [(1, 0, True), (12, 35, True), (3, 5, False)])
@pytest.mark.slow
def test_plots_are_drawn(epochs: int, wrong: int, holdout: bool, tmp_path: Path) -> None:
    assert "errors.png" in draw(tmp_path, epochs, wrong, holdout=holdout)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(drawn) == NAMES
    assert all(min(png_size(content)) > 200 for content in drawn.values())
    if epochs == 1:
        draw(tmp_path, epochs, wrong)
        assert drawn == {path.name: path.read_bytes() for path in tmp_path.iterdir()}, "the same each time"


def texts(figure: plots.Any) -> list[str]:
    """Return the texts of a figure and of its parts."""
    parts = [figure, *figure.subfigs]
    return [text.get_text() for part in parts for text in part.findobj(match=lambda item: hasattr(item, "get_text"))]


def test_errors_plot_shows_wrong_rows_most_confident_first() -> None:
    labels = np.array([3, 4, 5], np.uint8)
    probabilities = np.full((3, 10), 0.01, np.float32)
    probabilities[[0, 1, 2], [8, 4, 6]] = 0.7, 0.91, 0.91
    figure = plots.plot_errors(np.zeros((3, 28, 28), np.uint8), labels, probabilities, np.array([10, 20, 30]), "title")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["5 → 6  91%", "3 → 8  70%", ""]
    assert figure.axes[0].texts[0].get_text() == "row 31"
    probabilities[:] = np.eye(10)[labels]
    figure = plots.plot_errors(np.zeros((3, 28, 28), np.uint8), labels, probabilities, np.arange(3), "title")
    assert "no errors" in texts(figure)


def test_history_marks_the_checkpoints() -> None:
    history = {name: [0.5, 0.2, 0.1] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    figure = plots.plot_history([history], (2,), "run-1")
    assert "run-1" in texts(figure)
    marked = [line.get_xdata()[0] for axes in figure.axes for line in axes.lines if line.get_marker() == "o"]
    assert marked == [2, 2]
    assert "dot: epoch of the checkpoint" in " ".join(texts(figure))
    assert "dot:" not in " ".join(texts(plots.plot_history([history])))


def test_predictions_plot_shows_the_first_and_the_least_confident_images() -> None:
    probabilities = np.full((100, 10), 0.001, np.float32)
    probabilities[:, 7] = 0.991
    probabilities[66, 0], probabilities[66, 7] = 0.6, 0.39
    figure = plots.plot_predictions(np.zeros((100, 28, 28), np.uint8), probabilities)
    first, least_confident = figure.subfigs
    assert first.axes[0].texts[0].get_text() == "id 1"
    assert first.axes[0].get_title() == "7  99.1%"
    assert least_confident.axes[0].texts[0].get_text() == "id 67"
    assert least_confident.axes[0].get_title() == "0 60%, 7 39%"


def test_failing_plot_is_reported(tmp_path: Path) -> None:
    (tmp_path / "history.png").mkdir()
    assert draw(tmp_path, 1, 0).startswith("plots: not drawn: BadInput: ")
