"""Real runs of ``kernel.py`` on the bundled sample, in processes of their own."""

import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, kit, one_line
from digit_recognizer import ledger, recipe
from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble import knn
from digit_recognizer.ensemble.blend import count_errors
from digit_recognizer.training import trainer
from digit_recognizer.training.backend import keras
from kernel_processes import only_run, submission_of, wait_for, workers_in

pytestmark = pytest.mark.slow

SHORT = ("--recipe", "quick", "--epochs", "1", "--folds", "2", "--members", "2", "--knn-weight", "0")
FAST = ("--recipe", "dense", "--epochs", "1")
GOOD = (
    *("--recipe", "quick", "--epochs", "6", "--folds", "4", "--members", "3", "--full-members", "1"),
    *("--batch-size", "16"),
)


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "digit_recognizer", "run", *words]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run that reaches a good accuracy."""
    home = tmp_path_factory.mktemp("trained")
    command = [sys.executable, str(ROOT / "kernel.py"), *GOOD]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no start-up messages of TensorFlow, no warnings"
    return home, done.stdout


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    home = tmp_path_factory.mktemp("short")
    # As under `!make run` in a notebook: an unknown plot backend, and an encoding with few characters.
    environment = os.environ | {"MPLBACKEND": "module://nothing.there", "PYTHONIOENCODING": "ascii"}
    done = kit("run", *SHORT, cwd=home, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(only_run(home).glob("*.png"))) == 4
    return home


def test_tensorboard_logs_do_not_change_the_result(short: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = kit("run", *SHORT, "--tensorboard", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert submission_of(only_run(tmp_path)) == submission_of(only_run(short))
    logs = only_run(tmp_path) / "tensorboard"
    assert f"logs: tensorboard --logdir runs/{logs.parent.name}/tensorboard\n" in done.stdout
    assert sorted(path.name for path in logs.iterdir()) == ["00", "01"]
    events = EventAccumulator(str(logs / "00" / "validation"))
    events.Reload()
    assert "epoch_loss" in events.Tags()["tensors"]


def test_members_reach_95_percent_on_the_sample(trained: tuple[Path, str]) -> None:
    home, _ = trained
    scores = json.loads((only_run(home) / "scores.json").read_text())
    assert scores["oof_last_epoch"]["accuracy"] > 0.95
    assert scores["holdout"]["accuracy"] > 0.95
    assert scores["sample"]


def test_scores_match_the_stored_probabilities(trained: tuple[Path, str]) -> None:
    home, _ = trained
    run = only_run(home)
    scores, about = (json.loads((run / name).read_text()) for name in ("scores.json", "run.json"))
    digits = dataset.load(None, default=home / "data", cache=home / "runs" / "cache")
    used = recipe.Recipe(**about["identity"]["recipe"])
    split = splits.split(digits.labels, folds=used.folds, members=2, holdout=used.holdout, seed=used.seed)
    oof, holdout = np.load(run / "oof.npy"), np.load(run / "holdout.npy")
    validation_rows = np.concatenate([fold.validation for fold in split.folds])
    assert oof.dtype == np.float32
    assert sorted(np.flatnonzero(~np.isnan(oof[:, 0]))) == sorted(validation_rows), "NaN for rows in no fold"
    assert scores["oof"]["errors"] == count_errors(digits.labels[validation_rows], oof[validation_rows])
    assert scores["oof"]["rows"] == len(validation_rows)
    assert scores["holdout"]["errors"] == count_errors(digits.labels[split.holdout], holdout)
    assert np.sum(scores["confusion"]) == len(split.holdout)
    assert about["identity"]["data"] == digits.fingerprint
    assert set(about["identity"]["versions"]) >= {"python", "tensorflow", "keras", "numpy"}


def test_plots_are_drawn(trained: tuple[Path, str]) -> None:
    home, shown = trained
    run = only_run(home)
    assert f"plots: runs/{run.name}/\n  history.png, confusion.png, errors.png, predictions.png\n" in shown
    names = {path.name for path in run.glob("*.png")}
    assert names == {"confusion.png", "errors.png", "history.png", "predictions.png"}


def test_ledger_has_a_row_of_the_run(trained: tuple[Path, str]) -> None:
    home, _ = trained
    run = only_run(home)
    scores = json.loads((run / "scores.json").read_text())
    (row,) = ledger.read(home / "submissions")
    assert row.run == run.name
    assert row.sample
    assert (row.holdout_errors, row.holdout_rows) == (scores["holdout"]["errors"], scores["holdout"]["rows"])
    assert row.oof_accuracy == f"{scores['oof']['accuracy']:.5f}"
    assert row.file_sha256 == ledger.digest(home / "submissions" / f"{run.name}.csv")
    assert (row.reference, row.status) == ("", "")


def test_checkpoint_has_the_lowest_validation_loss_and_the_stored_probabilities(
    trained: tuple[Path, str],
) -> None:
    home, _ = trained
    folder = only_run(home) / "members" / "01"
    history, record = (json.loads((folder / name).read_text()) for name in ("history.json", "member.json"))
    first = record["epochs"] * 3 // 4
    assert record["best_epoch"] == 1 + first + int(np.argmin(history["val_loss"][first:]))
    network = keras.models.load_model(folder / "network.keras")
    digits = dataset.load(None, default=home / "data", cache=home / "runs" / "cache")
    found, kept = trainer.predict(network, digits.test_images), np.load(folder / "test.npy")
    # Not exactly: TensorFlow may sum in another order for another sequence of batch sizes.
    np.testing.assert_allclose(found, kept, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), kept.argmax(axis=1))


def test_member_trained_on_all_rows_is_in_the_submission_and_in_no_score(trained: tuple[Path, str]) -> None:
    home, output = trained
    run = only_run(home)
    folders = [run / "members" / f"{i:02}" for i in range(3)]
    record = json.loads((folders[2] / "member.json").read_text())
    assert (record["train_rows"], record["fold_rows"], record["best_epoch"]) == (1438, 0, 6)
    assert set(json.loads((folders[2] / "history.json").read_text())) == {"loss", "accuracy", "learning_rate"}
    holdouts = [np.load(folder / "holdout.npy") for folder in folders]
    assert holdouts[2].shape == (0, 10)
    unambiguous = (np.mean(holdouts[:2], axis=0) >= knn.MIN_PROBABILITY).sum(axis=1) == 1
    blended = np.mean(holdouts[:2], axis=0)[unambiguous]
    np.testing.assert_allclose(np.load(run / "holdout.npy")[unambiguous], blended, rtol=1e-5)
    assert "holdout, blend of 2: " in output
    assert "the submission also has 1 member trained on all rows\n" in output
    assert json.loads((run / "scores.json").read_text())["full_members"] == 1


def test_wide_recipe_runs_on_small_data(tmp_path: Path) -> None:
    done = kit("run", "--recipe", "wide", "--members", "2", "--full-members", "1", "--epochs", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(submission_of(only_run(tmp_path)).splitlines()) == 360
    records = [json.loads(path.read_text()) for path in sorted(only_run(tmp_path).glob("members/*/member.json"))]
    assert [record["network"] for record in records] == ["residual-256"] * 2
    assert [record["preprocessing"] for record in records] == ["enlarge", "deskew-enlarge"]


def test_submission_is_the_blend_and_marked_as_sample(trained: tuple[Path, str]) -> None:
    home, output = trained
    run = only_run(home)
    assert run.name.startswith("sample-quick-")
    file = home / "submissions" / f"{run.name}.csv"
    labels = np.loadtxt(file, delimiter=",", skiprows=1, dtype=int)[:, 1]
    members = [np.load(run / "members" / f"{i:02}" / "test.npy") for i in range(3)]
    blend = np.mean(members, axis=0, dtype=np.float64)
    unambiguous = (blend >= knn.MIN_PROBABILITY).sum(axis=1) == 1
    assert unambiguous.sum() > 250
    np.testing.assert_array_equal(labels[unambiguous], blend.argmax(axis=1)[unambiguous])
    np.testing.assert_array_equal(labels, np.load(run / "test.npy").argmax(axis=1))
    checked = kit("check", "--file", file, cwd=home)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "valid, 359 rows of ImageId,Label; cannot be submitted: sample run" in checked.stdout
    assert "cannot be submitted" in output
    assert "NOT the competition's files" in output


def test_piped_output_is_plain_lines(trained: tuple[Path, str]) -> None:
    _, output = trained
    assert "\r" not in output
    assert "\x1b" not in output
    assert "starting 2 workers (" in output
    assert (
        "* a member's lowest validation loss so far\nmember  epoch    loss  val loss   val acc  time left\n" in output
    )
    epochs = re.findall(
        r"^   (\d)/3    (\d)/6  \d\.\d{4}  (?:  \d\.\d{4}[* ]   [01]\.\d{4}|       –         –)(  \d+ s)?$",
        output,
        re.MULTILINE,
    )
    assert sorted((m, e) for m, e, _ in epochs) == [(str(m), str(e)) for m in (1, 2, 3) for e in range(1, 7)]
    assert all(left for _, _, left in epochs[:-1])
    assert len(re.findall(r"^member \d/3 trained in \d+ s", output, re.MULTILINE)) == 3
    assert re.search(r"^holdout, blend of 2: \d+ of 144 rows wrong\n  accuracy 0\.\d{5} \(95 %: ", output, re.MULTILINE)
    assert max(map(len, output[output.index("starting") :].splitlines())) <= 60


def test_terminal_shows_bars_and_ctrl_c_ends_with_one_line(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ["COLUMNS"] = "40"
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in tests
        os.execv(sys.executable, [sys.executable, "-m", "digit_recognizer", "run", *FAST, "--epochs", "90"])
    seen = b""
    deadline = time.monotonic() + 120
    interrupted = False
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                chunk = os.read(terminal, 4096)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
        if not interrupted and seen.count(b"/90") > 3:
            os.write(terminal, b"\x03")
            interrupted = True
    _, status = os.waitpid(child, 0)
    text = seen.decode()
    assert os.waitstatus_to_exitcode(status) == 130, text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "the cursor is shown again"
    assert "interrupted; trained members and finished epochs are kept" in text.splitlines()[-1]
    assert "Traceback" not in text
    assert not workers_in(tmp_path)


def test_full_disk_is_one_error(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk; the checkpoint exceeds it."""
    dataset.load(None, default=tmp_path / "data", cache=tmp_path / "runs" / "cache")
    limit = 300_000
    done = kit("run", *FAST, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 2, done.stderr
    assert "File too large" in one_line(done.stderr)
    assert not (tmp_path / "submissions").exists()


def test_closed_output_pipe_ends_the_run_silently(tmp_path: Path) -> None:
    process = start(*FAST, cwd=tmp_path)
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=200) == 141


def test_termination_leaves_no_partial_files(tmp_path: Path) -> None:
    process = start(*FAST, "--epochs", "90", cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("runs/*/members/00/state.npz")), lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert not (tmp_path / "submissions").exists()
    for path in tmp_path.glob("runs/*/*.json"):
        json.loads(path.read_text())
