"""A run that downloads its data first."""

from pathlib import Path

import pytest

from conftest import csv_text, kit
from kaggle_server import Server


@pytest.mark.slow
def test_run_with_credentials_downloads_its_data_once(tmp_path: Path, kaggle: Server) -> None:
    kaggle.pack(train_csv=csv_text("train", 60), test_csv=csv_text("test"))
    options = ("--recipe", "dense", "--folds", 2, "--epochs", 1, "--holdout", 0)
    done = kit("run", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "data/: train.csv and test.csv of the competition\ndata: " in done.stdout
    assert "60 training and 30 test rows" in done.stdout
    assert "sample" not in done.stdout
    calls = len(kaggle.calls)
    refused = kit("run", "--folds", 90, cwd=tmp_path)
    assert "too few" in refused.stderr or "at least 90 rows" in refused.stderr
    assert len(kaggle.calls) == calls, "no second download"
