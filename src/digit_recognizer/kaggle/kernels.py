"""Kernels on Kaggle: build, push, follow, and fetch the output into ``submissions/`` and ``runs/``."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from digit_recognizer import console, files, hints, launch, ledger, provenance, runs_table
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.kaggle import bundle
from digit_recognizer.kaggle.client import Client, connect
from digit_recognizer.ledger import Row

ENDED = ("complete", "error", "cancel_acknowledged")  # states of a kernel whose output does not change any more
QUOTAS = {"t4x2": "GPU", "tpu": "TPU"}  # accelerator → the quota that it uses
# Names in runs/ and submissions/ that are not runs; names that begin with "bench" are reserved as well.
RESERVED = {"cache", "studies", "compare.md", "compare.json", "error.log", "ledger", "sample-ledger"}
# Files of a run's folder; other files of a kernel's output are dropped.
RUN_FILES = re.compile(r"(members/\d+/)?([\w-]+\.(json|npy|png|keras|html|md|txt|csv|log)|lock)")


def build_kernel(
    folder: Path,
    *,
    options: Sequence[str],
    accelerator: str,
    notebook: bool,
    shard: tuple[int, int] | None = None,
    owner: str = bundle.OWNER_PLACEHOLDER,
) -> Path:
    """Write the kernel into ``folder``, check that it starts in an empty folder, and return its file.

    See ``bundle.build`` for the arguments.

    Raises:
        BadInput: the accelerator is unknown.
        KitError: the kernel does not start.
    """
    path = bundle.build(
        launch.ROOT, folder, options=options, accelerator=accelerator, notebook=notebook, shard=shard, owner=owner
    )
    with tempfile.TemporaryDirectory() as empty:
        # A notebook contains the same modules as a script.
        script = bundle.build(
            launch.ROOT, Path(empty) / "src", options=options, accelerator=accelerator, notebook=False
        )
        command = [sys.executable, "-I", str(script), "--help"]
        process = subprocess.run(command, cwd=empty, capture_output=True, text=True)
    if process.returncode:
        error = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise KitError(f"{path}: does not start on its own: {error}", hint="correct that module, then build again")
    return path


def push(
    folder: Path,
    *,
    options: Sequence[str],
    accelerator: str,
    notebook: bool,
    shard: tuple[int, int] | None = None,
) -> None:
    """Build the kernel in ``folder`` and send it to Kaggle, which runs it.

    Raises:
        BadInput: there are no credentials, or the accelerator is unknown.
        KitError: the kernel does not start, or Kaggle refuses it or cannot be reached.
    """
    with connect() as client:
        owner = client.username()
        path = build_kernel(
            folder, options=options, accelerator=accelerator, notebook=notebook, shard=shard, owner=owner
        )
        if name := QUOTAS.get(accelerator):
            with suppress(KitError):  # the quota is only information
                console.print_lines(f"quota: {quota(client, name)}")
        address = client.push_kernel(path, files.read_json(folder / "kernel-metadata.json"))
    console.print_lines(f"kernel: {shortened(path)}, running on Kaggle: {address}")
    given = {"shard": "{}/{}".format(*shard)} if shard else {}
    logs, output = (hints.command(verb, **given) for verb in ("logs", "output"))
    console.print_lines(f"next: `{logs}`, then `{output}` to fetch its {'members' if shard else 'submission'}")


def quota(client: Client, *names: str) -> str:
    """Return the hours of ``GPU`` and ``TPU`` that are left this week, as text."""
    hours = client.accelerator_quota()
    parts = [f"{name} {hours[name][0]:.1f} of {hours[name][1]:.0f} h left this week" for name in names if name in hours]
    return ", ".join(parts) or "not known"


def logs(shard: tuple[int, int] | None = None) -> None:
    """Print the log of the newest version of the kernel, and follow it until the kernel ends.

    Raises:
        KitError: the kernel failed, or Kaggle cannot be reached.
    """
    with connect() as client:
        slug = _slug(client, shard)
        for line in client.kernel_log(slug):
            print(line, flush=True)
        state, reason = client.kernel_status(slug)
    if reason:
        raise KitError(f"{slug}: {state}: {reason}")


def status(shard: tuple[int, int] | None = None) -> None:
    """Print the state of the newest version of the kernel; ``KitError`` with Kaggle's reason if it failed."""
    with connect() as client:
        slug = _slug(client, shard)
        state, reason = client.kernel_status(slug)
    if reason:
        raise KitError(f"{slug}: {state}: {reason}", hint=f"`{hints.command('logs')}` shows its log")
    console.print_lines(f"{slug}: {state}")


