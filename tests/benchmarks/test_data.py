"""Time to read the competition's files, as a share of the time of ``pandas.read_csv``."""

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from digit_recognizer.data import dataset


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_reading_takes_at_most_0_6_of_pandas(competition: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    with zipfile.ZipFile(competition) as archive:
        archive.extractall(files)
    ratios, cached = [], []
    for attempt in range(5):
        cache = tmp_path / f"cache{attempt}"
        pandas_seconds = seconds(lambda: [pd.read_csv(files / f"{name}.csv") for name in ("train", "test")])
        ratios.append(seconds(lambda: dataset.load(files, default=tmp_path, cache=cache)) / pandas_seconds)  # noqa: B023
        cached.append(seconds(lambda: dataset.load(files, default=tmp_path, cache=cache)))  # noqa: B023
    print(f"\nshares of the time of pandas {np.round(ratios, 2)}, cached {min(cached):.2f} s")
    assert np.median(ratios) < 0.6
    assert min(cached) < 0.3
