"""The verbs, from the shell and from make: light, and clear about what they were not given."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, kit, one_line, outside_make
from digit_recognizer import cli


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["check", "--help"]])
def test_help_answers_without_tensorflow(words: list[str]) -> None:
    code = f"import sys; from digit_recognizer import cli; cli.main({words!r})"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "usage: python -m digit_recognizer" in done.stdout
    assert not any(name in done.stderr for name in (" tensorflow\n", " keras\n", " pandas\n"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "the following arguments are required: verb; see"),
        (["fly"], "invalid choice: 'fly'"),
        (["check"], "the following arguments are required: --file"),
        (["run", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["run", "--recipe", "fast"], "recipe: expected one of quick, standard, best, "),
        (["run", "--epochs", "0"], "recipe, epochs: expected a number from 1 to 10000, found 0"),
    ],
)
def test_wrong_words_are_answered_in_one_line(words: list[str], told: str, tmp_path: Path) -> None:
    done = kit(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in one_line(done.stderr)
    assert not list(tmp_path.iterdir())


def test_the_kernel_without_its_packages_says_how_to_get_them() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "kernel.py")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "package digit_recognizer is not installed; run `make setup`" in one_line(done.stderr)


def test_make_alone_prints_every_verb() -> None:
    done = subprocess.run(["make"], cwd=ROOT, env=outside_make(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for verb in ("setup", "doctor", "data", "run", "scores", "check", "submit", "test", "lint", "clean"):
        assert f"  make {verb} " in done.stdout


def test_make_hands_its_options_on_as_they_were_given() -> None:
    done = subprocess.run(
        ["make", "-n", "run", "RECIPE=quick", "DATA=it's here/a b.zip", "BATCH_SIZE=64", "HOLDOUT=0"],
        cwd=ROOT,
        env=outside_make(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    command = done.stdout.strip().splitlines()[-1]
    printed = subprocess.run(
        ["sh", "-c", command.replace(".venv/bin/python", "printf '%s|'")], capture_output=True, text=True, timeout=60
    )
    assert printed.stdout == (
        "-P|-m|digit_recognizer|run|--data|it's here/a b.zip|--recipe|quick|--holdout|0|--batch-size|64|"
    )


def test_a_download_is_no_part_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[float | None] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.credentials, "find", lambda: True)
    monkeypatch.setattr(cli, "_story", lambda: lambda order: deadlines.append(order.deadline))
    for seconds in (0.0, 0.5):
        monkeypatch.setattr(cli, "_download", lambda seconds=seconds: time.sleep(seconds))
        assert cli.main(["run", "--budget", "3m"]) == 0
    assert deadlines[1] - deadlines[0] >= 0.5  # type: ignore[operator]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError(28, "No space left on device", "runs/x"), "error: [Errno 28] No space left on device: 'runs/x'"),
        (ValueError("two\nlines \x1b[2J"), "error: internal error: ValueError: two lines \N{REPLACEMENT CHARACTER}[2J"),
    ],
)
def test_what_was_not_expected_is_one_line(
    error: Exception, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_story", lambda: fail)
    assert cli.main(["run"]) == 1
    assert one_line(capsys.readouterr().err) == f"{shown}; the details are in runs/error.log"
    assert "Traceback" in (tmp_path / "runs" / "error.log").read_text()


def test_closed_or_narrow_output_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from digit_recognizer import cli; sys.stdout = None; sys.exit(cli.main(['scores']))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    code = "from digit_recognizer import cli; cli._make_printing_safe(); print('4 × 5 · –')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("4 ? 5 ? ?\n", "")
