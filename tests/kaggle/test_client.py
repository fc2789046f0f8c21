"""Kaggle's answers and files: the download, a kernel's output, refusals, and answers of another form."""

import base64
import email.utils
import gzip
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import csv_text, keep, kit, one_line
from digit_recognizer import cli
from digit_recognizer.data import csv_reader, dataset
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.kaggle import client as kaggle_client
from kaggle_server import KEY, LOGIN, TOKEN, USER, Fault, Server

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
        (folder / f"{table}.csv").read_bytes() == csv_text(table) for table in csv_reader.COLUMNS
    )


def test_the_files_are_downloaded_and_unpacked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data"]) == 0
    assert whole(place)
    shown = capsys.readouterr()
    assert shown.out == "data/: train.csv and test.csv of the competition\n"
    assert shown.err == "", "quiet where nobody watches"


def test_user_name_and_key_are_enough_too(place: Path, monkeypatch: pytest.MonkeyPatch, nobody: Path) -> None:
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
    assert cli.main(["data", "--force"]) == 1
    kaggle.cuts = 0
    kaggle.pack(train_csv=csv_text("train", seed=1), test_csv=csv_text("test", seed=1))
    assert cli.main(["data", "--force"]) == 0
    assert (place / "data" / "train.csv").read_bytes() == csv_text("train", seed=1)


