"""Stored members: the files of one trained member, with digests that reveal damage when they are read.

members/00/
    network.keras, network.txt   the checkpoint, and its layers as text
    history.json                 metric → value per epoch
    fold.npy, holdout.npy, test.npy   float32 (·, 10): probabilities of the checkpoint
    fold-last-epoch.npy, holdout-last-epoch.npy   probabilities of the weights after the last epoch
    member.json                  the record, written last: a folder without it is an incomplete member
    state.npz                    while it is trained: its state after the last finished epoch
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
STATE = "state.npz"
RECORD, HISTORY, NETWORK, SUMMARY = "member.json", "history.json", "network.keras", "network.txt"
PROBABILITIES = ("fold", "fold-last-epoch", "holdout", "holdout-last-epoch", "test")
RUN_AGAIN_HINT = "remove the run's folder and run again"
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


@dataclass(frozen=True)
class MemberFiles:
    """What a worker returns of a trained member.

    Attributes:
        record: network, epochs, errors, seconds and more.
        contents: a name of ``FILES`` → the content of the file.
    """

    record: dict[str, Any]
    contents: dict[str, bytes]


def encode_member(
    record: dict[str, Any],
    network: bytes,
    history: Mapping[str, list[float]],
    summary: str,
    probabilities: Mapping[str, Probabilities],
) -> MemberFiles:
    """Return the files of a member.

    Raises:
        KitError: some probabilities are not finite.
    """
    contents = {NETWORK: network, HISTORY: files.json_bytes(history), SUMMARY: summary.encode()}
    for name in PROBABILITIES:
        if not np.isfinite(probabilities[name]).all():
            raise KitError(
                f"member {record['member'] + 1}: training diverged: probabilities are NaN or infinite ({name})",
                hint=f"lower {hints.option('learning_rate')}",
            )
        content = io.BytesIO()
        np.save(content, probabilities[name])
        contents[f"{name}.npy"] = content.getvalue()
    return MemberFiles(record, contents)


def write_member(folder: Path, owner: str, member: MemberFiles) -> None:
    """Write a member and remove the state of its training.

    The record is written last; it has a digest of each file.

    Args:
        folder: the member's folder.
        owner: digest of the run and member index (see ``provenance.member_owner``).
        member: the files.

    Raises:
        BadInput: the folder cannot be written.
    """
    for name in FILES:
        files.write_bytes(folder / name, member.contents[name])
    digests = {name: digest_of(member.contents[name]) for name in FILES}
    record = {**member.record, "owner": owner, "digests": digests}
    files.write_json(folder / RECORD, record | {"digest": _digest_of_record(record)})
    with files.explained(folder):
        (folder / STATE).unlink(missing_ok=True)


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
        if digest_of(contents[name]) != digests.get(name):
            raise BadInput(f"{folder / name}: damaged: content differs from what training wrote")
    probabilities = {}
    for name in PROBABILITIES:
        probabilities[name] = parse_array(contents[f"{name}.npy"], folder / f"{name}.npy")
        if not np.isfinite(probabilities[name]).all():
            raise BadInput(f"{folder / name}.npy: expected finite probabilities")
    return Member(record, json.loads(contents[HISTORY]), probabilities)


def read_blend(path: Path, rows: int, *, digest: str | None = None, gaps: bool = False) -> Probabilities:
    """Read probabilities of a blend, float32 (rows, 10).

    Args:
        path: the ``.npy`` file.
        rows: the expected number of rows.
        digest: the digest of the file; None if it is not known, as for runs of older versions.
        gaps: whether rows may be NaN, as those of no validation fold are.

    Raises:
        BadInput: the file cannot be read, is damaged, or has another number of rows.
    """
    content = _content(path)
    if digest and digest_of(content) != digest:
        raise BadInput(f"{path}: damaged: content differs from what the run wrote", hint=RUN_AGAIN_HINT)
    array = parse_array(content, path)
    if len(array) != rows:
        raise BadInput(f"{path}: expected float32 ({rows}, 10), found {len(array)} rows", hint=RUN_AGAIN_HINT)
    known = array[~np.isnan(array).all(axis=1)] if gaps else array
    with np.errstate(over="ignore", invalid="ignore"):
        if not ((known >= 0).all() and (abs(known.sum(axis=1) - 1) < 1e-3).all()):
            raise BadInput(f"{path}: damaged: the probabilities of a row do not sum to 1", hint=RUN_AGAIN_HINT)
    return array


def parse_array(content: bytes, path: Path) -> Probabilities:
    """Return the array in the content of a ``.npy`` file, float32 (rows, 10). Nothing is unpickled.

    Args:
        content: the bytes of the file.
        path: its path, for messages.

    Raises:
        BadInput: the file is damaged, or it is another array.
    """
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python source, which raises errors of many types
        raise BadInput(f"{path}: damaged: {' '.join(str(error).split())[:200]}", hint=RUN_AGAIN_HINT) from None
    if array.dtype != np.float32 or array.shape[1:] != (10,):
        raise BadInput(
            f"{path}: expected float32 (rows, 10), found {array.dtype.name} {array.shape}", hint=RUN_AGAIN_HINT
        )
    return np.asarray(array)


def _content(path: Path) -> bytes:
    with files.explained(path):
        return path.read_bytes()


def digest_of(content: bytes) -> str:
    """Return the digest of a file's content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _digest_of_record(record: Mapping[str, Any]) -> str:
    return digest_of(json.dumps(record, sort_keys=True).encode())
