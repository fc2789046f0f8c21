"""Train the members of a run that are missing, and blend what they say."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import engines, files, score
from digit_recognizer.data import Data
from digit_recognizer.folds import Fold, Split
from digit_recognizer.progress import Progress
from digit_recognizer.recipe import Recipe
from digit_recognizer.runs import Run
from digit_recognizer.score import Expected, Score

if TYPE_CHECKING:
    from digit_recognizer import member

Probabilities = npt.NDArray[np.float32]
RECORD, HISTORY = "member.json", "history.json"
PREDICTING = 0.45  # an image predicted, as a share of one trained on
AT_THE_END = 3.0  # seconds to blend, score, write and check
PUBLIC = 0.25  # of the test rows; Kaggle does not say how many its public score is of


@dataclass(frozen=True)
class Scores:
    """What a run is worth, by rows that the scored network was not trained on.

    Attributes:
        members: networks in the blend.
        oof: single members, each on the rows it left out; a little too good, since those rows chose its checkpoint.
            As all here, once neighbours were asked, where the recipe asks them.
        oof_last_epoch: the same at the last epoch, which nothing chose.
        holdout: the blend on the holdout, which nobody trained on or chose by; None without a holdout.
        holdout_loss: the blend's mean cross-entropy there.
        holdout_members: each member alone on the holdout.
        expected: what the blend is expected to score on the test rows, by the holdout and the members' last epoch;
            without a holdout, what a blend of as many members as left out the same rows is, one or a few.
        confusion: integers (10, 10), labels down and answers across, on the holdout, else out of fold.
    """

    members: int
    oof: Score
    oof_last_epoch: Score
    holdout: Score | None
    holdout_loss: float | None
    holdout_members: tuple[Score, ...]
    expected: Expected
    confusion: npt.NDArray[np.intp]

    def as_json(self) -> dict[str, Any]:
        """The same as plain lists and numbers."""
        return asdict(self) | {"confusion": self.confusion.tolist()}

    def __str__(self) -> str:
        lines = [
            f"out-of-fold, single members: {self.oof}",
            "  a little too good, since these rows chose each member's checkpoint;",
            f"  at the last epoch, which nothing chose: {self.oof_last_epoch}",
        ]
        if self.holdout:
            alone = np.mean([member.accuracy for member in self.holdout_members])
            lines += [
                f"holdout, blend of {self.members}: {self.holdout}, loss {self.holdout_loss:.4f}",
                f"  nobody trained on these rows or chose by them; a member alone has {alone:.5f} on average",
            ]
        else:
            lines.append("no holdout, so the blend has no score of its own; it is better than its members as a rule")
        lines.append(f"expected public score: {self.expected}")
        where = "the holdout" if self.holdout else "the rows out of fold"
        return "\n".join([*lines, f"confusion on {where} (label down, answer across):", score.table(self.confusion)])


@dataclass(frozen=True)
class Blend:
    """The probabilities of an ensemble, of networks alone until ``with_neighbours`` asks.

    Attributes:
        oof: float32 (n, 10), out-of-fold: each row's mean over the members that left it out; NaN where there is none.
        holdout: float32 (h, 10), the mean over all members on the holdout's rows.
        test: float32 (m, 10), the mean over all members on the test rows.
        folds: of each member, what it was trained on and what it left out.
        fold_members, fold_members_last: float32 (rows left out, 10), each member alone there, at its checkpoint and at
            its last epoch.
        holdout_members: float32 (h, 10), each member alone on the holdout's rows.
        histories: each member's figures, epoch by epoch.
    """

    oof: Probabilities
    holdout: Probabilities
    test: Probabilities
    folds: tuple[Fold, ...]
    fold_members: tuple[Probabilities, ...]
    fold_members_last: tuple[Probabilities, ...]
    holdout_members: tuple[Probabilities, ...]
    histories: list[dict[str, list[float]]]


def train(
    recipe: Recipe,
    data: Data,
    split: Split,
    run: Run,
    *,
    deadline: float | None = None,
    after_each: Callable[[Blend], None] = lambda blend: None,
) -> None:
    """Train each member that the run has not yet; each is kept as soon as it is done.

    Args:
        recipe, data, split, run: what to train, on what, by what split, and where to keep it.
        deadline: a time of ``time.monotonic`` by which the last member is done. Fewer members are trained then, and
            where not one would be done, fewer epochs: as many as fit at the pace that is measured first.
        after_each: told the blend so far after each member.

    Raises:
        BadInput: the run's folder cannot be written.
    """
    folders = [run.member(index) for index in range(recipe.members)]
    kept = [index for index, folder in enumerate(folders) if (folder / RECORD).exists()]
    missing = [index for index in range(recipe.members) if index not in kept]
    workers, threads = engines.share(recipe.members)
    longest, last_step = 0.0, None
    if deadline is not None and missing:
        plan = _planned(recipe, data, split, len(missing), deadline, workers, threads)
        recipe, missing = recipe.changed(epochs=plan.epochs), missing[: plan.members]
        longest, last_step = plan.member_seconds, deadline - plan.seconds_after
        print(f"time for {plan.members} more members of {plan.epochs} epochs at the pace measured", flush=True)
    progress = Progress(recipe.members, recipe.epochs, kept, len(missing))
    begun = 0

    def may_start() -> bool:
        nonlocal begun
        begun += 1
        return begun <= workers or deadline is None or time.monotonic() + longest < deadline

    def done(_: int, seconds: float) -> None:
        nonlocal longest
        longest = max(longest, seconds)
        after_each(blend(run, split, rows=len(data.labels)))

    if kept:
        after_each(blend(run, split, rows=len(data.labels)))
    job = partial(_train_member, recipe, data, split, folders, last_step)
    engines.run(job, missing, progress, workers=workers, threads=threads, done=done, may_start=may_start)


@dataclass(frozen=True)
class _Plan:
    """What fits into the time there is.

    Attributes:
        members, epochs: how many of each.
        member_seconds: what a member takes from start to record.
        seconds_after: what is left to do after a member's last step, the run's own end included.
    """

    members: int
    epochs: int
    member_seconds: float
    seconds_after: float


def _planned(
    recipe: Recipe, data: Data, split: Split, members: int, deadline: float, workers: int, threads: int
) -> _Plan:
    """Measure the pace, with all workers busy as they will be, and see what fits."""
    left = deadline - time.monotonic()
    paces: list[member.Pace] = []
    job = partial(_measure_pace, recipe, data, split, min(8.0, left / 25))
    busy = range(min(workers, members))
    silent = Progress(0, 0, (), 0)
    engines.run(job, busy, silent, workers=workers, threads=threads, done=lambda _, pace: paces.append(pace))
    step, start = max(pace.step for pace in paces), max(pace.start for pace in paces)
    fold = split.folds[0]
    predicted = step / recipe.batch_size * PREDICTING
    epoch = step * max(1, len(fold.train) // recipe.batch_size) + predicted * len(fold.out)
    # Two models are compiled beside the one that trains: to judge the fold, and to predict.
    after = start + predicted * (len(fold.out) + len(split.holdout) + len(data.test_images)) + AT_THE_END
    asking = _asking(recipe, members * len(fold.out) + len(split.holdout) + len(data.test_images))
    left = 0.95 * (deadline - time.monotonic()) - AT_THE_END - asking
    epochs = max(1, min(recipe.epochs, int((left - 2 * start - after) / epoch)))
    seconds = 2 * start + epochs * epoch + after
    return _Plan(min(members, workers * max(1, int(left / seconds))), epochs, seconds, after + asking)


def _asking(recipe: Recipe, images: int) -> float:
    """Seconds that it takes to ask neighbours about those of so many images that are in doubt."""
    if not recipe.neighbours:
        return 0.0
    from digit_recognizer import neighbours

    return neighbours.seconds(images)


def _measure_pace(
    recipe: Recipe, data: Data, split: Split, seconds: float, index: int, reporter: engines.Reporter
) -> "member.Pace":
    from digit_recognizer import member

    rows = split.folds[index].train
    return member.pace(recipe.of_member(index), data.images[rows], data.labels[rows], seconds=seconds)


def member_seed(seed: int, index: int) -> int:
    """The seed of member ``index``, 32 bits, unlike those of its neighbours under any recipe's seed."""
    return int(np.random.SeedSequence((seed, 1 << 16, index)).generate_state(1)[0])


