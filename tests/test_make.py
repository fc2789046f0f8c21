"""The Makefile: options of verbs, refused words, set-up of .venv."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, outside_make
from digit_recognizer import cli, recipe

STAMPS = [word for name in ("run", "demo", "tune", "test", "notebook") for word in ("-o", f".venv/{name}.stamp")]


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make with the repository's Makefile in the folder."""
    return subprocess.run(
        ["make", "-f", ROOT / "Makefile", *words],
        cwd=folder,
        env=outside_make() | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def command_line(folder: Path, *words: str, **environment: str) -> list[str]:
    """Return the words of the command lines that make would call."""
    done = make(folder, *STAMPS, "KIT=printf '%s|'", *words, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("|")[:-1]


def test_make_without_a_verb_prints_help(tmp_path: Path) -> None:
    done = make(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    users, _, developers = done.stdout.partition("for developers:")
    for verb, text in {**cli.USER_VERBS, "setup": "install the package and its requirements into .venv"}.items():
        assert re.search(f"^  make {verb} +{text}$", users, re.M)
    for verb in (*cli.DEVELOPER_VERBS, "test", "fuzz", "lint", "image", "clean"):
        assert re.search(f"^  make {verb} +{cli.DEVELOPER_VERBS.get(verb, '')}", developers, re.M)
    assert "Exit status of make: 0 success, 2 any failure" in developers
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("typed", "value"),
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
def test_value_reaches_the_command_line_unchanged(typed: str, value: str, tmp_path: Path) -> None:
    assert command_line(tmp_path, "run", f"DATA={typed}", "SEED=0") == ["run", "--data", value, "--seed", "0"]
    assert not list(tmp_path.iterdir())


def test_make_has_all_options_of_the_verbs(tmp_path: Path) -> None:
    fields = [setting.name.upper() for setting in recipe.recipe_fields()]
    words = command_line(tmp_path, "run", "DATA=x", "RECIPE=quick", "BUDGET=3m", *(f"{name}=1" for name in fields))
    assert {f"--{name.lower().replace('_', '-')}" for name in fields} <= set(words)
    switches = command_line(
        tmp_path, "submit", "YES=1", "FORCE=1", "NO_WAIT=1", "WAIT=3", "FILE=f", "RUN=r", "MESSAGE=m"
    )
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
    assert command_line(tmp_path, "push", "NOTEBOOK=1", "ACCELERATOR=tpu") == [
        "push",
        "--accelerator",
        "tpu",
        "--notebook",
    ]
    assert command_line(tmp_path, "kernel", "NOTEBOOK=1") == ["kernel", "--notebook"]
    assert command_line(tmp_path, "data", "FORCE=1") == ["data", "--force"]


def test_options_are_those_of_the_command_line() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    variables = dict(re.findall(r"^override (\w+) := (.*)$", text, re.M))
    fields = [setting.name for setting in recipe.recipe_fields()]
    assert variables["SETTINGS"].split() == [name.upper() for name in fields]
    assert {name: variables[f"FORMER_{old.upper()}"].lower() for name, old in recipe.FORMER_NAMES.items()} == {
        name: name for name in recipe.FORMER_NAMES
    }
    (verbs,) = (action for action in cli.build_parser()._actions if isinstance(action.choices, dict))
    assert variables["PACKAGE_VERBS"].split() == list(verbs.choices)
    for verb, parser in verbs.choices.items():
        listed = variables.get(f"OPTIONS_{verb}", "").replace("$(OPTIONS_kernel)", variables["OPTIONS_kernel"])
        flags = {flag[2:].replace("-", "_").upper() for flag in parser._option_string_actions if flag[:2] == "--"}
        assert set(listed.replace("$(SETTINGS)", variables["SETTINGS"]).split()) == flags - {
            "HELP",
            "KAGGLE_ROOT",
            "MERGED",
        }


@pytest.mark.parametrize("verb", [*cli.USER_VERBS, *cli.DEVELOPER_VERBS])
def test_help_of_each_verb_of_the_package(verb: str, tmp_path: Path) -> None:
    assert command_line(tmp_path, verb, "HELP=1") == [verb, "--help"]


def test_package_verbs_run_with_make_as_the_caller(tmp_path: Path) -> None:
    command = make(tmp_path, *STAMPS, "-n", "scores").stdout
    assert command == "DIGIT_RECOGNIZER_CALLER=make .venv/bin/python -P -m digit_recognizer scores \n"


def test_test_runs_lint_then_pytest_in_two_processes(tmp_path: Path) -> None:
    lint, every = make(tmp_path, *STAMPS, "-n", "test", FAST="1").stdout.splitlines()
    assert [word for word in ("ruff check", "ruff format", "mypy") if word in lint]
    assert every == ".venv/bin/python -m pytest -q -n 2 --dist loadfile"
    _, fast = make(tmp_path, *STAMPS, "-n", "test", "FAST=1").stdout.splitlines()
    assert fast == '.venv/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow"'


def test_fuzz_runs_the_marked_tests_with_more_inputs(tmp_path: Path) -> None:
    command = make(tmp_path, *STAMPS, "-n", "fuzz").stdout
    assert command == "FUZZ_CASES=10000 .venv/bin/python -m pytest -q -n 2 --dist worksteal -m fuzz\n"


def test_test_stops_if_lint_fails(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$2"; [ "$2" != mypy ]\n')
    python.chmod(0o755)
    (checkout / ".venv" / "run.stamp").touch()
    done = make(checkout, *STAMPS, "test")
    assert (done.returncode, "pytest" in done.stdout) == (2, False)
    assert done.stdout.split() == ["ruff", "ruff", "mypy"]


@pytest.mark.parametrize("no", ["0", "no", "No", "FALSE", "false", "off", "n", "", " "])
@pytest.mark.parametrize("name", ["YES", "NO_WAIT"])
def test_switch_is_off(name: str, no: str, tmp_path: Path) -> None:
    assert command_line(tmp_path, "submit", f"{name}={no}") == ["submit"]


@pytest.mark.parametrize("yes", ["1", "yes", "Yes", "TRUE", "on", "y"])
def test_switch_is_on(yes: str, tmp_path: Path) -> None:
    assert command_line(tmp_path, "submit", f"YES={yes}") == ["submit", "--yes"]
    assert command_line(tmp_path, "submit", f"YES:={yes}") == ["submit", "--yes"]


def test_variables_of_the_environment_are_no_options(tmp_path: Path) -> None:
    environment = {"YES": "1", "RUN": "other", "RECIPE": "wide", "FORCE": "1", "EPOCH": "5"}
    assert command_line(tmp_path, "submit", **environment) == ["submit"]
    assert command_line(tmp_path, "-e", "submit", **environment) == ["submit"]
    assert command_line(tmp_path, "run", "EPOCHS=2", **environment) == ["run", "--epochs", "2"]
    assert command_line(tmp_path, "submit", MAKEFLAGS=" -- YES=1") == ["submit", "--yes"], (
        "options of a make that calls this one"
    )


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("submit YES=maybe", "YES: expected 1 or 0, found maybe", "YES=1 or YES=0"),
        ("submit YES=2", "YES: expected 1 or 0, found 2", "YES=1 or YES=0"),
        ("test FAST=10", "FAST: expected 1 or 0, found 10", "FAST=1 or FAST=0"),
        ("run EPOCH=5", "EPOCH: make run has no such option", "EPOCHS=…"),
        ("run recipe=quick", "recipe: make run has no such option", "RECIPE=…"),
        ("run Epochs:=5", "Epochs: make run has no such option", "EPOCHS=…"),
        ("submit yes=1", "yes: make submit has no such option", "YES=…"),
        ("run BATCHSIZE=5", "BATCHSIZE: make run has no such option", "BATCH_SIZE=…"),
        ("run VENV=/", "VENV: make run has no such option", "`make help` lists"),
        ("compare EPOCHS=1", "EPOCHS: make compare has no such option", "make run EPOCHS=…"),
        ("compare RECIPE=quick", "RECIPE: make compare has no such option", "RECIPES=…"),
        ("scores DATA=x", "DATA: make scores has no such option", "make run DATA=…"),
        ("clean DATA=x", "DATA: make clean has no such option", "make run DATA=…"),
        ("RECIPE=quick", "RECIPE: make help has no such option", "make run RECIPE=…"),
        ("run test FILE=1", "FILE: make run has no such option", "make check FILE=…"),
        ("run quick", "quick: unknown verb", "RECIPE=quick"),
        ("run wide", "wide: unknown verb", "RECIPE=wide"),
        ("run digits.zip", "digits.zip: unknown verb", "DATA=digits.zip"),
        ("check a/b.csv", "a/b.csv: unknown verb", "FILE=a/b.csv"),
        ("submit YES", "YES: unknown verb", "YES=…"),
        ("scroes", "scroes: unknown verb", "make scores"),
        ("run VIEW=none", "VIEW: make run has no such option", "VIEW was renamed: use PREPROCESSING="),
        ("tune NEIGHBOURS=5", "NEIGHBOURS: make tune has no such option", "NEIGHBOURS was renamed: use KNN_WEIGHT="),
        ("run it's", "it's: unknown verb", "RECIPE=it's"),
    ],
)
def test_wrong_words_are_refused_before_anything_starts(words: str, error: str, hint: str, tmp_path: Path) -> None:
    done = make(tmp_path, *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    first, second, last = done.stderr.splitlines()
    assert first == f"error: {error}"
    assert second.startswith("hint: ")
    assert hint in second
    assert last.endswith("*** nothing was started.  Stop.")
    assert not list(tmp_path.iterdir())
    assert make(tmp_path, "-n", *words.split()).returncode == 2


def test_each_of_several_verbs_takes_its_own_options(tmp_path: Path) -> None:
    words = command_line(tmp_path, "run", "submit", "RECIPE=quick", "YES=1")
    assert " ".join(words) == "run --recipe quick submit --yes"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose set-up prints SET UP and its file of requirements, and links .venv to this Python."""
    folder = tmp_path / "original"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements").mkdir()
    for name in ("base", "demo", "labels", "ray", "tune", "tensorboard", "notebook", "dev"):
        (folder / "requirements" / f"{name}.txt").touch()
    (folder / "pyproject.toml").touch()
    (folder / "tools" / "setup_venv.py").write_text(
        "import pathlib, sys\n"
        "print('SET UP', sys.argv[2], flush=True); target = pathlib.Path(sys.executable).resolve()\n"
        "bin = pathlib.Path('.venv/bin'); bin.mkdir(parents=True, exist_ok=True); python = bin / 'python'\n"
        "python.unlink(missing_ok=True); python.symlink_to(target)\n"
    )
    return folder


def sets_up(folder: Path, target: str = "setup") -> list[str]:
    """Run make and return the files of requirements that it installs."""
    done = subprocess.run(
        ["make", "-s", target, f"PYTHON={sys.executable}"],
        cwd=folder,
        env=outside_make(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [Path(line.split()[-1]).stem for line in done.stdout.splitlines() if line.startswith("SET UP")]


@pytest.mark.parametrize(
    ("stamp", "name", "included"),
    [
        ("tune", "tune", []),
        ("demo", "demo", []),
        ("notebook", "notebook", []),
        ("ray", "ray", []),
        ("test", "dev", ["demo", "labels", "ray", "tune", "tensorboard"]),
    ],
)
def test_changed_requirements_are_installed(checkout: Path, stamp: str, name: str, included: list[str]) -> None:
    target = f".venv/{stamp}.stamp"
    assert sets_up(checkout, target) == ["base", name]
    assert sets_up(checkout, target) == []
    for number, changed in enumerate([*included, name, "base"], 1):
        for path in checkout.rglob("*"):  # older than the change
            os.utime(path, (number * 1000, number * 1000), follow_symlinks=False)
        os.utime(checkout / "requirements" / f"{changed}.txt", (number * 1000 + 1, number * 1000 + 1))
        assert sets_up(checkout, target) == (["base", name] if changed == "base" else [name])
        assert sets_up(checkout, target) == []


def test_unusable_environment_is_set_up_again(checkout: Path, tmp_path: Path) -> None:
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
    assert sets_up(moved), "Python removed"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    assert sets_up(moved), "dangling link"
    stamp.write_text(stamp.read_text().replace("Python 3.", "Python 2."))
    assert sets_up(moved), "another Python"
    stamp.unlink()
    assert sets_up(moved), "not complete"
    assert not sets_up(moved)


@pytest.mark.parametrize(
    ("version", "status"), [("Python 3.14.0", 1), ("Python 3.10.2", 1), ("Python 2.7.18", 1), ("", 127)]
)
def test_unsupported_or_missing_python_is_refused(checkout: Path, version: str, status: int) -> None:
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
    assert error == f"error: expected Python 3.11, 3.12 or 3.13, found {version or f'no {python}'}"
    assert "hint: name another Python: make run PYTHON=python3.1" in hint
    assert not (checkout / ".venv").exists()


def test_clean_keeps_files_of_the_user(checkout: Path) -> None:
    kept = [checkout / place / "file" for place in ("build/notebook", "runs", "data", "submissions", ".my_cache")]
    removed = [checkout / place / "file" for place in ("build/kernel", "build/image", ".venv", ".ruff_cache")]
    for path in kept + removed:
        path.parent.mkdir(parents=True)
        path.touch()
    done = subprocess.run(
        ["make", "clean"], cwd=checkout, env=outside_make(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in removed)
