"""Train several recipes on the same rows and compare them in a table."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import files, runs
from digit_recognizer.console import render_table
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.evaluation import metrics
from digit_recognizer.evaluation.metrics import Score
from digit_recognizer.experiments.kernel_run import run_recipe
from digit_recognizer.recipe import Recipe, load_recipe

# Results that the descriptions of the reference recipes claim on the test set of MNIST, from whose digits the
# competition's were taken: lowest accuracy, highest loss.
CLAIMS: dict[str, dict[str, float]] = {
    "three-conv": {"accuracy": 0.9912},
    "conv-pool": {"accuracy": 0.9915, "loss": 0.0260},
}
MARKDOWN_HEADERS = (
    "recipe",
    "weights",
    "mult-adds",
    "training",
    "holdout errors",
    "accuracy (95 %)",
    "loss",
    "claim",
)
SCREEN_HEADERS = ("recipe", "errors", "accuracy, 95 %", "loss", "min")
NAME_WIDTH = 20  # columns for a recipe's name on the screen
NO_CLAIM = "–"


@dataclass(frozen=True)
class RunResult:
    """What a complete run contributes to the comparison.

    Attributes:
        weights, multiply_adds: of the first member's network; multiply-adds for one image.
        seconds: training time, sum over the members.
        errors, loss: of the blend on the holdout.
        row_losses: float64 (n,), cross-entropy of each holdout row, of the blend without re-ranking.
    """

    weights: int
    multiply_adds: int
    seconds: float
    errors: int
    loss: float
    row_losses: npt.NDArray[np.float64]


@dataclass(frozen=True)
class RecipeSummary:
    """A recipe's runs, one per seed.

    Attributes:
        recipe: its name.
        weights, multiply_adds: of the first member's network; multiply-adds for one image.
        seconds: training time, mean over the seeds.
        errors, losses: of the blend on the holdout, one per seed.
        rows: rows of one holdout.
        distinct: different rows in the holdouts of all seeds.
        claim: the published result and the verdict on it (see ``check_claims``).
    """

    recipe: str
    weights: int
    multiply_adds: int
    seconds: float
    errors: tuple[int, ...]
    losses: tuple[float, ...]
    rows: int
    distinct: int
    claim: str

    @property
    def pooled(self) -> Score:
        """The score over the holdouts of all seeds."""
        return metrics.score(sum(self.errors), self.rows * len(self.errors), distinct=self.distinct)


def compare(
    home: Path, data: Path | None, names: Sequence[str], seeds: int, options: Sequence[str] = ()
) -> list[RecipeSummary]:
    """Train each recipe with each seed, unless a complete run exists, and print and store the table.

    All recipes of a seed have the same holdout: the largest fraction that one of them sets. The tables are stored in
    ``runs/compare.md`` and ``runs/compare.json``.

    Args:
        home: folder of ``runs`` and ``submissions``.
        data: folder or zip of the competition's files; None for ``data/``, or else the bundled sample.
        names: names of recipes, or recipe files.
        seeds: number of seeds, counted from 0.
        options: more options of ``kernel.py`` that change no result, such as the executor.

    Raises:
        BadInput: an unknown recipe, data that cannot be read, or no recipe with a holdout.
        KitError: a run failed or is incomplete.
        KeyboardInterrupt: a run was interrupted.
    """
    recipes = [load_recipe(name) for name in names]
    fraction = max(recipe.holdout for recipe in recipes)
    if not fraction:
        raise BadInput(
            "compare: expected a holdout to score the recipes on, found holdout = 0 in all of them",
            hint="set holdout in one of the recipe files",
        )
    recipes = [recipe.changed(holdout=fraction) for recipe in recipes]
    digits = dataset.load(data, default=home / "data", cache=home / "runs" / "cache")
    summaries = []
    for name, recipe in zip(names, recipes, strict=True):
        holdouts = [
            splits.split(digits.labels, folds=recipe.folds, members=1, holdout=fraction, seed=seed).holdout
            for seed in range(seeds)
        ]
        results = []
        for seed, rows in enumerate(holdouts):
            print(f"\n{recipe.name}, seed {seed}", flush=True)
            seeded, labels = recipe.changed(seed=seed), digits.labels[rows]
            result = find_result(home / "runs", seeded, digits, labels)
            if result is None:
                words = ["--holdout", str(fraction), "--seed", str(seed), *options]
                run_recipe(name, [*words, *(["--data", str(data)] if data else [])], cwd=home)
                result = find_result(home / "runs", seeded, digits, labels)
            else:
                print("complete run found; not trained again", flush=True)
            if result is None:
                raise KitError(
                    f"compare: {recipe.name}, seed {seed}: the run ended without a complete set of members",
                    hint="rerun the command; complete runs are not repeated",
                )
            results.append(result)
        distinct = len(set().union(*(rows.tolist() for rows in holdouts)))
        competition = digits.fingerprint == dataset.COMPETITION_FINGERPRINT
        summaries.append(summarize(recipe.name, results, distinct, competition=competition))
    files.write_bytes(home / "runs" / "compare.md", (markdown_table(summaries) + "\n").encode())
    files.write_json(home / "runs" / "compare.json", as_json(summaries))
    print(f"\n{screen_table(summaries)}\n\nall columns: runs/compare.md and runs/compare.json")
    return summaries


def as_json(summaries: Sequence[RecipeSummary]) -> list[dict[str, Any]]:
    """Return the summaries as plain lists and numbers, each with its pooled score."""
    return [asdict(summary) | {"pooled": asdict(summary.pooled)} for summary in summaries]


def find_result(home: Path, recipe: Recipe, digits: Dataset, labels: npt.NDArray[np.uint8]) -> RunResult | None:
    """Return the result of the recipe's first complete run whose files can be read, or None.

    Args:
        home: folder of the runs.
        recipe, digits: what the run trained, and on what.
        labels: uint8 (n,), labels of the holdout.
    """
    for folder in runs.complete_runs(home, recipe, digits):
        try:
            return _read_result(folder, recipe.members, labels)
        except (BadInput, ValueError, KeyError, TypeError):  # scores.json is damaged: the recipe is trained again
            continue
    return None


def _read_result(folder: Path, members: int, labels: npt.NDArray[np.uint8]) -> RunResult:
    stored = list(runs.stored_members(folder, members).values())
    scores = files.read_json(folder / "scores.json")
    errors, loss = int(scores["holdout"]["errors"]), float(scores["holdout_loss"])
    if not (scores["holdout"]["rows"] == len(labels) >= errors >= 0 and math.isfinite(loss)):
        raise BadInput(f"{folder / 'scores.json'}: expected scores of {len(labels):,} rows")
    holdout = [member.probabilities["holdout"] for member in stored]
    blend = np.mean([probabilities for probabilities in holdout if len(probabilities)], axis=0)
    return RunResult(
        weights=stored[0].record["weights"],
        multiply_adds=stored[0].record["multiply_adds"],
        seconds=sum(member.record["seconds"] for member in stored),
        errors=errors,
        loss=loss,
        row_losses=metrics.cross_entropy(labels, blend),
    )


def summarize(name: str, results: Sequence[RunResult], distinct: int, *, competition: bool) -> RecipeSummary:
    """Summarize a recipe's runs.

    Args:
        name: the recipe's name.
        results: one per seed, at least one.
        distinct: different rows in all holdouts.
        competition: whether the data are the competition's; claims are checked on no other.
    """
    summary = RecipeSummary(
        recipe=name,
        weights=results[0].weights,
        multiply_adds=results[0].multiply_adds,
        seconds=mean(result.seconds for result in results),
        errors=tuple(result.errors for result in results),
        losses=tuple(result.loss for result in results),
        rows=len(results[0].row_losses),
        distinct=distinct,
        claim=NO_CLAIM,
    )
    if name not in CLAIMS:
        return summary
    if not competition:
        return replace(summary, claim="not checked: other data")
    accuracy = summary.pooled
    intervals = {
        "accuracy": (accuracy.low, accuracy.high),
        "loss": mean_interval(np.concatenate([result.row_losses for result in results]), distinct),
    }
    return replace(summary, claim=check_claims(CLAIMS[name], intervals))


def mean_interval(values: npt.NDArray[np.float64], distinct: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean (normal approximation) of values from ``distinct`` different rows."""
    margin = NormalDist().inv_cdf(0.975) * float(values.std()) / math.sqrt(distinct)
    return float(values.mean()) - margin, float(values.mean()) + margin


