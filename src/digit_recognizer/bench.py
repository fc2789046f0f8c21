"""Measure what the kit promises, as ratios in one run on the machine at hand; say what falls short.

Times that would take hours are estimated: a member's start and step are measured with all workers busy, and multiplied.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import budget, data, engines, files, folds, ledger, recipe, submission
from digit_recognizer.data import Data
from digit_recognizer.progress import Progress
from digit_recognizer.recipe import Recipe
from digit_recognizer.runs import Order

if TYPE_CHECKING:
    from digit_recognizer import member

Pixels = npt.NDArray[np.uint8]
PAIRS = 3  # of measurements, the one beside the other
SECONDS = 20.0  # for each measurement of a pace
MEMBERS = 4  # that predict
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
HALF_PACE = 1.8  # asked of a processor that is fast at bfloat16


def bench(home: Path, given: Path | None, story: Callable[[Order], None], *, whole: bool) -> int:
    """Measure, print, keep in ``runs/bench.json``, and give how many figures fall short.

    Half an hour on two cores, most of it recipe ``standard``, which is run whole, in ``runs/bench-<time>``.

    Args:
        home: the folder of ``runs`` and ``submissions``.
        given: folder or zip of the competition's files.
        story: what runs a recipe.
        whole: whether to run recipe ``best`` too; otherwise its time is estimated, and its scores are its last run's.

    Raises:
        BadInput: data that cannot be read.
    """
    digits = data.read(given, default=home / "data", cache=home / "runs" / "cache")
    print(f"data: {digits}")
    prefix = ledger.SAMPLE if digits.sample else ""
    figures: dict[str, Any] = {}

    print("training pace, the kit and plain Keras in turn", flush=True)
    paces = [(_kit_pace(recipe.named("standard"), digits), _plain_pace(digits)) for _ in range(PAIRS)]
    figures["training pace / of plain Keras"] = statistics.median(kit / plain for kit, plain in paces)
    figures["images a second, the kit and plain Keras"] = paces

    print(f"{MEMBERS} members predict", flush=True)
    figures[f"{MEMBERS} members × 28,000 rows: seconds"] = _prediction(given, home)

    print("recipes deotte15 and best, some seconds of each", flush=True)
    seconds = {name: _estimated(recipe.named(name), digits) for name in ("deotte15", "best")}
    place = home / "runs" / f"bench-{time.strftime('%Y%m%d-%H%M%S')}"  # so that no unfinished run is gone on with
    source = given or (home / "data" if data.present(home / "data") else None)
    for name in ("standard", "best") if whole else ("standard",):
        print(f"recipe {name}, whole", flush=True)
        began = time.monotonic()
        story(Order(recipe=recipe.named(name), data=source, home=place, cache=place / "cache"))
        seconds[name] = time.monotonic() - began
    figures |= {f"{name}: seconds": taken for name, taken in seconds.items()}
    figures["time of deotte15 / of standard"] = seconds["deotte15"] / seconds["standard"]

    folders = {name: _finished((place, home), prefix + name) for name in ("standard", "best", "deotte15")}
    scores = {name: folder and files.read_json(folder / "scores.json") for name, folder in folders.items()}
    figures |= {f"{name}: expected accuracy": one and one["expected"]["accuracy"] for name, one in scores.items()}
    mine, his = scores["standard"], scores["deotte15"]
    for kind, name in (("oof", "out of fold"), ("holdout", "holdout")):
        better = mine and his and mine[kind]["accuracy"] - his[kind]["accuracy"]
        figures[f"accuracy of standard - of deotte15, {name}"] = better
    from digit_recognizer import backend

    figures["scores"] = scores
    figures["machine"] = files.read_json(folders["standard"] / "run.json")["machine"]
    figures["precision"] = backend.precision("auto")
    figures["date"] = time.strftime("%Y-%m-%d")
    files.write_json(home / "runs" / "bench.json", figures)
    text = table(figures)
    print(text, "kept in runs/bench.json", sep="\n")
    return text.count("SHORT")


def _kit_pace(one: Recipe, digits: Data) -> float:
    """Images a second in steps of training, all workers together, augmentation included."""
    workers, _ = engines.share(one.members)
    return workers * one.batch_size / max(pace.step for pace in _paces(one, digits))


def _paces(one: Recipe, digits: Data) -> "list[member.Pace]":
    """What a member's start and step take with all workers busy."""
    workers, _ = engines.share(one.members)
    split = folds.split(digits.labels, folds=one.folds, members=workers, holdout=one.holdout, seed=one.seed)
    return budget.measure_paces(one, digits, split, range(workers), seconds=SECONDS)


