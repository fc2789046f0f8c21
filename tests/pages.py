"""Pages: runs to draw them from, their data, and a browser."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from digit_recognizer import recipe
from stored_runs import DIGITS

RECIPE = recipe.load_recipe("quick")
PIXELS = np.random.default_rng(0).integers(0, 256, (600, 28, 28), dtype=np.uint8)
DATA = replace(DIGITS, images=PIXELS, test_images=PIXELS[:5])
BROWSER = shutil.which("chromium")
needs_browser = pytest.mark.skipif(not BROWSER, reason="chromium is not installed: apt-get install chromium")


def content_of(page: Path) -> dict[str, Any]:
    """Return the data that a page holds as JSON."""
    text = page.read_text(encoding="utf-8")
    found = re.search('<script type="application/json" id="content">(.*?)</script>', text, re.S)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


@contextmanager
def browsing(address: str, *, width: int = 1200, dark: bool = False, expected_error: str = "\n") -> Iterator[Page]:
    """Open an address in Chromium. At the end no other error may be on the console, and no request left the address."""
    errors: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        yield page
        browser.close()
    assert [error for error in errors if expected_error not in error] == []
    own = ("file:", "data:", "blob:") if address.startswith("file:") else (address, "data:", "blob:")
    assert [url for url in requests if not url.startswith(own)] == []


def wait_for_plots(page: Page, count: int) -> None:
    """Wait until all plots are drawn."""
    page.wait_for_function(f"document.querySelectorAll('.plot .main-svg').length >= {count}")


def serious_faults(page: Page) -> list[str]:
    """Return the serious and critical accessibility faults that axe-core finds, each with its first element."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
