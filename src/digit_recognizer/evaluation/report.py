"""The report of a run: a page with scores, learning curves, errors and predictions that opens without a network.

runs/<run>/report/
    index.html       the page, with its data, style and script
    test.png         all test images in one sheet
    suspects.csv     training rows whose label is probably wrong
    training.png     the training images that the page shows
runs/plotly.min.js   the plotting library, one copy for all runs
"""

import base64
import csv
import importlib.util
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import files, hints, provenance, runs
from digit_recognizer.console import format_duration
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Split
from digit_recognizer.ensemble import members
from digit_recognizer.ensemble.blend import count_errors
from digit_recognizer.ensemble.members import Member, Probabilities
from digit_recognizer.errors import BadInput, printable
from digit_recognizer.evaluation import metrics
from digit_recognizer.evaluation.scores import Scores
from digit_recognizer.recipe import Recipe

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = "plotly.min.js"
SIDE = 28  # pixels of an image
COLUMNS = 175  # images in a line of a sheet
NEIGHBOURS = 3
SUSPECTS = 60  # suspected labels shown on the page; the CSV has more
CONFIDENCES = (0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.000001)  # edges of the calibration's bins

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class StoredRun:
    """A complete run as read from its folder.

    Attributes:
        folder: ``runs/<run>``.
        about: the content of ``run.json``.
        recipe: the recipe.
        scores: the scores.
        stages: for each stage of the run's last process its name, seconds and peak memory; empty in older runs.
        members: member index → member.
        split: holdout and folds.
        oof, holdout, test: float32 (·, 10), the blend's probabilities.
    """

    folder: Path
    about: dict[str, Any]
    recipe: Recipe
    scores: Scores
    stages: list[dict[str, Any]]
    members: dict[int, Member]
    split: Split
    oof: Probabilities
    holdout: Probabilities
    test: Probabilities


def read_run(folder: Path, data: Dataset) -> StoredRun:
    """Read a complete run.

    Args:
        folder: ``runs/<run>``.
        data: the data that it was trained on.

    Raises:
        BadInput: there is no such run, it is incomplete, damaged, of another version, or of other data.
    """
    runs.check_complete(folder)
    about, recipe = files.read_json(folder / "run.json"), runs.stored_recipe(folder)
    if about["identity"].get("data") != data.fingerprint:
        raise BadInput(f"{folder}: trained on other data than {data.source}", hint=hints.option("data"))
    split = splits.split(
        data.labels,
        folds=recipe.folds,
        members=recipe.members,
        holdout=recipe.holdout,
        seed=recipe.seed,
        full_members=recipe.full_members,
    )
    written = files.read_json(folder / "scores.json")
    digests = provenance.as_dict(written.get("digests"))
    shapes = {"oof": len(data.labels), "holdout": len(split.holdout), "test": len(data.test_images)}
    return StoredRun(
        folder=folder,
        about=about,
        recipe=recipe,
        scores=Scores.from_json(written),
        stages=_checked_stages(written.get("stages", [])),
        members=runs.stored_members(folder),
        split=split,
        **{
            name: members.read_blend(folder / f"{name}.npy", rows, digest=digests.get(name), gaps=name == "oof")
            for name, rows in shapes.items()
        },
    )


def _checked_stages(stages: Any) -> list[dict[str, Any]]:
    """Return the stages of a run, as ``Run.end_stage`` records them."""
    kinds = {"stage": str, "seconds": float | int, "peak_memory": float | int}
    for stage in stages if isinstance(stages, list) else [stages]:
        if not all(isinstance(provenance.as_dict(stage).get(name), kind) for name, kind in kinds.items()):
            raise BadInput(
                "scores.json: damaged: expected stages with seconds and peak memory", hint=members.RUN_AGAIN_HINT
            )
    return list(stages)


