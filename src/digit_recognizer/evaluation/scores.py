"""Score a blend against the training labels."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Fold, Split
from digit_recognizer.ensemble.blend import Blend, count_fold_errors
from digit_recognizer.ensemble.members import Probabilities
from digit_recognizer.evaluation import metrics
from digit_recognizer.evaluation.expected_score import ExpectedScore, expected_score
from digit_recognizer.evaluation.metrics import Score
from digit_recognizer.recipe import Recipe

BARELY_TRAINED = 0.9  # validation accuracy; a plain k-NN has 0.97
PUBLIC = 0.25  # of the test rows; Kaggle does not say how many its public score is of


@dataclass(frozen=True)
class Scores:
    """What a run is worth, by rows that the scored network was not trained on.

    Attributes:
        members: networks in the blend.
        oof: single members, each on the rows it left out; slightly optimistic, since those rows chose its checkpoint.
            Like all scores here, after re-ranking where the recipe has it.
        oof_distinct: how many of its rows are different ones; fewer than all where members outnumber folds.
        oof_last_epoch: the same by the weights after the last epoch, which nothing chose.
        holdout: the blend on the holdout, on which no member was trained and no checkpoint chosen; None without one.
        holdout_loss: the blend's mean cross-entropy there.
        holdout_members: each member alone on the holdout.
        expected: what the blend is expected to score on the test rows (see ``expected_score``); without a holdout, a
            blend of as many members as left out the same rows, one or a few, by the weights after the last epoch.
        confusion: integers (10, 10), labels down and answers across, on the holdout, else out of fold.
        truncated: what a budget left out of the recipe; empty for a complete run.
        tuned: whether the settings of the shipped recipes were chosen on splits of these rows.
    """

    members: int
    oof: Score
    oof_distinct: int
    oof_last_epoch: Score
    holdout: Score | None
    holdout_loss: float | None
    holdout_members: tuple[Score, ...]
    expected: ExpectedScore
    confusion: npt.NDArray[np.intp]
    truncated: str
    tuned: bool

    def as_json(self) -> dict[str, Any]:
        """The same as plain lists and numbers."""
        return asdict(self) | {"confusion": self.confusion.tolist()}

    def __str__(self) -> str:
        lines = [f"truncated by the budget: {self.truncated}"] if self.truncated else []
        lines += [
            f"out-of-fold, single members: {self.oof}",
            "  slightly optimistic, since these rows chose each member's checkpoint;",
            f"  after the last epoch, which nothing chose: {self.oof_last_epoch}",
        ]
        if self.holdout:
            alone = np.mean([member.accuracy for member in self.holdout_members])
            lines += [
                f"holdout, blend of {self.members}: {self.holdout}, loss {self.holdout_loss:.4f}",
                f"  no member was trained on these rows; a member alone has {alone:.5f} on average",
            ]
            if self.tuned:
                lines.append("  the shipped recipes were tuned on splits of the same rows, the holdout's among them")
        else:
            lines.append("no holdout, so the blend has no score of its own; it is better than its members as a rule")
        lines.append(f"expected public score: {self.expected}")
        where = "the holdout" if self.holdout else "the rows out of fold"
        lines += [f"confusion on {where} (label down, answer across):", metrics.format_confusion(self.confusion)]
        if (self.holdout or self.oof).accuracy < BARELY_TRAINED:
            lines.append("warning: barely trained; a longer BUDGET or more EPOCHS would score far better")
        return "\n".join(lines)


def score_blend(blended: Blend, recipe: Recipe, split: Split, data: Dataset) -> Scores:
    """Score an ensemble against the training labels."""
    labels, count = data.labels, len(blended.folds)
    scored = np.flatnonzero(~np.isnan(blended.oof[:, 0]))
    rows = sum(len(fold.validation) for fold in blended.folds)
    oof, last = (
        metrics.score(count_fold_errors(blended.folds, members, labels), rows, distinct=len(scored))
        for members in (blended.fold_members, blended.fold_members_last)
    )
    test = len(blended.test)
    public = max(1, round(PUBLIC * test))
    if len(split.holdout):
        held = labels[split.holdout]
        wrong = blended.holdout.argmax(axis=1) != held
        alone, alone_last = (
            np.array([one.argmax(axis=1) != held for one in members])
            for members in (blended.holdout_members, blended.holdout_members_last)
        )
        outside = _wrong_by_row(blended.folds, blended.fold_members_last, labels)
        expected = expected_score(wrong, test, public, members=(alone_last.mean(axis=0), *outside))
        holdout, loss = metrics.score(int(wrong.sum()), len(held)), metrics.mean_cross_entropy(held, blended.holdout)
        holdout_members = tuple(metrics.score(int(errors.sum()), len(held)) for errors in alone)
        confusion = metrics.confusion_matrix(held, blended.holdout)
    else:
        # By the last epoch, since these rows chose the checkpoints.
        wrong = blended.oof_last[scored].argmax(axis=1) != labels[scored]
        expected = expected_score(wrong, test, public)
        holdout, loss, holdout_members = None, None, ()
        confusion = metrics.confusion_matrix(labels[scored], blended.oof[scored])
    left_out = []
    if count < recipe.members:
        left_out.append(f"{count} of {recipe.members} members")
    if blended.epochs < recipe.epochs or blended.stopped:
        trained = f"{blended.epochs} of {recipe.epochs} epochs"
        left_out.append(f"{trained}, the last one cut short" if blended.stopped else trained)
    return Scores(
        count,
        oof,
        len(scored),
        last,
        holdout,
        loss,
        holdout_members,
        expected,
        confusion,
        truncated=", ".join(left_out),
        tuned=not data.sample,
    )


def _wrong_by_row(
    folds: tuple[Fold, ...], members: tuple[Probabilities, ...], labels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of each row that a member left out: how many members got it wrong, and how many left it out."""
    wrong, times = np.zeros(len(labels)), np.zeros(len(labels))
    for fold, probabilities in zip(folds, members, strict=True):
        wrong[fold.validation] += probabilities.argmax(axis=1) != labels[fold.validation]
        times[fold.validation] += 1
    return wrong[times > 0], times[times > 0]
