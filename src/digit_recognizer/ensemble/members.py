"""Stored members: the files of one trained member, with digests that reveal damage when they are read.

members/00/
    network.keras, network.txt   the checkpoint, and its layers as text
    history.json                 metric → value per epoch
    fold.npy, holdout.npy, test.npy   float32 (·, 10): probabilities of the checkpoint
    fold-last-epoch.npy, holdout-last-epoch.npy   probabilities of the weights after the last epoch
    member.json                  the record, written last: a folder without it is an incomplete member
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

from digit_recognizer import files, hints
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.recipe import Recipe

Probabilities = npt.NDArray[np.float32]
RECORD, HISTORY, NETWORK, SUMMARY = "member.json", "history.json", "network.keras", "network.txt"
PROBABILITIES = ("fold", "fold-last-epoch", "holdout", "holdout-last-epoch", "test")
FILES = (HISTORY, NETWORK, SUMMARY, *(f"{name}.npy" for name in PROBABILITIES))


@dataclass(frozen=True)
class Member:
    """A member read from its folder.

    Attributes:
        record: the content of ``member.json``: network, epochs, errors, seconds and more.
        history: metric → value per epoch.
        probabilities: a name of ``PROBABILITIES`` → float32 (rows, 10).
    """

    record: dict[str, Any]
    history: dict[str, list[float]]
    probabilities: dict[str, Probabilities]

    def complete(self, recipe: Recipe) -> bool:
        """Whether it was trained for all epochs of the recipe; a budget may stop it earlier."""
        return bool(self.record["epochs"] == recipe.epochs and not self.record["stopped"])


def write_member(
    folder: Path,
    owner: str,
    record: Mapping[str, Any],
    history: Mapping[str, list[float]],
    summary: str,
    probabilities: Mapping[str, Probabilities],
) -> None:
    """Write a member beside its checkpoint; the record, which holds a digest of each file, is written last.

    Args:
        folder: the member's folder, which holds the checkpoint.
        owner: digest of the run and member index (see ``provenance.member_owner``).
        record, history, summary, probabilities: the contents of the files.

    Raises:
        KitError: some probabilities are not finite.
        BadInput: the folder cannot be written.
    """
    for name in PROBABILITIES:
        if not np.isfinite(probabilities[name]).all():
            raise KitError(
                f"{folder}: training diverged: probabilities of {name}.npy are NaN or infinite",
                hint=f"lower {hints.option('learning_rate')}",
            )
        content = io.BytesIO()
        np.save(content, probabilities[name])
        files.write_bytes(folder / f"{name}.npy", content.getvalue())
    files.write_json(folder / HISTORY, history)
    files.write_bytes(folder / SUMMARY, summary.encode())
    complete_record = {**record, "owner": owner, "digests": {name: _digest(_content(folder / name)) for name in FILES}}
    files.write_json(folder / RECORD, complete_record | {"digest": _digest_of_record(complete_record)})


def read_member(folder: Path, owner: str) -> Member:
    """Read a member whose files are all unchanged since training.

    Args:
        folder: the member's folder.
        owner: the digest of the run and member index that it must belong to.

    Raises:
        BadInput: it is incomplete or of another run or member, or one of its files is missing or damaged.
    """
    record = files.read_json(folder / RECORD)
    digest, digests = record.pop("digest", None), record.get("digests")
    if digest != _digest_of_record(record) or not isinstance(digests, dict):
        raise BadInput(f"{folder / RECORD}: damaged: content differs from what training wrote")
    if record.get("owner") != owner:
        raise BadInput(f"{folder / RECORD}: belongs to another run or member")
    contents = {}
    for name in FILES:
        contents[name] = _content(folder / name)
        if _digest(contents[name]) != digests.get(name):
            raise BadInput(f"{folder / name}: damaged: content differs from what training wrote")
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
