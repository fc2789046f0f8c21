"""The pictures of the documentation."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from conftest import ROOT
from digit_recognizer.data import dataset
from pages import DATA, RECIPE, needs_browser
from stored_runs import store_scored_run

PICTURES = ["augmentation", "confusion", "history", "predictions", "preprocessing"]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that writes into ``tmp_path/images``."""
    spec = importlib.util.spec_from_file_location("draw_docs", ROOT / "tools" / "draw_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "IMAGES", tmp_path / "images")
    return module


def test_run_on_the_competition_files_is_refused(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store_scored_run(tmp_path, RECIPE, replace(DATA, sample=False))
    assert tool.main([str(run)]) == 2
    assert capsys.readouterr().err == f"error: {run}: expected a run on the bundled sample\n"
    assert not tool.IMAGES.exists()


@pytest.mark.slow
@needs_browser
def test_all_pictures_are_made_in_their_size(tool: ModuleType, tmp_path: Path) -> None:
    digits = dataset.load(None, default=tmp_path / "data", cache=tmp_path / "cache")
    assert tool.main([str(store_scored_run(tmp_path, RECIPE, digits, wrong=3))]) == 0
    made = sorted(tool.IMAGES.iterdir())
    assert [path.stem for path in made] == PICTURES
    assert all(path.stat().st_size < 150_000 for path in made)
    assert sorted(path.stem for path in (ROOT / "docs" / "images").iterdir()) == PICTURES
