"""Measure score, time and pace against their goals, in one run on the machine at hand; say what falls short.

Times that would take hours are estimated: a member's start and step are measured with all workers busy, and multiplied.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import files, launch, recipe, runs, submission
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import knn
from digit_recognizer.errors import KitError
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import budget, devices, numerics
from digit_recognizer.training.executors import local
from digit_recognizer.training.progress import Progress

if TYPE_CHECKING:
    from digit_recognizer.training import trainer
Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
PAIRS = 3  # of measurements, the one beside the other
SECONDS = 20.0  # for each measurement of a pace
MEMBERS = 4  # that predict
COMMON = 2  # members of standard and of deotte15 that are compared: those of the first folds, which both leave out
BEYOND_CHANCE = 0.05  # p below which a difference is one
GOALS = {
    "standard: seconds": ("at most", 20 * 60),
    "standard: expected accuracy": ("at least", 0.9966),
    "best: seconds": ("at most", 2 * 3600),
    "best: expected accuracy": ("at least", 0.9972),
    "time of deotte15 / of standard": ("at least", 10),
    "accuracy of standard - of deotte15, out of fold": ("at least", 0),
    "accuracy of standard - of deotte15, holdout": ("at least", 0),
    "training pace / of plain Keras": ("at least", 1.2),
    "4 members × 28,000 rows: seconds": ("at most", 20),
}
HALF_PACE = 1.8  # the goal on a processor that is fast at bfloat16
TO_HAVE_ONE = {
    "standard: expected accuracy": "make run",
    "best: expected accuracy": "make bench WHOLE=1, or make run RECIPE=best",
    "accuracy of standard - of deotte15, out of fold": f"make run RECIPE=deotte15 MEMBERS={COMMON}",
    "accuracy of standard - of deotte15, holdout": f"make run RECIPE=deotte15 MEMBERS={COMMON}",
}


def run_benchmark(home: Path, given: Path | None, *, whole: bool) -> int:
    """Measure, print, keep in ``runs/bench.json``, and give how many figures fall short.

    Half an hour on two cores, most of it recipe ``standard``, which is run whole, in ``runs/bench-<time>``.

    Args:
        home: the folder of ``runs`` and ``submissions``.
        given: folder or zip of the competition's files.
        whole: whether to run recipe ``best`` too; otherwise its time is estimated. Scores that are not measured here,
            of ``best`` and ``deotte15``, are those of complete runs of the same recipe, data and code in ``home``.

    Raises:
        BadInput: data that cannot be read.
    """
    digits = dataset.load(given, default=home / "data", cache=home / "runs" / "cache")
    print(f"data: {digits}")
    figures: dict[str, Any] = {"judged": digits.fingerprint == dataset.COMPETITION_FINGERPRINT}

    print("training pace, the kit and plain Keras in turn", flush=True)
    paces = [(_kit_pace(recipe.load_recipe("standard"), digits), _plain_pace(digits)) for _ in range(PAIRS)]
    figures["training pace / of plain Keras"] = statistics.median(kit / plain for kit, plain in paces)
    figures["images a second, the kit and plain Keras"] = paces

    print(f"{MEMBERS} members predict", flush=True)
    figures[f"{MEMBERS} members × 28,000 rows: seconds"] = _prediction(given, home)

    print("recipes deotte15 and best, some seconds of each", flush=True)
    seconds = {name: _estimated(recipe.load_recipe(name), digits) for name in ("deotte15", "best")}
    place = home / "runs" / f"bench-{time.strftime('%Y%m%d-%H%M%S')}"  # so that no incomplete run is resumed
    source = given or (home / "data" if dataset.exists(home / "data") else None)
    for name in ("standard", "best") if whole else ("standard",):
        print(f"recipe {name}, whole", flush=True)
        began = time.monotonic()
        options = ["--recipe", name, *(["--data", str(source.absolute())] if source else [])]
        if status := launch.run_kernel(options, cwd=files.folder(place)):
            raise KitError(f"benchmark: the run of recipe {name} failed, with exit status {status}")
        seconds[name] = time.monotonic() - began
    figures |= {f"{name}: seconds": taken for name, taken in seconds.items()}
    figures["time of deotte15 / of standard"] = seconds["deotte15"] / seconds["standard"]

    rival = recipe.load_recipe("deotte15")
    wanted = {
        "standard": [recipe.load_recipe("standard")],
        "best": [recipe.load_recipe("best")],
        "deotte15": [rival.changed(members=COMMON), rival],
    }
    folders = {name: _stored((place, home), recipes, digits) for name, recipes in wanted.items()}
    scores = {name: files.read_json(folder / "scores.json") if folder else None for name, folder in folders.items()}
    figures["ranges"] = {}
    for name in ("standard", "best"):
        figure, one = f"{name}: expected accuracy", scores[name]
        figures[figure] = one["expected"]["accuracy"] if one else None
        if one:
            figures["ranges"][figure] = [one["expected"]["low"], one["expected"]["high"]]
    pairs = {}
    if folders["standard"] and folders["deotte15"]:
        pairs = _pairs(folders["standard"], folders["deotte15"], digits)
    for name in ("out of fold", "holdout"):
        figure = f"accuracy of standard - of deotte15, {name}"
        figures[figure] = pairs[name]["difference"] if pairs else None
    figures["paired"] = {f"accuracy of standard - of deotte15, {name}": pair for name, pair in pairs.items()}
    figures["scores"] = scores
    figures["machine"] = folders["standard"] and files.read_json(folders["standard"] / "run.json")["machine"]
    figures["precision"] = numerics.resolved_precision("auto")
    figures["date"] = time.strftime("%Y-%m-%d")
    files.write_json(home / "runs" / "bench.json", figures)
    text = table(figures)
    print(text, "stored in runs/bench.json", sep="\n")
    return text.count("SHORT")


def _kit_pace(one: Recipe, digits: Dataset) -> float:
    """Images a second in steps of training, all workers together, augmentation included."""
    workers, _ = devices.plan_workers(one.members)
    return workers * one.batch_size / max(pace.step for pace in _paces(one, digits))


def _paces(one: Recipe, digits: Dataset) -> "list[trainer.Pace]":
    """What a member's start and step take with all workers busy."""
    workers, _ = devices.plan_workers(one.members)
    split = splits.split(digits.labels, folds=one.folds, members=workers, holdout=one.holdout, seed=one.seed)
    return budget.measure_paces(one, digits, split, range(workers), seconds=SECONDS)