def load_data(folder: Path | None, given: Path | None, home: Path) -> Dataset:
    """Load the data of a run: ``given``, or from where the run read it, or from ``data/``.

    Args:
        folder: the run's folder; None for any data.
        given: folder or zip named by the user.
        home: the folder of ``data`` and ``runs``.
    """
    about = files.read_json(folder / "run.json") if folder else {}
    sample = provenance.as_dict(about.get("identity")).get("sample") is True
    source = str(about.get("source") or "")
    if given is None and not sample and source and (home / source).exists():
        given = home / source
    default = home / "runs" / "cache" / "no-data" if sample else home / "data"
    return dataset.load(given, default=default, cache=home / "runs" / "cache")


def save_report(folder: Path, data: Dataset) -> str:
    """Write the report of a run that has just ended, and return a line that names it, or the reason of a failure."""
    try:
        write_report(folder, data)
    except Exception as error:
        return f"report: not written: {printable(f'{type(error).__name__}: {error}')}"
    return f"report: runs/{folder.name}/report/index.html"


def write_report(folder: Path, data: Dataset) -> Path:
    """Write the report of a run and return its page. It is written to a temporary folder and moved.

    Raises:
        BadInput: as for ``read_run``, or the folder cannot be written.
    """
    run = read_run(folder, data)
    with files.temporary_folder(folder / "report") as place:
        try:
            page = render(run, data, place)
        except KeyError as error:
            raise BadInput(f"{folder}: of another version: {error} is missing", hint="train the recipe again") from None
        (place / "index.html").write_text(page, encoding="utf-8")
        old = folder / "report"
        if old.exists():
            shutil.rmtree(old)
        place.replace(old)
    copy_script(folder.parent)
    return folder / "report" / "index.html"


def copy_script(home: Path) -> None:
    """Copy Plotly's script into the folder of runs, unless it is there."""
    import plotly

    source = Path(plotly.__file__).parent / "package_data" / SCRIPT
    target = home / SCRIPT
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        files.write_bytes(target, source.read_bytes())


def environment() -> Any:
    """Return the templates' environment, which escapes all values."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"duration": format_duration, "gigabytes": lambda size: f"{size / 1e9:.1f} GB"}
    return templates


def render(run: StoredRun, data: Dataset, place: Path) -> str:
    """Draw the sheets into ``place`` and return the page."""
    rows, probabilities, _ = scored_rows(run)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != data.labels[rows])
    suspects = find_suspects(data.labels[rows], probabilities)
    shown, groups = describe_rows(run, data, [wrong, suspects[:SUSPECTS]])
    errors, suspected = groups
    write_suspects(place / "suspects.csv", rows[suspects], data.labels[rows[suspects]], probabilities[suspects])
    write_sheet(place / "test.png", data.test_images)
    write_sheet(place / "training.png", data.images[shown])
    content = {
        "errors": errors,
        "suspects": suspected,
        "training": [[int(row), int(data.labels[row])] for row in shown],
        "test": encode_predictions(run.test),
        "testRows": len(run.test),
        "columns": COLUMNS,
        "figures": {"curves": curves(run), "calibration": calibration(run, data)},
    }
    return str(
        environment()
        .get_template("report.html")
        .render(
            name=run.folder.name,
            scores=run.scores,
            content=content,
            members=describe_members(run, data),
            facts=describe_run(run, data),
            stages=run.stages,
            confusion=run.scores.confusion.tolist(),
            script=f"../../{SCRIPT}",
            suspects=len(suspects),
            judged=len(rows),
            cleanlab=importlib.util.find_spec("cleanlab") is not None,
        )
    )


def scored_rows(run: StoredRun) -> tuple[Rows, Probabilities, list[str]]:
    """Return the training rows that the blend or a member predicted without training on them.

    Returns:
        integers (k,), the rows; float32 (k, 10), their probabilities; for each ``holdout`` or ``out-of-fold``.
    """
    oof_rows = np.flatnonzero(~np.isnan(run.oof[:, 0]))
    rows = np.concatenate([run.split.holdout, oof_rows])
    kinds = ["holdout"] * len(run.split.holdout) + ["out-of-fold"] * len(oof_rows)
    return rows, np.concatenate([run.holdout[: len(run.split.holdout)], run.oof[oof_rows]]), kinds


def find_suspects(labels: npt.NDArray[np.uint8], probabilities: Probabilities) -> Rows:
    """Return the rows whose label is probably wrong, the most suspicious first; none if cleanlab is not installed.

    Confident learning (C. Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021).

    Args:
        labels: uint8 (k,).
        probabilities: float32 (k, 10), of networks that were not trained on the rows.
    """
    if importlib.util.find_spec("cleanlab") is None or len(np.unique(labels)) < 10:
        return np.empty(0, np.intp)
    from cleanlab.filter import find_label_issues

    normalized = probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True)
    found = find_label_issues(labels.astype(int), normalized, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.intp)


def write_suspects(path: Path, rows: Rows, labels: npt.NDArray[np.uint8], probabilities: Probabilities) -> None:
    """Write suspected labels as CSV: row of the training table, from 1, label, prediction, and both probabilities."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", "label", "predicted", "label_probability", "predicted_probability"))
        for row, label, values in zip(rows.tolist(), labels.tolist(), probabilities, strict=True):
            predicted = int(values.argmax())
            writer.writerow((row + 1, label, predicted, f"{values[label]:.4f}", f"{values[predicted]:.4f}"))


