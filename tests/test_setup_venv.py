"""Set-up of .venv: what it refuses before anything is installed, what it repairs, and what it shows."""

import importlib.util
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

from conftest import ROOT, one_line


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, in a folder with empty requirements, on a machine that has all it needs."""
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "tools" / "setup_venv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    Path("requirements.txt").touch()
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(10**11))
    return module


@pytest.mark.parametrize(
    ("place", "name", "value", "told"),
    [
        ("platform", "machine", lambda: "i686", "Linux on i686: TensorFlow is not published for it"),
        ("platform", "machine", lambda: "armv7l", "Linux on armv7l: TensorFlow is not published for it"),
        ("platform", "system", lambda: "FreeBSD", "FreeBSD on x86_64: TensorFlow is not published for it"),
        ("platform", "system", lambda: "Darwin", "Darwin on x86_64: TensorFlow is not published for it"),
        ("platform", "libc_ver", lambda: ("", ""), "C library other than glibc: TensorFlow needs glibc 2.27"),
        ("platform", "libc_ver", lambda: ("glibc", "2.17"), "glibc 2.17: TensorFlow needs glibc 2.27 or newer"),
        ("sysconfig", "get_config_var", lambda name: 1, "TensorFlow needs an ordinary 64-bit CPython"),
        ("shutil", "disk_usage", lambda path: namedtuple("Usage", "free")(10**9), "1.0 GB free on its disk"),
    ],
)
def test_a_machine_without_wheels_is_refused_before_anything_is_made(
    place: str,
    name: str,
    value: object,
    told: str,
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(getattr(tool, place), name, value)
    assert tool.main([".venv", "requirements.txt", "--package"]) == 2
    assert told in one_line(capsys.readouterr().err)
    assert not Path(".venv").exists()


def test_a_python_without_venv_is_refused(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None)
    assert tool.main([".venv", "requirements.txt"]) == 2
    assert "it has no ensurepip" in (said := one_line(capsys.readouterr().err))
    assert "apt install python3." in said
    assert not Path(".venv").exists()


def venv(folder: Path, stamp: str | None) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    if stamp is not None:
        (folder / "run.stamp").write_text(stamp)


def test_a_folder_that_cannot_be_used_is_named(tool: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    assert tool.unusable(folder) == ""
    folder.mkdir()
    assert tool.unusable(folder) == "its Python is gone", "half deleted"
    folder.rmdir()
    folder.symlink_to("/nowhere")
    assert tool.unusable(folder) == "its Python is gone"
    folder.unlink()
    venv(folder, None)
    here = tool.where(folder)
    assert here == f"'{tmp_path}' with Python {sys.version_info[0]}.{sys.version_info[1]}"
    for stamp, reason in ((here, ""), ("", ""), ("'/old' with Python 3.9\n", "made in '/old' with Python 3.9, now in")):
        (folder / "run.stamp").write_text(stamp)
        assert tool.unusable(folder).startswith(reason)
        assert bool(tool.unusable(folder)) == bool(reason)


def test_what_cannot_be_used_is_removed_and_what_is_not_complete_is_kept(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed: list[list[str]] = []
    monkeypatch.setattr(tool, "pip", lambda python, words, what: installed.append(words))
    monkeypatch.setattr(tool.subprocess, "run", lambda *words, **_: subprocess.CompletedProcess(words, 0, "", ""))
    monkeypatch.setattr(tool, "where", lambda folder: "here")
    venv(Path(".venv"), "there")
    assert tool.main([".venv", "requirements.txt", "--package"]) == 0
    assert capsys.readouterr().out == ".venv: made in there, now in here; setting it up anew\n"
    assert not Path(".venv").exists()
    assert installed == [["-r", "requirements.txt"], ["--no-build-isolation", "--no-deps", "-e", "."]]
    venv(Path(".venv"), None)
    Path(".venv/mine").touch()
    monkeypatch.setattr(tool, "where", lambda folder: "Python %d.%d" % sys.version_info[:2])  # noqa: UP031
    assert tool.main([".venv", "requirements.txt"]) == 0
    assert capsys.readouterr().out == ".venv: setting it up (once)\n"
    assert Path(".venv/mine").exists()
    # A link leads to what belongs to another checkout: it goes, and what it leads to stays.
    shutil.move(".venv", "shared")
    (Path("shared") / "run.stamp").write_text("there")
    Path(".venv").symlink_to("shared")
    assert tool.main([".venv", "requirements.txt"]) == 0
    assert not Path(".venv").is_symlink()
    assert Path("shared/mine").exists()


def fake_pip(lines: str, status: int = 0) -> Path:
    python = Path(".venv/bin/python")
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nenv > environment\necho "$@" > words\ncat <<"END"\n{lines}\nEND\nexit {status}\n')
    python.chmod(0o755)
    return python


def test_pip_installs_into_the_environment_whatever_it_is_configured_to(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_TARGET", "PIP_PREFIX", "PIP_DRY_RUN", "PIP_QUIET"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    python = fake_pip("Collecting numpy==2.4.6 (from -r x)\nInstalling collected packages: numpy, keras")
    tool.pip(python, ["-r", "requirements.txt"], "setting up")
    environment = dict(line.split("=", 1) for line in Path("environment").read_text().splitlines() if "=" in line)
    assert (environment["PIP_USER"], environment["PIP_REQUIRE_VIRTUALENV"]) == ("0", "0")
    assert environment["PIP_INDEX_URL"] == "https://index.invalid/simple"
    assert not {"PIP_TARGET", "PIP_PREFIX", "PIP_DRY_RUN", "PIP_QUIET", "PYTHONPATH"} & set(environment)
    assert Path("words").read_text().endswith("-r requirements.txt\n")
    assert capsys.readouterr().out == "setting up: installing 2 packages\n"


def test_what_pip_is_doing_is_shown(tool: ModuleType) -> None:
    said = ["WARNING: a location is ignored\n", "Collecting numpy==2.4.6 (from -r x (line 3))\n", "  Downloading it\n"]
    assert tool.progress([]) == "collecting packages"
    assert tool.progress(said) == "collecting numpy==2.4.6"
    assert tool.progress([*said, "Installing collected packages: a, b, c\n"]) == "installing 3 packages"


def test_what_pip_cannot_do_is_told_in_one_line(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    fake_pip("WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found for x==1", 1)
    Path(".venv/run.stamp").write_text("here")
    tool.where = lambda folder: "here"
    assert tool.main([".venv", "requirements.txt"]) == 2
    shown = one_line(capsys.readouterr().err)
    assert "error: pip: No matching distribution found for x==1\nhint: " in shown
    assert "WARNING: Retrying" in Path(".venv/pip.log").read_text()


def test_packages_that_went_elsewhere_are_noticed(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    venv(Path(".venv"), "")
    monkeypatch.setattr(tool, "where", lambda folder: f"Python {sys.version_info[0]}.{sys.version_info[1]}")
    monkeypatch.setattr(tool, "pip", lambda python, words, what: None)
    monkeypatch.setattr(tool, "COMPLETE", "import sys; sys.exit(1)")
    assert tool.main([".venv", "requirements.txt", "--package"]) == 2
    assert ".venv: pip installed elsewhere" in one_line(capsys.readouterr().err)


def test_an_interrupt_says_that_set_up_is_not_complete(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "set_up", interrupt)
    assert tool.main([".venv", "requirements.txt"]) == 130
    assert "interrupted; set-up is not complete" in one_line(capsys.readouterr().err)
