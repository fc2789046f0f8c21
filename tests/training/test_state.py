"""A training that another process continues from the state after an epoch."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import damage
from conftest import FUZZ
from digit_recognizer.recipe import Recipe, load_recipe
from digit_recognizer.training import state, trainer

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (80, 28, 28), dtype=np.uint8)
LABELS = np.arange(80, dtype=np.uint8) % 10
RECIPE = load_recipe("standard").of_member(1).changed(epochs=4, batch_size=16, precision="float32")
RECIPES = {
    "standard": RECIPE,
    "plateau": RECIPE.changed(schedule="plateau", learning_rate=0.05, epochs=6),
    "resampling": RECIPE.changed(resampling=0.5),
    "bfloat16": RECIPE.changed(precision="bfloat16"),
    "dropout": load_recipe("deotte15").changed(epochs=3, batch_size=16, precision="float32"),
}


class Killed(BaseException):
    pass


class KeepingReporter:
    """Keeps the states of all epochs; optionally ends the training after one of them as a kill would."""

    def __init__(self, saved: bytes | None = None, kill_after: int | None = None) -> None:
        self.saved, self.states, self.kill_after = saved, [], kill_after
        self.resumed: list[int] = []

    def stage(self, text: str) -> None: ...

    def batch(self, done: int, of: int, loss: float) -> None: ...

    def epoch(self, epoch: int, figures: dict[str, float]) -> None: ...

    def resume(self, epochs: int) -> None:
        self.resumed.append(epochs)

    def save(self, state: bytes) -> None:
        self.states.append(state)
        if len(self.states) == self.kill_after:
            raise Killed


def train(recipe: Recipe, folder: Path, reporter: KeepingReporter, owner: str = "owner") -> trainer.TrainedMember:
    folder.mkdir()
    return trainer.train_member(
        recipe,
        IMAGES[:60],
        LABELS[:60],
        IMAGES[60:],
        LABELS[60:],
        seed=3,
        checkpoint=folder / "network.keras",
        reporter=reporter,  # type: ignore[arg-type]
        owner=owner,
    )


def assert_equal(one: trainer.TrainedMember, other: trainer.TrainedMember) -> None:
    assert one.history == other.history
    assert one.best_epoch == other.best_epoch
    for first, second in ((one.network, other.network), (one.last_network, other.last_network)):
        for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_continued_training_equals_an_undisturbed_one(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    whole = train(recipe, tmp_path / "whole", undisturbed := KeepingReporter())
    assert len(undisturbed.states) == recipe.epochs
    for killed in (1, recipe.epochs - 1, recipe.epochs):
        reporter = KeepingReporter(kill_after=killed)
        with pytest.raises(Killed):
            train(recipe, tmp_path / f"killed-{killed}", reporter)
        again = KeepingReporter(reporter.states[-1])
        assert_equal(train(recipe, tmp_path / f"continued-{killed}", again), whole)
        assert (again.resumed, len(again.states)) == ([killed], recipe.epochs - killed)


def damaged(state: bytes, kind: str) -> bytes:
    if kind == "truncated":
        return state[: len(state) // 2]
    if kind == "flipped":
        middle = len(state) // 2
        return state[:middle] + bytes([state[middle] ^ 255]) + state[middle + 1 :]
    if kind == "pickled":
        content = io.BytesIO()
        np.savez(content, about=np.array([{"owner": "owner"}], dtype=object))
        return content.getvalue()
    return b"" if kind == "empty" else b"no archive"


@pytest.mark.slow
def test_damaged_and_foreign_states_are_ignored(tmp_path: Path) -> None:
    recipe = load_recipe("dense").changed(epochs=2, batch_size=16)
    whole = train(recipe, tmp_path / "whole", reporter := KeepingReporter())
    state = reporter.states[0]
    for kind in ("truncated", "flipped", "pickled", "empty", "text"):
        again = KeepingReporter(damaged(state, kind))
        assert_equal(train(recipe, tmp_path / kind, again), whole)
        assert again.resumed == []
    train(recipe, tmp_path / "owner", again := KeepingReporter(state), owner="another")
    assert again.resumed == []
    train(recipe.changed(epochs=3), tmp_path / "epochs", again := KeepingReporter(state))
    assert again.resumed == []


class Variable:
    """A variable of a network."""

    dtype = "float32"

    def __init__(self, values: list[float]) -> None:
        self.values = np.array(values, np.float32)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values

    def assign(self, values: np.ndarray) -> None:
        assert values.shape == self.values.shape
        self.values = values


def untrained(checkpoint: Path, values: list[float]) -> state.Training:
    """Return a training of two variables that has seen no epoch."""
    network: Any = SimpleNamespace(
        variables=[Variable(values[:3])], optimizer=SimpleNamespace(variables=[Variable(values[3:])])
    )
    best: Any = SimpleNamespace(path=checkpoint, best=2.0, copy_weights=lambda: None)
    return state.Training(RECIPE, "owner", network, best, None, np.random.default_rng(7))


def content_of(training: state.Training) -> tuple[Any, ...]:
    """Return what a state changes."""
    kept = [np.asarray(variable).tolist() for variable in training._variables()]
    best = training.checkpoint
    return kept, training.history, best.best, best.path.read_bytes(), str(training.random.bit_generator.state)


@pytest.mark.fuzz
@settings(max_examples=FUZZ, deadline=None)
@given(edits=damage.EDITS)
def test_damaged_state_is_restored_correctly_or_ignored(
    edits: list[damage.Edit], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "network.keras"
    path.write_bytes(b"trained" * 9)
    source = untrained(path, [1, 2, 3, 4])
    source.history["loss"], source.checkpoint.best = [0.5], 0.25
    source.random.random()
    stored, expected = source.capture(), content_of(source)
    path.write_bytes(b"untrained")
    fresh = untrained(path, [0, 0, 0, 0])
    before = content_of(fresh)
    found = fresh.restore(damage.edited(stored, edits))
    assert content_of(fresh) == (expected if found else before)
