"""Stored members: what the training of one leaves in its folder, written so that damage is found when it is read.

members/00/
    network.keras, network.txt   the checkpoint, and its layers as text
    history.json                 figure → value for each epoch
    fold.npy, holdout.npy, test.npy   float32 (·, 10): the checkpoint's probabilities
    fold-last-epoch.npy, holdout-last-epoch.npy   those of the weights after the last epoch
    member.json                  the record, written last: a folder without one is an incomplete member
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digit_recognizer import files
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.recipe import Recipe

Probabilities = npt.NDArray[np.float32]
RECORD, HISTORY, NETWORK, SUMMARY = "member.json", "history.json", "network.keras", "network.txt"
PROBABILITIES = ("fold", "fold-last-epoch", "holdout", "holdout-last-epoch", "test")
FILES = (HISTORY, NETWORK, SUMMARY, *(f"{name}.npy" for name in PROBABILITIES))


@dataclass(frozen=True)
class Member:
    """A member as read back.

    Attributes:
        record: the content of ``member.json``: epochs, errors, seconds and what else is known of the training.
        history: figure → value for each epoch.
        probabilities: a name of ``PROBABILITIES`` → float32 (rows, 10).
    """

    record: dict[str, Any]
    history: dict[str, list[float]]
    probabilities: dict[str, Probabilities]

    def complete(self, recipe: Recipe) -> bool:
        """Whether the recipe trained it to its last epoch; a budget may train fewer."""
        return bool(self.record["epochs"] == recipe.epochs and not self.record["stopped"])


def write_member(
    folder: Path,
    owner: str,
    record: Mapping[str, Any],
    history: Mapping[str, list[float]],
    summary: str,
    probabilities: Mapping[str, Probabilities],
) -> None:
    """Write a member into the folder of its checkpoint; the record, with a digest of each file, last.

    Args:
        folder: the member's.
        owner: which member of which run it is (see ``runs.owner``).
        record: what is known of the training.
        history, summary, probabilities: the content of the other files.

    Raises:
        KitError: probabilities that are not finite.
        BadInput: the folder cannot be written.
    """
    for name in PROBABILITIES:
        if not np.isfinite(probabilities[name]).all():
            raise KitError(
                f"{folder}: training diverged, some probabilities of {name}.npy are not finite",
                hint="lower LEARNING_RATE",
            )
        content = io.BytesIO()
        np.save(content, probabilities[name])
        files.write_bytes(folder / f"{name}.npy", content.getvalue())
    files.write_json(folder / HISTORY, history)
    files.write_bytes(folder / SUMMARY, summary.encode())
    whole = {**record, "owner": owner, "digests": {name: _digest(_content(folder / name)) for name in FILES}}
    files.write_json(folder / RECORD, whole | {"digest": _digest_of_record(whole)})


def read_member(folder: Path, owner: str) -> Member:
    """Read a member back, if every file of it is as training wrote it, for this member of this run.

    Raises:
        BadInput: it is incomplete, of another run or member, or a file is missing or damaged, which the message names.
    """
    record = files.read_json(folder / RECORD)
    digest, digests = record.pop("digest", None), record.get("digests")
    if digest != _digest_of_record(record) or not isinstance(digests, dict):
        raise BadInput(f"{folder / RECORD}: damaged, it is not what training wrote")
    if record.get("owner") != owner:
        raise BadInput(f"{folder / RECORD}: of another run or member")
    contents = {}
    for name in FILES:
        contents[name] = _content(folder / name)
        if _digest(contents[name]) != digests.get(name):
            raise BadInput(f"{folder / name}: damaged, it is not what training wrote")
    probabilities = {}
    for name in PROBABILITIES:
        array = np.load(io.BytesIO(contents[f"{name}.npy"]), allow_pickle=False)
        if array.dtype != np.float32 or array.shape[1:] != (10,) or not np.isfinite(array).all():
            raise BadInput(f"{folder / name}.npy: expected finite probabilities, float32 (rows, 10)")
        probabilities[name] = array
    return Member(record, json.loads(contents[HISTORY]), probabilities)


def _content(path: Path) -> bytes:
    with files.explained(path):
        return path.read_bytes()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _digest_of_record(record: Mapping[str, Any]) -> str:
    return _digest(json.dumps(record, sort_keys=True).encode())
