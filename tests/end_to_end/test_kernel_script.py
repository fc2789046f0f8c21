"""Real runs of a kernel's script and notebook, in the folders that Kaggle provides."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from digit_recognizer import cli, ledger, provenance, submission
from kaggle_server import Server
from kernel_script import SHORT, build, kernel_tree, run_script

pytestmark = pytest.mark.slow


def test_script_alone_writes_a_valid_submission_that_can_be_fetched(
    tmp_path: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = run_script(tmp_path / "kaggle", "--epochs", "4", "--batch-size", "32", "--knn-weight", "5")
    assert (process.returncode, process.stderr) == (0, "")
    assert "\r" not in process.stdout
    assert re.search("^(k-NN|re-rank|neighbours)", process.stdout, re.MULTILINE)
    working = tmp_path / "kaggle" / "working"
    assert submission.check(working / "submission.csv", 359) == []
    assert sorted(path.name for path in working.iterdir()) == ["runs", "submission.csv", "submissions"]
    (run,) = (working / "runs").glob("[!.]*")
    assert json.loads((run / "scores.json").read_text())["holdout"]["accuracy"] > 0.9
    about = json.loads((run / "run.json").read_text())
    assert about["identity"]["code"] == provenance.source_digest()
    assert about["commit"] == provenance.commit()
    output = {str(path.relative_to(working)): path.read_bytes() for path in working.rglob("*") if path.is_file()}
    kaggle.output = output
    home = tmp_path / "laptop"
    home.mkdir()
    monkeypatch.chdir(home)
    ledger.record(home / "submissions", ledger.Row(run="before"))
    for _ in range(2):
        assert cli.main(["output"]) == 0
        rows = {row.run: row for row in ledger.read(home / "submissions")}
        assert set(rows) == {"before", run.name}
        assert rows[run.name].holdout_rows == 144
        assert (home / "submissions" / f"{run.name}.csv").read_bytes() == output["submission.csv"]
        assert (home / "runs" / run.name / "scores.json").exists()
        assert len(list((home / "runs").iterdir())) == 1, "no temporary folder is left"


@pytest.mark.skipif("KERNEL_PYTHON" in os.environ, reason="JAX is not installed there")
def test_jax_backend_reaches_the_same_accuracy(tmp_path: Path) -> None:
    options = {
        "members": 1,
        "epochs": 6,
        "holdout": 0.2,
        "batch-size": 32,
        "learning-rate": 2e-3,
        "network": "conv-pool",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = run_script(tmp_path, *words, KERAS_BACKEND="jax")
    assert (process.returncode, process.stderr) == (0, "")
    (run,) = (tmp_path / "working" / "runs").glob("[!.]*")
    assert json.loads((run / "run.json").read_text())["identity"]["backend"] == "jax"
    assert json.loads((run / "scores.json").read_text())["holdout"]["accuracy"] > 0.9
    assert submission.check(tmp_path / "working" / "submission.csv", 359) == []


@pytest.mark.skipif("KERNEL_PYTHON" in os.environ, reason="Jupyter is not installed there")
def test_notebook_runs_to_its_last_cell(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    script, environment = kernel_tree(tmp_path)
    shutil.copymode(ROOT / "kernel.py", script.parent)
    script.parent.chmod(0o755)
    words = [*SHORT, "--members", "1", "--network", "dense", "--kaggle-root", str(tmp_path)]
    notebook = nbformat.read(build(tmp_path / "src", *words, notebook=True), as_version=4)
    nbformat.validate(notebook)
    working = tmp_path / "working"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(working)}})
    client.execute(env=os.environ | environment)
    printed = "".join(output.get("text", "") for output in notebook.cells[-3].outputs)
    assert re.search("submissions/quick-[0-9-]+.csv", printed)
    assert ["image/png" in output["data"] for output in notebook.cells[-1].outputs] == [True] * 4
    assert submission.check(working / "submission.csv", 359) == []
