"""The report of all runs."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from conftest import call
from digit_recognizer import ledger
from digit_recognizer.data import dataset
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation import report, runs_report
from digit_recognizer.ledger import Row
from pages import DATA, RECIPE, browsing, content_of, needs_browser, serious_faults, wait_for_plots
from stored_runs import store_scored_run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with two complete runs, and a third that is only in the ledger."""
    for seed, wrong in ((0, 1), (1, 6)):
        folder = store_scored_run(tmp_path, RECIPE.changed(seed=seed), DATA, wrong=wrong)
        expected = f"0.99{seed}"
        ledger.record(tmp_path / "submissions", Row(run=folder.name, recipe="quick", members="2", expected=expected))
    ledger.record(tmp_path / "submissions", Row(run="gone-1", recipe="<b>", public_score="0.98"))
    return tmp_path


def scored_digits(script: Path) -> np.ndarray:
    found = re.fullmatch(r'addRun\("[\w-]+", (\{.*\})\);\n', script.read_text())
    assert found
    return np.frombuffer(base64.b64decode(json.loads(found[1])["scored"]), np.uint8)


def test_page_lists_all_runs_and_has_the_predictions_of_complete_ones(home: Path) -> None:
    page = runs_report.write_index(home, DATA)
    text = page.read_text(encoding="utf-8")
    runs = content_of(page)["runs"]
    assert [run["comparable"] for run in runs] == [True, True, False]
    assert "&lt;b&gt;" in text
    assert not re.search(r"(src|href)=\"(https?:)?//", text)
    for run in runs[:2]:
        digits = scored_digits(page.parent / "runs" / f"{run['run']}.js")
        rows, probabilities, _ = report.scored_rows(report.read_run(home / "runs" / run["run"], DATA))
        assert digits[rows].tolist() == probabilities.argmax(axis=1).tolist()
        assert (np.delete(digits, rows) == runs_report.UNSCORED).all()
    assert not list((home / "runs").glob(".report.*"))


def test_report_of_a_run_is_linked_once_it_exists(home: Path) -> None:
    first = next(home.glob("runs/*/scores.json")).parent
    address = f"../{first.name}/report/index.html"
    assert address not in runs_report.write_index(home, DATA).read_text()
    report.write_report(first, DATA)
    page = runs_report.write_index(home, DATA)
    assert address in page.read_text()
    assert (page.parent / address).exists()


def test_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no runs yet"):
        runs_report.write_index(tmp_path, DATA)
    done = call("report", "--all", cwd=tmp_path)
    assert done.returncode == 2
    assert not (tmp_path / "runs" / "report").exists()


def test_verb_writes_the_page_of_all_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "load", lambda given, *, default, cache: DATA)
    done = call("report", "--all", cwd=home)
    assert (done.returncode, done.stdout) == (0, "report: runs/report/index.html\n")


@pytest.mark.slow
@needs_browser
def test_two_runs_are_compared_in_a_browser(home: Path) -> None:
    page = runs_report.write_index(home, DATA)
    pattern = (
        r"(\d+) common rows: (\d+) wrong in the first run alone, (\d+) in the second alone, (\d+) in both; p = (.+?) "
    )
    with browsing(page.as_uri(), width=400, dark=True) as opened:
        wait_for_plots(opened, 1)
        opened.wait_for_function("document.querySelector('#compare-result').textContent")
        found = re.search(pattern, opened.inner_text("#compare-result"))
        assert found
        digits = opened.locator("#compare-list li").count()
        assert serious_faults(opened) == []
        opened.select_option("#compare-controls [name=second]", index=0)
        assert re.search(pattern, opened.inner_text("#compare-result"))[5] == "1.00"
        assert opened.locator("#compare-list li").count() == 0
    names = [run["run"] for run in content_of(page)["runs"][:2]]
    first, second = (scored_digits(page.parent / "runs" / f"{name}.js") for name in names)
    common = (first != runs_report.UNSCORED) & (second != runs_report.UNSCORED)
    assert digits == (common & (first != second)).sum()
    wrong, also_wrong = ((predicted != DATA.labels) & common for predicted in (first, second))
    counts = [common.sum(), (wrong & ~also_wrong).sum(), (also_wrong & ~wrong).sum(), (wrong & also_wrong).sum()]
    assert [int(count) for count in found.groups()[:4]] == [int(count) for count in counts]
    assert float(found[5]) == pytest.approx(binomtest(int(counts[1]), int(counts[1] + counts[2])).pvalue, abs=0.006)
