"""Set up a virtual environment: check this Python and machine, make the folder, install, and show progress.

python tools/setup_venv.py .venv requirements.txt [--package]
"""

import argparse
import fcntl
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

WHEELS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"))  # what TensorFlow is published for
GLIBC = (2, 27)
STAMP = "run.stamp"
FREE = 2_500_000_000  # bytes; TensorFlow alone takes 1.9 GB once installed
# Settings of pip that would put packages elsewhere than into the environment, or hide what it does.
IGNORED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_DRY_RUN", "PIP_QUIET", "PIP_VERBOSE")
COMPLETE = (
    "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, ('digit_recognizer', 'tensorflow'))))"
)


class Refused(Exception):
    """Set-up cannot go on: what is wrong, and how to fix it."""


def main(words: list[str] | None = None) -> int:
    """Set up the environment that the command line names; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("requirements", type=Path)
    parser.add_argument("--package", action="store_true", help="install this repository's package too")
    given = parser.parse_args(words)
    try:
        with given.requirements.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # one set-up at a time
            set_up(given.folder, given.requirements, package=given.package)
    except Refused as refused:
        what, hint = refused.args
        print(f"error: {what}\nhint: {hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; set-up is not complete, the next make resumes it", file=sys.stderr)
        return 130
    return 0


def set_up(folder: Path, requirements: Path, *, package: bool) -> None:
    """Make the environment if it is missing or cannot be used, and install what ``requirements`` lists."""
    python = folder / "bin" / "python"
    reason = unusable(folder)
    if reason or not (folder / STAMP).exists():
        check_machine(folder)
        print(f"{folder}: {reason}; setting it up anew" if reason else f"{folder}: setting it up (once)", flush=True)
        try:
            if folder.is_symlink():
                folder.unlink()
            elif reason:
                shutil.rmtree(folder)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            lines = (getattr(error, "stdout", "") or str(error)).strip().splitlines()
            raise Refused(f"{folder}: cannot be made: {lines[-1]}", "name another Python: make PYTHON=…") from None
    pip(python, ["-r", str(requirements)], f"{folder}, {requirements.name}")
    if package:
        pip(python, ["--no-build-isolation", "--no-deps", "-e", "."], f"{folder}, this package")
        if subprocess.run([python, "-I", "-c", COMPLETE]).returncode:
            raise Refused(
                f"{folder}: pip installed elsewhere", "look for target, prefix or root in: python3 -m pip config list"
            )


def unusable(folder: Path) -> str:
    """Say why an environment that is there cannot be used: its Python does not start, or it was made elsewhere."""
    if not (folder.exists() or folder.is_symlink()):
        return ""
    here = where(folder)
    if not here:
        return "its Python is gone"
    try:
        made = (folder / STAMP).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        made = ""
    if made and made != here:
        return f"made in {made}, now in {here}"
    another = not here.endswith("Python %d.%d" % sys.version_info[:2])  # noqa: UP031
    return "not complete, and of another Python" if another and not made else ""


def where(folder: Path) -> str:
    """Name the current folder and the environment's Python version, as the stamp of a complete set-up does."""
    code = 'import os, sys; print(ascii(os.getcwd()), "with Python %d.%d" % sys.version_info[:2])'
    try:
        done = subprocess.run([folder / "bin" / "python", "-ISc", code], capture_output=True, text=True)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()


def check_machine(folder: Path) -> None:
    """Refuse a Python or machine for which some package has no wheel, before anything is installed."""
    system, machine = platform.system(), platform.machine()
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED") or sys.maxsize < 2**32:
        raise Refused(
            f"{sys.executable}: TensorFlow needs an ordinary 64-bit CPython",
            "name one: make PYTHON=python3.12 …",
        )
    if (system, machine) not in WHEELS:
        raise Refused(
            f"{system} on {machine}: TensorFlow is not published for it",
            "use Linux on x86_64 or aarch64, WSL 2, macOS on Apple silicon with its own Python, or a Kaggle kernel",
        )
    libc, version = platform.libc_ver()
    if system == "Linux" and (libc != "glibc" or tuple(map(int, version.split(".")[:2])) < GLIBC):
        raise Refused(
            f"{libc or 'C library'} {version or 'other than glibc'}: TensorFlow needs glibc 2.27 or newer",
            "use a distribution such as Debian or Ubuntu, or a container of one",
        )
    if importlib.util.find_spec("ensurepip") is None:
        raise Refused(
            f"{sys.executable}: it has no ensurepip, so it cannot make virtual environments",
            f"install it: apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv",
        )
    free = shutil.disk_usage(folder.absolute().parent).free
    if free < FREE:
        raise Refused(f"{folder}: {free / 1e9:.1f} GB free on its disk", f"free at least {FREE / 1e9:.1f} GB there")


def pip(python: Path, words: list[str], what: str) -> None:
    """Install by ``pip install <words>``; on a terminal a line shows its step and the seconds, elsewhere each phase."""
    environment = {name: value for name, value in os.environ.items() if name not in (*IGNORED, "PYTHONPATH")}
    environment |= {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}  # these win over pip's configuration files
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    process = subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    said: list[str] = []

    def read() -> None:
        for line in process.stdout or ():
            said.append(line)

    reader = threading.Thread(target=read, daemon=True)
    began, shown = time.monotonic(), ""
    reader.start()
    working = True
    while working:
        reader.join(1)
        working = reader.is_alive()
        step = progress(said)
        if sys.stdout.isatty():
            line = f"{what}: {step}, {time.monotonic() - began:.0f} s"
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif step.split()[0] != shown:
            shown = step.split()[0]
            print(f"{what}: {step}", flush=True)
    if sys.stdout.isatty():
        print("\r\x1b[K", end="", flush=True)
    if process.wait():
        log = python.parent.parent / "pip.log"
        log.write_text("".join(said), encoding="utf-8")
        errors = [line.strip() for line in said if line.lower().startswith("error")] or ["it says nothing"]
        raise Refused(
            f"pip: {errors[-1].partition(':')[2].strip() or errors[-1]}",
            f"check the network, the proxy and the free space; all that pip printed is in {log}",
        )


def progress(said: list[str]) -> str:
    """Shorten pip's latest line that names a step: what it collects, or how many packages it installs."""
    for line in reversed(said):
        if line.startswith("Installing collected packages:"):
            return f"installing {line.count(',') + 1} packages"
        if line.startswith("Collecting "):
            return f"collecting {line.split()[1]}"
    return "collecting packages"


if __name__ == "__main__":
    sys.exit(main())
