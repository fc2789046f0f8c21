"""tools/setup_venv.py: checks of the machine, repair of a broken environment, progress and errors."""

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
    """The script as a module, in a folder with empty requirements, on a machine that meets all conditions."""
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
    ("module", "name", "value", "message"),
    [
        ("platform", "machine", lambda: "i686", "Linux on i686: TensorFlow has no package for it"),
        ("platform", "machine", lambda: "armv7l", "Linux on armv7l: TensorFlow has no package for it"),
        ("platform", "system", lambda: "FreeBSD", "FreeBSD on x86_64: TensorFlow has no package for it"),
        ("platform", "system", lambda: "Darwin", "Darwin on x86_64: TensorFlow has no package for it"),
        ("platform", "libc_ver", lambda: ("", ""), "C library other than glibc: TensorFlow needs glibc 2.27"),
        ("platform", "libc_ver", lambda: ("glibc", "2.17"), "glibc 2.17: TensorFlow needs glibc 2.27 or later"),
        ("sysconfig", "get_config_var", lambda name: 1, "TensorFlow needs an ordinary 64-bit CPython"),
        (
            "shutil",
            "disk_usage",
            lambda path: namedtuple("Usage", "free")(10**9),
            "1.0 GB free on its disk, 2.5 GB needed",
        ),
    ],
)
def test_unsupported_machine_is_refused_before_set_up(
    module: str,
    name: str,
    value: object,
    message: str,
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(getattr(tool, module), name, value)
    assert tool.main([".venv", "requirements.txt", "--package"]) == 2
    assert message in one_line(capsys.readouterr().err)
    assert not Path(".venv").exists()


def test_python_without_ensurepip_is_refused(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None)
    assert tool.main([".venv", "requirements.txt"]) == 2
    error = one_line(capsys.readouterr().err)
    assert "module ensurepip is missing" in error
    assert "apt install python3." in error
    assert not Path(".venv").exists()


def venv(folder: Path, stamp: str | None) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    if stamp is not None:
        (folder / "run.stamp").write_text(stamp)


def test_unusable_environment_is_detected(tool: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    assert tool.find_defect(folder) == ""
    folder.mkdir()
    assert tool.find_defect(folder) == "its Python is missing", "half deleted"
    folder.rmdir()
    folder.symlink_to("/nowhere")
    assert tool.find_defect(folder) == "its Python is missing"
    folder.unlink()
    venv(folder, None)
    current = tool.current_stamp(folder)
    assert current == f"'{tmp_path}' with Python {sys.version_info[0]}.{sys.version_info[1]}"
    old = "'/old' with Python 3.9"
    for stamp, reason in ((current, ""), ("", ""), (f"{old}\n", f"created in {old}, now in")):
        (folder / "run.stamp").write_text(stamp)
        assert tool.find_defect(folder).startswith(reason)
        assert bool(tool.find_defect(folder)) == bool(reason)


def test_unusable_environment_is_replaced_and_incomplete_one_resumed(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed: list[list[str]] = []
    monkeypatch.setattr(tool, "pip", lambda python, words, title: installed.append(words))
    monkeypatch.setattr(tool.subprocess, "run", lambda *words, **_: subprocess.CompletedProcess(words, 0, "", ""))
    monkeypatch.setattr(tool, "current_stamp", lambda folder: "new")
    venv(Path(".venv"), "old")
    assert tool.main([".venv", "requirements.txt", "--package"]) == 0
    assert capsys.readouterr().out == ".venv: created in old, now in new; setting up again\n"
    assert not Path(".venv").exists()
    assert installed == [["-r", "requirements.txt"], ["--no-build-isolation", "--no-deps", "-e", "."]]
    venv(Path(".venv"), None)
    Path(".venv/extra").touch()
    monkeypatch.setattr(tool, "current_stamp", lambda folder: "Python %d.%d" % sys.version_info[:2])  # noqa: UP031
    assert tool.main([".venv", "requirements.txt"]) == 0
    assert capsys.readouterr().out == ".venv: setting up (once)\n"
    assert Path(".venv/extra").exists()
    # A link to the environment of another checkout is removed; its target is kept.
    shutil.move(".venv", "shared")
    Path("shared/run.stamp").write_text("old")
    Path(".venv").symlink_to("shared")
    assert tool.main([".venv", "requirements.txt"]) == 0
    assert not Path(".venv").is_symlink()
    assert Path("shared/extra").exists()


def fake_pip(lines: str, status: int = 0) -> Path:
    python = Path(".venv/bin/python")
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nenv > environment\necho "$@" > words\ncat <<"END"\n{lines}\nEND\nexit {status}\n')
    python.chmod(0o755)
    return python


def test_pip_ignores_settings_that_install_elsewhere(
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


def test_latest_step_of_pip_is_shortened(tool: ModuleType) -> None:
    output = [
        "WARNING: a location is ignored\n",
        "Collecting numpy==2.4.6 (from -r x (line 3))\n",
        "  Downloading it\n",
    ]
    assert tool.latest_step([]) == "collecting packages"
    assert tool.latest_step(output) == "collecting numpy==2.4.6"
    assert tool.latest_step([*output, "Installing collected packages: a, b, c\n"]) == "installing 3 packages"


def test_failure_of_pip_is_one_line_and_its_output_is_kept(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pip("WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found for x==1", 1)
    Path(".venv/run.stamp").write_text("same")
    tool.current_stamp = lambda folder: "same"
    assert tool.main([".venv", "requirements.txt"]) == 2
    error = one_line(capsys.readouterr().err)
    assert "error: pip: No matching distribution found for x==1\nhint: " in error
    assert "WARNING: Retrying" in Path(".venv/pip.log").read_text()


def test_packages_installed_elsewhere_are_detected(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    venv(Path(".venv"), "")
    monkeypatch.setattr(tool, "current_stamp", lambda folder: f"Python {sys.version_info[0]}.{sys.version_info[1]}")
    monkeypatch.setattr(tool, "pip", lambda python, words, title: None)
    monkeypatch.setattr(tool, "COMPLETE", "import sys; sys.exit(1)")
    assert tool.main([".venv", "requirements.txt", "--package"]) == 2
    assert ".venv: pip installed into another folder" in one_line(capsys.readouterr().err)


def test_interrupted_set_up_is_reported_as_incomplete(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "set_up", interrupt)
    assert tool.main([".venv", "requirements.txt"]) == 130
    assert "interrupted; set-up is not complete" in one_line(capsys.readouterr().err)
