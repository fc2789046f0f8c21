"""The whole way through, in processes of their own, on the bundled sample: what a user gets, keeps and is told."""

import json
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, kit, one_line
from digit_recognizer import ledger, provenance, recipe
from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble import members, train
from digit_recognizer.evaluation import metrics
from digit_recognizer.training import trainer
from digit_recognizer.training.backend import keras

pytestmark = pytest.mark.slow

SHORT = ("--recipe", "quick", "--epochs", "1", "--folds", "2", "--members", "2")
PLAIN = ("--recipe", "dense", "--epochs", "1")  # where it does not matter what is trained
GOOD = ("--recipe", "quick", "--epochs", "8", "--folds", "4", "--members", "2", "--batch-size", "16")


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "digit_recognizer", "run", *words]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def workers_in(home: Path) -> list[int]:
    """The worker processes that run in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == home and b"spawn_main" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


def wait_for(what: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 200
    while not what():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def only_run(home: Path) -> Path:
    (run,) = home.glob("runs/*/run.json")
    return run.parent


def submission_of(home: Path) -> bytes:
    return (home / "submissions" / f"{only_run(home).name}.csv").read_bytes()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run of ``kernel.py`` that learns well."""
    home = tmp_path_factory.mktemp("trained")
    command = [sys.executable, str(ROOT / "kernel.py"), *GOOD]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "start-up talk is held back, and there is nothing to warn of"
    return home, done.stdout


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    home = tmp_path_factory.mktemp("short")
    # As a notebook's `!make run` gives them: a plot backend that is not there, and an encoding without most characters.
    environment = os.environ | {"MPLBACKEND": "module://nothing.there", "PYTHONIOENCODING": "ascii"}
    done = kit("run", *SHORT, cwd=home, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(only_run(home).glob("*.png"))) == 3
    return home


@pytest.fixture
def incomplete(short: Path, tmp_path: Path) -> Path:
    """A copy of the short run's folder, as if its process had been killed after the last member."""
    home = tmp_path / "home"
    shutil.copytree(short, home)
    (only_run(home) / "scores.json").unlink()
    return home


def test_a_network_of_the_sample_beats_95_percent(trained: tuple[Path, str]) -> None:
    home, _ = trained
    scores = json.loads((only_run(home) / "scores.json").read_text())
    assert scores["oof_last_epoch"]["accuracy"] > 0.95
    assert scores["holdout"]["accuracy"] > 0.95
    assert scores["sample"]


def test_the_scores_are_those_of_the_probabilities_kept(trained: tuple[Path, str]) -> None:
    home, _ = trained
    run = only_run(home)
    scores, about = (json.loads((run / name).read_text()) for name in ("scores.json", "run.json"))
    digits = dataset.load(None, default=home / "data", cache=home / "runs" / "cache")
    used = recipe.Recipe(**about["identity"]["recipe"])
    split = splits.split(digits.labels, folds=used.folds, members=used.members, holdout=used.holdout, seed=used.seed)
    oof, holdout = np.load(run / "oof.npy"), np.load(run / "holdout.npy")
    left_out = np.concatenate([fold.validation for fold in split.folds])
    assert oof.dtype == np.float32
    assert sorted(np.flatnonzero(~np.isnan(oof[:, 0]))) == sorted(left_out), "NaN where no member left the row out"
    assert scores["oof"]["errors"] == metrics.count_errors(digits.labels[left_out], oof[left_out])
    assert scores["oof"]["rows"] == len(left_out)
    assert scores["holdout"]["errors"] == metrics.count_errors(digits.labels[split.holdout], holdout)
    assert np.sum(scores["confusion"]) == len(split.holdout)
    assert about["identity"]["data"] == digits.fingerprint
    assert set(about["identity"]["versions"]) >= {"python", "tensorflow", "keras", "numpy"}


def test_the_pictures_are_there(trained: tuple[Path, str]) -> None:
    home, shown = trained
    run = only_run(home)
    assert f"pictures: runs/{run.name}/history.png, confusion.png, predictions.png\n" in shown
    assert sorted(path.name for path in run.glob("*.png")) == ["confusion.png", "history.png", "predictions.png"]


def test_the_ledger_has_a_row_of_the_run(trained: tuple[Path, str]) -> None:
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


