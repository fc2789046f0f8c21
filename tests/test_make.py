"""What make takes and refuses, and how it notices that .venv cannot be used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, outside_make
from digit_recognizer import cli, recipe

STAMPS = [word for name in ("run", "tune", "test", "notebook") for word in ("-o", f".venv/{name}.stamp")]


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make with the repository's Makefile in a folder of its own."""
    return subprocess.run(
        ["make", "-f", ROOT / "Makefile", *words],
        cwd=folder,
        env=outside_make() | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def passed_on(folder: Path, *words: str, **environment: str) -> list[str]:
    """The words that the command line gets for those that make gets."""
    done = make(folder, *STAMPS, "KIT=printf '%s|'", *words, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("|")[:-1]


def test_make_alone_prints_every_verb(tmp_path: Path) -> None:
    done = make(tmp_path)
    assert done.returncode == 0
    for verb in ("setup", "doctor", "data", "run", "scores", "check", "submit", "test", "lint", "clean"):
        assert f"  make {verb} " in done.stdout
    assert "Exit status: make gives 0 or, whatever failed, 2" in done.stdout


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("it's here/a b.zip", "it's here/a b.zip"),
        ("a$b", "a$b"),
        ("a$$b", "a$b"),
        ("$(shell touch made)", "$(shell touch made)"),
        ("`touch made`; touch made", "`touch made`; touch made"),
        ("a#b\\c", "a#b\\c"),
        ('"quoted" (x', '"quoted" (x'),
        ("a=b:c%d", "a=b:c%d"),
        ("$(unclosed", "$(unclosed"),
        ("two\nlines", "two lines"),
    ],
)
def test_a_value_comes_through_unharmed(given: str, value: str, tmp_path: Path) -> None:
    assert passed_on(tmp_path, "run", f"DATA={given}", "SEED=0") == ["run", "--data", value, "--seed", "0"]
    assert not list(tmp_path.iterdir())


def test_every_option_of_a_verb_can_be_given_to_make(tmp_path: Path) -> None:
    fields = [setting.name.upper() for setting in recipe.recipe_fields()]
    words = passed_on(tmp_path, "run", "DATA=x", "RECIPE=quick", "BUDGET=3m", *(f"{name}=1" for name in fields))
    assert {f"--{name.lower().replace('_', '-')}" for name in fields} <= set(words)
    switches = passed_on(tmp_path, "submit", "YES=1", "FORCE=1", "NO_WAIT=1", "WAIT=3", "FILE=f", "RUN=r", "MESSAGE=m")
    assert switches == [
        "submit",
        "--file",
        "f",
        "--run",
        "r",
        "--message",
        "m",
        "--wait",
        "3",
        "--yes",
        "--force",
        "--no-wait",
    ]
    assert passed_on(tmp_path, "push", "NOTEBOOK=1", "ACCELERATOR=tpu") == [
        "push",
        "--accelerator",
        "tpu",
        "--notebook",
    ]
    assert passed_on(tmp_path, "bench", "WHOLE=1") == ["bench", "--whole"]


@pytest.mark.parametrize("no", ["0", "no", "No", "FALSE", "false", "off", "n", "", " "])
@pytest.mark.parametrize("name", ["YES", "NO_WAIT"])
def test_no_means_no(name: str, no: str, tmp_path: Path) -> None:
    assert passed_on(tmp_path, "submit", f"{name}={no}") == ["submit"]


@pytest.mark.parametrize("yes", ["1", "yes", "Yes", "TRUE", "on", "y"])
def test_yes_means_yes(yes: str, tmp_path: Path) -> None:
    assert passed_on(tmp_path, "submit", f"YES={yes}") == ["submit", "--yes"]
    assert passed_on(tmp_path, "submit", f"YES:={yes}") == ["submit", "--yes"]


