"""Pages: runs to draw them from, their data, and a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digit_recognizer import recipe
from stored_runs import DIGITS

RECIPE = recipe.load_recipe("quick")
PIXELS = np.random.default_rng(0).integers(0, 256, (600, 28, 28), dtype=np.uint8)
DATA = replace(DIGITS, images=PIXELS, test_images=PIXELS[:5])
needs_browser = pytest.mark.skipif(
    not shutil.which("chromium"), reason="chromium is not installed: apt-get install chromium"
)


def content_of(page: Path) -> dict[str, Any]:
    """Return the data that a page holds as JSON."""
    text = page.read_text(encoding="utf-8")
    found = re.search('<script type="application/json" id="content">(.*?)</script>', text, re.S)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def open_page(page: Path, profile: Path) -> str:
    """Open a page in Chromium, which must report nothing on its console, and return the document after 5 s."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    return done.stdout
