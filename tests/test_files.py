"""Files: names that become paths, locks, and JSON that may be damaged."""

import subprocess
import sys
from pathlib import Path

import pytest

from digit_recognizer import files
from digit_recognizer.errors import BadInput, KitError, printable


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../digit_recognizer",
        "a/b",
        "a\\b",
        "C:x",
        ".hidden",
        "end.",
        " a",
        "a\n",
        "a\x1b[2J",
        "a" * 121,
        "李" * 41,
    ],
)
def test_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="ledger: expected a plain file name"):
        files.safe_name(name, "ledger")


@pytest.mark.parametrize("name", ["standard-20261122-104359", "my file (2)", "Ünï"])
def test_safe_name_is_returned(name: str) -> None:
    assert files.safe_name(name, "ledger") == name


def test_link_in_place_of_a_lock_file_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("content")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(BadInput, match="lock"), files.locked(tmp_path / "lock"):
        pass
    assert target.read_text() == "content"


def test_file_with_content_is_not_used_as_a_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("content")
    with pytest.raises(BadInput, match="expected an empty lock file"), files.locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "lock").read_text() == "content"


def test_lock_excludes_other_locks_until_it_is_closed(tmp_path: Path) -> None:
    with files.locked(tmp_path / "lock"), pytest.raises(BlockingIOError):
        files.lock(tmp_path / "lock", wait=False)
    files.lock(tmp_path / "lock", wait=False).close()


def test_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from digit_recognizer import files\n"
    code += "lock = files.lock(Path(sys.argv[1]), wait=False); print('locked', flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "lock"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("locked\n", "")
    files.lock(tmp_path / "lock", wait=False).close()


def test_without_filelock_nothing_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "filelock", None)
    with files.locked(tmp_path / "lock"), files.locked(tmp_path / "lock", wait=False):
        pass


@pytest.mark.parametrize("content", [b"\xff", b"[]", b"1", b"", b"{", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_damaged_json_is_one_error_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"run\.json: damaged, expected a JSON object") as refused:
        files.read_json(tmp_path / "run.json")
    assert "\n" not in str(refused.value)


def test_any_json_is_read_as_written(tmp_path: Path) -> None:
    content = {"name": "\ud800 ü \\", "nan": [1e400, "李"]}
    files.write_json(tmp_path / "run.json", content)
    assert files.read_json(tmp_path / "run.json") == content


def test_control_characters_are_replaced() -> None:
    assert printable("a\x1b[31mb\nc\u202ed é") == "a�[31mb�c�d é"


def test_hint_survives_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(KitError("message", hint="fix")))
    assert (str(error), error.hint) == ("message", "fix")
