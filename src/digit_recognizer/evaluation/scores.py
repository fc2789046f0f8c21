"""Score a blend against the training labels."""

from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import hints
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Fold, Split
from digit_recognizer.ensemble.blend import Blend, count_fold_errors
from digit_recognizer.ensemble.members import Probabilities
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation.expected_score import ExpectedScore, expected_score
from digit_recognizer.evaluation.metrics import Score, confusion_matrix, format_confusion, mean_cross_entropy, score
from digit_recognizer.recipe import Recipe

BARELY_TRAINED = 0.9  # accuracy; a plain k-NN reaches 0.97
PUBLIC_SHARE = 0.25  # assumed share of the test rows in the public score; Kaggle does not publish it


@dataclass(frozen=True)
class Scores:
    """The scores of a run, each from rows that the scored networks were not trained on, after k-NN re-ranking.

    Attributes:
        members: the number of networks in the blend that is scored.
        full_members: the number of further networks in the submission, which were trained on all rows.
        oof: single members on their validation rows; slightly optimistic, since these rows chose the checkpoints.
        oof_distinct: the number of distinct rows in ``oof``; below its ``rows`` where members outnumber folds.
        oof_last_epoch: the same with the weights after the last epoch, which these rows did not choose.
        holdout: the blend on the holdout, which no training and no checkpoint used; None without a holdout.
        holdout_loss: the blend's mean cross-entropy on the holdout.
        holdout_members: each member alone on the holdout.
        expected: the expected score on the test rows (see ``expected_score``). Without a holdout, it is that of a blend
            of as many members as share a validation row, with the weights after the last epoch.
        confusion: integers (10, 10), true digits down and predictions across, on the holdout, else out-of-fold.
        truncated: what a budget left out; empty for a complete run.
        tuned: whether the shipped recipes were tuned on these rows.
    """

    members: int
    full_members: int
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
        """Return the scores as plain lists and numbers."""
        return asdict(self) | {"confusion": self.confusion.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Scores":
        """Return the scores that ``as_json`` wrote; ``BadInput`` if a value is missing or of another type."""
        try:
            scores = cls(
                **{field.name: values[field.name] for field in fields(cls) if field.name != "full_members"}
                | {"full_members": values.get("full_members", 0)}  # runs of earlier versions have none
                | {
                    "oof": Score(**values["oof"]),
                    "oof_last_epoch": Score(**values["oof_last_epoch"]),
                    "holdout": Score(**values["holdout"]) if values["holdout"] else None,
                    "holdout_members": tuple(Score(**member) for member in values["holdout_members"]),
                    "expected": ExpectedScore(**values["expected"]),
                    "confusion": np.array(values["confusion"]),
                }
            )
            _check_types(scores)
            return scores
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"scores.json: damaged: {error!r}", hint="remove the run's folder and run again") from None

    def __str__(self) -> str:
        lines = [f"truncated by the budget: {self.truncated}"] if self.truncated else []
        lines += [
            f"out-of-fold, single members: {self.oof.wrong_rows}",
            f"  {self.oof}",
            "  slightly optimistic: these rows chose the checkpoints",
            f"  last epoch: {self.oof_last_epoch}",
        ]
        if self.holdout:
            single = np.mean([member.accuracy for member in self.holdout_members])
            lines += [
                f"holdout, blend of {self.members}: {self.holdout.wrong_rows}",
                f"  {self.holdout}",
                f"  loss {self.holdout_loss:.4f}; mean accuracy of a single member {single:.5f}",
                "  none of these members was trained on these rows",
            ]
            if self.tuned:
                lines.append("  the shipped recipes were tuned on splits that include them")
        else:
            lines += ["no holdout: the blend itself is not scored", "  it usually has fewer errors than its members"]
        lines.append(f"expected public score: {self.expected}")
        if self.full_members:
            full = f"{self.full_members} member{'s' * (self.full_members > 1)}"
            lines += [
                f"  of the {self.members} with validation rows",
                f"  the submission also has {full} trained on all rows",
                "  no row is left to score them",
            ]
        rows = "holdout" if self.holdout else "out-of-fold"
        lines.append(f"confusion matrix, {rows} (down: true, across: predicted)")
        lines.append(format_confusion(self.confusion))
        if (self.holdout or self.oof).accuracy < BARELY_TRAINED:
            lines.append("warning: barely trained")
            lines.append(f"hint: increase {hints.option('budget')} or {hints.option('epochs')}")
        return "\n".join(lines)


