"""Training of a run's members, with a fake trainer: which members are trained, kept, and trained again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer import runs
from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble import blend, members, train
from digit_recognizer.ensemble.members import Member
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.recipe import Recipe, load_recipe
from fake_trainer import FakeTrainer, InProcess

LABELS = np.arange(200, dtype=np.uint8) % 10
DATA = dataset.Dataset(
    np.zeros((200, 28, 28), np.uint8), LABELS, np.zeros((20, 28, 28), np.uint8), Path("files"), False, "0" * 16
)
RECIPE = load_recipe("dense").changed(folds=4, members=3, holdout=0.1, epochs=2)
SPLIT = splits.split(LABELS, folds=4, members=3, holdout=0.1, seed=0)


def train_run(
    home: Path, trainer: FakeTrainer, recipe: Recipe = RECIPE, split: splits.Split = SPLIT, **options: object
) -> dict[int, Member]:
    run = runs.begin(home, recipe, DATA)
    try:
        trained = train.train_members(
            recipe,
            DATA,
            split,
            run,
            train_one=trainer.train_one,
            executor=InProcess(),
            **options,  # type: ignore[arg-type]
        )
        return dict(run.read_members(trained))
    finally:
        run._lock.close()


def only_member(home: Path, index: int) -> Path:
    (folder,) = home.glob(f"*/members/{index:02}")
    return folder


def test_all_members_are_trained_and_returned(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    blends: list[blend.Blend] = []
    trained = train_run(tmp_path, trainer, after_each=blends.append)
    assert trainer.trained == sorted(trained) == [0, 1, 2]
    assert [len(so_far.folds) for so_far in blends] == [1, 2, 3]
    every = [member.probabilities["test"] for member in trained.values()]
    np.testing.assert_array_equal(blends[0].test, every[0])
    np.testing.assert_array_equal(blends[-1].test, np.mean(every, axis=0, dtype=np.float64).astype(np.float32))


def test_shard_trains_its_members_and_the_rest_follows(tmp_path: Path) -> None:
    for shard, trained in (((2, 2), [1]), ((1, 2), [0, 2]), (None, [])):
        trainer = FakeTrainer()
        train_run(tmp_path, trainer, shard=shard)
        assert trainer.trained == trained


def test_full_members_enter_the_test_probabilities_only(tmp_path: Path) -> None:
    recipe = RECIPE.changed(members=4, full_members=2)
    split = splits.split(LABELS, folds=4, members=4, holdout=0.1, seed=0, full_members=2)
    trained = train_run(tmp_path, FakeTrainer(), recipe, split=split)
    both, judged = (blend.average(part.items(), split, rows=200) for part in (trained, {0: trained[0], 1: trained[1]}))
    assert (both.full_members, judged.full_members) == (2, 0)
    for name in ("oof", "holdout", "oof_last"):
        np.testing.assert_array_equal(getattr(both, name), getattr(judged, name))
    every = [member.probabilities["test"] for member in trained.values()]
    np.testing.assert_allclose(both.test, np.mean(every, axis=0), rtol=1e-6)
    assert len(both.folds) == len(both.histories) == len(both.holdout_members) == 2


def test_blend_waits_for_a_member_with_validation_rows(tmp_path: Path) -> None:
    recipe = RECIPE.changed(members=2, full_members=1)
    split = splits.split(LABELS, folds=4, members=2, holdout=0.1, seed=0, full_members=1)
    train_run(tmp_path, FakeTrainer(), recipe, split=split)
    shutil.rmtree(only_member(tmp_path, 0))
    blends: list[blend.Blend] = []
    train_run(tmp_path, FakeTrainer(), recipe, split=split, after_each=blends.append)
    assert [(len(so_far.folds), so_far.full_members) for so_far in blends] == [(1, 1)]


def test_interrupted_run_keeps_its_members_and_trains_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path, FakeTrainer(interrupt_after=1))
    resumed = FakeTrainer()
    assert sorted(train_run(tmp_path, resumed)) == [0, 1, 2]
    assert resumed.trained == [1, 2]
    assert "member 1/3" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["test.npy", "history.json", "member.json", members.NETWORK])
def test_damaged_member_is_named_and_trained_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_run(tmp_path, FakeTrainer())
    path = only_member(tmp_path, 1) / name
    path.write_bytes(path.read_bytes()[:-5] + b"xxxxx")
    resumed = FakeTrainer()
    train_run(tmp_path, resumed)
    assert resumed.trained == [1]
    assert f"member 2/3 is trained again: {path}: damaged" in capsys.readouterr().out


def test_member_without_record_is_trained_again_silently(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_run(tmp_path, FakeTrainer())
    (only_member(tmp_path, 1) / members.RECORD).unlink()
    capsys.readouterr()
    resumed = FakeTrainer()
    train_run(tmp_path, resumed)
    assert resumed.trained == [1]
    assert "trained again" not in capsys.readouterr().out


def test_member_copied_from_another_is_trained_again(tmp_path: Path) -> None:
    train_run(tmp_path, FakeTrainer())
    shutil.rmtree(only_member(tmp_path, 2))
    shutil.copytree(only_member(tmp_path, 1), only_member(tmp_path, 1).with_name("02"))
    resumed = FakeTrainer()
    train_run(tmp_path, resumed)
    assert resumed.trained == [2]


def test_truncated_member_is_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Truncating(FakeTrainer):
        def train_one(self, recipe: Recipe, *arguments: object) -> float:  # type: ignore[override]
            return super().train_one(recipe.changed(epochs=1), *arguments)  # type: ignore[arg-type]

    train_run(tmp_path, Truncating())
    resumed = FakeTrainer()
    train_run(tmp_path, resumed)
    assert resumed.trained == [0, 1, 2]
    assert "member 1/3 is trained again: " in (shown := capsys.readouterr().out)
    assert ": truncated by a budget" in shown


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"other")])
def test_member_changed_during_the_run_is_an_error(change: Callable[[Path], object], tmp_path: Path) -> None:
    def after_each(so_far: blend.Blend) -> None:
        if len(so_far.folds) == 3:
            change(only_member(tmp_path, 0) / "fold.npy")

    with pytest.raises(KitError, match=r"fold\.npy: .*; it was changed during the run") as raised:
        train_run(tmp_path, FakeTrainer(), after_each=after_each)
    assert not isinstance(raised.value, BadInput)
    assert raised.value.hint == "rerun the command"


def test_budget_trains_the_members_and_epochs_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = train.budget.Plan(members=2, epochs=1, member_seconds=1.0, last_step=0.0)
    monkeypatch.setattr(train.budget, "plan_budget", lambda *_: plan)
    trainer = FakeTrainer()
    assert sorted(train_run(tmp_path, trainer, deadline=1e12)) == [0, 1]
    assert trainer.epochs == [1, 1]
    assert "budget: 2 of 3 members fit, 1 epochs each" in capsys.readouterr().out


def test_no_member_starts_when_it_would_miss_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = train.budget.Plan(members=3, epochs=2, member_seconds=1e9, last_step=0.0)
    monkeypatch.setattr(train.budget, "plan_budget", lambda *_: plan)
    monkeypatch.setattr(train.devices, "plan_workers", lambda count: (1, 1))
    trainer = FakeTrainer()
    train_run(tmp_path, trainer, deadline=train.time.monotonic() + 60)
    assert trainer.trained == [0], "the first member of each worker starts in any case"


def test_seeds_of_members_differ_within_and_between_recipe_seeds() -> None:
    seeds = {train.member_seed(seed, index) for seed in range(30) for index in range(30)}
    assert len(seeds) == 900
