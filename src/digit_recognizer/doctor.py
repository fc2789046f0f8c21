"""Check what the verbs need: Python, packages, devices, data, credentials and the account on Kaggle."""

import importlib.metadata
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from digit_recognizer import hints
from digit_recognizer.data import dataset
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.kaggle import credentials, kernels
from digit_recognizer.kaggle.client import RULES_PAGE, Client
from digit_recognizer.training import devices

PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy", "kaggle")
OK, ABSENT, WRONG = "ok", "–", "!!"
NAME_WIDTH = 11  # columns
WIDTHS = (40, 100)  # columns: narrowest and widest output


class Finding(NamedTuple):
    """The result of a check: ``OK``, ``ABSENT`` (optional and missing) or ``WRONG``, a text, and how to fix it."""

    mark: str
    text: str
    hint: str = ""


def status(findings: dict[str, Finding]) -> int:
    """Return the exit status: 1 if a finding is wrong, else 0."""
    return int(any(finding.mark == WRONG for finding in findings.values()))


def as_json(findings: dict[str, Finding]) -> dict[str, Any]:
    """Return the findings as plain lists and texts."""
    names = {OK: "ok", ABSENT: "absent", WRONG: "wrong"}
    return {
        "checks": [
            {"name": name, "status": names[finding.mark], "text": finding.text, "hint": finding.hint}
            for name, finding in findings.items()
        ]
    }


def examine(home: Path, data: Path | None) -> dict[str, Finding]:
    """Print the finding of each check as it ends, and return all by name.

    Args:
        home: the folder of ``data`` and ``runs``.
        data: folder or zip of the competition's files; None for ``data``.
    """
    findings: dict[str, Finding] = {}

    def check(name: str, find: Callable[[], Finding]) -> bool:
        """Print a finding, and return whether it is not wrong. An exception of any kind is a finding."""
        try:
            finding = find()
        except KitError as error:
            finding = Finding(WRONG, str(error), error.hint)
        except Exception as error:
            finding = Finding(WRONG, f"{type(error).__name__}: {error}")
        findings[name] = finding
        print(render(name, finding, shutil.get_terminal_size().columns), flush=True)
        return finding.mark != WRONG

    check("Python", lambda: Finding(OK, f"{platform.python_version()} at {sys.executable}"))
    check("packages", find_packages)
    check("devices", find_devices)
    check("data", lambda: find_data(home, data))
    if check("credentials", find_credentials) and (account := credentials.find()):
        try:
            with Client(account, tries=2) as client:
                if check("account", lambda: Finding(OK, client.username())):  # else the other calls fail as well
                    check("rules", lambda: find_rules(client))
                    check("today", lambda: Finding(OK, f"{client.submissions_left_today()} submissions left"))
                    check("quota", lambda: find_quota(client))
        except KitError as error:
            refused = Finding(WRONG, str(error), error.hint)
            check("account", lambda: refused)
    return findings


def render(name: str, finding: Finding, width: int) -> str:
    """Return a finding as lines of at most ``width`` columns, the hint below; paths and URLs are not broken."""
    width = min(max(width, WIDTHS[0]), WIDTHS[1])
    start = f"{finding.mark:<2}  {name:<{NAME_WIDTH}}  "
    text = printable(" ".join(finding.text.split()))
    hint = printable(f"hint: {' '.join(finding.hint.split())}") if finding.hint else ""
    parts = ((text, start, " " * len(start)), (hint, " " * 4, " " * 4))
    return "\n".join(
        line
        for part, first, following in parts
        for line in textwrap.wrap(
            part,
            width,
            initial_indent=first,
            subsequent_indent=following,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def find_packages() -> Finding:
    """Return the versions of the required packages; ``BadInput`` if one is missing."""
    installed, missing = [], []
    for package in PACKAGES:
        try:
            installed.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise BadInput(
            f"{', '.join(missing)} not installed", hint="run `make setup` or `pip install -r requirements/base.txt`"
        )
    return Finding(OK, ", ".join(installed))


def find_devices() -> Finding:
    """Return the devices, the number of workers for a large ensemble, and the precision; imports TensorFlow."""
    from digit_recognizer.training import backend
    from digit_recognizer.training.backend import keras

    workers, threads = devices.plan_workers(1000)
    names = ", ".join(keras.distribution.list_devices())
    cores = f"{workers} workers with {threads} of {devices.cores()} cores each"
    return Finding(OK, f"{names}; {cores}; {backend.precision('auto')}")


def find_data(home: Path, data: Path | None) -> Finding:
    """Return the shape of the competition's files; ``BadInput`` if they are damaged."""
    if data is None and not dataset.exists(home / "data"):
        return Finding(
            ABSENT,
            "no files in data/, so runs use the bundled sample",
            f"`{hints.command('data')}` downloads the competition's files; {hints.option('data')} names others",
        )
    return Finding(OK, str(dataset.load(data, default=home / "data", cache=home / "runs" / "cache")))


def find_credentials() -> Finding:
    """Return the kind and source of the credentials; ``BadInput`` if they cannot be used."""
    if account := credentials.find():
        return Finding(OK, f"{account.kind} from {account.source}")
    return Finding(ABSENT, "none; only downloads, submissions and kernels need them", credentials.CREATE_HINT)


def find_quota(client: Client) -> Finding:
    """Return the hours of GPU and TPU that are left this week; optional, since most kernels need neither."""
    try:
        return Finding(OK, kernels.quota(client, "GPU", "TPU"))
    except KitError as error:
        return Finding(ABSENT, str(error), error.hint)


def find_rules(client: Client) -> Finding:
    """Return whether the account has accepted the competition's rules; ``KitError`` if not."""
    if not client.has_joined():
        raise KitError("not accepted", hint=f"join the competition at {RULES_PAGE}")
    return Finding(OK, "accepted")
