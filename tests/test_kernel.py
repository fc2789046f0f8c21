"""The pipeline of kernel.py in this process, with a fake trainer."""

import importlib.util
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from conftest import ROOT
from digit_recognizer import hints, ledger, runs, submission
from digit_recognizer.data import dataset
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import train
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation import plots, report
from digit_recognizer.recipe import load_recipe
from fake_trainer import FakeTrainer, InProcess

DATA = Dataset(
    images=np.zeros((200, 28, 28), np.uint8),
    labels=np.arange(200, dtype=np.uint8) % 10,
    test_images=np.zeros((20, 28, 28), np.uint8),
    source=Path("files"),
    sample=True,
    fingerprint="0" * 16,
)
RECIPE = load_recipe("dense").changed(folds=4, members=2, epochs=1)


@pytest.fixture
def trainer() -> FakeTrainer:
    """The trainer of the runs of a test."""
    return FakeTrainer()


@pytest.fixture
def kernel(trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module kernel.py, with small data, a fake trainer and no plots."""
    spec = importlib.util.spec_from_file_location("kernel", ROOT / "kernel.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fake = partial(train.train_members, train_one=trainer.train_one)
    monkeypatch.setattr(module, "load_executor", lambda name, address: InProcess())
    monkeypatch.setattr(module, "train_members", fake)
    monkeypatch.setattr(dataset, "load", lambda *_, **__: DATA)
    monkeypatch.setattr(plots, "save_plots", lambda *_: "plots: none")
    monkeypatch.setattr(report, "save_report", lambda *_: "report: none")
    return module


@pytest.fixture
def config(tmp_path: Path) -> runs.RunConfig:
    return runs.RunConfig(recipe=RECIPE, data=None, home=tmp_path, cache=tmp_path / "cache")


def only_run(home: Path) -> Path:
    (run_json,) = home.glob("runs/*/run.json")
    return run_json.parent


def submission_of(home: Path) -> Path:
    return home / "submissions" / f"{only_run(home).name}.csv"


def test_run_stores_members_scores_submission_and_ledger_row(
    kernel: ModuleType, config: runs.RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel.main(config)
    run, file = only_run(config.home), submission_of(config.home)
    probabilities = [np.load(run / "members" / f"{index:02}" / "test.npy") for index in range(2)]
    digits = np.mean(probabilities, axis=0, dtype=np.float64).argmax(axis=1)
    np.testing.assert_array_equal(np.loadtxt(file, delimiter=",", skiprows=1, dtype=int)[:, 1], digits)
    assert submission.check(file, 20) == []
    scores = json.loads((run / "scores.json").read_text())
    assert scores["sample"]
    assert scores["members"] == 2
    (row,) = ledger.read(config.home / "submissions")
    assert (row.run, row.holdout_errors) == (run.name, scores["holdout"]["errors"])
    assert row.file_sha256 == ledger.digest(file)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6:-2] == [
        "plots: none",
        "report: none",
        f"submission: submissions/{run.name}.csv",
        "  20 rows, checked; cannot be submitted: sample run",
    ]
    assert lines[-2].startswith("time: ")
    assert lines[-1] == "next: digit-recognizer run --data digit-recognizer.zip"


def test_submission_is_written_after_each_member(
    kernel: ModuleType, trainer: FakeTrainer, config: runs.RunConfig
) -> None:
    trainer.interrupt_after = 1
    with pytest.raises(KeyboardInterrupt):
        kernel.main(config)
    assert submission.check(submission_of(config.home), 20) == []
    assert not (only_run(config.home) / "scores.json").exists()


def test_complete_run_is_not_trained_again(
    kernel: ModuleType, trainer: FakeTrainer, config: runs.RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel.main(config)
    first = capsys.readouterr().out
    kernel.main(config)
    output = capsys.readouterr().out
    assert trainer.trained == [0, 1]
    name = only_run(config.home).name
    assert f"run: runs/{name} is complete\n  same data, recipe, code and versions: nothing to train\n" in output
    assert "hint: to train other networks, add --seed 1\n" in output
    assert first[first.index("out-of-fold") : first.index("plots: ")] in output
    assert output.splitlines()[-1] == first.splitlines()[-1]


def test_complete_run_restores_its_submission_and_the_copy(
    kernel: ModuleType, trainer: FakeTrainer, config: runs.RunConfig
) -> None:
    copy = config.home / "submission.csv"
    config = replace(config, copy_to=copy)
    kernel.main(config)
    file, content = submission_of(config.home), copy.read_bytes()
    assert file.read_bytes() == content
    file.unlink()
    copy.write_bytes(b"the submission of another run")
    kernel.main(config)
    assert file.read_bytes() == copy.read_bytes() == content
    assert trainer.trained == [0, 1]


@pytest.mark.parametrize("damaged", [b"", b"no array"])
def test_damaged_probabilities_cannot_restore_a_submission(
    damaged: bytes, kernel: ModuleType, config: runs.RunConfig
) -> None:
    kernel.main(config)
    submission_of(config.home).unlink()
    (only_run(config.home) / "test.npy").write_bytes(damaged)
    with pytest.raises(BadInput, match=r"test\.npy: damaged") as error:
        kernel.main(config)
    assert error.value.hint == "remove the run's folder and run again"


@pytest.mark.parametrize("content", ["{}", '{"oof": 1}', "damaged"])
def test_run_with_damaged_scores_is_trained_again(
    content: str, kernel: ModuleType, trainer: FakeTrainer, config: runs.RunConfig
) -> None:
    kernel.main(config)
    (only_run(config.home) / "scores.json").write_text(content)
    kernel.main(config)
    assert trainer.trained == [0, 1, 0, 1]


def test_other_seed_is_another_run(kernel: ModuleType, trainer: FakeTrainer, config: runs.RunConfig) -> None:
    kernel.main(config)
    kernel.main(replace(config, recipe=RECIPE.changed(seed=1)))
    assert trainer.trained == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["runs", "submissions", "submissions/ledger.csv"])
def test_unusable_outputs_are_refused_before_training(
    name: str, kernel: ModuleType, trainer: FakeTrainer, config: runs.RunConfig
) -> None:
    path = config.home / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xff")
    with pytest.raises(BadInput, match=name):
        kernel.main(config)
    assert trainer.trained == []


SAMPLE_ROWS = "359 rows, checked; cannot be submitted: sample run"
OTHER_ROWS = "50 rows, checked; cannot be submitted: 50 test rows"
COMPETITION_ROWS = "28,000 rows, checked"


@pytest.mark.parametrize(
    ("changes", "rows", "next_step"),
    [
        ({"sample": True, "test_rows": 359}, SAMPLE_ROWS, "make run DATA=digit-recognizer.zip"),
        ({"sample": False, "test_rows": 50}, OTHER_ROWS, "make run with the competition's files"),
        ({"sample": False, "test_rows": 28_000}, COMPETITION_ROWS, "make submit RUN=standard-1"),
        (
            {"sample": False, "test_rows": 28_000, "in_kernel": True},
            COMPETITION_ROWS,
            "submit submission.csv from the output of this version, on Kaggle",
        ),
    ],
)
def test_closing_lines_name_the_next_step(
    changes: dict[str, int], rows: str, next_step: str, config: runs.RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hints.CALLER_VARIABLE, "make")
    test_images = np.zeros((changes["test_rows"], 1, 1), np.uint8)
    data = replace(DATA, sample=changes["sample"], test_images=test_images)
    text = runs.closing_lines(replace(config, in_kernel=bool(changes.get("in_kernel"))), "standard-1", data)
    assert text.splitlines() == [
        "submission: submissions/standard-1.csv",
        f"  {rows}",
        "time: 0 s",
        f"next: {next_step}",
    ]