def check_claims(claims: dict[str, float], intervals: dict[str, tuple[float, float]]) -> str:
    """Describe each claim as met, not met, or undecided, which is inside the 95 % interval.

    Args:
        claims: lowest accuracy, highest loss.
        intervals: measured 95 % intervals of both, for rows drawn at random.
    """
    verdicts = []
    for figure, value in claims.items():
        low, high = intervals[figure]
        met, missed = (low >= value, high < value) if figure == "accuracy" else (high <= value, low > value)
        verdict = "met" if met else "not met" if missed else "undecided"
        verdicts.append(f"{figure} {value:.4f} {verdict} ({low:.5f}–{high:.5f})")
    return ", ".join(verdicts)


def markdown_table(summaries: Sequence[RecipeSummary]) -> str:
    """Return all columns as a Markdown table, aligned so that it can be read as text."""
    cells = [MARKDOWN_HEADERS]
    for summary in summaries:
        pooled = summary.pooled
        cells.append(
            (
                summary.recipe,
                f"{summary.weights / 1000:,.0f} k",
                f"{summary.multiply_adds / 1e6:.1f} M",
                f"{summary.seconds:.0f} s",
                f"{' '.join(map(str, summary.errors))} of {summary.rows:,}",
                f"{pooled.accuracy:.5f} ({pooled.low:.5f}–{pooled.high:.5f})",
                " ".join(f"{loss:.4f}" for loss in summary.losses),
                summary.claim,
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def screen_table(summaries: Sequence[RecipeSummary]) -> str:
    """Return a table of at most 60 columns, seeds pooled, and the claims below it."""
    rows, claims = [], []
    for summary in summaries:
        pooled = summary.pooled
        rows.append(
            (
                _shorten(summary.recipe),
                f"{pooled.errors:,}",
                f"{pooled.low:.4f}–{pooled.high:.4f}",
                f"{mean(summary.losses):.4f}",
                f"{summary.seconds / 60:.1f}",
            )
        )
        if summary.claim != NO_CLAIM:
            claims += [f"claim of {summary.recipe}: {claim.split(' (')[0]}" for claim in summary.claim.split(", ")]
    first = summaries[0]
    header = f"holdout: {first.rows:,} rows" + (f" × {len(first.errors)} seeds" if len(first.errors) > 1 else "")
    return "\n".join([header, render_table(SCREEN_HEADERS, rows, right=(1, 3, 4)), *claims])


def _shorten(name: str) -> str:
    """Shorten a long name in its middle; the end often tells two recipes apart, such as ``-tuned``."""
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH // 2 - 1]}…{name[-NAME_WIDTH // 2 :]}"
