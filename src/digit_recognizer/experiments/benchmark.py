"""Measure scores, times and paces on this machine in one run, and compare them with their goals.

Times of hours are estimated: the start and the step of a member are measured with all workers busy, and multiplied.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import files, hints, runs
from digit_recognizer.console import render_table
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.experiments import timing
from digit_recognizer.experiments.kernel_run import run_recipe
from digit_recognizer.recipe import Recipe, load_recipe
from digit_recognizer.training import numerics

PACE_MEASUREMENTS = 3  # of each of the two paces, in turn
COMPARED_MEMBERS = 2  # of standard and of deotte15: the first ones, whose folds have the same validation rows
SIGNIFICANCE = 0.05  # a difference with a smaller p is beyond chance
STANDARD_TIME, STANDARD_SCORE = "standard, time", "standard, expected score"
OOF_DIFFERENCE, HOLDOUT_DIFFERENCE = "standard − deotte15, OOF", "standard − deotte15, holdout"
TIME_RATIO, PACE_RATIO = "deotte15 / standard, time", "kit / plain Keras, pace"
MATRIX_SHARE = "pace / matrix products"
PREDICTION_TIME = f"{timing.PREDICTING_MEMBERS} × 28,000 predictions"


@dataclass(frozen=True)
class Goal:
    """A bound on a figure: at least ``value``, or at most ``value`` if it is a time in seconds."""

    value: float
    seconds: bool = False

    def reached(self, measured: float) -> bool:
        """Whether the measured value is within the bound."""
        return measured <= self.value if self.seconds else measured >= self.value


GOALS = {
    STANDARD_TIME: Goal(10 * 60, seconds=True),
    STANDARD_SCORE: Goal(0.9967),
    TIME_RATIO: Goal(10),
    OOF_DIFFERENCE: Goal(0),
    HOLDOUT_DIFFERENCE: Goal(0),
    PACE_RATIO: Goal(1.2),
    MATRIX_SHARE: Goal(0.5),
    PREDICTION_TIME: Goal(20, seconds=True),
}
BFLOAT16_PACE_RATIO = Goal(1.8)  # on a machine that trains with bfloat16


@dataclass(frozen=True)
class PairedResult:
    """Two classifiers on the same rows.

    Attributes:
        rows: number of rows.
        errors: errors of the first and of the second.
        discordant: errors of the first alone and of the second alone.
        p: of McNemar's exact test: probability of discordant errors at least as uneven if both were equally good.
        difference: accuracy of the first less that of the second.
    """

    rows: int
    errors: tuple[int, int]
    discordant: tuple[int, int]
    p: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What the benchmark measured.

    Attributes:
        values: name of a goal → measured value; None if the run that it needs does not exist.
        intervals: name of an expected score → its 90 % interval.
        pairs: name of a difference → the errors behind it.
        competition: whether the data are the competition's; goals apply to no other.
        precision: what this machine trains with, such as bfloat16.
        details: what is stored beside these, such as the machine and the date.
    """

    values: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    pairs: dict[str, PairedResult]
    competition: bool
    precision: str
    details: dict[str, Any] = field(default_factory=dict)