def _plain_pace(digits: Data) -> float:
    """The same of the same network and batch as Keras trains it unless told otherwise: one process, no augmentation."""
    rates: list[float] = []
    job = partial(_plain_fit, recipe.named("standard"), digits, SECONDS)
    silent = Progress(0, 0, (), 0)
    engines.run(job, [0], silent, workers=1, threads=engines.cores(), done=lambda _, rate: rates.append(rate))
    return rates[0]


def _plain_fit(one: Recipe, digits: Data, seconds: float, index: int, reporter: engines.Reporter) -> float:
    from digit_recognizer import member, networks
    from digit_recognizer.backend import keras

    network = networks.build(one.of_member(0).network, dropout=one.dropout)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    clock = member._Stopwatch(seconds)
    pixels = digits.images[..., None].astype("float32")
    network.fit(pixels, digits.labels, batch_size=one.batch_size, callbacks=[clock], verbose=0)
    return one.batch_size * clock.steps / (clock.last - clock.first)


def _prediction(given: Path | None, home: Path) -> float:
    """Seconds from the files to a checked submission by networks that are trained already, neighbours asked."""
    from digit_recognizer import neighbours, networks

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.keras" for index in range(MEMBERS)]
        for index, path in enumerate(paths):
            one = recipe.named("standard").of_member(index)
            networks.build(one.network, dropout=0, view=one.view).save(path)
        began = time.monotonic()
        digits = data.read(given, default=home / "data", cache=Path(folder) / "cache")
        images = digits.test_images
        workers, threads = engines.share(MEMBERS)
        told: list[Any] = []
        job, silent = partial(_predicted, paths, images), Progress(0, 0, (), 0)
        engines.run(job, range(MEMBERS), silent, workers=workers, threads=threads, done=lambda _, one: told.append(one))
        # These networks have learnt nothing and doubt all, so as many images are asked about as trained ones doubt.
        sure = np.eye(10, dtype=np.float32)[np.zeros(len(images), int)]
        sure[:: round(1 / neighbours.OFTEN), [0, 3]] = 0.5
        circle = neighbours.Circle(images, (sure,), np.arange(len(digits.labels)))
        neighbours.asked([circle], digits.images, digits.labels, weight=recipe.named("standard").neighbours)
        submission.write(Path(folder) / "submission.csv", np.mean(told, axis=0).argmax(axis=1))
        return time.monotonic() - began


def _predicted(paths: list[Path], images: Pixels, index: int, reporter: engines.Reporter) -> Any:
    from digit_recognizer import member
    from digit_recognizer.backend import keras

    return member.probabilities(keras.models.load_model(paths[index]), images)


def _estimated(one: Recipe, digits: Data) -> float:
    """Seconds that a recipe takes: its members' starts, steps and predictions, over the workers, and its neighbours."""
    paces = _paces(one, digits)
    step, start = max(pace.step for pace in paces), max(pace.start for pace in paces)
    kept = len(digits.labels) * (1 - one.holdout)
    train, out = kept * (1 - 1 / one.folds), kept / one.folds
    images = train + budget.PREDICTING * out
    after = budget.PREDICTING * (len(digits.labels) - kept + out + len(digits.test_images))
    member_seconds = start + step / one.batch_size * (one.epochs * images + after)
    workers, _ = engines.share(one.members)
    asking = budget.rerank_seconds(one, round(len(digits.labels) - kept + one.members * out) + len(digits.test_images))
    return -(-one.members // workers) * member_seconds + asking


def _finished(homes: tuple[Path, ...], name: str) -> Any:
    """The folder of the recipe's last finished run, in the first home that has one; None where none has."""
    for home in homes:
        done = sorted((home / "runs").glob(f"{name}-*/scores.json"), key=lambda path: path.stat().st_mtime)
        if fresh := [path.parent for path in done if "expected" in files.read_json(path)]:
            return fresh[-1]
    return None


def table(figures: dict[str, Any]) -> str:
    """The figures that have a goal, and whether they reach it."""
    lines = []
    for name, (side, wanted) in GOALS.items():
        goal = wanted
        if "plain Keras" in name and figures["precision"] == "bfloat16":
            goal = HALF_PACE
        found = figures[name]
        reached = found is not None and (found >= goal if side == "at least" else found <= goal)
        verdict = "no finished run here" if found is None else f"{found:.5g}{'' if reached else '  SHORT'}"
        lines.append(f"{name:48} {side:8} {goal:<8g} {verdict}")
    return "\n".join(lines)
