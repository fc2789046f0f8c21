"""The report of all runs: a table, a plot of their scores, and the rows in which two of them differ.

runs/report/
    index.html       the page
    runs/<run>.js    predictions of a run, loaded when it is compared
    training.png, test.png   all images in one sheet each
"""

import base64
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer import files, hints, ledger, provenance, runs_table
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation import report

UNSCORED = 255  # in place of a digit


def write_index(home: Path, data: Dataset) -> Path:
    """Write the report of all runs in the ledgers and return its page.

    Runs whose folder is missing, damaged or of other data are in the table and cannot be compared.

    Args:
        home: the folder of ``runs`` and ``submissions``.
        data: the images and labels to show.

    Raises:
        BadInput: there are no runs, or the folder cannot be written.
    """
    rows = ledger.read(home / "submissions")
    if not rows:
        raise BadInput("no runs yet", hint=f"`{hints.command('run')}` starts one")
    origins = {row.run: provenance.find_provenance(home, row.run, row) for row in rows}
    obstacles = {run: origin.why_not_submittable or origin.why_not_selected for run, origin in origins.items()}
    listed = runs_table.as_json(rows, obstacles)
    folder = files.folder(home / "runs")
    with files.temporary_folder(folder / "report") as place:
        (place / "runs").mkdir()
        for entry in listed:
            entry["comparable"] = write_predictions(place / "runs", folder / entry["run"], data)
        comparable = any(entry["comparable"] for entry in listed)
        if comparable:
            report.write_sheet(place / "training.png", data.images)
            report.write_sheet(place / "test.png", data.test_images)
        content = {
            "runs": listed,
            "labels": base64.b64encode(data.labels.tobytes()).decode() if comparable else "",
            "columns": report.COLUMNS,
        }
        page = (
            report.environment()
            .get_template("runs.html")
            .render(runs=listed, content=content, script=f"../{report.SCRIPT}", links=_links(folder, listed))
        )
        (place / "index.html").write_text(page, encoding="utf-8")
        if (folder / "report").exists():
            shutil.rmtree(folder / "report")
        place.replace(folder / "report")
    report.copy_script(folder)
    return folder / "report" / "index.html"


def write_predictions(place: Path, folder: Path, data: Dataset) -> bool:
    """Write the predicted digits of a run as a script that the page loads; return False if they cannot be read."""
    try:
        run = report.read_run(folder, data)
    except BadInput:
        return False
    rows, probabilities, _ = report.scored_rows(run)
    scored = np.full(len(data.labels), UNSCORED, np.uint8)
    scored[rows] = probabilities.argmax(axis=1)
    predictions = {
        "scored": base64.b64encode(scored.tobytes()).decode(),
        "test": base64.b64encode(run.test.argmax(axis=1).astype(np.uint8).tobytes()).decode(),
    }
    text = f"addRun({json.dumps(folder.name)}, {json.dumps(predictions)});\n"
    (place / f"{folder.name}.js").write_text(text, encoding="utf-8")
    return True


def _links(folder: Path, listed: list[dict[str, Any]]) -> Mapping[str, str]:
    """Return for each run with a report of its own the address of that, relative to the page."""
    names = [entry["run"] for entry in listed]
    return {
        name: f"../{name}/report/index.html" for name in names if (folder / name / "report" / "index.html").exists()
    }