def run_benchmark(home: Path, data: Path | None) -> int:
    """Measure all figures, print them beside their goals, and store them in ``runs/bench.json``.

    It takes half an hour on two cores, most of it for a run of recipe ``standard`` in ``runs/bench-<time>``. The scores
    of ``deotte15`` are read from a complete run of the same recipe, data and code in ``home``.

    Args:
        home: folder of ``runs`` and ``submissions``.
        data: folder or zip of the competition's files; None for ``data/``, or else the bundled sample.

    Returns:
        How many goals were missed beyond chance.

    Raises:
        BadInput: data that cannot be read.
        KitError: a run failed.
        KeyboardInterrupt: a run was interrupted.
    """
    digits = dataset.load(data, default=home / "data", cache=home / "runs" / "cache")
    print(f"data: {digits}\nmeasuring the training pace, the kit and plain Keras in turn", flush=True)
    standard, deotte15 = map(load_recipe, ("standard", "deotte15"))
    paces = [
        (timing.training_pace(standard, digits), timing.plain_keras_pace(digits)) for _ in range(PACE_MEASUREMENTS)
    ]
    print("measuring the share of the machine's matrix-product speed", flush=True)
    shares = timing.matrix_product_shares(standard, digits)
    print(f"measuring the prediction of {timing.PREDICTING_MEMBERS} members", flush=True)
    prediction = timing.prediction_seconds(home, data)
    print("estimating the time of recipe deotte15", flush=True)
    deotte15_seconds = timing.estimate_recipe_seconds(deotte15, digits)

    place = files.folder(home / "runs" / f"bench-{time.strftime('%Y%m%d-%H%M%S')}")  # so that no run is resumed
    source = data or (home / "data" if dataset.exists(home / "data") else None)
    print("running recipe standard", flush=True)
    began = time.monotonic()
    run_recipe("standard", ["--data", str(source.absolute())] if source else [], cwd=place)
    seconds = time.monotonic() - began

    folders = {
        "standard": _find_run((place, home), [standard], digits),
        "deotte15": _find_run((place, home), [deotte15.changed(members=COMPARED_MEMBERS), deotte15], digits),
    }
    scores = {name: files.read_json(folder / "scores.json") if folder else None for name, folder in folders.items()}
    expected = scores["standard"] and scores["standard"]["expected"]
    pairs = {}
    if folders["standard"] and folders["deotte15"]:
        pairs = compare_members(folders["standard"], folders["deotte15"], digits)
    measurements = Measurements(
        values={
            STANDARD_TIME: seconds,
            STANDARD_SCORE: expected["accuracy"] if expected else None,
            TIME_RATIO: deotte15_seconds / seconds,
            PACE_RATIO: statistics.median(kit / plain for kit, plain in paces),
            MATRIX_SHARE: min(shares.values()),
            PREDICTION_TIME: prediction,
            **{figure: pairs[figure].difference if pairs else None for figure in (OOF_DIFFERENCE, HOLDOUT_DIFFERENCE)},
        },
        intervals={STANDARD_SCORE: (expected["low"], expected["high"])} if expected else {},
        pairs=pairs,
        competition=digits.fingerprint == dataset.COMPETITION_FINGERPRINT,
        precision=numerics.resolved_precision("auto"),
        details={
            "images per second, kit and plain Keras": paces,
            "share of the matrix-product speed": shares,
            "deotte15, estimated seconds": deotte15_seconds,
            "scores": scores,
            "machine": folders["standard"] and files.read_json(folders["standard"] / "run.json")["machine"],
            "date": time.strftime("%Y-%m-%d"),
        },
    )
    files.write_json(home / "runs" / "bench.json", asdict(measurements))
    print(goal_table(measurements, data), "stored in runs/bench.json", sep="\n")
    return sum(verdict(figure, measurements) == "missed" for figure in GOALS)


def _find_run(homes: Sequence[Path], recipes: Sequence[Recipe], digits: Dataset) -> Path | None:
    """Return the folder of a complete run of one of these recipes, data and code; None if no home has one."""
    for home in homes:
        for recipe in recipes:
            for folder in runs.complete_runs(home / "runs", recipe, digits):
                expected = files.read_json(folder / "scores.json").get("expected")
                if isinstance(expected, dict) and {"accuracy", "low", "high"} <= expected.keys():
                    return folder
    return None


def compare_members(standard: Path, deotte15: Path, digits: Dataset) -> dict[str, PairedResult]:
    """Compare the first members of two runs on the same rows, without re-ranking.

    Out of fold, single members are compared at the last epoch, since these rows chose the checkpoints, among different
    numbers of epochs. In the holdout, the blends of the checkpoints are compared.
    """
    recipe = load_recipe("standard")
    split = splits.split(
        digits.labels, folds=recipe.folds, members=COMPARED_MEMBERS, holdout=recipe.holdout, seed=recipe.seed
    )
    members = [
        [member.probabilities for member in runs.stored_members(folder, COMPARED_MEMBERS).values()]
        for folder in (standard, deotte15)
    ]
    validation = np.concatenate([fold.validation for fold in split.folds])
    last_epoch, checkpoint = (
        [np.concatenate([probabilities[name] for probabilities in run]) for run in members]
        for name in ("fold-last-epoch", "fold")
    )
    blends = [np.mean([probabilities["holdout"] for probabilities in run], axis=0) for run in members]
    return {
        OOF_DIFFERENCE: compare_paired(digits.labels[validation], *last_epoch),
        f"{OOF_DIFFERENCE}, checkpoints": compare_paired(digits.labels[validation], *checkpoint),
        HOLDOUT_DIFFERENCE: compare_paired(digits.labels[split.holdout], *blends),
    }


