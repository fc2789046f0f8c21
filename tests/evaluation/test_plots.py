"""Plots of a run."""

import struct
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer.evaluation import plots


def png_size(content: bytes) -> tuple[int, int]:
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@pytest.mark.parametrize(("epochs", "images", "wrong"), [(1, 3, 0), (12, 100, 5)])
@pytest.mark.slow
def test_three_plots_are_drawn(epochs: int, images: int, wrong: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    steps = np.linspace(0, 1, epochs)
    history = {name: list(0.9 + 0.1 * steps if "accuracy" in name else 1 / (1 + steps))
               for name in ("loss", "accuracy", "val_loss", "val_accuracy")}  # fmt: skip
    confusion = np.eye(10, dtype=np.intp) * 40
    confusion[3, 5] = wrong
    pixels = random.integers(0, 256, (images, 28, 28), dtype=np.uint8)
    probabilities = random.dirichlet(np.ones(10), images).astype(np.float32)
    plots.save_plots(tmp_path, [history, history], confusion, pixels, probabilities)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(drawn) == {"history.png", "confusion.png", "predictions.png"}
    assert all(min(png_size(content)) > 300 for content in drawn.values())
    if images < 10:
        plots.save_plots(tmp_path, [history, history], confusion, pixels, probabilities)
        assert drawn == {path.name: path.read_bytes() for path in tmp_path.iterdir()}, "the same each time"


def test_predictions_plot_shows_the_first_and_the_least_confident_images() -> None:
    probabilities = np.full((100, 10), 0.001, np.float32)
    probabilities[:, 7] = 0.991
    probabilities[66] = 0.1
    figure = plots.plot_predictions(np.zeros((100, 28, 28), np.uint8), probabilities)
    first, least_confident = figure.subfigs
    assert first.axes[0].texts[0].get_text() == "id 1"
    assert first.axes[0].get_title() == "7  99.1%"
    assert least_confident.axes[0].texts[0].get_text() == "id 67"
    assert least_confident.axes[0].get_title() == "0  10.0%"


def test_failing_plot_is_reported(tmp_path: Path) -> None:
    (tmp_path / "history.png").mkdir()
    history = {name: [0.9] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    pixels, probabilities = np.zeros((3, 28, 28), np.uint8), np.full((3, 10), 0.1, np.float32)
    text = plots.save_plots(tmp_path, [history], np.eye(10, dtype=np.intp), pixels, probabilities)
    assert text.startswith("plots: not drawn: BadInput: ")