def _check_types(values: Any) -> None:
    """Raise ``TypeError`` if a field of a dataclass, or of one in it, has another type than declared."""
    for field in fields(values):
        value = getattr(values, field.name)
        if field.name == "confusion":
            if value.shape != (10, 10) or value.dtype.kind != "i":
                raise TypeError(f"confusion: expected integers (10, 10), found {value.dtype.name} {value.shape}")
        elif field.name == "holdout_members":
            for member in value:
                _check_types(member)
        elif not isinstance(value, field.type):  # type: ignore[arg-type]
            raise TypeError(f"{field.name}: expected {field.type}, found {type(value).__name__}")
        elif is_dataclass(value):
            _check_types(value)


def score_blend(blend: Blend, recipe: Recipe, split: Split, data: Dataset) -> Scores:
    """Score a blend against the training labels."""
    labels = data.labels
    scored_rows = np.flatnonzero(~np.isnan(blend.oof[:, 0]))
    fold_rows = sum(len(fold.validation) for fold in blend.folds)
    oof, oof_last = (
        score(count_fold_errors(blend.folds, members, labels), fold_rows, distinct=len(scored_rows))
        for members in (blend.fold_members, blend.fold_members_last)
    )
    test_rows = len(blend.test)
    public_rows = max(1, round(PUBLIC_SHARE * test_rows))
    holdout: Score | None = None
    loss: float | None = None
    holdout_members: tuple[Score, ...] = ()
    if len(split.holdout):
        holdout_labels = labels[split.holdout]
        errors = blend.holdout.argmax(axis=1) != holdout_labels
        member_errors, member_errors_last = (
            np.array([probabilities.argmax(axis=1) != holdout_labels for probabilities in members])
            for members in (blend.holdout_members, blend.holdout_members_last)
        )
        fold_errors = _errors_by_row(blend.folds, blend.fold_members_last, labels)
        expected = expected_score(
            errors, test_rows, public_rows, members=(member_errors_last.mean(axis=0), *fold_errors)
        )
        holdout, loss = score(int(errors.sum()), len(errors)), mean_cross_entropy(holdout_labels, blend.holdout)
        holdout_members = tuple(score(int(one.sum()), len(one)) for one in member_errors)
        confusion = confusion_matrix(holdout_labels, blend.holdout)
    else:
        # The weights after the last epoch, since these rows chose the checkpoints.
        errors = blend.oof_last[scored_rows].argmax(axis=1) != labels[scored_rows]
        expected = expected_score(errors, test_rows, public_rows)
        confusion = confusion_matrix(labels[scored_rows], blend.oof[scored_rows])
    return Scores(
        members=len(blend.folds),
        full_members=blend.full_members,
        oof=oof,
        oof_distinct=len(scored_rows),
        oof_last_epoch=oof_last,
        holdout=holdout,
        holdout_loss=loss,
        holdout_members=holdout_members,
        expected=expected,
        confusion=confusion,
        truncated=_truncation(blend, recipe),
        tuned=not data.sample,
    )


def _truncation(blend: Blend, recipe: Recipe) -> str:
    """Describe what a budget left out of the recipe; empty if nothing."""
    parts = []
    if (members := len(blend.folds) + blend.full_members) < recipe.members:
        parts.append(f"{members} of {recipe.members} members")
    if blend.epochs < recipe.epochs or blend.stopped:
        epochs = f"{blend.epochs} of {recipe.epochs} epochs"
        parts.append(f"{epochs}, the last one incomplete" if blend.stopped else epochs)
    return ", ".join(parts)


def _errors_by_row(
    folds: tuple[Fold, ...], members: tuple[Probabilities, ...], labels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """For each row in a validation fold: how many members misclassify it, and in how many folds it is."""
    errors, counts = np.zeros(len(labels)), np.zeros(len(labels))
    for fold, probabilities in zip(folds, members, strict=True):
        errors[fold.validation] += probabilities.argmax(axis=1) != labels[fold.validation]
        counts[fold.validation] += 1
    return errors[counts > 0], counts[counts > 0]
