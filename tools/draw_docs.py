"""Draw the pictures of the documentation, docs/images/*.png, from the folders of complete runs.

python tools/draw_docs.py SAMPLE_RUN [RUN]

Digits are drawn from SAMPLE_RUN alone, which must be a run on the bundled sample: the competition's rules do not allow
its images to be passed on. The learning curves and the confusion matrix are those of RUN, any complete run; they hold
no images.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer.data import dataset
from digit_recognizer.evaluation import plots
from digit_recognizer.recipe import PREPROCESSING, load_recipe

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = 128  # of a picture's palette: fewer colours, smaller files
EDGE = 3  # blank pixels around a sample digit that are cropped
CERTAIN, AMBIGUOUS = "#1f6f43", "#b3541e"

Pixels = npt.NDArray[np.uint8]


def main(words: list[str] | None = None) -> int:
    """Draw all pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample_run", type=Path, help="runs/sample-…")
    parser.add_argument("run", type=Path, nargs="?", help="runs/… (default: SAMPLE_RUN)")
    given = parser.parse_args(words)
    if not json.loads((given.sample_run / "run.json").read_text())["identity"]["sample"]:
        print(f"error: {given.sample_run}: expected a run on the bundled sample", file=sys.stderr)
        return 2
    run = given.run or given.sample_run
    with tempfile.TemporaryDirectory() as empty:
        digits = dataset.load(None, default=Path(empty) / "data", cache=Path(empty) / "cache")
    scores = json.loads((run / "scores.json").read_text())
    save("predictions", draw_predictions(digits.test_images, np.load(given.sample_run / "test.npy")))
    records = {path.parent: json.loads(path.read_text()) for path in sorted(run.glob("members/*/member.json"))}
    best_epochs = {folder: record["best_epoch"] for folder, record in records.items() if record["fold_rows"]}
    histories = [json.loads((folder / "history.json").read_text()) for folder in best_epochs]
    save("history", plots.plot_history(histories, tuple(best_epochs.values())))
    holdout = scores["holdout"]
    title = f"holdout: {holdout['errors']:,} of {holdout['rows']:,} rows wrong"
    save("confusion", plots.plot_confusion(np.array(scores["confusion"]), title))
    slanted = np.array([slant(image) for image in digits.images])
    examples = digits.images[[np.where(digits.labels == digit, slanted, -1).argmax() for digit in range(10)]]
    save("preprocessing", draw_rows(preprocessed(examples[[1, 2, 4, 7, 9]])))
    save("augmentation", draw_rows(augmented(examples[[2, 4, 7]])))
    return 0


def draw_predictions(images: Pixels, probabilities: npt.NDArray[np.float32]) -> Any:
    """The first test image of each predicted digit, and the ten that the blend is least sure of."""
    answers, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = [*(np.flatnonzero(answers == digit)[0] for digit in range(10)), *np.argsort(confidence, kind="stable")[:10]]
    figure = blank(11, 3.2)
    for axes, row in zip(figure.subplots(2, 10).ravel(), rows, strict=True):
        show(axes, images[row])
        colour = CERTAIN if confidence[row] > 0.99 else AMBIGUOUS
        axes.set_title(f"{answers[row]}", fontsize=18, weight="bold", color=colour, pad=3)
        axes.set_xlabel(f"{confidence[row]:.1%}", fontsize=11, color="#57606a", labelpad=3)
    return figure


def draw_rows(rows: dict[str, Pixels]) -> Any:
    """Images (n, 28, 28) in a row each, under the row's name."""
    columns = max(map(len, rows.values()))
    figure = blank(0.82 * columns + 1.6, 0.85 * len(rows))
    for cells, (name, images) in zip(figure.subplots(len(rows), columns, squeeze=False), rows.items(), strict=True):
        for axes, image in zip(cells, images, strict=True):
            show(axes, image, edge=0)
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


def show(axes: Any, image: Pixels, *, edge: int = EDGE) -> None:
    """Draw one image, smoothed, without axes."""
    cropped = image[edge : 28 - edge, edge : 28 - edge]
    axes.imshow(cropped, cmap="gray_r", vmin=0, vmax=255, interpolation="bicubic")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#d0d7de")


def blank(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(name: str, figure: Any) -> None:
    """Write a figure as PNG with a small palette; print its path and size."""
    from PIL import Image

    path = IMAGES / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"docs/images/{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