def _train_member(
    recipe: Recipe,
    data: Data,
    split: Split,
    folders: list[Path],
    last_step: float | None,
    index: int,
    reporter: engines.Reporter,
) -> float:
    from digit_recognizer import member, networks  # TensorFlow comes in here, in the worker

    began = time.monotonic()
    fold, seed, folder = split.folds[index], member_seed(recipe.seed, index), folders[index]
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        trained = member.train(
            recipe.of_member(index),
            data.images[fold.train],
            data.labels[fold.train],
            data.images[fold.out],
            data.labels[fold.out],
            seed=seed,
            checkpoint=folder / "network.keras",
            reporter=reporter,
            deadline=last_step,
        )
    errors = {}
    for name, rows in (("fold", fold.out), ("holdout", split.holdout)):
        probabilities = member.probabilities(trained.network, data.images[rows])
        errors[name] = score.errors(data.labels[rows], probabilities)
        _save(folder / f"{name}.npy", probabilities)
    _save(folder / "fold-last-epoch.npy", trained.out_at_last_epoch)
    _save(folder / "test.npy", member.probabilities(trained.network, data.test_images))
    files.write_json(folder / HISTORY, trained.history)
    weights, products = networks.size(trained.network)
    files.write_bytes(folder / "network.txt", networks.summary(trained.network).encode())
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
        "fold_errors": errors["fold"],
        "fold_errors_at_last_epoch": score.errors(data.labels[fold.out], trained.out_at_last_epoch),
        "holdout_errors": errors["holdout"],
    }
    files.write_json(folder / RECORD, record)
    return time.monotonic() - began


