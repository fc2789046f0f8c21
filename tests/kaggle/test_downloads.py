"""Downloads of the competition's zip and of a kernel's output files."""

import functools
import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import csv_text, keep, one_line
from digit_recognizer import cli, files
from digit_recognizer.data import csv_reader, dataset
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.kaggle import downloads
from digit_recognizer.kaggle.client import connect
from kaggle_server import KERNEL, KEY, LOGIN, USER, Fault, Server

real_sleep = time.sleep
table_text = functools.cache(csv_text)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, offer small tables as the competition's, shorten pauses; return the data folder."""
    kaggle.pack(train_csv=table_text("train"), test_csv=table_text("test"), sample__submission_csv=b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 1000))
    return tmp_path / "data"


def download() -> None:
    with connect() as client:
        client.download_data(Path("data"))


def is_complete(data: Path) -> bool:
    """Return whether the folder holds both tables and nothing else."""
    return sorted(path.name for path in data.iterdir()) == ["test.csv", "train.csv"] and all(
        (data / f"{table}.csv").read_bytes() == table_text(table) for table in csv_reader.COLUMNS
    )


def interrupt_download(data: Path, kaggle: Server) -> Path:
    """Download a part of the zip, and return its path."""
    kaggle.cut, kaggle.cuts = 40_000, 99
    with pytest.raises(KitError, match=r"Kaggle cannot be reached \(connection failed or interrupted\)"):
        download()
    kaggle.cuts = 0
    (part,) = data.glob(".*.zip")
    return part


