"""The plan for a budget at a measured pace."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer.data import dataset, splits
from digit_recognizer.errors import BadInput
from digit_recognizer.recipe import Recipe, load_recipe
from digit_recognizer.training import budget, devices
from digit_recognizer.training.executors import local
from digit_recognizer.training.trainer import Pace

DIGITS = dataset.Dataset(
    np.zeros((20_000, 28, 28), np.uint8),
    np.arange(20_000).astype(np.uint8) % 10,
    np.zeros((10_000, 28, 28), np.uint8),
    Path("files"),
    False,
    "",
)
STANDARD = load_recipe("standard").changed(epochs=16, full_members=0)
Planned = Callable[..., budget.Plan]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Planned:
    """A plan on two workers at a pace of 10,000 images a second, with a second for each function to be compiled."""

    def plan(seconds: float, recipe: Recipe = STANDARD, *, kept: int = 0, step: float = 0.0128) -> budget.Plan:
        monkeypatch.setattr(devices, "plan_workers", lambda members: (min(2, members), 1))
        steps = {"slim-conv": step, "dense": step / 9}
        used = {name: Pace(start=1.0, step=steps[name], seconds=0.0) for name in recipe.network.split("+")}
        monkeypatch.setattr(budget, "measure_paces", lambda *_, **__: used)
        split = splits.split(DIGITS.labels, folds=recipe.folds, members=recipe.members, holdout=0.05, seed=0)

        def rerank_seconds(images: int) -> float:
            return images / 10_000 * bool(recipe.knn_weight)

        missing: Sequence[int] = range(kept, recipe.members)
        return budget.plan_budget(recipe, DIGITS, split, kept, missing, time.monotonic() + seconds, rerank_seconds)

    return plan


def test_whole_recipe_is_planned_if_time_suffices(planned: Planned) -> None:
    plan = planned(3600)
    assert (plan.members, plan.epochs) == (4, 16)


@pytest.mark.parametrize("seconds", [15, 20, 30, 45, 60, 120])
def test_plan_fits_the_budget(seconds: float, planned: Planned) -> None:
    began = time.monotonic()
    plan = planned(seconds)
    waves = -(-plan.members // 2)
    end = waves * plan.member_seconds + budget.FINAL_SECONDS
    assert end <= seconds
    assert plan.last_step < began + seconds - budget.FINAL_SECONDS
    more = planned(seconds, STANDARD.changed(epochs=plan.epochs + 1))
    assert plan.epochs == 16 or more.members * more.epochs * plan.members > 0
    assert plan.epochs == 16 or end + waves * plan.member_seconds / plan.epochs > 0.75 * seconds, (
        "most of the budget is used"
    )


def test_reranking_and_kept_members_reduce_the_plan(planned: Planned) -> None:
    assert planned(30).epochs < planned(30, STANDARD.changed(knn_weight=0)).epochs
    many = STANDARD.changed(members=400)
    assert planned(30, many, kept=36).epochs < planned(30, many).epochs
    plain = many.changed(knn_weight=0)
    fewer = [planned(seconds, plain).members - planned(seconds, many).members for seconds in range(560, 620, 10)]
    assert min(fewer) >= 0
    assert max(fewer) > 0


def test_members_of_a_faster_network_are_planned_by_their_own_pace(planned: Planned) -> None:
    slow, mixed = (
        planned(585, STANDARD.changed(members=400, network=network)) for network in ("slim-conv", "slim-conv+dense")
    )
    assert 1.5 * slow.members < mixed.members < 2 * slow.members
    assert mixed.member_seconds == pytest.approx(slow.member_seconds), "that of the slowest"


def test_jobs_are_scheduled_as_workers_become_free() -> None:
    assert budget.schedule([4, 1, 1, 1, 3], 2) == 6
    assert budget.schedule([], 2) == 0


def test_each_network_is_measured_and_the_slowest_worker_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def run_jobs(job: object, members: Sequence[int], *_: object, done: Callable[[int, Pace], None], **__: int) -> None:
        for index in members:
            measured.append(index)
            done(index, Pace(start=1, step=index + 1, seconds=1))

    monkeypatch.setattr(local, "run_jobs", run_jobs)
    monkeypatch.setattr(devices, "plan_workers", lambda members: (3, 1))
    recipe = STANDARD.changed(members=6, network="dense+dense+slim-conv")
    split = splits.split(DIGITS.labels, folds=recipe.folds, members=6, holdout=0.05, seed=0)
    paces = budget.measure_paces(recipe, DIGITS, split, [1, 2, 3, 4], seconds=1)
    assert measured == [1, 2, 3]
    assert {network: pace.step for network, pace in paces.items()} == {"dense": 4, "slim-conv": 3}
    assert budget.step_seconds(paces, recipe, 5) == 3
    assert budget.step_seconds(paces, recipe.changed(network="conv-pool"), 0) == 4, "not measured: the slowest"


@pytest.mark.parametrize("seconds", [-5, 0, 3])
def test_too_short_budget_is_refused(seconds: float, planned: Planned) -> None:
    with pytest.raises(BadInput, match="budget: too short to train anything") as refused:
        planned(seconds)
    assert refused.value.hint
    assert planned(seconds, kept=1).members == 0, "kept members are blended"


@pytest.mark.parametrize("rows", [20, 300])
@pytest.mark.slow
def test_epoch_of_one_batch_is_planned_and_its_pace_measured(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from digit_recognizer.training import trainer

    few = dataset.Dataset(DIGITS.images[:rows], DIGITS.labels[:rows], DIGITS.test_images[:20], Path("files"), False, "")
    recipe = load_recipe("dense").changed(folds=2, holdout=0)
    split = splits.split(few.labels, folds=2, members=1, holdout=0, seed=0)
    images, labels = few.images[split.folds[0].train], few.labels[split.folds[0].train]
    pace = trainer.measure_pace(recipe, images, labels, seconds=0.2)
    assert pace.step > 0
    assert pace.seconds >= pace.start > 0
    monkeypatch.setattr(budget, "measure_paces", lambda *_, **__: {"dense": pace})
    assert (
        budget.plan_budget(recipe, few, split, 0, [0], time.monotonic() + 120, lambda images: 0.0).epochs
        == recipe.epochs
    )