def blend(run: Run, split: Split, *, rows: int) -> Blend:
    """Average the probabilities of the members that are trained, and leave the averages in the run's folder.

    Args:
        run: a run with at least one trained member.
        split: the split they were trained by.
        rows: rows of the training table.
    """
    trained = [(fold, folder) for i, fold in enumerate(split.folds) if ((folder := run.member(i)) / RECORD).exists()]
    folds, folders = tuple(fold for fold, _ in trained), [folder for _, folder in trained]
    of_fold, of_fold_last, of_holdout, of_test = (
        tuple(_load(folder / f"{name}.npy") for folder in folders)
        for name in ("fold", "fold-last-epoch", "holdout", "test")
    )
    holdout, test = (
        np.asarray(np.mean(members, axis=0, dtype=np.float64), np.float32) for members in (of_holdout, of_test)
    )
    histories = [files.read_json(folder / HISTORY) for folder in folders]
    oof = _out_of_fold(folds, of_fold, rows)
    return _kept(run, Blend(oof, holdout, test, folds, of_fold, of_fold_last, of_holdout, histories))


def with_neighbours(
    blended: Blend, recipe: Recipe, data: Data, split: Split, run: Run, *, deadline: float | None = None
) -> Blend:
    """Ask the nearest training rows where networks are in doubt, as the recipe says, and leave the outcome in the run.

    About the test rows and the holdout all training rows but the holdout's are asked; about those that a member left
    out, the ones it was trained on, once for it alone.

    Args:
        blended, recipe, data, split, run: the blend and what it came from.
        deadline: a time of ``time.monotonic`` at which the run is to be over; rows that are left keep what they had.
    """
    if not recipe.neighbours:
        return blended
    from digit_recognizer import neighbours  # SciPy's filters, which `make scores` has no time for

    known = np.delete(np.arange(len(data.labels)), split.holdout)
    of_folds = zip(blended.fold_members, blended.fold_members_last, strict=True)
    circles = [
        neighbours.Circle(data.test_images, (blended.test,), known),
        neighbours.Circle(data.images[split.holdout], (blended.holdout, *blended.holdout_members), known),
        *(
            neighbours.Circle(data.images[fold.out], opinions, fold.train)
            for fold, opinions in zip(blended.folds, of_folds, strict=True)
        ),
    ]
    until = None if deadline is None else deadline - AT_THE_END
    (test,), (holdout, *holdout_members), *folds = neighbours.asked(
        circles, data.images, data.labels, weight=recipe.neighbours, deadline=until
    )
    of_fold, of_fold_last = zip(*folds, strict=True)
    after = replace(
        blended,
        oof=_out_of_fold(blended.folds, of_fold, len(data.labels)),
        holdout=holdout,
        test=test,
        fold_members=of_fold,
        fold_members_last=of_fold_last,
        holdout_members=tuple(holdout_members),
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


def scores(blended: Blend, split: Split, labels: npt.NDArray[np.uint8]) -> Scores:
    """Score an ensemble against the training labels, uint8 (n,)."""
    rows = sum(len(fold.out) for fold in blended.folds)
    scored = np.flatnonzero(~np.isnan(blended.oof[:, 0]))
    oof, last = (
        score.score(_errors_out_of_fold(blended.folds, members, labels), rows, distinct=len(scored))
        for members in (blended.fold_members, blended.fold_members_last)
    )
    test = len(blended.test)
    public = max(1, round(PUBLIC * test))
    if not len(split.holdout):
        wrong = blended.oof[scored].argmax(axis=1) != labels[scored]
        confusion = score.confusion(labels[scored], blended.oof[scored])
        return Scores(len(blended.folds), oof, last, None, None, (), score.expected(wrong, test, public), confusion)
    held = labels[split.holdout]
    wrong = blended.holdout.argmax(axis=1) != held
    alone = np.array([one.argmax(axis=1) != held for one in blended.holdout_members])
    return Scores(
        len(blended.folds),
        oof,
        last,
        holdout=score.score(int(wrong.sum()), len(held)),
        holdout_loss=score.loss(held, blended.holdout),
        holdout_members=tuple(score.score(int(errors.sum()), len(held)) for errors in alone),
        expected=score.expected(wrong, test, public, members=(alone.mean(axis=0), last)),
        confusion=score.confusion(held, blended.holdout),
    )


def _save(path: Path, probabilities: Probabilities) -> None:
    with files.replacing(path) as part, part.open("wb") as out:
        np.save(out, probabilities)


def _load(path: Path) -> Probabilities:
    with files.explained(path):
        probabilities: Probabilities = np.load(path)
    return probabilities
