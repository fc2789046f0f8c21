"""Train several recipes on the same rows, and set them side by side."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from digit_recognizer import data, files, folds, recipe, runs, score
from digit_recognizer.errors import BadInput
from digit_recognizer.runs import Order

# What the descriptions that a recipe comes from say it reaches: least accuracy, largest loss.
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
        claim: what is claimed of it, and whether the seeds meet it.
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
    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        together = score.score(sum(self.errors), self.rows * len(self.errors), distinct=self.distinct)
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


def compare(
    home: Path, given: Path | None, names: Sequence[str], seeds: int, story: Callable[[Order], None]
) -> list[Line]:
    """Train each recipe with each seed where that was not done before, print the table and keep it.

    All recipes of a seed have the same holdout, the largest share that one of them asks for; a run that is already
    there, finished, is not made again.

    Args:
        home: the folder of ``runs`` and ``submissions``; the table is left in ``runs/compare.md`` and ``.json``.
        given: folder or zip of the competition's files.
        names: recipes.
        seeds: how many seeds, from 0.
        story: what trains one.

    Raises:
        BadInput: an unknown recipe, data that cannot be read, or no recipe that holds rows out.
    """
    cache = home / "runs" / "cache"
    recipes = [recipe.named(name) for name in names]
    share = max(one.holdout for one in recipes)
    if not share:
        raise BadInput(
            "recipes to compare: expected a holdout to judge them by, found holdout = 0 in all; give one some"
        )
    recipes = [one.changed(holdout=share) for one in recipes]
    digits = data.read(given, default=home / "data", cache=cache)
    lines = []
    for one in recipes:
        done = []
        for seed in range(seeds):
            seeded = one.changed(seed=seed)
            print(f"\n{one.name}, seed {seed}", flush=True)
            folder = runs.finished(home / "runs", seeded, digits)
            if folder is None:
                story(Order(recipe=seeded, data=given, home=home, cache=cache))
                folder = runs.finished(home / "runs", seeded, digits)
            if folder is not None:
                done.append(folder)
        held = [
            folds.split(digits.labels, folds=one.folds, members=1, holdout=one.holdout, seed=seed).holdout
            for seed in range(seeds)
        ]
        lines.append(_line(one.name, done, len(set().union(*held))))
    text = table(lines)
    files.write_bytes(home / "runs" / "compare.md", (text + "\n").encode())
    files.write_json(home / "runs" / "compare.json", [asdict(line) for line in lines])
    print(f"\n{text}\n\nkept in runs/compare.md and runs/compare.json")
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


def _line(name: str, folders: Sequence[Path], distinct: int) -> Line:
    scores = [files.read_json(folder / "scores.json") for folder in folders]
    records = [[files.read_json(note) for note in sorted(folder.glob("members/*/member.json"))] for folder in folders]
    errors, losses = tuple(one["holdout"]["errors"] for one in scores), tuple(one["holdout_loss"] for one in scores)
    rows = scores[0]["holdout"]["rows"]
    return Line(
        recipe=name,
        weights=records[0][0]["weights"],
        multiply_adds=records[0][0]["multiply_adds"],
        seconds=mean(sum(member["seconds"] for member in members) for members in records),
        errors=errors,
        losses=losses,
        rows=rows,
        distinct=distinct,
        claim=_claim(CLAIMS.get(name, {}), [1 - one / rows for one in errors], losses),
    )


def _claim(claims: dict[str, float], accuracies: Sequence[float], losses: Sequence[float]) -> str:
    """Say of each claim whether the seeds' mean meets it, or at least lies no further off than the seeds differ."""
    told = []
    for what, value in claims.items():
        reached = accuracies if what == "accuracy" else losses
        short = value - mean(reached) if what == "accuracy" else mean(reached) - value
        spread = stdev(reached) if len(reached) > 1 else 0.0
        verdict = "met" if short <= 0 else "met within the spread" if short <= spread else "NOT met"
        told.append(f"{what} {value:.4f} {verdict}")
    return ", ".join(told) or "–"
