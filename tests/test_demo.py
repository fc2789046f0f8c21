"""The page on which digits are drawn."""

from pathlib import Path

import numpy as np
import pytest

from conftest import call, one_line
from digit_recognizer import demo, recipe
from stored_runs import DIGITS, store_run

RECIPE = recipe.load_recipe("quick")


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    ink = np.zeros((400, 400))
    ink[top:bottom, left:right] = 1
    return ink


@pytest.mark.parametrize(
    ("drawn", "height", "width"),
    [
        (rectangle(100, 190, 300, 210), 20, 2),
        (rectangle(10, 10, 20, 30), 10, 20),
        (rectangle(0, 0, 400, 400), 20, 20),
        (rectangle(399, 399, 400, 400), 20, 20),
        (rectangle(0, 200, 400, 201), 20, 1),
    ],
)
def test_digit_is_scaled_to_20_pixels_and_centred(drawn: np.ndarray, height: int, width: int) -> None:
    image = demo.prepare_drawing(drawn)
    assert image is not None
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    rows, columns = np.nonzero(image)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (height, width)
    assert abs(rows.mean() - 13.5) <= 0.5
    assert abs(columns.mean() - 13.5) <= 0.5


def test_the_centre_of_mass_is_centred_and_not_the_box() -> None:
    drawn = rectangle(100, 100, 300, 140)  # an L, whose mass is at the left and bottom
    drawn[260:300, 100:240] = 1
    image = demo.prepare_drawing(drawn)
    assert image is not None
    mass = image.astype(float)
    center = [(mass.sum(axis=1 - axis) * np.arange(28)).sum() / mass.sum() for axis in (0, 1)]
    assert np.abs(np.array(center) - 13.5).max() <= 0.5
    assert abs(np.nonzero(image)[1].mean() - (np.nonzero(image)[1].min() + np.nonzero(image)[1].max()) / 2) > 1


def test_far_ink_stays_inside_the_image() -> None:
    drawn = rectangle(0, 0, 400, 4)
    drawn[380:, 200:] = 1
    image = demo.prepare_drawing(drawn)
    assert image is not None
    assert np.ptp(np.nonzero(image)[0]) == 19


def test_sample_runs_get_digits_enlarged_from_8_pixels() -> None:
    image = demo.prepare_drawing(rectangle(100, 190, 300, 215), sample=True)
    assert image is not None
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    assert image[:, :4].max() == image[:4].max() == 0
    assert image.max() > 200


@pytest.mark.parametrize("drawn", [np.zeros((400, 400)), np.zeros((1, 1)), np.full((9, 9), 0.01)])
def test_empty_canvas_gives_no_image(drawn: np.ndarray) -> None:
    assert demo.prepare_drawing(drawn) is None
    assert demo.prepare_drawing(drawn, sample=True) is None


def test_runs_that_cannot_be_loaded_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no complete run" in one_line(call("demo", cwd=tmp_path).stderr)
    folder = store_run(tmp_path, RECIPE, DIGITS)
    (folder / "members" / "00" / "member.json").write_text("{")
    assert "member.json" in one_line(call("demo", cwd=tmp_path).stderr)
    assert "expected a plain file name" in one_line(call("demo", "--run", "../x", cwd=tmp_path).stderr)
    (folder / "scores.json").unlink()
    assert "incomplete" in one_line(call("demo", "--run", folder.name, cwd=tmp_path).stderr)
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    done = call("demo", cwd=tmp_path)
    assert done.returncode == 1
    assert "gradio is not installed" in one_line(done.stderr)