def test_the_environment_gives_no_options(tmp_path: Path) -> None:
    surroundings = {"YES": "1", "RUN": "other", "RECIPE": "best", "FORCE": "1", "EPOCH": "5"}
    assert passed_on(tmp_path, "submit", **surroundings) == ["submit"]
    assert passed_on(tmp_path, "-e", "submit", **surroundings) == ["submit"]
    assert passed_on(tmp_path, "run", "EPOCHS=2", **surroundings) == ["run", "--epochs", "2"]
    assert passed_on(tmp_path, "submit", MAKEFLAGS=" -- YES=1") == ["submit", "--yes"], "of a make that calls this one"


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("submit YES=maybe", "YES: expected 1 or 0, found maybe", "YES=1 or YES=0"),
        ("submit YES=2", "YES: expected 1 or 0, found 2", "YES=1 or YES=0"),
        ("test FAST=10", "FAST: expected 1 or 0, found 10", "FAST=1 or FAST=0"),
        ("run EPOCH=5", "EPOCH: make run takes no such option", "EPOCHS=…"),
        ("run recipe=quick", "recipe: make run takes no such option", "RECIPE=…"),
        ("run Epochs:=5", "Epochs: make run takes no such option", "EPOCHS=…"),
        ("submit yes=1", "yes: make submit takes no such option", "YES=…"),
        ("run BATCHSIZE=5", "BATCHSIZE: make run takes no such option", "BATCH_SIZE=…"),
        ("run VENV=/", "VENV: make run takes no such option", "make help lists"),
        ("compare EPOCHS=1", "EPOCHS: make compare takes no such option", "make run EPOCHS=…"),
        ("compare RECIPE=quick", "RECIPE: make compare takes no such option", "RECIPES=…"),
        ("scores DATA=x", "DATA: make scores takes no such option", "make run DATA=…"),
        ("clean DATA=x", "DATA: make clean takes no such option", "make run DATA=…"),
        ("RECIPE=quick", "RECIPE: make help takes no such option", "make run RECIPE=…"),
        ("run test WHOLE=1", "WHOLE: make run takes no such option", "make bench WHOLE=…"),
        ("run quick", "quick: make knows no such verb", "RECIPE=quick"),
        ("run best", "best: make knows no such verb", "RECIPE=best"),
        ("run digits.zip", "digits.zip: make knows no such verb", "DATA=digits.zip"),
        ("check a/b.csv", "a/b.csv: make knows no such verb", "FILE=a/b.csv"),
        ("submit YES", "YES: make knows no such verb", "YES=…"),
        ("scroes", "scroes: make knows no such verb", "make scores"),
        ("run it's", "it's: make knows no such verb", "RECIPE=it's"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    words: str, error: str, hint: str, tmp_path: Path
) -> None:
    done = make(tmp_path, *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    first, second, last = done.stderr.splitlines()
    assert first == f"error: {error}"
    assert second.startswith("hint: ")
    assert hint in second
    assert last.endswith("*** nothing was started.  Stop.")
    assert not list(tmp_path.iterdir())
    assert make(tmp_path, "-n", *words.split()).returncode == 2


def test_several_verbs_share_their_options(tmp_path: Path) -> None:
    words = passed_on(tmp_path, "run", "tune", "RECIPE=quick", "TRIALS=2")
    assert " ".join(words) == "run --recipe quick tune --recipe quick --trials 2"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose set-up says that it runs, and makes a .venv that is this Python."""
    folder = tmp_path / "one"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements").mkdir()
    for name in ("requirements/base.txt", "pyproject.toml"):
        (folder / name).touch()
    (folder / "tools" / "setup_venv.py").write_text(
        "import os, pathlib, sys\nprint('SET UP', flush=True)\n"
        "bin = pathlib.Path('.venv/bin'); bin.mkdir(parents=True, exist_ok=True); python = bin / 'python'\n"
        "python.unlink(missing_ok=True); python.symlink_to(sys.executable)\n"
    )
    return folder


def sets_up(folder: Path) -> bool:
    done = subprocess.run(
        ["make", "-s", "setup", f"PYTHON={sys.executable}"],
        cwd=folder,
        env=outside_make(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return "SET UP" in done.stdout


def test_a_venv_that_cannot_be_used_is_noticed(checkout: Path, tmp_path: Path) -> None:
    assert sets_up(checkout)
    assert not sets_up(checkout)
    shutil.copytree(checkout, tmp_path / "copy", symlinks=True)
    assert sets_up(tmp_path / "copy")
    assert not sets_up(checkout)
    moved = checkout.rename(tmp_path / "moved, (and) renamed 'it' $x #1")
    assert sets_up(moved)
    assert not sets_up(moved)
    python, stamp = moved / ".venv" / "bin" / "python", moved / ".venv" / "run.stamp"
    python.unlink()
    assert sets_up(moved), "half deleted"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    assert sets_up(moved), "its Python is gone"
    stamp.write_text(stamp.read_text().replace("Python 3.", "Python 2."))
    assert sets_up(moved), "another Python"
    stamp.unlink()
    assert sets_up(moved), "not complete"
    assert not sets_up(moved)


@pytest.mark.parametrize(
    ("version", "status"), [("Python 3.14.0", 1), ("Python 3.10.2", 1), ("Python 2.7.18", 1), ("", 127)]
)
def test_a_python_that_is_too_old_too_new_or_missing_is_refused(checkout: Path, version: str, status: int) -> None:
    python = checkout / "other"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && [ -n "{version}" ] && echo {version} && exit\nexit {status}\n'
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "run", f"PYTHON={python}"],
        cwd=checkout,
        env=outside_make(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    error, hint, _ = done.stderr.splitlines()
    assert error == f"error: Python 3.11, 3.12 or 3.13 is needed, found {version or f'no {python}'}"
    assert "hint: name one: make PYTHON=python3.1" in hint
    assert not (checkout / ".venv").exists()


def test_clean_spares_the_users_work(checkout: Path) -> None:
    mine = [checkout / place / "mine" for place in ("build/notebook", "runs", "data", "submissions", ".my_cache")]
    made = [checkout / place / "made" for place in ("build/kernel", "build/image", ".venv", ".ruff_cache")]
    for path in mine + made:
        path.parent.mkdir(parents=True)
        path.touch()
    done = subprocess.run(
        ["make", "clean"], cwd=checkout, env=outside_make(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert all(path.exists() for path in mine)
    assert not any(path.exists() for path in made)


def test_make_and_the_command_line_have_the_same_verbs() -> None:
    listed = (ROOT / "Makefile").read_text().partition("override VERBS := ")[2].partition("override ALL")[0]
    verbs = set(listed.replace("\\\n", " ").split()) - {"help", "setup", "image", "clean", "test", "lint"}
    help_text = subprocess.run(
        [sys.executable, "-m", "digit_recognizer", "--help"], capture_output=True, text=True, env=os.environ
    ).stdout
    assert verbs == {line.split()[0] for line in help_text.splitlines() if line.startswith("    ") and line[4] != " "}
    assert cli.ROOT == ROOT
