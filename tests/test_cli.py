"""The verbs, from the shell and from make: light, and clear about what they were not given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, kit, one_line
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
        ([], "the following arguments are required: verb\nhint: see"),
        (["fly"], "invalid choice: 'fly'\nhint: see"),
        (["scoers"], "invalid choice: 'scoers'\nhint: did you mean scores?"),
        (["check"], "the following arguments are required: --file"),
        (["run", "--epochs", "many"], "argument --epochs: expected a whole number, found 'many'"),
        (["run", "--epochs", "1e3"], "argument --epochs: expected a whole number, found '1e3'"),
        (["run", "--epochs", "9" * 5000], "argument --epochs: expected a whole number, found '999"),
        (["run", "--seed", "9" * 4000], "argument --seed: expected a whole number, found '999"),
        (["run", "--epochs", "1_0"], "argument --epochs: expected a whole number, found '1_0'"),
        (["run", "--dropout", "nan"], "argument --dropout: expected a finite number, found 'nan'"),
        (["run", "--dropout", "1e400"], "argument --dropout: expected a finite number, found '1e400'"),
        (["run", "--budget", "9" * 400 + "h"], "at most 90 days, found '999"),
        (["run", "--budget", "9" * 5000 + "s"], "at most 90 days, found '999"),
        (["run", "--budget", "nan"], "expected a time such as 3m or 1h30m"),
        (["run", "--budget", "1e999h"], "expected a time such as 3m or 1h30m"),
        (["run", "--budget", "91000000s"], "at most 90 days, found '91000000s'"),
        (["tune", "--trials", "0"], "argument --trials: expected a whole number from 1 to 100000, found 0"),
        (["compare", "--seeds", "1" * 30], "argument --seeds: expected a whole number, found '111"),
        (["compare", "--seeds", "1001"], "argument --seeds: expected a whole number from 1 to 1000, found 1001"),
        (["check", "--file", "x.csv", "--rows", "-1"], "argument --rows: expected a whole number from 1"),
        (["submit", "--wait", "nan"], "argument --wait: expected a finite number, found 'nan'"),
        (["submit", "--wait", "inf"], "argument --wait: expected a finite number, found 'inf'"),
        (["submit", "--wait", "-1"], "argument --wait: expected seconds from 0 to 604800, found '-1'"),
        (["submit", "--yes=0"], "argument --yes: ignored explicit argument '0'"),
        (["check", "--file", "~no-such-user/x.csv"], "argument --file: '~no-such-user/x.csv' cannot be used"),
        (["run", "--data", "a" * 5000], "cannot be used: File name too long"),
        # No option is taken by a part of its name, nor by one that another verb has.
        (["run", "--epoch", "5"], "unknown option '--epoch'\nhint: did you mean --epochs?"),
        (["run", "--batch_size=5"], "unknown option '--batch_size'\nhint: did you mean --batch-size?"),
        (["submit", "--y"], "unknown option '--y'"),
        (["submit", "--ye"], "unknown option '--ye'\nhint: did you mean --yes?"),
        (["compare", "--epochs", "1"], "compare: unknown option '--epochs'"),
        (["scores", "--data", "x"], "scores: unknown option '--data'"),
        (["run", "quick"], "run: unknown word 'quick'"),
        (["run", "--recipe", "fast"], "recipe: expected one of quick, standard, best, "),
        (["run", "--epochs", "0"], "recipe, epochs: expected a number from 1 to 10000, found 0"),
    ],
)
def test_wrong_words_are_answered_in_one_line(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert told in one_line(shown.err)
    assert max(map(len, shown.err.splitlines())) < 400
    assert not list(tmp_path.iterdir())


def test_the_exit_status_is_the_process_s(tmp_path: Path) -> None:
    done = kit("run", "--epoch", "5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean --epochs?" in one_line(done.stderr)
    assert not list(tmp_path.iterdir())


def test_a_path_with_nul_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--data", "a\0b"]) == 2
    assert "cannot be used: embedded null byte" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "true"),
    [
        (["push"], "the kernel may have been sent already"),
        (["kernel"], "build/kernel may not be complete"),
        (["output"], "some files may have been fetched"),
        (["data"], "resume the download"),
        (["submit"], "looks at Kaggle's list before it sends again"),
        (["scores"], "Kaggle's answers may be stored"),
        (["bench"], "trained members are kept"),
        (["tune"], "completed trials are kept"),
        (["status"], "nothing was changed"),
        (["check", "--file", "x.csv"], "nothing was changed"),
    ],
)
def test_what_is_said_after_an_interrupt_is_true(
    words: list[str], true: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("_build", "_bench", "_tune", "_check", "_submit", "_status", "connect"):
        monkeypatch.setattr(cli, name, interrupt)
    monkeypatch.setattr(cli.sync, "scores", interrupt)
    assert cli.main(words) == 130
    assert true in one_line(capsys.readouterr().err)


def test_the_kernel_without_its_packages_says_how_to_get_them() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "kernel.py")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "package digit_recognizer is not installed\nhint: run `make setup`" in one_line(done.stderr)


def test_run_downloads_then_starts_kernel_with_same_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.credentials, "find", lambda: True)
    monkeypatch.setattr(cli, "_download", lambda: calls.append("download"))
    monkeypatch.setattr(cli.launch, "run_kernel", lambda words, cwd: calls.append((words, cwd)) or 7)
    assert cli.main(["run", "--budget", "3m", "--recipe", "quick"]) == 7
    assert calls == ["download", (["--budget", "3m", "--recipe", "quick"], tmp_path)]


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
    monkeypatch.setattr(cli, "_check", fail)
    assert cli.main(["check", "--file", "x.csv"]) == 1
    assert one_line(capsys.readouterr().err) == f"{shown}; the details are in runs/error.log"
    assert "Traceback" in (tmp_path / "runs" / "error.log").read_text()


def test_closed_or_narrow_output_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from digit_recognizer import cli; sys.stdout = None; sys.exit(cli.main(['scores']))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    code = "from digit_recognizer import command_line; command_line.make_printing_safe(); print('4 × 5 · –')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("4 ? 5 ? ?\n", "")
