"""The pictures of the documentation."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from conftest import ROOT

TEST_ROWS = 359  # of the bundled sample
PICTURES = ["augmentation", "confusion", "history", "predictions", "preprocessing"]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that writes into ``tmp_path/images``."""
    spec = importlib.util.spec_from_file_location("draw_docs", ROOT / "tools" / "draw_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "IMAGES", tmp_path / "images")
    return module


def write_run(folder: Path, *, sample: bool) -> Path:
    """A run's folder with what the pictures are drawn from."""
    (folder / "members" / "00").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"identity": {"sample": sample}}))
    scores = {"confusion": np.eye(10, dtype=int).tolist(), "holdout": {"errors": 0, "rows": 10}}
    (folder / "members" / "00" / "member.json").write_text(json.dumps({"best_epoch": 3, "fold_rows": 5}))
    curve = [0.9, 0.5, 0.2]
    history = dict.fromkeys(("loss", "val_loss", "accuracy", "val_accuracy"), curve)
    (folder / "members" / "00" / "history.json").write_text(json.dumps(history))
    (folder / "scores.json").write_text(json.dumps(scores))
    np.save(folder / "test.npy", np.random.default_rng(0).dirichlet(np.ones(10), TEST_ROWS).astype(np.float32))
    return folder


def test_run_on_the_competition_files_is_refused(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", sample=False)
    assert tool.main([str(run)]) == 2
    assert capsys.readouterr().err == f"error: {run}: expected a run on the bundled sample\n"
    assert not tool.IMAGES.exists()


@pytest.mark.slow
def test_all_pictures_are_drawn_in_their_size(tool: ModuleType, tmp_path: Path) -> None:
    sample, run = write_run(tmp_path / "sample", sample=True), write_run(tmp_path / "run", sample=False)
    assert tool.main([str(sample), str(run)]) == 0
    drawn = sorted(tool.IMAGES.iterdir())
    assert [path.stem for path in drawn] == PICTURES
    assert all(path.stat().st_size < 150_000 for path in drawn)
    assert sorted(path.stem for path in (ROOT / "docs" / "images").iterdir()) == PICTURES
