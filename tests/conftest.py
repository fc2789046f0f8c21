"""What several test files share."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
COMPETITION = ROOT.parent / "shared" / "digit-recognizer" / "digit-recognizer.zip"


@pytest.fixture
def competition() -> Path:
    """The competition's own zip, where this machine has it."""
    if not COMPETITION.exists():
        pytest.skip(f"the competition's files are not on this machine ({COMPETITION.name} beside the repository)")
    return COMPETITION


def csv_text(table: str, rows: int = 30, seed: int = 0) -> bytes:
    """A small file of the competition's form, with LF line ends; labels go round 0 to 9."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (rows, 784))
    header = ",".join(f"pixel{i}" for i in range(784))
    if table == "train":
        pixels = np.column_stack((np.arange(rows) % 10, pixels))
        header = "label," + header
    return "\n".join([header, *(",".join(map(str, row)) for row in pixels), ""]).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a small train.csv and test.csv."""
    place = tmp_path / "files"
    place.mkdir()
    for table in ("train", "test"):
        (place / f"{table}.csv").write_bytes(csv_text(table))
    return place


def kit(*words: object, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, in a folder of its own."""
    command = [sys.executable, "-m", "digit_recognizer", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)


def one_line(text: str) -> str:
    """The only line of a text."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]