def _plain_pace(digits: Dataset) -> float:
    """The same of the same network and batch as Keras trains it unless told otherwise: one process, no augmentation."""
    rates: list[float] = []
    job = partial(_plain_fit, recipe.load_recipe("standard"), digits, SECONDS)
    silent = Progress(0, 0, (), 0)
    local.run_jobs(job, [0], silent, workers=1, threads=devices.cores(), done=lambda _, rate: rates.append(rate))
    return rates[0]


def _plain_fit(one: Recipe, digits: Dataset, seconds: float, index: int, reporter: local.Reporter) -> float:
    from digit_recognizer.models import architectures
    from digit_recognizer.training import callbacks
    from digit_recognizer.training.backend import keras

    network = architectures.build(one.of_member(0).network, dropout=one.dropout)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    clock = callbacks.StepTimer(seconds)
    pixels = digits.images[..., None].astype("float32")
    network.fit(pixels, digits.labels, batch_size=one.batch_size, callbacks=[clock], verbose=0)
    return one.batch_size * clock.steps / (clock.last - clock.first)


def _prediction(given: Path | None, home: Path) -> float:
    """Seconds from the files to a checked submission by networks that are trained already, neighbours asked."""
    from digit_recognizer.models import architectures

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.keras" for index in range(MEMBERS)]
        for index, path in enumerate(paths):
            one = recipe.load_recipe("standard").of_member(index)
            architectures.build(one.network, dropout=0, preprocessing=one.preprocessing).save(path)
        began = time.monotonic()
        digits = dataset.load(given, default=home / "data", cache=Path(folder) / "cache")
        images = digits.test_images
        workers, threads = devices.plan_workers(MEMBERS)
        told: list[Any] = []
        job, silent = partial(_predicted, paths, images), Progress(0, 0, (), 0)
        local.run_jobs(
            job, range(MEMBERS), silent, workers=workers, threads=threads, done=lambda _, one: told.append(one)
        )
        # These networks have learnt nothing and doubt all, so as many images are asked about as trained ones doubt.
        sure = np.eye(10, dtype=np.float32)[np.zeros(len(images), int)]
        sure[:: round(1 / knn.AMBIGUOUS_SHARE), [0, 3]] = 0.5
        circle = knn.Queries(images, (sure,), np.arange(len(digits.labels)))
        knn.rerank([circle], digits.images, digits.labels, weight=recipe.load_recipe("standard").knn_weight)
        submission.write(Path(folder) / "submission.csv", np.mean(told, axis=0).argmax(axis=1))
        return time.monotonic() - began


def _predicted(paths: list[Path], images: Pixels, index: int, reporter: local.Reporter) -> Any:
    from digit_recognizer.training import trainer
    from digit_recognizer.training.backend import keras

    return trainer.predict(keras.models.load_model(paths[index]), images)


