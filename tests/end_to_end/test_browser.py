"""Pages of a run that was really trained, in a browser: its report, and the page on which digits are drawn."""

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from conftest import kit
from pages import browsing, needs_browser, serious_faults, wait_for_plots

pytestmark = [pytest.mark.slow, needs_browser]

OVAL = [(0.5 + 0.18 * math.sin(t * math.pi / 8), 0.5 - 0.3 * math.cos(t * math.pi / 8)) for t in range(17)]
STROKES = {"1": [(0.5, 0.2), (0.5, 0.8)], "0": OVAL, "7": [(0.3, 0.22), (0.7, 0.22), (0.45, 0.8)]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the sample."""
    home = tmp_path_factory.mktemp("trained")
    assert kit("run", "--members", "2", cwd=home).returncode == 0
    return home


@pytest.fixture
def demo(home: Path) -> Iterator[str]:
    """The address of the page; at the end the server is interrupted."""
    command = [sys.executable, "-m", "digit_recognizer", "demo"]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    printed = [process.stdout.readline(), process.stdout.readline(), process.stdout.readline()]
    found = re.fullmatch(r"demo: (http://127\.0\.0\.1:\d+/)\n", printed[1])
    assert found, printed
    yield found[1]
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "\ndemo: ended\n", "")


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    box = page.locator("#drawing canvas").first.bounding_box()
    assert box
    x, y, width, height = (box[name] for name in ("x", "y", "width", "height"))
    for index, (across, down) in enumerate(points):
        page.mouse.move(x + across * width, y + down * height, steps=3)
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def test_drawn_digits_are_predicted_and_an_empty_canvas_is_not(demo: str) -> None:
    with browsing(demo) as page:
        prediction = page.locator("#prediction textarea, #prediction input")
        page.locator('#drawing button.highlight[aria-label="Brush"]').wait_for()
        for digit, points in STROKES.items():
            expect(prediction).to_have_value("Draw a digit.", timeout=20_000)
            page.locator('#drawing button.highlight[aria-label="Brush"]').wait_for()
            draw(page, points)
            expect(prediction).to_have_value(re.compile(f"^{digit}, with"), timeout=20_000)
            page.click('#drawing [aria-label="Clear canvas"]')
        expect(prediction).to_have_value("Draw a digit.", timeout=20_000)


def test_report_of_the_run_opens(home: Path) -> None:
    (report,) = home.glob("runs/*/report/index.html")
    with browsing(report.as_uri()) as page:
        wait_for_plots(page, 4)
        assert page.inner_text("#score tbody th >> nth=1") == "training"
        assert page.inner_text("#test-count") == "359 images, page 1 of 3"
        assert serious_faults(page) == []