def test_data_verb_downloads_both_tables_without_progress_outside_a_terminal(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data"]) == 0
    assert is_complete(data)
    assert capsys.readouterr() == ("data/: train.csv and test.csv of the competition\n", "")


def test_data_verb_without_credentials_says_how_to_create_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kaggle: Server
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert cli.main(["data"]) == 2
    error = one_line(capsys.readouterr().err)
    assert "no Kaggle credentials\nhint: create a token at https://www.kaggle.com/settings" in error
    assert not kaggle.calls


def test_user_name_and_key_are_accepted(data: Path, monkeypatch: pytest.MonkeyPatch, nobody: Path) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    keep(nobody / ".kaggle" / "kaggle.json", {"username": USER, "key": KEY})
    download()
    assert is_complete(data)


def test_kaggle_json_in_current_folder_is_used_unless_others_can_read_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = keep(Path("kaggle.json"), {"username": USER, "key": KEY}, mode=0o644)
    with pytest.raises(BadInput) as refused:
        download()
    assert "chmod 600 kaggle.json" in refused.value.hint
    path.chmod(0o600)
    download()
    assert is_complete(data)


def test_sdk_reads_no_credentials_itself(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", f'{{"username": "{USER}", "key": "{KEY}"}}')
    token_file = keep(nobody / ".kaggle" / "access_token", "")
    token_file.write_bytes(b"\xff\xfe\xff")
    download()
    monkeypatch.setenv("KAGGLE_API_TOKEN", "   ")
    token_file.write_bytes("\ufeff\n".encode())
    keep(nobody / ".kaggle" / "credentials.json", {"refresh_token": LOGIN, "username": USER})
    download()


def test_interrupted_download_is_resumed_by_a_retry(data: Path, kaggle: Server) -> None:
    kaggle.cut, kaggle.cuts = 20_000, 2
    download()
    assert is_complete(data)
    assert kaggle.ranges[-1] == "bytes=16384-"


def test_interrupted_download_is_resumed_by_the_next_command(data: Path, kaggle: Server) -> None:
    interrupt_download(data, kaggle)
    assert not list(data.glob("*.csv"))
    download()
    assert is_complete(data)
    assert int(kaggle.ranges[-1].removeprefix("bytes=").rstrip("-")) >= 32_768


def test_interrupted_download_of_another_version_is_not_resumed(data: Path, kaggle: Server) -> None:
    interrupt_download(data, kaggle)
    kaggle.pack(train_csv=table_text("train", seed=1), test_csv=table_text("test", seed=1))
    download()
    assert (data / "train.csv").read_bytes() == table_text("train", seed=1)
    assert not list(data.glob(".*"))


@pytest.mark.parametrize("extra", [1, 100_000])
def test_part_longer_than_the_zip_is_downloaded_again(extra: int, data: Path, kaggle: Server) -> None:
    interrupt_download(data, kaggle).write_bytes(bytes(len(kaggle.archive) + extra))
    download()
    assert is_complete(data)


def test_refused_range_starts_the_download_again(data: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_download(data, kaggle).write_bytes(bytes(len(kaggle.archive)))
    monkeypatch.setattr(downloads, "_stated_size", lambda response: 0)
    download()
    assert is_complete(data)


def test_web_page_instead_of_the_zip_is_reported_and_the_part_kept(data: Path, kaggle: Server) -> None:
    interrupt_download(data, kaggle)
    kaggle.fail("GET", Fault(200, headers={"Content-Type": "text/html"}), always=True)
    with pytest.raises(KitError, match="received a web page instead of an API response"):
        download()
    kaggle.faults.clear()
    download()
    assert is_complete(data)


@pytest.mark.parametrize("damage", [lambda zip_: zip_[:3000] + bytes(99) + zip_[3099:], lambda zip_: zip_[:-500]])
def test_damaged_download_is_removed(damage: Callable[[bytes], bytes], data: Path, kaggle: Server) -> None:
    undamaged = kaggle.archive
    kaggle.archive = damage(undamaged)
    with pytest.raises(KitError, match="damaged and was removed"):
        download()
    assert not list(data.iterdir())
    kaggle.archive = undamaged
    download()
    assert is_complete(data)


def test_zip_with_a_path_outside_the_folder_is_refused(tmp_path: Path, kaggle: Server) -> None:
    kaggle.pack(**{"../train_csv": table_text("train"), "test_csv": table_text("test")})
    kaggle.archive = kaggle.archive.replace(b"...train", b"../train")
    with pytest.raises(KitError):
        download()
    assert not list(tmp_path.rglob("*.csv"))


def test_full_disk_is_not_reported_as_a_damaged_download(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def extract(*_: object) -> None:
        with files.explained(data / "train.csv"):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(BadInput) as refused:
        patch.setattr(dataset, "extract", extract)
        download()
    assert "free some space" in refused.value.hint
    assert list(data.glob(".*.zip")), "the download is kept"


@pytest.mark.parametrize("stated", [True, False])
def test_too_large_zip_is_refused_and_removed(stated: bool, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not stated:
        monkeypatch.setattr(downloads, "_stated_size", lambda response: 0)
    monkeypatch.setattr(downloads, "FILE_LIMIT", 50_000)
    with pytest.raises(KitError, match="expected at most 50,000 bytes"):
        download()
    assert not list(data.iterdir())


def test_files_left_by_other_downloads_are_removed(data: Path) -> None:
    data.mkdir()
    stale = [".0123456789abcdef-digit-recognizer.zip", ".train.csv.4711.part", ".test.csv.1.part"]
    for name in (*stale, "mine.txt", ".mine"):
        (data / name).write_bytes(b"x")
    (data / ".download.lock").touch()
    download()
    assert sorted(path.name for path in data.iterdir()) == [".mine", "mine.txt", "test.csv", "train.csv"]


@pytest.mark.slow
def test_only_one_of_three_processes_downloads(data: Path, kaggle: Server) -> None:
    kaggle.fail("DownloadDataFiles", Fault(500, seconds=2))  # while the first waits, the others start
    command = [sys.executable, "-m", "digit_recognizer", "data"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sorted(out.count("waiting for another process") for out, _ in outputs) == [0, 1, 1]
    assert len(kaggle.ranges) == 1, "one download"
    assert is_complete(data)


def test_process_downloads_after_waiting_for_one_that_failed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.mkdir()
    for table in csv_reader.COLUMNS:
        (data / f"{table}.csv").write_bytes(b"old")
    locked = threading.Event()

    def hold_lock() -> None:
        with files.locked(data / ".download.lock"):
            locked.set()
            real_sleep(0.1)

    thread = threading.Thread(target=hold_lock)
    thread.start()
    assert locked.wait(10)
    download()
    thread.join()
    assert "waiting for another process" in capsys.readouterr().out
    assert is_complete(data)


def test_removed_lock_file_admits_no_second_holder(tmp_path: Path) -> None:
    inside, counts = [], []

    def enter() -> None:
        for _ in range(20):
            with downloads._alone(tmp_path):
                inside.append(1)
                counts.append(len(inside))
                real_sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(counts) == 200
    assert max(counts) == 1
    assert not list(tmp_path.iterdir())


def download_output(kaggle: Server, folder: Path, **output: bytes) -> list[str]:
    """Download a kernel's output, and return the names of the files."""
    kaggle.output |= output
    with connect() as client:
        client.download_kernel_output(KERNEL, folder)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_kernel_output_is_downloaded_with_folders_and_without_hidden_files(tmp_path: Path, kaggle: Server) -> None:
    visible = {"submissions/ledger.csv": b"a", "runs/best-1/members/00/test.npy": bytes(200_000), "a b.txt": b""}
    kaggle.output = visible | {"submissions/.ledger.lock": b"", ".config/x": b"", "runs/.lock": b"", "runs/..x/y": b""}
    assert download_output(kaggle, tmp_path / "output") == sorted(visible)
    assert all((tmp_path / "output" / name).read_bytes() == content for name, content in visible.items())


@pytest.mark.parametrize(
    "name", ["../outside", "runs/../../outside", "/etc/outside", "runs/../../../outside", "..", "a/..", "a/../b"]
)
def test_output_file_outside_the_folder_is_refused(name: str, tmp_path: Path, kaggle: Server) -> None:
    with pytest.raises(KitError, match="points outside"):
        download_output(kaggle, tmp_path / "deep" / "output", **{name: b"x"})
    assert not list(tmp_path.rglob("*outside*"))


@pytest.mark.parametrize(
    "name", ["a\\b", "C:x", "a\x1b[2Jb", "a\nb", "b ", "runs/x./y", "x" * 121, "a\u202eb", "a\x00b"]
)
def test_output_file_with_an_unsafe_name_is_refused(name: str, tmp_path: Path, kaggle: Server) -> None:
    with pytest.raises(BadInput, match="expected a plain file name") as refused:
        download_output(kaggle, tmp_path / "output", **{name: b"x"})
    assert str(refused.value).isprintable()
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", ["link/x", "link/deep/x", "a/link/x", "file"])
def test_symbolic_links_in_the_output_folder_are_not_followed(name: str, tmp_path: Path, kaggle: Server) -> None:
    other, output = tmp_path / "other", tmp_path / "output"
    other.mkdir()
    (other / "file").write_bytes(b"mine")
    (output / "a").mkdir(parents=True)
    for link in ("link", "a/link"):
        (output / link).symlink_to(other)
    (output / "file").symlink_to(other / "file")
    if name == "file":
        download_output(kaggle, output, file=b"downloaded")
        assert (output / "file").read_bytes() == b"downloaded"
        assert not (output / "file").is_symlink()
    else:
        with pytest.raises(KitError, match="points outside"):
            download_output(kaggle, output, **{name: b"downloaded"})
    assert [path.name for path in other.iterdir()] == ["file"]
    assert (other / "file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({}, "FILE_LIMIT"),  # by the stated size
        ({"Content-Length": ""}, "FILE_LIMIT"),  # by the received bytes
        ({"Content-Length": "", "Content-Encoding": "gzip"}, "FILE_LIMIT"),
        ({"Content-Encoding": "gzip"}, "FILE_LIMIT"),
        ({"Content-Length": "9" * 400}, "FILE_LIMIT"),
        ({"Content-Length": "9" * 5000}, "FILE_LIMIT"),
        ({}, "OUTPUT_LIMIT"),
        ({"Content-Length": ""}, "OUTPUT_LIMIT"),
    ],
)
def test_too_large_output_is_refused(
    headers: dict[str, str], limit: str, tmp_path: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, limit, 100_000)
    content = bytes(60_000) if limit == "OUTPUT_LIMIT" else bytes(3_000_000)
    kaggle.output_headers = headers
    if "Content-Encoding" in headers:
        content = gzip.compress(content)
        kaggle.output_headers |= {"Content-Length": headers.get("Content-Length", str(len(content)))}
    with pytest.raises(KitError, match="expected at most"):
        download_output(kaggle, tmp_path / "output", a=content, b=content)
    assert sum(path.stat().st_size for path in (tmp_path / "output").rglob("*")) <= 100_000


def test_incomplete_output_file_is_refused(tmp_path: Path, kaggle: Server) -> None:
    kaggle.output_headers = {"Content-Length": "5000"}
    with pytest.raises(KitError, match=r"Kaggle cannot be reached \(connection failed or interrupted\)"):
        download_output(kaggle, tmp_path / "output", a=b"x" * 4000)


def test_too_many_output_files_are_refused_before_the_first_download(
    tmp_path: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "OUTPUT_FILES", 110)  # two pages
    assert len(download_output(kaggle, tmp_path / "output", **{f"{i:03}": b"" for i in range(110)})) == 110
    with pytest.raises(KitError, match="expected at most 110 output files"):
        download_output(kaggle, tmp_path / "more", another=b"")
    assert not (tmp_path / "more").exists()
