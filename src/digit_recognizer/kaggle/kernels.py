"""Fetch the output of a kernel into ``submissions/`` and ``runs/``."""

import os
import re
import tempfile
from pathlib import Path

from digit_recognizer import console, files, ledger, provenance, runs_table
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.kaggle.client import Client
from digit_recognizer.ledger import Row

# What the kit itself keeps in runs/ and submissions/, beside the runs; and bench-<time>.
RESERVED = {"cache", "studies", "compare.md", "compare.json", "error.log", "ledger", "sample-ledger"}
# What a run leaves in its folder; of a kernel's output nothing else is kept.
LEFT = re.compile(r"(members/\d+/)?([\w-]+\.(json|npy|png|keras|html|md|txt|csv|log)|lock)")


def fetch(home: Path, client: Client, slug: str) -> None:
    """Bring what the kernel ``slug`` left into ``submissions`` and ``runs``, and its rows into the ledger.

    Nothing that is there already is overwritten, and nothing but a run's own files is kept.

    Raises:
        BadInput: what it left is in the way of what is there, or is not what a run leaves.
        KitError: the kernel has not ended, or left no run.
    """
    status, why = client.kernel_status(slug)
    if status not in ("complete", "error", "cancel_acknowledged"):
        raise KitError(f"{slug}: not done yet ({status}); `make status` tells when it is")
    with tempfile.TemporaryDirectory(dir=files.folder(home / "runs"), prefix=".output-") as folder:
        output = Path(folder)
        client.download_kernel_output(slug, output)
        try:
            rows = ledger.read(output / "submissions")
        except BadInput as error:
            raise BadInput(f"{slug}: {str(error).replace(f'{output}/', '')}", hint="run the kernel again") from None
        if not rows:
            raise KitError(f"{slug}: left no finished run{f'; it failed: {why}' if why else ''}")
        for row in rows:  # all are checked before the first is kept
            _check_fetched(home, output, slug, row)
        for row in rows:
            file, run = home / "submissions" / f"{row.run}.csv", home / "runs" / row.run
            if not file.exists():
                files.write_bytes(file, (output / "submissions" / file.name).read_bytes())
            if (output / "runs" / row.run).exists() and not run.exists():
                (output / "runs" / row.run).replace(run)
            # What a run records of itself; whether it was submitted is known here, not there.
            ledger.record(home / "submissions", row.changed(reference="", status="", public_score="", message=""))
            console.print_lines(f"{row.run}: in submissions/ and runs/")
    names = {row.run for row in rows}
    kept = [row for row in ledger.read(home / "submissions") if row.run in names]
    console.print_lines(
        runs_table.table(kept, {row.run: provenance.find_provenance(home, row.run, row).obstacle for row in kept})
    )


def _check_fetched(home: Path, output: Path, slug: str, row: Row) -> None:
    """Refuse a run of a kernel that would overwrite something, and drop of its folder what is not a run's."""
    name = row.run  # safe as part of a path, as all names that the ledger gives
    file, run = home / "submissions" / f"{name}.csv", home / "runs" / name
    came, folder = output / "submissions" / f"{name}.csv", output / "runs" / name
    if name.casefold() in RESERVED or name.casefold().startswith("bench"):
        raise BadInput(f"{slug}: left a run of the name {name}, which the kit uses itself")
    if came.is_symlink() or not came.is_file() or ledger.digest(came) != row.file_sha256:
        raise KitError(f"{slug}: the submission of {name} did not come whole; run it again")
    if os.path.lexists(file) and (not file.is_file() or ledger.digest(file) != row.file_sha256):
        raise BadInput(f"{file}: is there already, with other content than {slug} left", hint="move it away")
    if any(old.run == name and old.file_sha256 != row.file_sha256 for old in ledger.read(home / "submissions")):
        raise BadInput(f"{slug}: left another submission of {name} than the ledger has", hint="remove one of them")
    if os.path.lexists(run) and (run.is_symlink() or not run.is_dir()):
        raise BadInput(f"{run}: is there already and is no run's folder", hint="move it away")
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise BadInput(f"{slug}: left something else than a folder as runs/{name}")
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
            if path.is_symlink():
                raise BadInput(f"{slug}: left a link, runs/{path.relative_to(output / 'runs').as_posix()}")
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif not (path.is_file() and LEFT.fullmatch(path.relative_to(folder).as_posix())):
                path.unlink()
