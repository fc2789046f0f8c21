"""The door to Kaggle: the download."""

import time
from pathlib import Path

import pytest

from conftest import csv_text, keep, kit, one_line
from digit_recognizer import cli, data
from kaggle_server import KEY, USER, Server

real_sleep = time.sleep


@pytest.fixture
def place(tmp_path: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and at Kaggle the competition's files, small ones; time passes fast."""
    kaggle.pack(train_csv=csv_text("train"), test_csv=csv_text("test"), sample__submission_csv=b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 50))
    return tmp_path


def whole(place: Path) -> bool:
    folder = place / "data"
    return sorted(path.name for path in folder.iterdir()) == ["test.csv", "train.csv"] and all(
        (folder / f"{table}.csv").read_bytes() == csv_text(table) for table in data.COLUMNS
    )


def test_the_files_are_downloaded_and_unpacked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data"]) == 0
    assert whole(place)
    shown = capsys.readouterr()
    assert shown.out == "data/: train.csv and test.csv of the competition\n"
    assert shown.err == "", "quiet where nobody watches"


def test_user_name_and_key_open_the_door_too(place: Path, monkeypatch: pytest.MonkeyPatch, nobody: Path) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    keep(nobody / ".kaggle" / "kaggle.json", {"username": USER, "key": KEY})
    assert cli.main(["data"]) == 0
    assert whole(place)


def test_a_broken_download_goes_on_where_it_broke(place: Path, kaggle: Server) -> None:
    kaggle.cut, kaggle.cuts = 20_000, 2
    assert cli.main(["data"]) == 0
    assert whole(place)
    assert kaggle.ranges[-1] == "bytes=16384-"


def test_a_later_call_goes_on_too_unless_the_file_is_another(
    place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.cut, kaggle.cuts = 40_000, 99
    assert cli.main(["data"]) == 1
    assert "Kaggle cannot be reached (no connection, or it was cut)" in one_line(capsys.readouterr().err)
    assert not list((place / "data").glob("*.csv"))
    kaggle.cuts = 0
    assert cli.main(["data"]) == 0
    assert whole(place)
    assert int(kaggle.ranges[-1].removeprefix("bytes=").rstrip("-")) >= 32_768
    # Another file of Kaggle's: nothing of the first is used.
    kaggle.cuts = 99
    assert cli.main(["data"]) == 1
    kaggle.cuts = 0
    kaggle.pack(train_csv=csv_text("train", seed=1), test_csv=csv_text("test", seed=1))
    assert cli.main(["data"]) == 0
    assert (place / "data" / "train.csv").read_bytes() == csv_text("train", seed=1)


@pytest.mark.parametrize("damage", [lambda zip_: zip_[:3000] + bytes(99) + zip_[3099:], lambda zip_: zip_[:-500]])
def test_a_damaged_download_is_removed(
    damage: object, place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    good = kaggle.archive
    kaggle.archive = damage(good)  # type: ignore[operator]
    assert cli.main(["data"]) == 1
    assert "damaged and was removed; run it again" in one_line(capsys.readouterr().err)
    assert not list((place / "data").iterdir())
    kaggle.archive = good
    assert cli.main(["data"]) == 0
    assert whole(place)


def test_a_zip_that_points_outside_is_refused(place: Path, kaggle: Server) -> None:
    kaggle.pack(**{"../train_csv": csv_text("train"), "test_csv": csv_text("test")})
    kaggle.archive = kaggle.archive.replace(b"...train", b"../train")
    assert cli.main(["data"]) == 1
    assert not list(place.rglob("*.csv"))


def test_without_credentials_it_says_how_to_get_them(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kaggle: Server
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert cli.main(["data"]) == 2
    assert "no Kaggle credentials; make a token at https://www.kaggle.com/settings" in capsys.readouterr().err
    assert not kaggle.calls


@pytest.mark.slow
def test_a_run_fetches_its_data_where_there_are_credentials(place: Path, kaggle: Server) -> None:
    kaggle.pack(train_csv=csv_text("train", 60), test_csv=csv_text("test"))
    words = ("--recipe", "dense", "--folds", 2, "--epochs", 1, "--holdout", 0)
    done = kit("run", *words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "data/: train.csv and test.csv of the competition\ndata: " in done.stdout
    assert "60 training and 30 test rows" in done.stdout
    assert "sample" not in done.stdout
    # Data at hand is not fetched again.
    calls = len(kaggle.calls)
    refused = kit("run", "--folds", 90, cwd=place)
    assert "too few" in refused.stderr or "at least 90 rows" in refused.stderr
    assert len(kaggle.calls) == calls
