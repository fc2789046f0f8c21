"""Train the members of a run that are missing, and blend their probabilities."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import budget, engines, files, members, score
from digit_recognizer.data import Data
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.folds import Fold, Split
from digit_recognizer.members import Member, Probabilities
from digit_recognizer.progress import Progress, duration
from digit_recognizer.recipe import Recipe
from digit_recognizer.runs import Run, owner
from digit_recognizer.score import Expected, Score

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
        expected: what the blend is expected to score on the test rows (see ``score.expected``); without a holdout, a
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
    expected: Expected
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
        lines += [f"confusion on {where} (label down, answer across):", score.table(self.confusion)]
        if (self.holdout or self.oof).accuracy < BARELY_TRAINED:
            lines.append("warning: barely trained; a longer BUDGET or more EPOCHS would score far better")
        return "\n".join(lines)


@dataclass(frozen=True)
class Blend:
    """The probabilities of an ensemble, of networks alone until ``with_neighbours`` re-ranks them.

    Names that end in ``last`` are by the weights after the last epoch, all others by the checkpoint.

    Attributes:
        oof, oof_last: float32 (n, 10), out-of-fold: each row's mean over the members that left it out; NaN where there
            is none.
        holdout: float32 (h, 10), the mean over all members on the holdout's rows.
        test: float32 (m, 10), the mean over all members on the test rows.
        folds: of each member, what it was trained on and what it left out.
        fold_members, fold_members_last: float32 (rows left out, 10), each member alone there.
        holdout_members, holdout_members_last: float32 (h, 10), each member alone on the holdout's rows.
        histories: each member's figures, epoch by epoch.
        epochs: how many epochs its members were to be trained for, the fewest of all.
        stopped: whether a budget ended one of them before that.
    """

    oof: Probabilities
    oof_last: Probabilities
    holdout: Probabilities
    test: Probabilities
    folds: tuple[Fold, ...]
    fold_members: tuple[Probabilities, ...]
    fold_members_last: tuple[Probabilities, ...]
    holdout_members: tuple[Probabilities, ...]
    holdout_members_last: tuple[Probabilities, ...]
    histories: list[dict[str, list[float]]]
    epochs: int
    stopped: bool


def train(
    recipe: Recipe,
    data: Data,
    split: Split,
    run: Run,
    *,
    deadline: float | None = None,
    after_each: Callable[[Blend], None] = lambda blend: None,
) -> Blend:
    """Train each member that the run has not yet, and blend all; each is stored as soon as it is trained.

    Args:
        recipe, data, split, run: what to train, on what, by what split, and where to store it.
        deadline: a time of ``time.monotonic`` by which the run is to end. Fewer members are trained then, and
            where not one would be, fewer epochs: as many as fit at the pace that is measured first.
        after_each: called with the blend so far after each member.

    Raises:
        BadInput: the run's folder cannot be written, or the budget is too short to train anything.
        KitError: a member that was trained is not in the run's folder any more, or is damaged.
    """
    owners = [(run.member(index), owner(run.identity, index)) for index in range(recipe.members)]
    trained = {index: stored for index in range(recipe.members) if (stored := _stored(run, recipe, index))}
    missing = [index for index in range(recipe.members) if index not in trained]
    kept = sorted(trained)
    workers, threads = engines.share(recipe.members)
    longest, last_step, epochs = 0.0, None, recipe.epochs
    if deadline is not None and missing:
        print("budget: measuring the pace", flush=True)
        plan = budget.plan(recipe, data, split, len(kept), missing, deadline)
        missing, epochs, longest, last_step = missing[: plan.members], plan.epochs, plan.member_seconds, plan.last_step
        print(f"budget: time for {plan.members} of {recipe.members} members, {epochs} epochs each", flush=True)
    progress = Progress(recipe.members, epochs, kept, len(missing), workers=min(workers, len(missing)))
    begun = 0

    def may_start() -> bool:
        nonlocal begun
        begun += 1
        return begun <= workers or deadline is None or time.monotonic() + longest < deadline

    def blended() -> Blend:
        return blend(run, split, trained, rows=len(data.labels))

    def done(index: int, seconds: float) -> None:
        nonlocal longest
        longest = max(longest, seconds)
        progress.over(index, f"member {index + 1}/{recipe.members} trained in {duration(seconds)}")
        trained[index] = _reread(run, index)
        after_each(blended())

    if kept:
        after_each(blended())
    job = partial(_train_member, recipe.changed(epochs=epochs), data, split, owners, last_step)
    engines.run(job, missing, progress, workers=workers, threads=threads, done=done, may_start=may_start)
    for index in trained:  # what was blended is what is stored
        _reread(run, index)
    return blended()


def _stored(run: Run, recipe: Recipe, index: int) -> Member | None:
    """A member of an earlier call that the recipe trained to the end; what else its folder holds is removed."""
    folder = run.member(index)
    if not folder.exists():
        return None
    try:
        stored = members.read(folder, owner(run.identity, index))
        reason = "" if stored.complete(recipe) else f"{folder}: truncated by a budget"
    except BadInput as error:
        reason = str(error)
    if not reason:
        return stored
    if (folder / members.RECORD).exists():
        print(f"member {index + 1}/{recipe.members} is trained again: {reason}", flush=True)
    with files.explained(folder):
        shutil.rmtree(folder)
    return None


def member_seed(seed: int, index: int) -> int:
    """The seed of member ``index``, 32 bits, unlike those of its neighbours under any recipe's seed."""
    return int(np.random.SeedSequence((seed, 1 << 16, index)).generate_state(1)[0])


