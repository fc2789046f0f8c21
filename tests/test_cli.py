"""The command line: help texts, refused words, messages and exit statuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, kit, one_line
from digit_recognizer import cli, command_line, launch, recipe, run_options
from digit_recognizer.data import dataset
from digit_recognizer.experiments import benchmark
from digit_recognizer.hints import CALLER_VARIABLE
from digit_recognizer.kaggle import client, credentials, kernels, sync

VERBS = [*cli.USER_VERBS, *cli.DEVELOPER_VERBS]


def help_text(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["check", "--help"]])
def test_help_imports_no_heavy_package(words: list[str]) -> None:
    code = f"import sys; from digit_recognizer import cli; cli.main({words!r})"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "usage: digit-recognizer" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "digit_recognizer.cli" in imported
    assert not imported & {"tensorflow", "keras", "pandas", "numpy", "kaggle", "kagglesdk", "requests", "rich"}


def test_scores_and_check_answer_without_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("ImageId,Label\n1,0\n")
    words = [["scores"], ["check", "--file", "x.csv", "--rows", "1"]]
    code = f"import sys; from digit_recognizer.cli import main; print(*map(main, {words}), 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 0 False"


def test_help_lists_verbs_of_users_and_developers_separately(capsys: pytest.CaptureFixture[str]) -> None:
    users, _, developers = help_text(capsys).partition("for developers:")
    for verb, text in cli.USER_VERBS.items():
        assert re.search(f"^ +{verb} +{text}$", users, re.M)
    assert re.search(f"^ +bench +{cli.DEVELOPER_VERBS['bench']}$", developers, re.M)
    assert "exit status: 0 success, 1 failure, 2 bad input, 130 interrupted" in developers


@pytest.mark.parametrize("caller", ["make", ""])
@pytest.mark.parametrize("verb", VERBS)
def test_help_of_verb_fits_80_columns_and_ends_in_example(
    verb: str, caller: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CALLER_VARIABLE, caller)
    monkeypatch.setenv("COLUMNS", "200")
    text = help_text(capsys, verb)
    program = "make" if caller else "digit-recognizer"
    assert text.startswith(f"usage: {program} {verb} [")
    assert f"example: {program} {verb}" in text
    assert "exit status: 0" in text
    assert max(map(len, text.splitlines())) <= 80
    assert ("--" in text.partition("example: ")[0]) == (not caller)


def test_help_shows_value_of_standard_and_range_of_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_text(capsys, "run").split())
    assert re.search(r"--epochs N .*?\(standard: 14; 1 to 10000\)", text)
    assert re.search(r"--learning-rate X .*?\(standard: 0.01; 1e-08 to 10\)", text)
    assert re.search(r"--schedule NAME .*?\(standard: one-cycle\)", text)
    for setting in recipe.recipe_fields():
        assert f"--{setting.name.replace('_', '-')} " in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "digit-recognizer: expected verb\nhint: see `digit-recognizer --help`"),
        (["fly"], "unknown verb 'fly'\nhint: see `digit-recognizer --help`"),
        (["scoers"], "unknown verb 'scoers'\nhint: did you mean scores?"),
        (["check"], "check: expected --file\nhint: see `digit-recognizer check --help`"),
        (["check", "--file"], "--file: expected a value"),
        (["run", "--epochs", "many"], "--epochs: expected a whole number, found 'many'"),
        (["run", "--epochs", "1e3"], "--epochs: expected a whole number, found '1e3'"),
        (["run", "--epochs", "9" * 5000], "--epochs: expected a whole number, found '999"),
        (["run", "--seed", "9" * 4000], "--seed: expected a whole number, found '999"),
        (["run", "--epochs", "1_0"], "--epochs: expected a whole number, found '1_0'"),
        (["run", "--dropout", "nan"], "--dropout: expected a finite number, found 'nan'"),
        (["run", "--dropout", "1e400"], "--dropout: expected a finite number, found '1e400'"),
        (["run", "--budget", "9" * 400 + "h"], "at most 90 days, found '999"),
        (["run", "--budget", "9" * 5000 + "s"], "at most 90 days, found '999"),
        (["run", "--budget", "nan"], "expected a time such as 3m or 1h30m"),
        (["run", "--budget", "1e999h"], "expected a time such as 3m or 1h30m"),
        (["run", "--budget", "91000000s"], "at most 90 days, found '91000000s'"),
        (["tune", "--trials", "0"], "--trials: expected a whole number from 1 to 100000, found 0"),
        (["compare", "--seeds", "1" * 30], "--seeds: expected a whole number, found '111"),
        (["compare", "--seeds", "1001"], "--seeds: expected a whole number from 1 to 1000, found 1001"),
        (["check", "--file", "x.csv", "--rows", "-1"], "--rows: expected a whole number from 1"),
        (["submit", "--wait", "nan"], "--wait: expected a finite number, found 'nan'"),
        (["submit", "--wait", "inf"], "--wait: expected a finite number, found 'inf'"),
        (["submit", "--wait", "-1"], "--wait: expected seconds from 0 to 604800, found '-1'"),
        (["submit", "--yes=0"], "--yes: expected no value, found '0'"),
        (["check", "--file", "~no-such-user/x.csv"], "--file: '~no-such-user/x.csv' cannot be used"),
        (["run", "--data", "a" * 5000], "cannot be used: File name too long"),
        (["run", "--data", "a\0b"], "embedded null"),
        # Abbreviated options and options of other verbs are refused.
        (["run", "--epoch", "5"], "run: unknown option '--epoch'\nhint: did you mean --epochs?"),
        (["run", "--batch_size=5"], "run: unknown option '--batch_size'\nhint: did you mean --batch-size?"),
        (["submit", "--y"], "submit: unknown option '--y'"),
        (["submit", "--ye"], "submit: unknown option '--ye'\nhint: did you mean --yes?"),
        (["compare", "--epochs", "1"], "compare: unknown option '--epochs'"),
        (["scores", "--data", "x"], "scores: unknown option '--data'"),
        (["run", "quick"], "run: unknown word 'quick'"),
        (["run", "--recipe", "fast"], "recipe: expected one of quick, standard, wide, "),
        (["run", "--epochs", "0"], "recipe, epochs: expected a number from 1 to 10000, found 0"),
        # Renamed options.
        (["run", "--view", "none"], "unknown option '--view'\nhint: --view was renamed: use --preprocessing"),
        (["push", "--neighbours=5"], "unknown option '--neighbours'\nhint: --neighbours was renamed: use --knn-weight"),
    ],
)
def test_wrong_words_are_refused_with_error_and_hint(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in one_line(printed.err)
    assert max(map(len, printed.err.splitlines())) < 400
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--batch-size", "x"], "error: BATCH_SIZE: expected a whole number, found 'x'"),
        (["run", "--batch-size", "x"], "hint: see `make run HELP=1`"),
        (["check"], "error: check: expected FILE="),
        (["compare", "--recipes", ","], "hint: RECIPES=dense,conv-pool"),
    ],
)
def test_messages_name_make_variables_under_make(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CALLER_VARIABLE, "make")
    assert cli.main(words) == 2
    assert message in one_line(capsys.readouterr().err).splitlines()


def test_process_returns_exit_status(tmp_path: Path) -> None:
    done = kit("run", "--epoch", "5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean --epochs?" in one_line(done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["push"], "the kernel may have been sent already"),
        (["kernel"], "build/kernel may not be complete"),
        (["output"], "some files may have been fetched"),
        (["data"], "rerun the command to resume the download"),
        (["submit"], "rerun the command: it looks at Kaggle's list before it sends again"),
        (["scores"], "the ledger may hold new answers from Kaggle"),
        (["bench"], "trained members and finished epochs are kept"),
        (["tune"], "completed trials are kept"),
        (["status"], "nothing was changed"),
        (["logs"], "the kernel continues on Kaggle"),
        (["check", "--file", "x.csv"], "nothing was changed"),
    ],
)
def test_interrupted_verb_reports_what_was_changed(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    for name in ("_kernel", "_tune", "_check", "_submit"):
        monkeypatch.setattr(cli, name, interrupt)
    monkeypatch.setattr(benchmark, "run_benchmark", interrupt)
    monkeypatch.setattr(client, "connect", interrupt)
    monkeypatch.setattr(kernels, "connect", interrupt)
    monkeypatch.setattr(sync, "scores", interrupt)
    assert cli.main(words) == 130
    error = one_line(capsys.readouterr().err)
    assert error.startswith("interrupted; ")
    assert message in error


def test_data_verb_keeps_existing_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    downloads: list[int] = []
    monkeypatch.chdir(tmp_path)
    folder.rename("data")
    monkeypatch.setattr(cli, "_download", lambda: downloads.append(1))
    assert cli.main(["data"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "data/: train.csv and test.csv are already there",
        "hint: `digit-recognizer data --force` downloads them again",
    ]
    assert not downloads
    assert cli.main(["data", "--force"]) == 0
    Path("data/test.csv").unlink()
    assert cli.main(["data"]) == 0
    assert len(downloads) == 2


def test_kernel_without_its_packages_names_set_up() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "kernel.py")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert re.match("error: package .* is not installed\nhint: .*make setup", one_line(done.stderr))


@pytest.mark.parametrize("case", ["no data", "no credentials", "data in data/", "--data"])
def test_run_downloads_missing_data_then_starts_kernel(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(credentials, "find", lambda: case != "no credentials")
    monkeypatch.setattr(dataset, "exists", lambda place: case == "data in data/" and place == tmp_path / "data")
    monkeypatch.setattr(cli, "_download", lambda: calls.append("download"))
    monkeypatch.setattr(launch, "become_kernel", lambda words: calls.append(words) or 7)
    words = ["--budget", "3m", *(["--data", str(folder)] if case == "--data" else [])]
    assert cli.main(["run", *words]) == 7
    assert calls == [*(["download"] if case == "no data" else []), words]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "runs/x"), "error: [Errno 28] No space left on device: 'runs/x'"),
        (ValueError("two\nlines \x1b[2J"), "error: internal error: ValueError: two lines \N{REPLACEMENT CHARACTER}[2J"),
    ],
)
def test_unexpected_error_is_one_line_and_its_traceback_is_kept(
    error: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    assert run_options.run_script(fail, []) == 1
    assert one_line(capsys.readouterr().err) == f"{message} (details: runs/error.log)"
    assert "Traceback" in (tmp_path / "runs" / "error.log").read_text()


def test_closed_output_and_narrow_encoding_are_no_errors(tmp_path: Path) -> None:
    code = "import sys; from digit_recognizer import cli; sys.stdout = None; sys.exit(cli.main(['scores']))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    code = "from digit_recognizer import command_line; command_line.make_printing_safe(); print('4 × 5 · –')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("4 ? 5 ? ?\n", "")


def test_recipe_options_select_the_recipe_that_they_were_written_from() -> None:
    changed = recipe.RECIPES["quick"].changed(epochs=3, learning_rate=0.5, network="dense")
    words = run_options.recipe_options(changed, "quick")
    assert words == ["--recipe", "quick", "--network", "dense", "--epochs", "3", "--learning-rate", "0.5"]
    parser = command_line.Parser()
    run_options.add_run_options(parser)
    assert run_options.recipe_from(parser.parse_args(words)) == changed
