"""Make the pictures of the documentation, docs/images/*.png, from the reports of complete runs.

python tools/draw_docs.py SAMPLE_RUN [RUN [--data PATH]]

Digits are shown from SAMPLE_RUN alone, which must be a run on the bundled sample: the competition's rules do not allow
its images to be passed on. The learning curves and the confusion matrix are from the report of RUN, any complete run;
they have no images.
"""

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import provenance
from digit_recognizer.evaluation import report
from digit_recognizer.recipe import PREPROCESSING, load_recipe

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = 128  # of a picture's palette: fewer colours, smaller files

Pixels = npt.NDArray[np.uint8]


def main(words: list[str] | None = None) -> int:
    """Make all pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample_run", type=Path, help="runs/sample-…")
    parser.add_argument("run", type=Path, nargs="?", help="runs/… (default: SAMPLE_RUN)")
    parser.add_argument("--data", type=Path, help="the data of RUN (default: those that it was trained on)")
    given = parser.parse_args(words)
    home = given.sample_run.resolve().parent.parent
    if not provenance.find_provenance(home, given.sample_run.name).sample:
        print(f"error: {given.sample_run}: expected a run on the bundled sample", file=sys.stderr)
        return 2
    digits = report.load_data(given.sample_run, None, home)
    run = given.run or given.sample_run
    data = report.load_data(run, given.data, run.resolve().parent.parent)
    photograph(report.write_report(given.sample_run, digits), {"predictions": ("#test-list", 1000, 420)})
    photograph(
        report.write_report(run, data),
        {"history": ("#curves .plots", 1000, 345), "confusion": ("table.matrix", 1000, None)},
    )
    slanted = np.array([slant(image) for image in digits.images])
    examples = digits.images[[np.where(digits.labels == digit, slanted, -1).argmax() for digit in range(10)]]
    draw("preprocessing", draw_rows(preprocessed(examples[[1, 2, 4, 7, 9]])))
    draw("augmentation", draw_rows(augmented(examples[[2, 4, 7]])))
    return 0


def photograph(page_file: Path, pictures: dict[str, tuple[str, int, int | None]]) -> None:
    """Save parts of a page: name → selector, width of the page, and height to keep, in CSS pixels; None for all."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (selector, width, height) in pictures.items():
            page = browser.new_page(viewport={"width": width, "height": 900}, device_scale_factor=1.5)
            page.goto(page_file.resolve().as_uri())
            page.wait_for_function(
                "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))"
            )
            box: Any = page.locator(selector).bounding_box()
            if height:
                box["height"] = min(height, box["height"])
            save(name, page.screenshot(clip=box, full_page=True))


def draw_rows(rows: dict[str, Pixels]) -> Any:
    """Images (n, 28, 28) in a row each, under the row's name."""
    columns = max(map(len, rows.values()))
    figure = blank(0.82 * columns + 1.6, 0.85 * len(rows))
    for cells, (name, images) in zip(figure.subplots(len(rows), columns, squeeze=False), rows.items(), strict=True):
        for axes, image in zip(cells, images, strict=True):
            show(axes, image)
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=13, labelpad=8)
    return figure


def slant(image: Pixels) -> float:
    """How far an image leans, either way: the slope of its ink's columns against its rows, 0 for an upright digit."""
    ink = image / image.sum()
    rows, columns = np.mgrid[:28, :28]
    y, x = rows - (ink * rows).sum(), columns - (ink * columns).sum()
    return float(abs((ink * x * y).sum() / (ink * y * y).sum()))


def preprocessed(images: Pixels) -> dict[str, Pixels]:
    """The images after each preprocessing."""
    from digit_recognizer.models.preprocessing import transform

    pixels = images[..., None].astype(np.float32)
    return {name: images if name == "none" else np.array(transform(pixels, name))[..., 0] for name in PREPROCESSING}


def augmented(images: Pixels) -> dict[str, Pixels]:
    """Each image, and nine versions of it as recipe ``standard`` augments it."""
    from digit_recognizer.models.augmentation import RandomWarp

    recipe = load_recipe("standard")
    amounts = {name: getattr(recipe, name) for name in ("rotation", "zoom", "shift", "shear", "distortion")}
    layer = RandomWarp(**amounts, seed=1)
    copies = np.repeat(images[:, None], 10, axis=1).astype(np.float32)
    for versions in copies:
        versions[1:] = np.array(layer(versions[1:, ..., None], training=True))[..., 0]
    return dict(zip(("original,\nthen nine\naugmented", " ", ""), copies, strict=True))


def show(axes: Any, image: Pixels) -> None:
    """Draw one image, smoothed, without axes."""
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=255, interpolation="bicubic")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#d0d7de")


def blank(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw(name: str, figure: Any) -> None:
    """Save a figure of Matplotlib."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    save(name, content.getvalue())


def save(name: str, png: bytes) -> None:
    """Write a PNG with a small palette; print its path and size."""
    from PIL import Image

    path = IMAGES / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"docs/images/{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
