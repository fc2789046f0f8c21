"""Fixtures and helpers that several test files share."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer import cli
from digit_recognizer.hints import CALLER_VARIABLE
from kaggle_server import TOKEN, Server, serving

ROOT = Path(__file__).parents[1]
FUZZ = int(os.environ.get("FUZZ_CASES", "100"))  # examples of a property; `make fuzz` sets FUZZ_CASES=10000
FEW = FUZZ if "FUZZ_CASES" in os.environ else 15  # the same, of a slow property
COMPETITION = ROOT.parent / "shared" / "digit-recognizer" / "digit-recognizer.zip"


@pytest.fixture(autouse=True)
def nobody(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Isolate a test: an empty home, which is returned, no credentials, no caller make, a closed port as the proxy."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv(CALLER_VARIABLE, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    return home


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A fake Kaggle server on loopback that Kaggle's client uses, and a valid token in the environment."""
    with serving() as server:
        monkeypatch.setenv("http_proxy", server.address)
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
        yield server


@pytest.fixture
def competition() -> Path:
    """The competition's zip; the test is skipped if this machine does not have it."""
    if not COMPETITION.exists():
        pytest.skip(f"the competition's files are not on this machine ({COMPETITION.name} beside the repository)")
    return COMPETITION


def csv_text(table: str, rows: int = 30, seed: int = 0) -> bytes:
    """Return a small table in the competition's format, with LF line ends; the labels repeat 0 to 9."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (rows, 784))
    header = ",".join(f"pixel{i}" for i in range(784))
    if table == "train":
        pixels = np.column_stack((np.arange(rows) % 10, pixels))
        header = "label," + header
    return "\n".join([header, *(",".join(map(str, row)) for row in pixels), ""]).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a small train.csv and test.csv."""
    data = tmp_path / "files"
    data.mkdir()
    for table in ("train", "test"):
        (data / f"{table}.csv").write_bytes(csv_text(table))
    return data


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of the run ``TINY`` without faults."""
    from kernel_processes import TINY, only_run, results, run

    home = tmp_path_factory.mktemp("undisturbed")
    done = run(*TINY, home=home)
    assert (done.wait(), done.stderr) == (0, "")
    return results(only_run(home))


def keep(path: Path, content: object, mode: int = 0o600) -> Path:
    """Write a file for credentials: a text, or a value as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def outside_make() -> dict[str, str]:
    """Return the environment without the variables of a make that runs the tests."""
    removed = ("MAKE", "MFLAGS", "FAST", CALLER_VARIABLE)
    return {name: value for name, value in os.environ.items() if not name.startswith(removed)}


def kit(*words: object, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process, in the folder ``cwd``."""
    command = [sys.executable, "-m", "digit_recognizer", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)


def call(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which is faster; for verbs that start no other process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(list(map(str, words)))
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def one_line(text: str) -> str:
    """Return an error and its hint, after checking that the text contains nothing else."""
    lines = text.strip().splitlines()
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), text
    return "\n".join(lines)