def compare_paired(
    labels: npt.NDArray[np.uint8], first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]
) -> PairedResult:
    """Compare two classifiers on the same rows by McNemar's exact test (Q. McNemar, 1947).

    Args:
        labels: uint8 (n,).
        first, second: float32 (n, 10), probabilities.
    """
    from scipy.stats import binomtest

    wrong, also_wrong = (probabilities.argmax(axis=1) != labels for probabilities in (first, second))
    discordant = int((wrong & ~also_wrong).sum()), int((also_wrong & ~wrong).sum())
    return PairedResult(
        rows=len(labels),
        errors=(int(wrong.sum()), int(also_wrong.sum())),
        discordant=discordant,
        p=float(binomtest(discordant[0], sum(discordant)).pvalue) if sum(discordant) else 1.0,
        difference=(discordant[1] - discordant[0]) / len(labels),
    )


def goal_of(figure: str, measurements: Measurements) -> Goal:
    """Return the goal of a figure; that of the pace depends on the machine's precision."""
    half = figure == PACE_RATIO and measurements.precision == "bfloat16"
    return BFLOAT16_PACE_RATIO if half else GOALS[figure]


def verdict(figure: str, measurements: Measurements) -> str:
    """Compare a figure with its goal.

    Returns:
        "met", "missed" (beyond chance), "unclear" (missed within chance), "no run" (not measured), or "–" (other data).
    """
    measured, goal = measurements.values[figure], goal_of(figure, measurements)
    if measured is None:
        return "no run"
    if not measurements.competition:
        return "–"
    if goal.reached(measured):
        return "met"
    within_chance = False
    if pair := measurements.pairs.get(figure):
        within_chance = pair.p >= SIGNIFICANCE
    elif interval := measurements.intervals.get(figure):
        within_chance = interval[1] >= goal.value
    return "unclear" if within_chance else "missed"


def goal_table(measurements: Measurements, data: Path | None = None) -> str:
    """Return a table of at most 60 columns, and below it the counts and intervals behind the verdicts.

    ``data``, as the user named it, enters the commands that make a missing run.
    """
    rows, notes = [], []
    for figure in GOALS:
        goal, measured = goal_of(figure, measurements), measurements.values[figure]
        unit = " s" if goal.seconds else ""
        shown = "" if measured is None else f"{measured:.5g}{unit}"
        rows.append(
            (figure, f"{'≤' if goal.seconds else '≥'} {goal.value:g}{unit}", shown, verdict(figure, measurements))
        )
        if pair := measurements.pairs.get(figure):
            notes.append(
                f"{figure}: {pair.errors[0]} and {pair.errors[1]} of {pair.rows:,} wrong,\n"
                f"  {pair.discordant[0]} and {pair.discordant[1]} by one alone, p = {pair.p:.2g}"
            )
        if interval := measurements.intervals.get(figure):
            notes.append(f"{figure}: 90 % interval {interval[0]:.5f} to {interval[1]:.5f}")
        if measured is None:
            notes.append(f"{figure}: no complete run; to make one:\n  {_missing_run_command(figure, data)}")
    notes.append(
        "unclear: goal missed, within chance" if measurements.competition else "goals apply to the competition's data"
    )
    return "\n".join([render_table(("figure", "goal", "measured", "verdict"), rows, right=(1, 2)), *notes])


def _missing_run_command(figure: str, data: Path | None) -> str:
    options: dict[str, Any] = {"data": data} if data else {}
    if figure in (OOF_DIFFERENCE, HOLDOUT_DIFFERENCE):
        return hints.command("run", recipe="deotte15", members=COMPARED_MEMBERS, **options)
    return hints.command("run", **options)