def _reread(run: Run, index: int) -> Member:
    """A member that this run trained or kept; ``KitError`` where it is not as it was."""
    try:
        return members.read(run.member(index), owner(run.identity, index))
    except BadInput as error:
        raise KitError(f"{error}; it was changed during the run", hint="run the same command again") from error


def _train_member(
    recipe: Recipe,
    data: Data,
    split: Split,
    owners: list[tuple[Path, str]],
    last_step: float | None,
    index: int,
    reporter: engines.Reporter,
) -> float:
    from digit_recognizer import member, networks  # TensorFlow is imported here, in the worker

    began = time.monotonic()
    fold, seed, (place, owner) = split.folds[index], member_seed(recipe.seed, index), owners[index]
    folder = files.folder(place)
    trained = member.train(
        recipe.of_member(index),
        data.images[fold.train],
        data.labels[fold.train],
        data.images[fold.out],
        data.labels[fold.out],
        seed=seed,
        checkpoint=folder / members.NETWORK,
        reporter=reporter,
        deadline=last_step,
    )
    probabilities = {
        "fold": member.probabilities(trained.network, data.images[fold.out]),
        "holdout": member.probabilities(trained.network, data.images[split.holdout]),
        "test": member.probabilities(trained.network, data.test_images),
        "fold-last-epoch": member.probabilities(trained.last_network, data.images[fold.out]),
        "holdout-last-epoch": member.probabilities(trained.last_network, data.images[split.holdout]),
    }
    weights, products = networks.size(trained.network)
    record = {
        "member": index,
        "network": recipe.of_member(index).network,
        "view": recipe.of_member(index).view,
        "weights": weights,
        "multiply_adds": products,
        "seconds": time.monotonic() - began,
        "seed": seed,
        "precision": trained.precision,
        "train_rows": len(fold.train),
        "fold_rows": len(fold.out),
        "epochs": recipe.epochs,
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
        "fold_errors": score.errors(data.labels[fold.out], probabilities["fold"]),
        "fold_errors_at_last_epoch": score.errors(data.labels[fold.out], probabilities["fold-last-epoch"]),
        "holdout_errors": score.errors(data.labels[split.holdout], probabilities["holdout"]),
    }
    members.write(folder, owner, record, trained.history, networks.summary(trained.network), probabilities)
    return time.monotonic() - began


def blend(run: Run, split: Split, trained: Mapping[int, Member], *, rows: int) -> Blend:
    """Average the probabilities of the members that are trained, and store the averages in the run's folder.

    Args:
        run: where to store them.
        split: the split that the members were trained by.
        trained: a member's number → the member, at least one.
        rows: rows of the training table.
    """
    numbers = sorted(trained)
    folds = tuple(split.folds[number] for number in numbers)
    of = {name: tuple(trained[number].probabilities[name] for number in numbers) for name in members.PROBABILITIES}
    holdout, test = (
        np.asarray(np.mean(of[name], axis=0, dtype=np.float64), np.float32) for name in ("holdout", "test")
    )
    return _kept(
        run,
        Blend(
            oof=_out_of_fold(folds, of["fold"], rows),
            oof_last=_out_of_fold(folds, of["fold-last-epoch"], rows),
            holdout=holdout,
            test=test,
            folds=folds,
            fold_members=of["fold"],
            fold_members_last=of["fold-last-epoch"],
            holdout_members=of["holdout"],
            holdout_members_last=of["holdout-last-epoch"],
            histories=[trained[number].history for number in numbers],
            epochs=min(trained[number].record["epochs"] for number in numbers),
            stopped=any(trained[number].record["stopped"] for number in numbers),
        ),
    )