def _estimated(one: Recipe, digits: Dataset) -> float:
    """Seconds that a recipe takes: its members' starts, steps and predictions, over the workers, and its neighbours."""
    paces = _paces(one, digits)
    step, start = max(pace.step for pace in paces), max(pace.start for pace in paces)
    kept = len(digits.labels) * (1 - one.holdout)
    train, out = kept * (1 - 1 / one.folds), kept / one.folds
    images = train + budget.PREDICT_SHARE * out
    after = budget.PREDICT_SHARE * (len(digits.labels) - kept + out + len(digits.test_images))
    member_seconds = start + step / one.batch_size * (one.epochs * images + after)
    workers, _ = devices.plan_workers(one.members)
    asking = knn.estimate_rerank_seconds(
        one, round(len(digits.labels) - kept + one.members * out) + len(digits.test_images)
    )
    return -(-one.members // workers) * member_seconds + asking


def _stored(homes: tuple[Path, ...], recipes: Sequence[Recipe], digits: Dataset) -> Path | None:
    """The folder of a complete run of one of exactly these recipes, data and code; None where no home has one."""
    for home in homes:
        for one in recipes:
            for folder in runs.complete_runs(home / "runs", one, digits):
                expected = files.read_json(folder / "scores.json").get("expected")
                if isinstance(expected, dict) and {"accuracy", "low", "high"} <= expected.keys():
                    return folder
    return None


def _pairs(ours: Path, theirs: Path, digits: Dataset) -> dict[str, dict[str, Any]]:
    """Compare the first members of ``standard`` with those of ``deotte15``, as many of each, on the same rows.

    Networks alone, without re-ranking: out of fold single members on the rows that they left out, by their last epoch,
    since the two recipes choose their checkpoints by these rows among 4 and among 12 epochs; in the holdout the means
    of the checkpoints' probabilities.
    """
    one = recipe.load_recipe("standard")
    split = splits.split(digits.labels, folds=one.folds, members=COMMON, holdout=one.holdout, seed=one.seed)
    both = [[member.probabilities for member in runs.stored_members(folder, COMMON)] for folder in (ours, theirs)]
    out = np.concatenate([fold.validation for fold in split.folds])
    last, checkpoint = (
        [np.concatenate([member[name] for member in side]) for side in both] for name in ("fold-last-epoch", "fold")
    )
    blends = [np.mean([member["holdout"] for member in side], axis=0) for side in both]
    return {
        "out of fold": paired(digits.labels[out], *last),
        "out of fold, checkpoints": paired(digits.labels[out], *checkpoint),
        "holdout": paired(digits.labels[split.holdout], *blends),
    }


def paired(labels: Pixels, ours: Probabilities, theirs: Probabilities) -> dict[str, Any]:
    """Compare two classifiers on the same rows (Q. McNemar's test of 1947, exact).

    Args:
        labels: uint8 (n,).
        ours, theirs: float32 (n, 10).

    Returns:
        ``rows``; how many each has ``wrong``, and ``alone``; ``p`` of a split of those alone at least as uneven by
        chance; and the ``difference`` of the accuracies, ours less theirs.
    """
    from scipy.stats import binomtest

    first, second = (one.argmax(axis=1) != labels for one in (ours, theirs))
    alone = [int((first & ~second).sum()), int((second & ~first).sum())]
    return {
        "rows": len(labels),
        "wrong": [int(first.sum()), int(second.sum())],
        "alone": alone,
        "p": float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0,
        "difference": (alone[1] - alone[0]) / len(labels),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures that have a goal, and whether they reach it.

    SHORT is one that chance does not explain. Goals are of the competition's data: others are measured, not judged.
    """
    lines = []
    for name, (side, wanted) in GOALS.items():
        goal = wanted
        if "plain Keras" in name and figures["precision"] == "bfloat16":
            goal = HALF_PACE
        found = figures[name]
        if found is None:
            verdict = f"no complete run here; {TO_HAVE_ONE[name]}"
        else:
            verdict = f"{found:.5g}"
            reached = found >= goal if side == "at least" else found <= goal
            short = True
            if pair := figures["paired"].get(name):
                (ours, theirs), (we, they) = pair["wrong"], pair["alone"]
                verdict += (
                    f" ({ours} and {theirs} of {pair['rows']:,} wrong, {we} and {they} alone, p = {pair['p']:.2g})"
                )
                short = pair["p"] < BEYOND_CHANCE
            if interval := figures["ranges"].get(name):
                verdict += f" (90 %: {interval[0]:.5f} to {interval[1]:.5f})"
                short = interval[1] < goal
            if not figures["judged"]:
                verdict += "  not judged: other data"
            elif not reached:
                verdict += "  SHORT" if short else "  below, within chance"
        lines.append(f"{name:48} {side:8} {goal:<8g} {verdict}")
    return "\n".join(lines)
