"""Train several recipes on the same rows, and set them side by side."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist, mean

import numpy as np
import numpy.typing as npt

from digit_recognizer import files, launch, recipe, runs
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.evaluation import metrics
from digit_recognizer.evaluation.metrics import Score
from digit_recognizer.recipe import Recipe

# What the descriptions that a recipe comes from say it reaches on the test set of MNIST, whose digits the competition's
# are: least accuracy, largest loss.
CLAIMS: dict[str, dict[str, float]] = {
    "three-conv": {"accuracy": 0.9912},
    "conv-pool": {"accuracy": 0.9915, "loss": 0.0260},
}
HEADER = ("recipe", "weights", "mult-adds", "train", "wrong of holdout", "accuracy, 95 %", "loss", "claim")


@dataclass(frozen=True)
class Line:
    """A recipe's runs, one a seed.

    Attributes:
        recipe: its name.
        weights, multiply_adds: of one of its networks, for an image.
        seconds: to train, mean over the seeds.
        errors, losses: on the holdout, one a seed.
        rows: of a holdout.
        distinct: of all seeds' holdouts together, each counted once.
        claim: what is claimed of it, and whether all seeds' rows together confirm it (see ``_claim``).
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
    def together(self) -> Score:
        """The score of all seeds' rows."""
        return metrics.score(sum(self.errors), self.rows * len(self.errors), distinct=self.distinct)

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        together = self.together
        return (
            self.recipe,
            f"{self.weights / 1000:,.0f} k",
            f"{self.multiply_adds / 1e6:.1f} M",
            f"{self.seconds:.0f} s",
            f"{' '.join(map(str, self.errors))} of {self.rows:,}",
            f"{together.accuracy:.5f} ({together.low:.5f}–{together.high:.5f})",
            " ".join(f"{loss:.4f}" for loss in self.losses),
            self.claim,
        )


