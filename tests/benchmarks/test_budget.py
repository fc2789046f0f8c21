"""Time of a run with a budget."""

import json
import re
import time
from pathlib import Path

from digit_recognizer import submission
from kernel_script import run_script


def test_budget_truncates_the_ensemble_and_is_kept(tmp_path: Path) -> None:
    start = time.monotonic()
    process = run_script(tmp_path, "--budget", "60s", "--members", "90", "--epochs", "2", "--network", "dense")
    assert process.returncode == 0, process.stderr
    assert time.monotonic() - start < 80
    (run,) = (tmp_path / "working" / "runs").glob("[!.]*")
    scores = json.loads((run / "scores.json").read_text())
    assert re.search(r"^budget: \d+ of 90 members fit, [12] epochs each$", process.stdout, re.MULTILINE)
    assert re.search(r"^truncated by the budget: \d+ of 90 members", process.stdout, re.MULTILINE)
    assert 2 <= scores["members"] < 90
    assert submission.check(tmp_path / "working" / "submission.csv", 359) == []
