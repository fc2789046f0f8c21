"""The table of runs: expected, validation and public scores, and the gap between the first and the last."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from digit_recognizer import console, provenance
from digit_recognizer import recipe as recipes
from digit_recognizer.errors import printable
from digit_recognizer.evaluation import expected_score, metrics
from digit_recognizer.ledger import Row

PUBLIC_ROWS = 7_000  # test rows of the public score; Kaggle does not publish the number, a quarter is assumed
WIDTH = 60  # columns
INDENT = "  "
BLEND, SINGLE, LOW, HIGH, NONE = " b", " s", " L", " H", "–"
MARK_NAMES = {LOW: "low", HIGH: "high"}
NOTES = {
    NONE: "–: no expected score; the interval is that of the validation score, 95 %",
    BLEND: "b: accuracy of the blend on the holdout",
    SINGLE: "s: out-of-fold accuracy of single members, without a holdout; the blend scores higher",
    LOW: "L: below the 99 % range that validation predicts; the validation may leak, or the file is damaged",
    HIGH: "H: above the 99 % range that validation predicts; the file may have been made with leaked labels",
}


def render(rows: list[Row], obstacles: Mapping[str, str] | None = None) -> str:
    """Return runs as a table of two lines per run, highest expected score first.

    Args:
        rows: the runs.
        obstacles: run → the reason why it is not submitted, or an empty text. Runs with a reason follow below the
            table, each with its reason.
    """
    obstacles = obstacles or {}
    ranked = sorted(rows, key=rank, reverse=True)
    ready = [row for row in ranked if not obstacles.get(row.run)]
    others = [row for row in ranked if obstacles.get(row.run)]
    figures = [_figures(row) for row in ready]
    lines = []
    if ready:
        table = console.render_table(("expected", "interval", "validation", "public", "gap"), figures)
        header, *drawn = [f"{INDENT}{line}" for line in table.splitlines()]
        lines += ["run", header, *(line for row, cells in zip(ready, drawn, strict=True) for line in (row.run, cells))]
    if others:
        lines += [*([""] if ready else []), "not submitted:"]
        for row in others:
            lines += [row.run, *_wrapped(f"{_validation(row)}  {obstacles[row.run]}", INDENT)]
    marked = [*map(_validation, others), *(cell for cells in figures for cell in cells)]
    notes = [note for mark, note in NOTES.items() if any(cell.endswith(mark) for cell in marked)]
    return "\n".join([*lines, *([""] if notes else []), *(line for note in notes for line in _wrapped(note))])


def as_json(rows: list[Row], obstacles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return runs as plain values, highest expected score first.

    Args:
        rows: the runs.
        obstacles: run → the reason why it is not submitted, or an empty text.
    """
    return [
        {
            "run": row.run,
            "time": row.time,
            "recipe": row.recipe,
            "recipe_digest": row.recipe_digest,
            "commit": row.commit,
            "members": int(row.members) if re.fullmatch("[0-9]{1,9}", row.members) else None,
            "expected": row.estimate if row.expected else None,
            "expected_interval": row.interval if row.expected else None,
            "holdout": asdict(row.blend) if row.blend else None,
            "oof": asdict(row.out_of_fold) if row.out_of_fold else None,
            "status": row.status,
            "reference": row.reference,
            "public_score": row.public,
            "mark": MARK_NAMES.get(_mark(row), ""),
            "obstacle": obstacles.get(row.run, ""),
        }
        for row in sorted(rows, key=rank, reverse=True)
    ]


def rank(row: Row) -> float:
    """Return the accuracy by which runs are ranked; -1 without one."""
    return -1.0 if row.estimate is None else row.estimate


def recipe_differences(home: Path, rows: list[Row]) -> str:
    """Return the fields that differ between runs whose recipes have the same name but different content.

    Args:
        home: the folder of ``runs``, which hold the recipes.
        rows: the runs.
    """
    lines = []
    for name in sorted({row.recipe for row in rows if row.recipe}):
        runs = [row for row in rows if row.recipe == name]
        if len({row.recipe_digest for row in runs}) == 1:
            continue
        stored = [_recipe_fields(home, row.run) for row in runs]
        known = [fields for fields in stored if fields]
        differing = [
            field
            for field in dict.fromkeys(field for fields in known for field in fields)
            if len({repr(fields.get(field)) for fields in known}) > 1
        ]
        lines.append(f"recipe {name} differs between these runs:")
        for row, fields in zip(runs, stored, strict=True):
            shown = [f"digest {row.recipe_digest}", f"{row.members} members blended" if row.members else ""]
            shown += [f"{field} {fields[field]}" for field in differing if field in fields]
            lines += _wrapped(f"{row.run}: {', '.join(filter(None, shown))}", INDENT)
    return "\n".join(lines)


def _recipe_fields(home: Path, run: str) -> dict[str, Any]:
    """Return the recipe of a run by the present names of its fields; empty if the run does not have it."""
    identity = provenance.as_dict(provenance.read_run_json(home, run).get("identity"))
    stored = provenance.as_dict(identity.get("recipe"))
    names = {former: name for name, former in recipes.FORMER_NAMES.items()}
    values = {former: value for value, former in recipes.FORMER_PREPROCESSING.items()}
    fields = {names.get(field, field): value for field, value in stored.items()}
    if "view" in stored:
        fields["preprocessing"] = "+".join(values.get(part, part) for part in str(stored["view"]).split("+"))
    return fields


def _figures(row: Row) -> tuple[str, str, str, str, str]:
    expected = f"{row.estimate:.5f}" if row.expected and row.estimate is not None else NONE if row.estimate else ""
    interval = f"{row.interval[0]:.4f}–{row.interval[1]:.4f}" if row.interval else ""
    if row.public is None:
        return expected, interval, _validation(row), printable(row.status[:8]) or "not sent", ""
    gap = f"{row.public - row.estimate:+.5f}" if row.estimate is not None else ""
    return expected, interval, _validation(row), f"{row.public:.5f}", gap + _mark(row)


def _validation(row: Row) -> str:
    return f"{row.validation.accuracy:.5f}{BLEND if row.blend else SINGLE}" if row.validation else ""


def _mark(row: Row) -> str:
    """Return ``LOW`` or ``HIGH`` if the public score is outside the range that validation predicts."""
    validation = row.validation
    if not validation or row.public is None:
        return ""
    low, high = expected_score.public_score_range(validation, PUBLIC_ROWS)
    if not row.blend:  # a blend has fewer errors than its members: at least half of them, by a wide margin
        blend = metrics.score(validation.errors // 2, validation.rows)
        high = expected_score.public_score_range(blend, PUBLIC_ROWS)[1]
    return LOW if row.public < low else HIGH if row.public > high else ""


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
