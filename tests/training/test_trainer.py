"""The rows of an epoch, the learning rate, and the epoch of the checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digit_recognizer.models import architectures
from digit_recognizer.recipe import load_recipe
from digit_recognizer.training import backend, callbacks, trainer
from digit_recognizer.training.backend import keras


def _epoch_batches(batches: Any) -> list[list[Any]]:
    """Each batch's arrays, one epoch long."""
    if isinstance(batches, backend._Batches):
        epoch = [batches[index] for index in range(len(batches))]
        batches.on_epoch_end()
        return [[np.asarray(array) for array in batch] for batch in epoch]
    return [[array.numpy() for array in batch] for batch in batches]


@pytest.mark.parametrize(
    "make",
    [
        backend.batches,
        lambda *arrays, size, shuffle_seed=None, order=0: backend._Batches(arrays, size, shuffle_seed, order),
    ],
)
def test_shuffled_batches_are_full_and_depend_on_seed_and_epoch(make: Any) -> None:
    rows, labels = np.arange(1000), np.arange(1000) % 10
    batches = make(rows, labels, size=64, shuffle_seed=3)
    epochs = [_epoch_batches(batches) for _ in range(2)]
    for epoch in epochs:
        assert [len(batch[0]) for batch in epoch] == [64] * 15
        assert all((batch[0] % 10 == batch[1]).all() for batch in epoch)
    first, second = (np.concatenate([batch[0] for batch in epoch]) for epoch in epochs)
    assert len(set(first)) == len(set(second)) == 960, "no row is repeated"
    assert len(set(first) | set(second)) > 980, "different rows are dropped"
    assert (first == second).mean() < 0.02
    assert (first == rows[:960]).mean() < 0.02
    again, other = (
        np.concatenate([batch[0] for batch in _epoch_batches(make(rows, labels, size=64, shuffle_seed=seed))])
        for seed in (3, 4)
    )
    assert (again == first).all()
    later = make(rows, labels, size=64, shuffle_seed=3, order=1)
    assert (np.concatenate([batch[0] for batch in _epoch_batches(later)]) == second).all()
    assert (other == first).mean() < 0.02
    assert (np.concatenate([batch[0] for batch in _epoch_batches(make(rows, size=64))]) == rows).all(), (
        "all rows without shuffling"
    )
    assert sorted(_epoch_batches(make(rows[:40], size=64, shuffle_seed=3))[0][0]) == list(range(40)), (
        "fewer than a batch"
    )


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_resampling_keeps_the_number_of_rows(share: float) -> None:
    loss = np.random.default_rng(0).exponential(size=1000)
    rows = trainer.resample_rows(loss, share, np.random.default_rng(1))
    assert len(rows) == 1000
    assert rows.min() >= 0
    assert rows.max() < 1000
    once = rows[: round(1000 * (1 - share))]
    assert len(np.unique(once)) == len(once)
    np.testing.assert_array_equal(rows, trainer.resample_rows(loss, share, np.random.default_rng(1)))


def test_resampling_prefers_rows_with_high_loss() -> None:
    loss = np.full(1000, 0.001)
    loss[:10] = 5
    counts = np.bincount(trainer.resample_rows(loss, 0.5, np.random.default_rng(0)), minlength=1000)
    assert counts[:10].min() > 20
    assert counts[10:].mean() < 1
    counts = np.bincount(trainer.resample_rows(np.zeros(1000), 1, np.random.default_rng(0)), minlength=1000)
    assert counts.max() < 10


@pytest.mark.parametrize("warmup", [0, 0.2, 0.9])
def test_one_cycle_rises_and_falls(warmup: float) -> None:
    climb = round(200 * warmup)
    rates = [float(trainer.OneCycle(0.01, warmup, 200)(step)) for step in range(201)]
    assert max(rates) == pytest.approx(0.01)
    assert np.argmax(rates) == climb
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert (np.diff(rates[climb:]) < 0).all()
    half = climb + (200 - climb) // 2
    assert rates[half] == pytest.approx(0.005, rel=0.02)
    if climb:
        assert rates[0] == pytest.approx(0.0004)
        np.testing.assert_allclose(np.diff(rates[: climb + 1]), 0.0096 / climb, rtol=1e-3)


def test_decay_lowers_the_rate_by_five_percent_per_epoch() -> None:
    recipe = load_recipe("deotte15").changed(network="dense")
    rows = np.zeros((1000, 28, 28), np.uint8)
    _, model = trainer.build_trainer(recipe, rows, rows[:0], seed=0)
    rate = model.optimizer._learning_rate
    assert [float(rate(step)) for step in (0, 14, 15, 44 * 15)] == pytest.approx([1e-3, 1e-3, 0.95e-3, 1e-3 * 0.95**44])


@pytest.mark.parametrize(
    ("schedule", "epochs", "first"),
    [
        ("one-cycle", 16, 12),
        ("decay", 45, 33),
        ("decay", 4, 3),
        ("decay", 2, 1),
        ("decay", 1, 0),
        ("plateau", 45, 0),
        ("constant", 45, 0),
    ],
)
def test_checkpoint_starts_in_the_last_quarter_of_falling_schedules(schedule: str, epochs: int, first: int) -> None:
    assert trainer.first_epoch(load_recipe("deotte15").changed(schedule=schedule, epochs=epochs)) == first


class SilentReporter:
    """A reporter without output."""

    def batch(self, done: int, of: int, loss: float) -> None: ...

    def epoch(self, epoch: int, figures: dict[str, float]) -> None: ...

    saved = None

    def save(self, state: bytes) -> None: ...

    def stage(self, text: str) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "late"), [("decay", True), ("constant", False)])
def test_checkpoint_has_lowest_loss_of_admitted_epochs(tmp_path: Path, schedule: str, late: bool) -> None:
    draw = np.random.default_rng(0)  # random labels: the validation loss rises with training
    rows, labels = draw.integers(0, 256, (256, 28, 28), np.uint8), draw.integers(0, 10, 256, np.uint8)
    out, out_labels = draw.integers(0, 256, (64, 28, 28), np.uint8), draw.integers(0, 10, 64, np.uint8)
    recipe = load_recipe("dense").changed(schedule=schedule, epochs=8, batch_size=32, dropout=0)
    reporter: Any = SilentReporter()
    trained = trainer.train_member(
        recipe, rows, labels, out, out_labels, seed=0, checkpoint=tmp_path / "network.keras", reporter=reporter
    )
    losses = trained.history["val_loss"]
    first = 6 if late else 0
    assert trained.best_epoch - 1 == np.argmin(losses[first:]) + first
    assert np.argmin(losses) < 6
    kept = trainer.row_losses(trained.network, out, out_labels).mean()
    assert kept == pytest.approx(losses[trained.best_epoch - 1], abs=0.1), "in bfloat16 where that is fast"


def test_checkpoint_ignores_epochs_before_the_first_admitted_one(tmp_path: Path) -> None:
    recipe, path = load_recipe("quick").changed(network="dense"), tmp_path / "network.keras"
    network = architectures.build("dense", dropout=0)
    best_checkpoint = callbacks.FoldCheckpoint(network, recipe, path, first=3, validated=True)
    best_checkpoint.set_model(network)
    kept = []
    for epoch, loss in enumerate([0.3, 0.1, 0.2, 0.4, 0.2, 0.3]):
        network.set_weights([np.full(weights.shape, epoch) for weights in network.get_weights()])
        best_checkpoint.on_epoch_end(epoch, {"val_loss": loss})
        kept.append(int(keras.models.load_model(path).get_weights()[0].flat[0]))
    assert kept == [0, 1, 1, 3, 4, 4]