@pytest.mark.parametrize("damage", [lambda zip_: zip_[:3000] + bytes(99) + zip_[3099:], lambda zip_: zip_[:-500]])
def test_a_damaged_download_is_removed(
    damage: object, place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    good = kaggle.archive
    kaggle.archive = damage(good)  # type: ignore[operator]
    assert cli.main(["data"]) == 1
    assert "damaged and was removed" in one_line(capsys.readouterr().err)
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
    assert "no Kaggle credentials\nhint: make a token at https://www.kaggle.com/settings" in capsys.readouterr().err
    assert not kaggle.calls


def test_kaggle_json_in_the_current_folder_is_used(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    keep(place / "kaggle.json", {"username": USER, "key": KEY}, mode=0o644)
    assert cli.main(["data"]) == 2
    assert "chmod 600 kaggle.json" in one_line(capsys.readouterr().err)
    (place / "kaggle.json").chmod(0o600)
    assert cli.main(["data"]) == 0
    assert whole(place)


def test_the_sdk_does_not_take_other_credentials_than_those_found(
    place: Path, nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", f'{{"username": "{USER}", "key": "{KEY}"}}')
    (nobody / ".kaggle").mkdir()
    keep(nobody / ".kaggle" / "access_token", "")
    (nobody / ".kaggle" / "access_token").write_bytes(b"\xff\xfe\xff")
    assert cli.main(["data"]) == 0, "the file after it is not read"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "   ")
    (nobody / ".kaggle" / "access_token").write_bytes("\ufeff\n".encode())
    keep(nobody / ".kaggle" / "credentials.json", {"refresh_token": LOGIN, "username": USER})
    assert cli.main(["data"]) == 0


def slowly(kaggle: Server, seconds: float) -> None:
    """Let the next download take its time."""
    kaggle.fail("DownloadDataFiles", Fault(500, seconds=seconds))


@pytest.mark.slow
def test_of_two_processes_one_downloads_and_the_other_finds_the_files(place: Path, kaggle: Server) -> None:
    slowly(kaggle, 2)
    words = [sys.executable, "-m", "digit_recognizer", "data"]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    shown = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], shown
    assert sorted(out.count("waiting for another process") for out, _ in shown) == [0, 1, 1]
    assert len(kaggle.ranges) == 1, "one download"
    assert whole(place)


def test_a_process_that_waited_for_one_that_failed_downloads(place: Path, kaggle: Server) -> None:
    (place / "data").mkdir()
    (place / "data" / "train.csv").write_bytes(b"old")
    (place / "data" / "test.csv").write_bytes(b"old")
    locked = threading.Event()

    def hold() -> None:
        with kaggle_client.files.locked(place / "data" / ".download.lock"):
            locked.set()
            real_sleep(0.5)

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(10)
    assert cli.main(["data", "--force"]) == 0
    thread.join()
    assert whole(place)


def test_a_lock_whose_file_was_removed_meanwhile_is_not_held(place: Path) -> None:
    """Ten threads, of which never two are inside."""
    inside, most = [], []

    def enter() -> None:
        for _ in range(20):
            with kaggle_client._alone(place):
                inside.append(1)
                most.append(len(inside))
                real_sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 200
    assert max(most) == 1
    assert not list(place.iterdir())


def test_parts_of_other_versions_and_of_killed_processes_are_removed(place: Path, kaggle: Server) -> None:
    (place / "data").mkdir()
    stale = [".0123456789abcdef-digit-recognizer.zip", ".train.csv.4711.part", ".test.csv.1.part"]
    (place / "data" / ".download.lock").touch()
    for name in (*stale, "mine.txt", ".mine"):
        (place / "data" / name).write_bytes(b"x")
    assert cli.main(["data"]) == 0
    left = sorted(path.name for path in (place / "data").iterdir())
    assert left == [".mine", "mine.txt", "test.csv", "train.csv"]


def part_of(place: Path, kaggle: Server) -> Path:
    """Break a download off; the part that it left."""
    kaggle.cut, kaggle.cuts = 40_000, 99
    assert cli.main(["data"]) == 1
    kaggle.cuts = 0
    (part,) = (place / "data").glob(".*.zip")
    return part


@pytest.mark.parametrize("more", [1, 100_000])
def test_a_part_that_is_longer_than_the_file_is_not_used(more: int, place: Path, kaggle: Server) -> None:
    part = part_of(place, kaggle)
    part.write_bytes(bytes(len(kaggle.archive) + more))
    assert cli.main(["data"]) == 0
    assert whole(place)


def test_a_rest_that_is_not_there_begins_the_download_anew(
    place: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = part_of(place, kaggle)
    part.write_bytes(bytes(len(kaggle.archive)))
    monkeypatch.setattr(kaggle_client, "_stated", lambda response: 0)
    assert cli.main(["data"]) == 0
    assert whole(place)


def test_a_full_disk_is_not_called_a_damaged_download(
    place: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        with kaggle_client.files.explained(place / "data" / "train.csv"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "extract", full)
    assert cli.main(["data"]) == 2
    assert "free some space" in one_line(capsys.readouterr().err)
    monkeypatch.undo()
    assert list((place / "data").glob(".*.zip")), "what was downloaded is kept"


@pytest.mark.parametrize("stated", [True, False])
def test_a_download_larger_than_expected_is_refused(
    stated: bool,
    place: Path,
    kaggle: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not stated:
        monkeypatch.setattr(kaggle_client, "_stated", lambda response: 0)
    monkeypatch.setattr(kaggle_client, "FILE_LIMIT", 50_000)
    assert cli.main(["data"]) == 1
    assert "expected at most 50,000" in one_line(capsys.readouterr().err)
    assert not list((place / "data").iterdir())


def test_a_web_page_in_place_of_the_zip_is_named(
    place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    part_of(place, kaggle)
    capsys.readouterr()
    kaggle.fail("GET", Fault(200, headers={"Content-Type": "text/html"}), always=True)
    assert cli.main(["data"]) == 1
    assert "a web page came in place of its answer" in one_line(capsys.readouterr().err)
    kaggle.faults.clear()
    assert cli.main(["data"]) == 0
    assert whole(place)


KERNEL = f"{USER}/digit-recognizer-kit"


def fetched(kaggle: Server, folder: Path, **output: bytes) -> list[str]:
    """Bring what a kernel left; the files that came."""
    kaggle.output |= output
    with kaggle_client.connect() as client:
        client.download_kernel_output(KERNEL, folder)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_kernel_s_files_come_with_their_folders_and_without_hidden_ones(place: Path, kaggle: Server) -> None:
    kept = {"submissions/ledger.csv": b"a", "runs/best-1/members/00/test.npy": bytes(200_000), "a b.txt": b""}
    kaggle.output = kept | {"submissions/.ledger.lock": b"", ".config/x": b"", "runs/.lock": b"", "runs/..x/y": b""}
    assert fetched(kaggle, place / "to") == sorted(kept)
    assert all((place / "to" / name).read_bytes() == content for name, content in kept.items())


@pytest.mark.parametrize(
    "name",
    ["../outside", "runs/../../outside", "/etc/outside", "runs/../../../outside", "..", "a/..", "a/../b"],
)
def test_a_kernel_s_file_that_points_outside_is_refused(name: str, place: Path, kaggle: Server) -> None:
    with pytest.raises(KitError, match="points outside"):
        fetched(kaggle, place / "deep" / "to", **{name: b"x"})
    assert not list(place.rglob("*outside*"))


@pytest.mark.parametrize(
    "name", ["a\\b", "C:x", "a\x1b[2Jb", "a\nb", "b ", "runs/x./y", "x" * 121, "a\u202eb", "a\x00b"]
)
def test_a_kernel_s_file_name_that_is_not_plain_is_refused(name: str, place: Path, kaggle: Server) -> None:
    with pytest.raises(BadInput, match="expected a plain file name") as refused:
        fetched(kaggle, place / "to", **{name: b"x"})
    assert str(refused.value).isprintable()
    assert not (place / "to").exists()


@pytest.mark.parametrize("name", ["link/x", "link/deep/x", "a/link/x", "file"])
def test_a_symbolic_link_in_the_folder_is_not_followed(name: str, place: Path, kaggle: Server) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "file").write_bytes(b"mine")
    (place / "to" / "a").mkdir(parents=True)
    for link in ("link", "a/link"):
        (place / "to" / link).symlink_to(place / "mine")
    (place / "to" / "file").symlink_to(place / "mine" / "file")
    if name == "file":
        fetched(kaggle, place / "to", file=b"theirs")
        assert (place / "to" / "file").read_bytes() == b"theirs"
        assert not (place / "to" / "file").is_symlink()
    else:
        with pytest.raises(KitError, match="points outside"):
            fetched(kaggle, place / "to", **{name: b"theirs"})
    assert [path.name for path in (place / "mine").iterdir()] == ["file"]
    assert (place / "mine" / "file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({}, "FILE_LIMIT"),  # by the size stated
        ({"Content-Length": ""}, "FILE_LIMIT"),  # by what came
        ({"Content-Length": "", "Content-Encoding": "gzip"}, "FILE_LIMIT"),
        ({"Content-Encoding": "gzip"}, "FILE_LIMIT"),
        ({"Content-Length": "9" * 400}, "FILE_LIMIT"),
        ({"Content-Length": "9" * 5000}, "FILE_LIMIT"),
        ({}, "OUTPUT_LIMIT"),
        ({"Content-Length": ""}, "OUTPUT_LIMIT"),
    ],
)
def test_a_kernel_s_file_without_bound_is_refused(
    headers: dict[str, str], limit: str, place: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kaggle_client, limit, 100_000)
    content = bytes(60_000) if limit == "OUTPUT_LIMIT" else bytes(3_000_000)
    kaggle.output_headers = headers
    if "Content-Encoding" in headers:
        content = gzip.compress(content)
        kaggle.output_headers |= {"Content-Length": headers.get("Content-Length", str(len(content)))}
    with pytest.raises(KitError, match="expected at most"):
        fetched(kaggle, place / "to", a=content, b=content)
    assert sum(path.stat().st_size for path in (place / "to").rglob("*")) <= 100_000


def test_a_kernel_s_file_of_which_a_part_came_is_not_taken_for_whole(
    place: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.output_headers = {"Content-Length": "5000"}
    with pytest.raises(KitError, match=r"Kaggle cannot be reached \(no connection, or it was cut\)"):
        fetched(kaggle, place / "to", a=b"x" * 4000)


def test_absurd_numbers_of_files_are_refused_before_one_is_fetched(
    place: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kaggle_client, "OUTPUT_FILES", 150)
    many = {f"{i:03}": b"" for i in range(150)}
    assert len(fetched(kaggle, place / "to", **many)) == 150
    with pytest.raises(KitError, match="left more than 150 files"):
        fetched(kaggle, place / "more", one_more=b"")
    assert not (place / "more").exists()


def test_a_list_without_end_ends(place: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaggle_client, "PAGES", 30)
    count = iter(range(10**9))
    kaggle._ListKernelSessionOutput = lambda asked: {"files": [], "nextPageToken": f"{next(count)}"}  # type: ignore
    with pytest.raises(KitError, match="does not end after 30 pages"):
        fetched(kaggle, place / "to")
    kaggle._ListKernelSessionOutput = lambda asked: {"files": [], "nextPageToken": f"{next(count) % 2}"}  # type: ignore
    assert fetched(kaggle, place / "to") == []


RULES = "accept the competition's rules at https://www.kaggle.com/competitions/digit-recognizer/rules"
PHONE = "verify your phone number at https://www.kaggle.com/settings"


@pytest.mark.parametrize(
    ("call", "verb", "status", "message", "hint"),
    [
        ("DownloadDataFiles", "data", 403, "You must accept this competition's rules", RULES),
        ("DownloadDataFiles", "data", 403, "", RULES),
        ("DownloadDataFiles", "data", 403, "Please verify your identity by PHONE first", PHONE),
        ("SaveKernel", "push", 403, "Phone verification is required for GPUs", PHONE),
        ("SaveKernel", "push", 403, "Permission 'kernels.create' was denied", ""),
        ("SaveKernel", "push", 404, "no such competition", ""),
        ("GetKernelSessionStatus", "status", 403, "Permission 'kernels.get' was denied", "make push sends the kernel"),
        ("GetKernelSessionStatus", "status", 404, "Not found", "make push sends the kernel"),
        ("ListKernelSessionOutput", "output", 403, "Permission denied", "make push sends the kernel"),
        ("GET", "data", 403, "the signature has expired", ""),
        ("GET", "data", 404, "no such object", ""),
        ("GET", "data", 401, "no", ""),
    ],
)
def test_a_refusal_advises_on_what_was_refused(
    call: str,
    verb: str,
    status: int,
    message: str,
    hint: str,
    place: Path,
    kaggle: Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kaggle.fail(call, Fault(status, {"code": status, "message": message}), always=True)
    assert cli.main([verb]) == 1
    shown = one_line(capsys.readouterr().err)
    assert f"({status}: {message}".rstrip(": ") in shown
    assert hint in shown
    assert ("hint: " in shown) == bool(hint)
    assert sum(advice in shown for advice in (RULES, PHONE, "make push")) == bool(hint)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("3600", "wait 3600 s and run it again"),
        ("86400", "wait 86400 s and run it again"),
        ("86401", "run it again on another day"),
        ("9" * 400, "run it again on another day"),
        ("9" * 5000, "run it again on another day"),
        ("in 3600", " s and run it again"),  # as a date
        ("in 9000000", "run it again on another day"),
        ("Wed, 21 Oct 9999 07:28:00 GMT", "run it again on another day"),
    ],
)
def test_a_long_wait_is_not_waited_for(
    value: str, told: str, place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    if value.startswith("in "):
        value = email.utils.formatdate(time.time() + int(value[3:]), usegmt=True)
    kaggle.fail("GetKernelSessionStatus", Fault(429, headers={"Retry-After": value}), always=True)
    assert cli.main(["status"]) == 1
    assert told in one_line(capsys.readouterr().err)
    assert kaggle.calls.count("GetKernelSessionStatus") == 1


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "",
        "soon",
        "-5",
        "1.5",
        "nan",
        "inf",
        "1e999",
        "\xb2",
        email.utils.formatdate(0, usegmt=True),
        "99 Foo 2026",
    ],
)
def test_a_wait_that_is_over_or_no_time_is_tried_again(value: str, place: Path, kaggle: Server) -> None:
    kaggle.fail("GetKernelSessionStatus", Fault(429, headers={"Retry-After": value}))
    assert cli.main(["status"]) == 0


def told(kaggle: Server, **changed: Any) -> None:
    """Let Kaggle have one submission, with fields of its answer changed."""
    fields = {"ref": 50_000_001, "status": "COMPLETE", "publicScore": "0.99", "date": "2026-11-21T10:00:00.000Z"}
    answer = {name: value for name, value in (fields | changed).items() if value is not ...}
    kaggle._ListSubmissions = lambda asked: {"submissions": [answer], "nextPageToken": ""}  # type: ignore
    kaggle._GetSubmission = lambda asked: answer  # type: ignore


@pytest.mark.parametrize(
    "changed",
    [
        {"ref": 0},
        {"ref": ...},
        {"ref": None},
        {"ref": -1},
        {"ref": "abc"},
        {"ref": 1.5},
        {"ref": True},
        {"ref": "9" * 400},
        {"ref": "\x1b[2J"},
        {"status": "QUEUED"},
        {"status": 7},
        {"status": None},
        {"status": ["COMPLETE"]},
        {"date": "yesterday"},
        {"date": 5},
    ],
)
def test_an_answer_of_another_form_ends_in_one_line(changed: dict[str, Any], place: Path, kaggle: Server) -> None:
    told(kaggle, **changed)
    with kaggle_client.connect() as client:
        for call in (client.list_submissions, lambda: client.get_submission("50000001")):
            with pytest.raises(KitError, match="Kaggle's answer cannot be read") as refused:
                call()
            assert str(refused.value).isprintable()
            assert len(str(refused.value)) < 200
    assert kaggle.calls.count("ListSubmissions") + kaggle.calls.count("GetSubmission") in (0, 2), "it does not pass"


@pytest.mark.parametrize("score", ["0.99643", "0", "1", "1.0", "0.5", ".99", 0.99643, 1])
def test_a_score_that_is_a_number_is_kept(score: object, place: Path, kaggle: Server) -> None:
    told(kaggle, publicScore=score)
    with kaggle_client.connect() as client:
        assert client.get_submission("50000001").public_score == client.list_submissions()[0].public_score == str(score)


@pytest.mark.parametrize("score", ["", None, ...])
def test_no_score_is_no_fault(score: object, place: Path, kaggle: Server) -> None:
    told(kaggle, publicScore=score)
    with kaggle_client.connect() as client:
        assert client.get_submission("50000001").public_score == ""


@pytest.mark.parametrize(
    "score", ["abc", "N/A", "nan", "inf", "1e999", "9" * 400, "1.5", "-0.1", "0.9\x1b[2J", "٠.٩", "0,99", [1], True, 2]
)
def test_a_score_that_is_no_number_is_not_kept(score: object, place: Path, kaggle: Server) -> None:
    told(kaggle, publicScore=score)
    with kaggle_client.connect() as client:
        assert client.list_submissions()[0].public_score == "", "a list is of use without it"
        with pytest.raises(KitError, match="cannot be read \\(publicScore") as refused:
            client.get_submission("50000001")
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("left", ["many", None, [], {}, "9" * 5000])
def test_a_count_that_is_no_number_ends_in_one_line(left: object, place: Path, kaggle: Server) -> None:
    kaggle._GetSubmissionLimits = lambda asked: {"numAllowedNow": left}  # type: ignore
    with kaggle_client.connect() as client, pytest.raises(KitError, match="Kaggle's answer cannot be read"):
        client.submissions_left_today()


@pytest.mark.parametrize("status", ["PAUSED_BY_MAGIC", 3, None, ["RUNNING"]])
def test_a_kernel_status_that_the_sdk_does_not_know_ends_in_one_line(
    status: Any, place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.kernel_status = status
    for verb in ("status", "output"):
        assert cli.main([verb]) == 1
        assert "Kaggle's answer cannot be read" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("name", ["", "ada/x", "ada lovelace", "\x1b[31mada", "адa", None, 7, "a" * 200, ["ada"]])
def test_a_user_name_that_cannot_be_one_is_not_used(
    name: object, place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle._IntrospectToken = lambda asked: {"active": True, "username": name}  # type: ignore
    assert cli.main(["status"]) == 1
    assert "Kaggle's answer cannot be read" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("reference", ["abc", -1, "9" * 400, True, ["x"]])
def test_a_submission_with_an_odd_reference_may_have_arrived(reference: object, place: Path, kaggle: Server) -> None:
    kaggle._CreateSubmission = lambda asked: {"ref": reference, "message": "Successfully submitted"}  # type: ignore
    with kaggle_client.connect() as client, pytest.raises(kaggle_client.UnknownOutcome, match="cannot be read"):
        client.submit("blob", "words")


def test_an_upload_of_which_the_storage_has_a_part_is_not_submitted(place: Path, kaggle: Server) -> None:
    (place / "file.csv").write_bytes(b"x")
    kaggle.fail("PUT", Fault(308))
    with kaggle_client.connect() as client:
        client.upload(place / "file.csv")
    assert kaggle.calls.count("PUT") == 2


ESCAPES = ["\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\r\x1b[Kgone", "\x9b31m", "a\x00b", "\u202egnp.exe", "\x08\x08"]


@pytest.mark.parametrize("text", ESCAPES)
def test_terminal_escapes_in_kaggle_s_texts_are_not_printed(
    text: str, place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    told(kaggle, fileName=f"f{text}", description=f"d{text} [sha256 0123456789abcdef]", errorDescription=f"e{text}")
    kaggle.kernel_failure = f"failed{text}"
    kaggle._SaveKernel = lambda asked: {"url": f"https://www.kaggle.com/code/x{text}", "versionNumber": 1}  # type: ignore
    with kaggle_client.connect() as client:
        sent = client.list_submissions()[0]
        (place / "kernel.py").write_text("")
        metadata: dict[str, Any] = dict.fromkeys(("is_private", "enable_gpu", "enable_tpu", "enable_internet"), False)
        metadata |= {"id": KERNEL, "title": "title", "language": "python", "kernel_type": "script"}
        address = client.push_kernel(place / "kernel.py", metadata | {"competition_sources": []})
        why = client.kernel_status(KERNEL)[1]
    for shown, start in (
        (sent.file, "f"),
        (sent.description, "d"),
        (sent.error, "e"),
        (address, "https://"),
        (why, "failed"),
    ):
        assert shown.startswith(start)
        assert shown.isprintable()
    assert sent.description.endswith(" [sha256 0123456789abcdef]")
    kaggle.fail("GetKernelSessionStatus", Fault(400, {"code": 400, "message": f"bad{text}"}))
    assert cli.main(["status"]) == 1
    assert all(line.isprintable() for line in one_line(capsys.readouterr().err).splitlines())


def test_a_long_description_keeps_its_end(place: Path, kaggle: Server) -> None:
    told(kaggle, description=f"{'x' * 300} [sha256 0123456789abcdef]")
    with kaggle_client.connect() as client:
        assert client.list_submissions()[0].description.endswith(" [sha256 0123456789abcdef]")


PAIR = base64.b64encode(f"{USER}:{KEY}".encode()).decode()


@pytest.mark.parametrize("part", [slice(None), slice(0, 12), slice(5, 20), slice(-9, None), slice(1, -1)])
@pytest.mark.parametrize("kind", ["token", "key", "pair", "login"])
def test_no_part_of_a_secret_is_shown(
    kind: str,
    part: slice,
    place: Path,
    nobody: Path,
    kaggle: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = {"token": TOKEN, "key": KEY, "pair": PAIR, "login": LOGIN}[kind]
    if kind != "token":
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        login = {"refresh_token": LOGIN, "username": USER}
        key = {"username": USER, "key": KEY}
        name = "credentials.json" if kind == "login" else "kaggle.json"
        keep(nobody / ".kaggle" / name, login if kind == "login" else key)
    echo = f"x{secret[part]}y, again {secret[part]}"
    kaggle.fail("GetKernelSessionStatus", Fault(400, {"code": 400, "message": f"bad {echo}"}))
    assert cli.main(["status"]) == 1
    shown = capsys.readouterr()
    assert "(400: bad " in one_line(shown.err)
    assert "…" in shown.err
    assert secret[part] not in shown.err + shown.out
    assert not any(secret[i : i + 8] in shown.err for i in range(len(secret) - 7))


def test_a_push_whose_answer_was_lost_may_have_arrived(
    place: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail("SaveKernel", Fault(after=True))
    assert cli.main(["push"]) == 1
    assert "Kaggle may have received the kernel; see make status" in one_line(capsys.readouterr().err)
    assert len(kaggle.kernels) == 1


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
