"""Look at what the other verbs need, and say how to correct what is missing."""

import importlib.metadata
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from digit_recognizer.data import dataset
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.kaggle import credentials
from digit_recognizer.kaggle.client import RULES_PAGE, Client
from digit_recognizer.training import devices

PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy", "kaggle")


def examine(home: Path, given: Path | None) -> int:
    """Print a line for each thing looked at and give how many are wrong; what is only absent is not wrong."""
    wrong = 0
    person: credentials.Credentials | None = None

    def wrongly(what: str, error: Exception) -> None:
        nonlocal wrong
        wrong += 1
        found = str(error) if isinstance(error, KitError) else f"{type(error).__name__}: {error}"
        print(f"!!  {what:<12} {printable(' '.join(found.split()))}", flush=True)
        if isinstance(error, KitError) and error.hint:
            print(f"    {'':<12} hint: {printable(error.hint)}", flush=True)

    def look(what: str, find: Callable[[], str]) -> bool:
        """Print a line for what ``find`` finds; False where it fails."""
        try:
            print(f"ok  {what:<12} {printable(find())}", flush=True)
        except Exception as error:  # whatever is broken is a finding here
            wrongly(what, error)
            return False
        return True

    def whose() -> str:
        nonlocal person
        person = credentials.find()
        if person is None:
            return f"none, which only sending needs; make a token at {credentials.SETTINGS_PAGE}"
        return f"{person.kind} from {person.source}"

    look("Python", _python)
    look("packages", _packages)
    look("devices", _devices)
    look("data", lambda: _data(home, given))
    look("credentials", whose)
    if person:
        try:
            with Client(person, tries=2) as client:
                if look("account", client.username):  # what stops this call stops the others too
                    look("rules", lambda: _rules(client))
                    look("today", lambda: f"{client.submissions_left_today()} submissions left")
        except KitError as error:
            wrongly("account", error)
    return wrong


def _python() -> str:
    return f"{platform.python_version()} at {sys.executable}"


def _packages() -> str:
    found, missing = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise BadInput(f"{', '.join(missing)} missing", hint="make setup, or pip install -r requirements/base.txt")
    return ", ".join(found)


def _devices() -> str:
    from digit_recognizer.training import backend
    from digit_recognizer.training.backend import keras

    workers, threads = devices.plan_workers(1000)
    names = ", ".join(keras.distribution.list_devices())
    return f"{names}; {workers} at once with {threads} of {devices.cores()} cores each, {backend.precision('auto')}"


def _data(home: Path, given: Path | None) -> str:
    if given is None and not dataset.exists(home / "data"):
        return "none in data/; make run downloads it where there are credentials, else it uses the bundled sample"
    return str(dataset.load(given, default=home / "data", cache=home / "runs" / "cache"))


def _rules(client: Client) -> str:
    if not client.has_joined():
        raise KitError("not accepted", hint=f"join the competition at {RULES_PAGE}")
    return "accepted"