def describe_rows(run: StoredRun, data: Dataset, groups: list[Rows]) -> tuple[Rows, list[list[dict[str, Any]]]]:
    """Describe scored rows with their nearest training images.

    Args:
        run, data: the run and its data.
        groups: indices into ``scored_rows``.

    Returns:
        the training rows whose images are needed; for each group a list of rows, whose images are indices into those.
    """
    rows, probabilities, kinds = scored_rows(run)
    chosen = np.unique(np.concatenate(groups))
    near = nearest(data.images, rows[chosen], NEIGHBOURS)
    shown, places = np.unique(np.concatenate([rows[chosen][:, None], near], axis=1), return_inverse=True)
    places = places.reshape(len(chosen), NEIGHBOURS + 1)
    described = {
        int(index): {
            "kind": kinds[index],
            "label": int(data.labels[rows[index]]),
            "probabilities": [round(float(value), 4) for value in probabilities[index]],
            "image": int(place[0]),
            "near": [int(position) for position in place[1:]],
        }
        for index, place in zip(chosen, places, strict=True)
    }
    return shown, [[described[int(index)] for index in group] for group in groups]


def nearest(images: Images, rows: Rows, count: int) -> Rows:
    """Return the ``count`` other images that are nearest by Euclidean distance to each of ``rows``, (k, count)."""
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    squares = np.einsum("ij,ij->i", pixels, pixels)
    found = np.empty((len(rows), count), np.intp)
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        distances = squares - 2 * pixels[part] @ pixels.T
        distances[np.arange(len(part)), part] = np.inf
        candidates = np.argpartition(distances, count, axis=1)[:, :count]
        order = np.take_along_axis(distances, candidates, axis=1).argsort(axis=1, kind="stable")
        found[start : start + len(part)] = np.take_along_axis(candidates, order, axis=1)
    return found