def with_neighbours(
    blended: Blend, recipe: Recipe, data: Data, split: Split, run: Run, *, deadline: float | None = None
) -> Blend:
    """Re-rank ambiguous predictions by the nearest training rows, as the recipe says, and store the outcome in the run.

    The reference rows of the test rows and the holdout are all training rows but the holdout's; those of the rows that
    a member left out are the rows it was trained on, so each member's fold is re-ranked apart.

    Args:
        blended, recipe, data, split, run: the blend and what it came from.
        deadline: a time of ``time.monotonic`` by which the run is to end; rows not re-ranked by then stay as they are.
    """
    if not recipe.neighbours:
        return blended
    from digit_recognizer import neighbours  # imports SciPy's filters, which `make scores` does not need

    known = np.delete(np.arange(len(data.labels)), split.holdout)
    of_folds = zip(blended.fold_members, blended.fold_members_last, strict=True)
    on_holdout = (blended.holdout, *blended.holdout_members, *blended.holdout_members_last)
    circles = [
        neighbours.Circle(data.test_images, (blended.test,), known),
        neighbours.Circle(data.images[split.holdout], on_holdout, known),
        *(
            neighbours.Circle(data.images[fold.out], opinions, fold.train)
            for fold, opinions in zip(blended.folds, of_folds, strict=True)
        ),
    ]
    until = None if deadline is None else deadline - budget.AT_THE_END
    (test,), (holdout, *holdout_members), *folds = neighbours.asked(
        circles, data.images, data.labels, weight=recipe.neighbours, deadline=until
    )
    of_fold, of_fold_last = zip(*folds, strict=True)
    count = len(blended.folds)
    after = replace(
        blended,
        oof=_out_of_fold(blended.folds, of_fold, len(data.labels)),
        oof_last=_out_of_fold(blended.folds, of_fold_last, len(data.labels)),
        holdout=holdout,
        test=test,
        fold_members=of_fold,
        fold_members_last=of_fold_last,
        holdout_members=tuple(holdout_members[:count]),
        holdout_members_last=tuple(holdout_members[count:]),
    )
    changed = int((blended.test.argmax(axis=1) != test.argmax(axis=1)).sum())
    old, new = (_errors_out_of_fold(one.folds, one.fold_members, data.labels) for one in (blended, after))
    line = f"neighbours: {changed:,} of {len(test):,} answers changed; out of fold {old:,} wrong before, {new:,} after"
    if len(split.holdout):
        old, new = (score.errors(data.labels[split.holdout], one.holdout) for one in (blended, after))
        line += f"; holdout {old:,} and {new:,}"
    print(line, flush=True)
    return _kept(run, after)


def _out_of_fold(folds: tuple[Fold, ...], members: tuple[Probabilities, ...], rows: int) -> Probabilities:
    total, times = np.zeros((rows, 10)), np.zeros((rows, 1))
    for fold, probabilities in zip(folds, members, strict=True):
        total[fold.out] += probabilities
        times[fold.out] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(total / times, np.float32)


def _errors_out_of_fold(
    folds: tuple[Fold, ...], members: tuple[Probabilities, ...], labels: npt.NDArray[np.uint8]
) -> int:
    return sum(score.errors(labels[fold.out], one) for fold, one in zip(folds, members, strict=True))


def _kept(run: Run, blended: Blend) -> Blend:
    for name in ("oof", "holdout", "test"):
        _save(run.folder / f"{name}.npy", getattr(blended, name))
    return blended


def scores(blended: Blend, recipe: Recipe, split: Split, data: Data) -> Scores:
    """Score an ensemble against the training labels."""
    labels, count = data.labels, len(blended.folds)
    scored = np.flatnonzero(~np.isnan(blended.oof[:, 0]))
    rows = sum(len(fold.out) for fold in blended.folds)
    oof, last = (
        score.score(_errors_out_of_fold(blended.folds, members, labels), rows, distinct=len(scored))
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
        expected = score.expected(wrong, test, public, members=(alone_last.mean(axis=0), *outside))
        holdout, loss = score.score(int(wrong.sum()), len(held)), score.loss(held, blended.holdout)
        holdout_members = tuple(score.score(int(errors.sum()), len(held)) for errors in alone)
        confusion = score.confusion(held, blended.holdout)
    else:
        # By the last epoch, since these rows chose the checkpoints.
        wrong = blended.oof_last[scored].argmax(axis=1) != labels[scored]
        expected = score.expected(wrong, test, public)
        holdout, loss, holdout_members = None, None, ()
        confusion = score.confusion(labels[scored], blended.oof[scored])
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
        wrong[fold.out] += probabilities.argmax(axis=1) != labels[fold.out]
        times[fold.out] += 1
    return wrong[times > 0], times[times > 0]


def _save(path: Path, probabilities: Probabilities) -> None:
    with files.replacing(path) as part, part.open("wb") as out:
        np.save(out, probabilities)
