"""The walkthrough notebook, and the verb that opens it."""

import os
from pathlib import Path

import pytest

from conftest import ROOT
from digit_recognizer import cli


@pytest.mark.slow
@pytest.mark.skipif("KERNEL_PYTHON" in os.environ, reason="the environment under test has no Jupyter")
def test_notebook_runs_on_the_sample(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "notebooks" / "walkthrough.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs = []
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 6
    printed = "".join(output.get("text", "") for output in outputs)
    assert "bundled sample" in printed
    assert "holdout" in printed
    assert "faults: none" in printed
    assert len(list(tmp_path.glob("walkthrough/submissions/sample-quick-*.csv"))) == 1


def test_notebook_verb_opens_a_copy_and_keeps_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    copy = tmp_path / "build" / "notebook" / "walkthrough.ipynb"
    for content in ((ROOT / "notebooks" / copy.name).read_text(), "changed"):
        assert cli.main(["notebook"]) == 0
        assert copy.read_text() == content
        copy.write_text("changed")
    assert started[0][1:] == ["-m", "jupyterlab", str(copy)]
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)  # Jupyter refuses to run as root without the option
    assert cli.main(["notebook"]) == 0
    assert started[-1][1:] == ["-m", "jupyterlab", "--allow-root", str(copy)]
