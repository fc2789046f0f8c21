"""Complete runs that were never trained, and a stand-in for ``kernel.py`` that stores them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer import command_line, files, run_options, runs
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import members
from digit_recognizer.ensemble.blend import average
from digit_recognizer.evaluation.scores import score_blend
from digit_recognizer.recipe import Recipe

DIGITS = Dataset(
    images=np.zeros((600, 28, 28), np.uint8),
    labels=np.arange(600).astype(np.uint8) % 10,
    test_images=np.zeros((5, 28, 28), np.uint8),
    source=Path("files"),
    sample=True,
    fingerprint="0" * 16,
)
HISTORY = {"loss": [1.0], "accuracy": [0.9], "val_loss": [0.9], "val_accuracy": [0.95]}


def store_run(
    home: Path,
    recipe: Recipe,
    digits: Dataset,
    *,
    wrong: int = 1,
    stopped: bool = False,
    scores: dict[str, Any] | None = None,
) -> Path:
    """Store a complete run whose members misclassify the first ``wrong`` rows of each set; return its folder.

    Args:
        stopped: whether the members are marked as truncated by a budget.
        scores: the content of ``scores.json``; None for plausible ones.
    """
    split = splits.split(
        digits.labels, folds=recipe.folds, members=recipe.members, holdout=recipe.holdout, seed=recipe.seed
    )
    run = runs.begin(home / "runs", recipe, digits)
    for index, fold in enumerate(split.folds):
        sets = {"fold": fold.validation, "holdout": split.holdout}
        answers = {name: np.eye(10, dtype=np.float32)[digits.labels[rows]] for name, rows in sets.items()}
        for answer in answers.values():
            answer[:wrong] = np.roll(answer[:wrong], 1, axis=1)
        answers["test"] = np.full((len(digits.test_images), 10), 0.1, np.float32)
        probabilities = {name: answers[name.split("-")[0]] for name in members.PROBABILITIES}
        record = {
            "member": index,
            "epochs": recipe.epochs,
            "stopped": stopped,
            "best_epoch": 1,
            "network": recipe.of_member(index).network,
            "preprocessing": recipe.of_member(index).preprocessing,
            "fold_rows": len(fold.validation),
            "fold_errors": wrong,
            "weights": 1000,
            "multiply_adds": 1000,
            "seconds": 1.0,
        }
        content = members.encode_member(record, b"", HISTORY, "", probabilities)
        members.write_member(run.member(index), run.owner(index), content)
    plausible = {
        "holdout": {"errors": wrong, "rows": len(split.holdout)},
        "holdout_loss": 0.1,
        "expected": {"accuracy": 0.9, "low": 0.8, "high": 1.0},
    }
    run.finish(plausible if scores is None else scores)
    return run.folder


def store_scored_run(home: Path, recipe: Recipe, digits: Dataset, *, wrong: int = 1) -> Path:
    """Store a complete run as ``store_run`` does, with the probabilities of its blend and all scores."""
    folder = store_run(home, recipe, digits, wrong=wrong, scores={})
    split = splits.split(
        digits.labels, folds=recipe.folds, members=recipe.members, holdout=recipe.holdout, seed=recipe.seed
    )
    blend = average(runs.stored_members(folder, recipe.members).items(), split, rows=len(digits.labels))
    run = runs.Run(folder, {}, files.lock(folder / "lock", wait=False), resumed=True)
    run.save_blend(blend)
    run.finish(score_blend(blend, recipe, split, digits).as_json())
    return folder


def forget_digests(folder: Path) -> None:
    """Remove the digests of the blend's arrays, which older runs lack, from the scores of a run."""
    scores = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps({**scores, "digests": {}}))


class FakeKernel:
    """Stands in for ``launch.run_kernel``: stores a complete run instead of training.

    Attributes:
        recipes, data: the recipe and the ``--data`` of each call.
        status: the exit status to return; a run is stored for 0 alone.
        truncated_from: seeds from here on end as truncated by a budget.
    """

    def __init__(self, *, status: int = 0, truncated_from: int = 1000) -> None:
        self.recipes: list[Recipe] = []
        self.data: list[Path | None] = []
        self.status, self.truncated_from = status, truncated_from

    def __call__(self, options: Sequence[str], *, cwd: Path) -> int:
        parser = command_line.Parser(prog="kernel.py")
        run_options.add_run_options(parser)
        arguments = parser.parse_args(list(options))
        recipe = run_options.recipe_from(arguments)
        self.recipes.append(recipe)
        self.data.append(arguments.data)
        if self.status == 0:
            digits = dataset.load(arguments.data, default=cwd / "data", cache=cwd / "runs" / "cache")
            store_run(cwd, recipe, digits, stopped=recipe.seed >= self.truncated_from)
        return self.status
