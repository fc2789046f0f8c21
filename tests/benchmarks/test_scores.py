"""Time of the table of runs."""

import time
from pathlib import Path

from conftest import kit
from digit_recognizer import ledger
from digit_recognizer.ledger import Row


def test_scores_of_500_runs_take_under_half_a_second(tmp_path: Path) -> None:
    with ledger.changing(tmp_path / "submissions") as rows:
        rows += [Row(run=f"quick-{i}", holdout_errors=i, holdout_rows=4200) for i in range(500)]
    times = []
    for _ in range(5):
        start = time.monotonic()
        done = kit("scores", cwd=tmp_path)
        times.append(time.monotonic() - start)
        assert done.stdout.count("quick-") == 500
    assert min(times) < 0.5, times