def test_the_checkpoint_is_of_the_epoch_with_least_loss_and_gives_the_same_probabilities(
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
    # To the last digit but one: TensorFlow adds up in another order where it has met batches of one size alone.
    np.testing.assert_allclose(found, kept, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), kept.argmax(axis=1))


def test_the_submission_is_the_blend_and_is_marked_as_a_sample(trained: tuple[Path, str]) -> None:
    home, output = trained
    run = only_run(home)
    assert run.name.startswith("sample-quick-")
    file = home / "submissions" / f"{run.name}.csv"
    labels = np.loadtxt(file, delimiter=",", skiprows=1, dtype=int)[:, 1]
    members = [np.load(run / "members" / f"{i:02}" / "test.npy") for i in range(2)]
    np.testing.assert_array_equal(labels, np.mean(members, axis=0, dtype=np.float64).argmax(axis=1))
    checked = kit("check", "--file", file, cwd=home)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "good, 359 rows of ImageId,Label; cannot be submitted: sample run" in checked.stdout
    assert "cannot be submitted" in output
    assert "NOT the competition's files" in output


def test_the_output_is_plain_lines_that_say_how_far_it_is(trained: tuple[Path, str]) -> None:
    _, output = trained
    assert "\r" not in output
    assert "\x1b" not in output
    assert "starting 2 workers, " in output
    assert (
        "* a member's lowest validation loss so far\nmember  epoch    loss  val loss   val acc  time left\n" in output
    )
    epochs = re.findall(
        r"^   (\d)/2    (\d)/8  \d\.\d{4}    \d\.\d{4}[* ]   [01]\.\d{4}(  \d+ s)?$", output, re.MULTILINE
    )
    assert sorted((m, e) for m, e, _ in epochs) == [(str(m), str(e)) for m in (1, 2) for e in range(1, 9)]
    assert all(left for _, _, left in epochs[:-1])
    assert len(re.findall(r"^member \d/2 trained in \d+ s", output, re.MULTILINE)) == 2
    assert re.search(r"^holdout, blend of 2: \d+ of 144 rows wrong, accuracy 0\.\d{5} \(95 %: ", output, re.MULTILINE)


def test_the_same_seed_gives_the_same_bytes(short: Path, tmp_path: Path) -> None:
    assert kit("run", *SHORT, cwd=tmp_path).returncode == 0
    assert submission_of(tmp_path) == submission_of(short)
    for name in ("oof.npy", "holdout.npy", "test.npy"):
        assert (only_run(tmp_path) / name).read_bytes() == (only_run(short) / name).read_bytes()
    first, second = [np.load(only_run(short) / "members" / index / "test.npy") for index in ("00", "01")]
    assert (first != second).any()


def test_no_two_members_have_the_same_seed_whatever_the_recipe_s() -> None:
    seeds = {train.member_seed(seed, index) for seed in range(30) for index in range(30)}
    assert len(seeds) == 900


