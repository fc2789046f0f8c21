"""The table of runs: validation score, public score, and the gap between them."""

import textwrap
from collections.abc import Callable
from pathlib import Path

from digit_recognizer import provenance
from digit_recognizer.evaluation import expected_score, metrics
from digit_recognizer.ledger import Row

PUBLIC_ROWS = 7_000  # the public score is of part of the 28,000 test rows; Kaggle does not say how many: a quarter
WIDTH = 100  # columns of the tables
BLEND, SINGLE, TOO_LOW, TOO_HIGH = " b  ", " s  ", "  ! low", "  ! high"
NOTES = {
    BLEND: "b: the blend, on its holdout",
    SINGLE: "s: single members, out of fold; their blend is better",
    TOO_LOW: "! low: less than validation allows (99 %); a fault between the two, or a validation that leaks",
    TOO_HIGH: "! high: more than validation allows (99 %); most often a file made with leaked labels",
}


def table(rows: list[Row], obstacles: dict[str, str] | None = None) -> str:
    """Draw runs as a table, best validation first; a public score that validation does not allow is marked.

    Args:
        rows: the runs.
        obstacles: run → why it is not submitted, or an empty text; those that are not come last, in a table of theirs.
    """
    obstacles = obstacles or {}
    ranked = sorted(rows, key=rank, reverse=True)
    parts = []
    if whole := [row for row in ranked if not obstacles.get(row.run)]:
        title = f"{'validation':11}{'wrong':11}{'95 % interval':17}{'public':9}gap"
        parts.append(_drawn(title, whole, _cells))
    if rest := [row for row in ranked if obstacles.get(row.run)]:
        title = f"{'validation':11}{'wrong':11}not to be submitted"
        parts.append(_drawn(title, rest, lambda row: f"{_wrong(row)}{obstacles[row.run]}"))
    text = "\n\n".join(parts)
    return "\n".join([text, *(note for mark, note in NOTES.items() if mark in text)])


def _drawn(title: str, rows: list[Row], cells: Callable[[Row], str]) -> str:
    """A table with the run's name before ``cells``; a name that is too long for that has a line of its own."""
    drawn = [(row.run, cells(row).rstrip()) for row in rows]
    room = WIDTH - 2 - max(len(title), *(len(text) for _, text in drawn))
    width = max((len(name) for name, _ in drawn if len(name) <= room), default=3)
    lines = [f"{'run':{width}}  {title}"]
    for name, text in drawn:
        if len(name) > width:
            lines.append(name)
            name = ""
        lines.append(f"{name:{width}}  {text}")
    return "\n".join(lines)


def _wrong(row: Row) -> str:
    figures = row.validation
    if not figures:
        return f"{'–':22}"
    counts = f"{figures.errors}/{figures.rows}"
    return f"{figures.accuracy:.5f}{BLEND if row.blend else SINGLE}{counts:11}"


def _cells(row: Row) -> str:
    figures = row.validation
    shown = _wrong(row) + (f"{figures.low:.5f}–{figures.high:.5f}  " if figures else f"{'':17}")
    if row.public is None:
        return shown + (row.status[:20] or "not sent")
    gap = f"{row.public - figures.accuracy:+.5f}" if figures else ""
    return f"{shown}{row.public:.5f}  {gap}{_mark(row)}"


def recipe_differences(home: Path, rows: list[Row]) -> str:
    """Tell what differs between runs that have a recipe of one name, and not the same recipe."""
    parts = []
    for name in sorted({row.recipe for row in rows if row.recipe}):
        runs = [row for row in rows if row.recipe == name]
        if len({row.recipe_digest for row in runs}) == 1:
            continue
        recipes = [
            provenance.as_dict(provenance.as_dict(provenance.read_about(home, row.run).get("identity")).get("recipe"))
            for row in runs
        ]
        known = [one for one in recipes if one]
        fields = [
            field
            for field in dict.fromkeys(field for one in known for field in one)
            if len({repr(one.get(field)) for one in known}) > 1
        ]
        parts.append(f"recipe {name} is not the same in these runs:")
        for row, own in zip(runs, recipes, strict=True):
            shown = [f"digest {row.recipe_digest}", f"{row.members} members blended" if row.members else ""]
            shown += [f"{field} {own[field]}" for field in fields if field in own]
            line = f"{row.run}: {', '.join(filter(None, shown))}"
            parts += textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(parts)


def _mark(row: Row) -> str:
    validation = row.validation
    if not validation or row.public is None:
        return ""
    low, high = expected_score.public_score_range(validation, PUBLIC_ROWS)
    if not row.blend:  # how much better the blend is than its members is not known; half the errors is the most by far
        high = expected_score.public_score_range(metrics.score(validation.errors // 2, validation.rows), PUBLIC_ROWS)[1]
    return TOO_LOW if row.public < low else TOO_HIGH if row.public > high else ""


def rank(row: Row) -> float:
    return row.validation.accuracy if row.validation else -1.0