def compare(home: Path, given: Path | None, names: Sequence[str], seeds: int) -> list[Line]:
    """Train each recipe with each seed where that was not done before, print the table and keep it.

    All recipes of a seed have the same holdout, the largest share that one of them asks for; a run that is already
    there, finished, is not made again.

    Args:
        home: the folder of ``runs`` and ``submissions``; the table is left in ``runs/compare.md`` and ``.json``.
        given: folder or zip of the competition's files.
        names: recipes.
        seeds: how many seeds, from 0.

    Raises:
        BadInput: an unknown recipe, data that cannot be read, or no recipe with a holdout.
        KitError: a run failed or left no complete set of members.
    """
    cache = home / "runs" / "cache"
    recipes = [recipe.load_recipe(name) for name in names]
    share = max(one.holdout for one in recipes)
    if not share:
        raise BadInput(
            "recipes to compare: expected a holdout to judge them by, found holdout = 0 in all",
            hint="set holdout in one of the recipe files",
        )
    recipes = [one.changed(holdout=share) for one in recipes]
    digits = dataset.load(given, default=home / "data", cache=cache)
    lines = []
    for name, one in zip(names, recipes, strict=True):
        held = [
            splits.split(digits.labels, folds=one.folds, members=1, holdout=share, seed=seed).holdout
            for seed in range(seeds)
        ]
        results = []
        for seed, rows in enumerate(held):
            print(f"\n{one.name}, seed {seed}", flush=True)
            seeded, labels = one.changed(seed=seed), digits.labels[rows]
            result = _stored(home / "runs", seeded, digits, labels)
            if result is None:
                options = ["--recipe", name, "--holdout", str(share), "--seed", str(seed)]
                options += ["--data", str(given)] if given else []
                if status := launch.run_kernel(options, cwd=home):
                    raise KitError(f"compare: the run of {one.name}, seed {seed}, failed with exit status {status}")
                result = _stored(home / "runs", seeded, digits, labels)
            if result is None:
                raise KitError(
                    f"compare: {one.name}, seed {seed}: its run ended without a complete set of members",
                    hint="run the same command again; complete runs are not repeated",
                )
            results.append(result)
        distinct = len(set().union(*(rows.tolist() for rows in held)))
        lines.append(_line(one.name, results, distinct, judged=digits.fingerprint == dataset.COMPETITION_FINGERPRINT))
    text = table(lines)
    files.write_bytes(home / "runs" / "compare.md", (text + "\n").encode())
    files.write_json(home / "runs" / "compare.json", [asdict(line) for line in lines])
    print(f"\n{text}\n\nstored in runs/compare.md and runs/compare.json")
    return lines


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table that is aligned to be read as text too."""
    cells = [HEADER, *(line.cells for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rows.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(rows)


@dataclass(frozen=True)
class _Result:
    """What one complete run is compared by.

    Attributes:
        weights, multiply_adds: of its first member.
        seconds: to train its members.
        errors, loss: of the blend on the holdout.
        losses: float64 (h,), the cross-entropy of its networks' blend, not re-ranked, on each row of the holdout.
    """

    weights: int
    multiply_adds: int
    seconds: float
    errors: int
    loss: float
    losses: npt.NDArray[np.float64]


def _stored(home: Path, one: Recipe, digits: Dataset, labels: npt.NDArray[np.uint8]) -> _Result | None:
    """The result of the recipe's first complete run that can be read; None where there is none.

    Args:
        labels: of the holdout's rows.
    """
    for folder in runs.complete_runs(home, one, digits):
        try:
            return _result(folder, one.members, labels)
        except (BadInput, ValueError, KeyError, TypeError):  # its scores.json is damaged: the recipe is trained anew
            continue
    return None


def _result(folder: Path, count: int, labels: npt.NDArray[np.uint8]) -> _Result:
    stored = runs.stored_members(folder, count)
    scores = files.read_json(folder / "scores.json")
    errors, loss = int(scores["holdout"]["errors"]), float(scores["holdout_loss"])
    if not (scores["holdout"]["rows"] == len(labels) >= errors >= 0 and math.isfinite(loss)):
        raise BadInput(f"{folder / 'scores.json'}: expected scores of {len(labels):,} rows")
    blend = np.mean([member.probabilities["holdout"] for member in stored], axis=0)
    return _Result(
        weights=stored[0].record["weights"],
        multiply_adds=stored[0].record["multiply_adds"],
        seconds=sum(member.record["seconds"] for member in stored),
        errors=errors,
        loss=loss,
        losses=metrics.cross_entropy(labels, blend),
    )


def _line(name: str, results: Sequence[_Result], distinct: int, *, judged: bool) -> Line:
    line = Line(
        recipe=name,
        weights=results[0].weights,
        multiply_adds=results[0].multiply_adds,
        seconds=mean(one.seconds for one in results),
        errors=tuple(one.errors for one in results),
        losses=tuple(one.loss for one in results),
        rows=len(results[0].losses),
        distinct=distinct,
        claim="–",
    )
    if name not in CLAIMS:
        return line
    if not judged:
        return replace(line, claim="not judged: other data")
    accuracy = line.together
    intervals = {
        "accuracy": (accuracy.low, accuracy.high),
        "loss": _mean_interval(np.concatenate([one.losses for one in results]), distinct),
    }
    return replace(line, claim=_claim(CLAIMS[name], intervals))


def _mean_interval(values: npt.NDArray[np.float64], distinct: int) -> tuple[float, float]:
    """The 95 % interval of the mean (normal approximation), where so many of the values are of different rows."""
    reach = NormalDist().inv_cdf(0.975) * float(values.std()) / math.sqrt(distinct)
    return float(values.mean()) - reach, float(values.mean()) + reach


def _claim(claims: dict[str, float], intervals: dict[str, tuple[float, float]]) -> str:
    """Say of each claim whether it is met, not met, or undecided: inside the 95 % interval, which other rows may move.

    Args:
        claims: least accuracy, largest loss.
        intervals: what was found, as the 95 % intervals of both: of rows drawn by chance, so that one seed suffices.
    """
    verdicts = []
    for what, value in claims.items():
        low, high = intervals[what]
        met, missed = (low >= value, high < value) if what == "accuracy" else (high <= value, low > value)
        verdict = "met" if met else "not met" if missed else "undecided"
        verdicts.append(f"{what} {value:.4f} {verdict} ({low:.5f}–{high:.5f})")
    return ", ".join(verdicts)