@pytest.fixture
def one_core() -> Iterator[None]:
    """One core, so one worker: members are trained one after the other."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_cores)})
    yield
    os.sched_setaffinity(0, all_cores)


@pytest.mark.usefixtures("one_core")
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(short: Path, tmp_path: Path) -> None:
    process = start(*SHORT, cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("runs/*/members/00/member.json")), process)
    time.sleep(random.uniform(0, 3))
    process.kill()
    process.wait()
    wait_for(lambda: not workers_in(tmp_path))
    again = kit("run", *SHORT, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert ", resumed" in again.stdout
    assert "member 1/2  kept from before" in again.stdout
    assert submission_of(tmp_path) == submission_of(short)
    assert not list(tmp_path.rglob("*.part"))


def test_what_was_damaged_or_truncated_since_is_named_and_trained_again(incomplete: Path, short: Path) -> None:
    first, second = (only_run(incomplete) / "members" / name for name in ("00", "01"))
    identity = json.loads((only_run(incomplete) / "run.json").read_text())["identity"]
    owner = provenance.member_owner(identity, 0)
    kept = members.read_member(first, owner)
    # As a budget leaves it: the same networks would have been trained for longer.
    record = kept.record | {"epochs": 1, "stopped": True}
    members.write_member(first, owner, record, kept.history, (first / members.SUMMARY).read_text(), kept.probabilities)
    content = (second / "test.npy").read_bytes()
    (second / "test.npy").write_bytes(content[:-4000] + bytes(4000))
    again = kit("run", *SHORT, cwd=incomplete)
    assert (again.returncode, again.stderr) == (0, "")
    assert f"member 1/2 is trained again: {first}: truncated by a budget" in again.stdout
    assert f"member 2/2 is trained again: {second}/test.npy: damaged, it is not what training wrote" in again.stdout
    assert submission_of(incomplete) == submission_of(short)


def test_a_member_that_vanishes_during_a_run_ends_it_in_one_line(tmp_path: Path) -> None:
    process = start(*PLAIN, "--members", "3", cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("runs/*/members/*/member.json")), process)
    (record, *_) = tmp_path.glob("runs/*/members/*/member.json")
    (record.parent / "fold.npy").unlink()
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 1, output
    error, hint = output.splitlines()[-2:]
    assert f"members/{record.parent.name}/fold.npy: No such file or directory" in error
    assert hint == "hint: run the same command again"


def test_a_picture_that_cannot_be_drawn_ends_no_run(incomplete: Path, short: Path) -> None:
    (only_run(incomplete) / "history.png").unlink()
    (only_run(incomplete) / "history.png").mkdir()
    again = kit("run", *SHORT, cwd=incomplete)
    assert (again.returncode, again.stderr) == (0, "")
    assert "pictures: not drawn, BadInput: " in again.stdout
    assert submission_of(incomplete) == submission_of(short)
    assert (only_run(incomplete) / "scores.json").exists()


@pytest.mark.parametrize("name", ["submissions/ledger.csv", "submissions"])
def test_what_would_stop_the_end_is_refused_before_training(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xff")
    done = kit("run", *PLAIN, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert name in one_line(done.stderr)


def test_a_worker_that_is_killed_ends_the_run_in_one_line(tmp_path: Path) -> None:
    process = start(*PLAIN, cwd=tmp_path)
    wait_for(lambda: workers_in(tmp_path), process)
    os.kill(workers_in(tmp_path)[0], signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "error: worker killed (exit code -9), possibly out of memory" in output.splitlines()[-2]
    assert output.splitlines()[-1].startswith("hint: ")
    assert "Traceback" not in output
    assert not workers_in(tmp_path)


def test_two_processes_at_once_make_two_runs(tmp_path: Path) -> None:
    processes = [start(*PLAIN, cwd=tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert (
        len(list(tmp_path.glob("runs/*/scores.json")))
        == len(list(tmp_path.glob("submissions/sample-dense-*.csv")))
        == 2
    )


def test_on_a_terminal_a_line_moves_and_ctrl_c_ends_in_one_line(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ["COLUMNS"] = "40"
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it, and so would this
        os.execv(sys.executable, [sys.executable, "-m", "digit_recognizer", "run", *PLAIN, "--epochs", "90"])
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
        if not interrupted and seen.count(b" step ") > 3:
            os.write(terminal, b"\x03")
            interrupted = True
    _, status = os.waitpid(child, 0)
    text = seen.decode()
    assert os.waitstatus_to_exitcode(status) == 130, text
    moving = re.findall(r"\r\x1b\[K( *\d+%  [^\r\n^]*)", text)
    assert moving
    assert max(map(len, moving)) < 40, "no wider than the terminal"
    assert "interrupted; trained members are kept" in text.splitlines()[-1]
    assert "Traceback" not in text
    assert not workers_in(tmp_path)


def test_a_full_disk_ends_in_one_line(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk: it strikes where the checkpoint is written."""
    dataset.load(None, default=tmp_path / "data", cache=tmp_path / "runs" / "cache")
    limit = 300_000
    done = kit(
        "run", *PLAIN, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert done.returncode == 2, done.stderr
    assert "File too large" in one_line(done.stderr)
    assert not (tmp_path / "submissions").exists()


def test_a_folder_that_cannot_be_written_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    done = kit("run", *PLAIN, cwd=tmp_path)
    assert done.returncode == 2
    assert "runs" in one_line(done.stderr)


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    process = start(*PLAIN, cwd=tmp_path)
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=200) == 141


def test_ended_by_the_system_it_leaves_nothing_half_written(tmp_path: Path) -> None:
    process = start(*PLAIN, "--epochs", "90", cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("runs/*/members/00/network.keras")), process)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert not (tmp_path / "submissions").exists()
    for path in tmp_path.glob("runs/*/*.json"):
        json.loads(path.read_text())