def fetch_output(home: Path, shard: tuple[int, int] | None = None) -> None:
    """Download the runs of the kernel into ``submissions`` and ``runs``, and add their rows to the ledger.

    Existing files are not overwritten, and only the files of runs are kept. Incomplete runs, such as those of a shard,
    are kept in ``runs`` alone.

    Args:
        home: the folder of ``submissions`` and ``runs``.
        shard: the shard whose kernel is meant; None for the kernel that trains all members.

    Raises:
        BadInput: a run conflicts with an existing file, or contains what no run writes.
        KitError: the kernel has not ended, or wrote no run.
    """
    with connect() as client:
        slug = _slug(client, shard)
        state, reason = client.kernel_status(slug)
        if state not in ENDED:
            raise KitError(f"{slug}: not complete ({state})", hint=f"`{hints.command('status')}` shows its state")
        with tempfile.TemporaryDirectory(dir=files.folder(home / "runs"), prefix=".output-") as temporary:
            output = Path(temporary)
            client.download_kernel_output(slug, output)
            rows = _read_rows(output, slug)
            incomplete = _incomplete_runs(output, rows)
            if not rows and not incomplete:
                raise KitError(
                    f"{slug}: no run in its output{reason and f'; it failed: {reason}'}",
                    hint=f"`{hints.command('push')}` runs the kernel again",
                )
            for row in rows:  # check all runs before any is kept
                _check_fetched(home, output, slug, row)
            for name in incomplete:
                _check_folder(home, output, slug, name)
            for row in rows:
                _keep(home, output, row)
            for name in incomplete:
                _keep_incomplete(home, output, name)
    if not rows:
        return
    names = {row.run for row in rows}
    kept = [row for row in ledger.read(home / "submissions") if row.run in names]
    obstacles = {row.run: provenance.find_provenance(home, row.run, row).why_not_submittable for row in kept}
    console.print_lines(runs_table.render(kept, obstacles))


def shortened(path: Path) -> Path:
    """Return a path relative to the current folder if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _slug(client: Client, shard: tuple[int, int] | None) -> str:
    return f"{client.username()}/{bundle.slug(shard)}"


def _read_rows(output: Path, slug: str) -> list[Row]:
    """Return the rows of the kernel's ledger; refuse a damaged one."""
    try:
        return ledger.read(output / "submissions")
    except BadInput as error:
        again = f"`{hints.command('push')}` runs the kernel again"
        raise BadInput(f"{slug}: {str(error).replace(f'{output}/', '')}", hint=again) from None


def _incomplete_runs(output: Path, rows: Sequence[Row]) -> list[str]:
    """Return the names of runs that have trained members and no row in the kernel's ledger."""
    complete = {row.run for row in rows}
    found = {path.parents[2].name for path in output.glob("runs/*/members/*/member.json")}
    return sorted(found - complete)


def _keep_incomplete(home: Path, output: Path, name: str) -> None:
    """Move the folder of an incomplete run into place, if there is none yet."""
    fetched, run = output / "runs" / name, home / "runs" / name
    members = sum(1 for _ in fetched.glob("members/*/member.json"))
    if not run.exists():
        fetched.replace(run)
    console.print_lines(f"{name}: fetched into runs/, incomplete, {members} member{'s' * (members > 1)}")


def _keep(home: Path, output: Path, row: Row) -> None:
    """Move the files of a run into place, if there are none yet, and record its row."""
    file, run = home / "submissions" / f"{row.run}.csv", home / "runs" / row.run
    if not file.exists():
        files.write_bytes(file, (output / "submissions" / file.name).read_bytes())
    if (output / "runs" / row.run).exists() and not run.exists():
        (output / "runs" / row.run).replace(run)
    # Whether a run was submitted is known to the local ledger only.
    ledger.record(home / "submissions", row.changed(reference="", status="", public_score="", message=""))
    console.print_lines(f"{row.run}: fetched into submissions/ and runs/")


def _check_fetched(home: Path, output: Path, slug: str, row: Row) -> None:
    """Refuse a fetched run that conflicts with an existing one."""
    name = row.run  # the ledger accepts only names that are safe in a path
    file, fetched_file = home / "submissions" / f"{name}.csv", output / "submissions" / f"{name}.csv"
    if fetched_file.is_symlink() or not fetched_file.is_file() or ledger.digest(fetched_file) != row.file_sha256:
        raise KitError(f"{slug}: the submission of {name} is incomplete", hint=f"run `{hints.command('output')}` again")
    if os.path.lexists(file) and (not file.is_file() or ledger.digest(file) != row.file_sha256):
        raise BadInput(f"{file}: exists already, with other content than in the output of {slug}", hint="move it away")
    if any(old.run == name and old.file_sha256 != row.file_sha256 for old in ledger.read(home / "submissions")):
        raise BadInput(
            f"{slug}: the submission of {name} differs from the one in the ledger",
            hint=f"remove the row of {name} from submissions/ledger.csv to fetch it",
        )
    _check_folder(home, output, slug, name)


def _check_folder(home: Path, output: Path, slug: str, name: str) -> None:
    """Refuse the folder of a fetched run that is none or has links, and remove files from it that no run writes."""
    if files.safe_name(name, slug).casefold() in RESERVED or name.casefold().startswith("bench"):
        raise BadInput(f"{slug}: a run has the reserved name {name}", hint="rename the recipe and run the kernel again")
    run, fetched_run = home / "runs" / name, output / "runs" / name
    if os.path.lexists(run) and (run.is_symlink() or not run.is_dir()):
        raise BadInput(f"{run}: expected the folder of a run, found a file or link", hint="move it away")
    unexpected = f"do not use this output; `{hints.command('push')}` runs the kernel again"
    if os.path.lexists(fetched_run) and (fetched_run.is_symlink() or not fetched_run.is_dir()):
        raise BadInput(f"{slug}: expected runs/{name} as a folder, found a file or link", hint=unexpected)
    if fetched_run.exists():
        for path in sorted(fetched_run.rglob("*"), reverse=True):  # files before their folder
            if path.is_symlink():
                link = path.relative_to(output / "runs").as_posix()
                raise BadInput(f"{slug}: expected files, found a link: runs/{link}", hint=unexpected)
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif not (path.is_file() and RUN_FILES.fullmatch(path.relative_to(fetched_run).as_posix())):
                path.unlink()