def write_sheet(path: Path, images: Images) -> None:
    """Write images as one PNG with 16 levels of grey, ``COLUMNS`` in a line, dark ink on white."""
    from PIL import Image

    lines = max(1, -(-len(images) // COLUMNS))
    sheet = np.zeros((lines * COLUMNS, SIDE, SIDE), np.uint8)
    sheet[: len(images)] = np.rint(images / 17)
    pixels = sheet.reshape(lines, COLUMNS, SIDE, SIDE).transpose(0, 2, 1, 3).reshape(lines * SIDE, COLUMNS * SIDE)
    image = Image.fromarray(pixels).convert("P")
    image.frombytes(pixels.tobytes())
    image.putpalette([255 - 17 * level for level in range(16) for _ in range(3)])
    image.save(path, bits=4)


def encode_predictions(probabilities: Probabilities) -> str:
    """Return the two most probable digits and their probabilities, five bytes a row, in base64.

    A row has one byte, first digit × 16 + second digit, and two 16-bit little-endian numbers, probability × 65,535.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    values = np.take_along_axis(probabilities, order, axis=1)
    packed = np.empty(len(probabilities), np.dtype([("digits", "u1"), ("first", "<u2"), ("second", "<u2")]))
    packed["digits"] = order[:, 0] * 16 + order[:, 1]
    packed["first"], packed["second"] = np.rint(values.T * 65_535)
    return base64.b64encode(packed.tobytes()).decode()


def curves(run: StoredRun) -> list[dict[str, Any]]:
    """Return for each member its name, values per epoch and the epoch of its checkpoint."""
    return [
        {
            "name": f"member {index + 1}, {member.record.get('preprocessing', '')}".rstrip(", "),
            "checkpoint": member.record["best_epoch"],
            "rate": _rounded(member.history.get("learning_rate", ())),
            "loss": _rounded(member.history["loss"]),
            "errors": _rounded(1 - value for value in member.history["accuracy"]),
            "valLoss": _rounded(member.history.get("val_loss", ())),
            "valErrors": _rounded(1 - value for value in member.history.get("val_accuracy", ())),
        }
        for index, member in run.members.items()
    ]


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def calibration(run: StoredRun, data: Dataset) -> list[dict[str, Any]]:
    """Return bins of predictions by confidence: mean confidence, accuracy with its interval, number of rows."""
    rows, probabilities, _ = scored_rows(run)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == data.labels[rows]
    bins = []
    for low, high in itertools.pairwise(CONFIDENCES):
        inside = (confidence >= low) & (confidence < high)
        if count := int(inside.sum()):
            score = metrics.score(int((~correct[inside]).sum()), count)
            mean = float(confidence[inside].mean())
            bins.append(
                {"confidence": mean, "accuracy": score.accuracy, "low": score.low, "high": score.high, "rows": count}
            )
    return bins


def describe_members(run: StoredRun, data: Dataset) -> list[dict[str, Any]]:
    """Return a row of the table of members for each: its errors alone, and those of the blend without it."""
    labels = data.labels[run.split.holdout]
    holdout = {
        index: member.probabilities["holdout"]
        for index, member in run.members.items()
        if not run.split.folds[index].full
    }
    predicted = run.test.argmax(axis=1)
    rows = []
    for index, member in run.members.items():
        others = [probabilities for other, probabilities in holdout.items() if other != index]
        scored = index in holdout
        alone = without = None
        if scored and len(labels):
            alone = count_errors(labels, holdout[index])
            without = count_errors(labels, np.mean(others, axis=0)) if others else None
        agreement = float((member.probabilities["test"].argmax(axis=1) == predicted).mean())
        rows.append({"record": member.record, "scored": scored, "alone": alone, "without": without, "same": agreement})
    return rows


def describe_run(run: StoredRun, data: Dataset) -> Sequence[tuple[str, str]]:
    """Return names and values of the facts about a run."""
    identity, machine = run.about["identity"], provenance.as_dict(run.about.get("machine"))
    versions = provenance.as_dict(identity.get("versions"))
    trained = sum(member.record["seconds"] for member in run.members.values())
    facts = {
        "recipe": str(run.recipe),
        "began": run.about.get("began", ""),
        "training": f"{format_duration(trained)}, sum over {len(run.members)} members",
        "machine": ", ".join(filter(None, [str(machine.get("processor") or ""), f"{machine.get('cores')} cores"])),
        "system": machine.get("system", ""),
        "data": f"{len(data.labels):,} training rows, {len(data.test_images):,} test rows, {identity['data']}",
        "commit": run.about.get("commit") or "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
    }
    return [(name, str(value)) for name, value in facts.items() if value]
