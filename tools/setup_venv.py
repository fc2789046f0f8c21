"""Set up a virtual environment: check Python and the machine, create the folder, install, show progress.

python tools/setup_venv.py .venv requirements/base.txt [--package]
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

WHEELS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"))  # platforms that TensorFlow has wheels for
GLIBC = (2, 27)  # oldest version
STAMP = "run.stamp"  # written by the Makefile after a complete set-up
FREE = 2_500_000_000  # bytes; TensorFlow alone takes 1.9 GB
# Settings of pip that install outside the environment or change the output that is parsed here.
IGNORED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_DRY_RUN", "PIP_QUIET", "PIP_VERBOSE")
COMPLETE = (
    "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, ('digit_recognizer', 'tensorflow'))))"
)


class SetupError(Exception):
    """Set-up failed; the arguments are the message and the hint."""


def main(words: list[str] | None = None) -> int:
    """Set up the environment that the command line names; return the exit status: 0, 2 error or 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="folder of the environment, such as .venv")
    parser.add_argument("requirements", type=Path, help="file of the packages to install")
    parser.add_argument("--package", action="store_true", help="also install this repository's package")
    arguments = parser.parse_args(words)
    try:
        with arguments.requirements.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # one set-up at a time
            set_up(arguments.folder, arguments.requirements, package=arguments.package)
    except SetupError as error:
        message, hint = error.args
        print(f"error: {message}\nhint: {hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; set-up is not complete, rerun the command to resume", file=sys.stderr)
        return 130
    return 0


def set_up(folder: Path, requirements: Path, *, package: bool) -> None:
    """Create the environment if it is missing or unusable, and install the packages of ``requirements``.

    Raises:
        SetupError: the machine lacks something, or pip failed.
    """
    python = folder / "bin" / "python"
    reason = find_defect(folder)
    if reason or not (folder / STAMP).exists():
        check_machine(folder)
        print(f"{folder}: {reason}; setting up again" if reason else f"{folder}: setting up (once)", flush=True)
        try:
            if folder.is_symlink():
                folder.unlink()
            elif reason:
                shutil.rmtree(folder)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            lines = (getattr(error, "stdout", "") or str(error)).strip().splitlines()
            raise SetupError(
                f"{folder}: cannot be created: {lines[-1]}", "name another Python: make setup PYTHON=…"
            ) from None
    pip(python, ["-r", str(requirements)], f"{folder}, {requirements.name}")
    if package:
        pip(python, ["--no-build-isolation", "--no-deps", "-e", "."], f"{folder}, this package")
        if subprocess.run([python, "-I", "-c", COMPLETE]).returncode:
            raise SetupError(
                f"{folder}: pip installed into another folder",
                "remove target, prefix and root from the settings that `python3 -m pip config list` prints",
            )


def find_defect(folder: Path) -> str:
    """Return why an existing environment is unusable, such as a Python that does not start; empty if it is usable."""
    if not (folder.exists() or folder.is_symlink()):
        return ""
    current = current_stamp(folder)
    if not current:
        return "its Python is missing"
    try:
        stamp = (folder / STAMP).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        stamp = ""
    if stamp and stamp != current:
        return f"created in {stamp}, now in {current}"
    same_version = current.endswith("Python %d.%d" % sys.version_info[:2])  # noqa: UP031
    return "" if stamp or same_version else "not complete, with another Python"


def current_stamp(folder: Path) -> str:
    """Return the content of a stamp: the current folder and the environment's Python version; empty on failure."""
    code = 'import os, sys; print(ascii(os.getcwd()), "with Python %d.%d" % sys.version_info[:2])'
    try:
        done = subprocess.run([folder / "bin" / "python", "-ISc", code], capture_output=True, text=True)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()


def check_machine(folder: Path) -> None:
    """Raise ``SetupError`` if this Python or machine cannot run TensorFlow, or the disk is too full."""
    system, machine = platform.system(), platform.machine()
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED") or sys.maxsize < 2**32:
        raise SetupError(
            f"{sys.executable}: TensorFlow needs an ordinary 64-bit CPython",
            "name one: make setup PYTHON=python3.12",
        )
    if (system, machine) not in WHEELS:
        raise SetupError(
            f"{system} on {machine}: TensorFlow has no package for it",
            "use Linux on x86_64 or aarch64, WSL 2, macOS on Apple silicon with a native Python, or a Kaggle kernel",
        )
    libc, version = platform.libc_ver()
    if system == "Linux" and (libc != "glibc" or tuple(map(int, version.split(".")[:2])) < GLIBC):
        raise SetupError(
            f"{libc or 'C library'} {version or 'other than glibc'}: TensorFlow needs glibc 2.27 or later",
            "use a distribution such as Debian or Ubuntu, or a container of one",
        )
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"{sys.executable}: module ensurepip is missing, which virtual environments need",
            f"install it: apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv",
        )
    free = shutil.disk_usage(next(parent for parent in folder.absolute().parents if parent.exists())).free
    if free < FREE:
        raise SetupError(
            f"{folder}: {free / 1e9:.1f} GB free on its disk, {FREE / 1e9:.1f} GB needed", "free some space"
        )


def pip(python: Path, words: list[str], title: str) -> None:
    """Run ``pip install <words>``; show its step and the seconds on a terminal, or else one line per phase.

    Raises:
        SetupError: pip failed; its output is in ``pip.log``.
    """
    environment = {name: value for name, value in os.environ.items() if name not in (*IGNORED, "PYTHONPATH")}
    environment |= {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}  # these override pip's configuration files
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    process = subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    output: list[str] = []

    def read() -> None:
        for line in process.stdout or ():
            output.append(line)

    reader = threading.Thread(target=read, daemon=True)
    start, printed = time.monotonic(), ""
    reader.start()
    running = True
    while running:
        reader.join(1)
        running = reader.is_alive()
        step = latest_step(output)
        if sys.stdout.isatty():
            line = f"{title}: {step}, {time.monotonic() - start:.0f} s"
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif step.split()[0] != printed:
            printed = step.split()[0]
            print(f"{title}: {step}", flush=True)
    if sys.stdout.isatty():
        print("\r\x1b[K", end="", flush=True)
    if process.wait():
        log = python.parent.parent / "pip.log"
        log.write_text("".join(output), encoding="utf-8")
        errors = [line.strip() for line in output if line.lower().startswith("error")] or ["no message"]
        raise SetupError(
            f"pip: {errors[-1].partition(':')[2].strip() or errors[-1]}",
            f"check the network, the proxy and the free space; the output of pip is in {log}",
        )


def latest_step(output: list[str]) -> str:
    """Return pip's latest step in short form: the package that it collects, or the number that it installs."""
    for line in reversed(output):
        if line.startswith("Installing collected packages:"):
            return f"installing {line.count(',') + 1} packages"
        if line.startswith("Collecting "):
            return f"collecting {line.split()[1]}"
    return "collecting packages"


if __name__ == "__main__":
    sys.exit(main())
