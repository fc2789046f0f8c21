"""The verbs: arguments → calls. Modules that a verb alone needs are imported when it runs."""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from digit_recognizer import command_line, files, launch, provenance, run_options, submission
from digit_recognizer import recipe as recipes
from digit_recognizer.data import dataset
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.kaggle import credentials, kernels, submit, sync
from digit_recognizer.kaggle.client import connect

ROOT = launch.ROOT
KERNEL = ROOT / "build" / "kernel"


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb and give its exit status: 0 well, 1 failed, 2 bad input, 130 interrupted."""
    parser = command_line.Parser(
        prog="python -m digit_recognizer", description="A submission kit for Kaggle's Digit Recognizer."
    )
    verbs = parser.add_subparsers(required=True, metavar="verb", parser_class=command_line.Parser)
    run = verbs.add_parser("run", help="train an ensemble, score it, write and check a submission")
    run_options.add_run_options(run)
    run.set_defaults(call=_run, interrupted=run_options.MEMBERS_KEPT)
    check = verbs.add_parser("check", help="check a submission file and name every fault by line")
    check.add_argument("--file", type=command_line.path_type, required=True, help="the submission file")
    check.add_argument(
        "--rows",
        type=command_line.whole_number_type(1, 10_000_000),
        help=f"rows of its test file (default: its run's, or the competition's {submission.ROWS:,})",
    )
    check.set_defaults(call=_check)
    submit = verbs.add_parser("submit", help="send a submission to Kaggle, wait for its score, remember both")
    submit.add_argument(
        "--file", type=command_line.path_type, help="the file to send (default: of the best run not yet sent)"
    )
    submit.add_argument("--run", help="the run whose file to send")
    submit.add_argument("--message", default="", help="goes along with it (default: the run and its score)")
    submit.add_argument("--yes", action="store_true", help="send without asking")
    submit.add_argument("--force", action="store_true", help="send though validation says it is worse than one sent")
    submit.add_argument(
        "--wait", type=command_line.wait_type, default=600, help="seconds to wait for the score (default: 600)"
    )
    submit.add_argument("--no-wait", dest="wait", action="store_const", const=0, help="do not wait for the score")
    submit.set_defaults(call=_submit, interrupted="the same command looks at Kaggle's list before it sends again")
    scores = verbs.add_parser("scores", help="the table of all runs: validation, public score, the gap")
    scores.set_defaults(
        call=lambda given: sync.scores(Path.cwd()), interrupted="no run was changed; Kaggle's answers may be stored"
    )
    fetch = verbs.add_parser("data", help="download the competition's files into data/")
    fetch.set_defaults(call=lambda given: _download(), interrupted="rerun the command to resume the download")
    kernel = verbs.add_parser("kernel", help="make the one script that Kaggle runs: build/kernel/")
    run_options.add_recipe_options(kernel)
    _add_kernel_options(kernel)
    kernel.set_defaults(
        call=lambda given: _made(given), interrupted="build/kernel may not be complete; rerun the command"
    )
    push = verbs.add_parser("push", help="make the kernel, check it, send it to Kaggle, which runs it")
    run_options.add_recipe_options(push)
    _add_kernel_options(push)
    push.set_defaults(
        call=_push, interrupted="the kernel may have been sent already: make status shows what runs on Kaggle"
    )
    status = verbs.add_parser("status", help="how the pushed kernel fares")
    status.set_defaults(call=_status)
    output = verbs.add_parser("output", help="bring what the pushed kernel left into submissions/ and runs/")
    output.set_defaults(call=_output, interrupted="some files may have been fetched; rerun the command to fetch all")
    compare = verbs.add_parser("compare", help="train several recipes on the same rows and set them side by side")
    run_options.add_data_option(compare)
    compare.add_argument(
        "--recipes", default=",".join(recipes.REFERENCE_RECIPES), help=f"default: {','.join(recipes.REFERENCE_RECIPES)}"
    )
    compare.add_argument(
        "--seeds", type=command_line.whole_number_type(1, 1000), default=1, help="how many seeds, from 0 (default: 1)"
    )
    compare.set_defaults(call=_compare, interrupted=run_options.MEMBERS_KEPT)
    tune = verbs.add_parser("tune", help="search a recipe's fields for better values, on Optuna; leaves a recipe file")
    run_options.add_data_option(tune)
    run_options.add_recipe_options(tune)
    tune.add_argument(
        "--trials",
        type=command_line.whole_number_type(1, 100_000),
        default=20,
        help="how many the study is to have in all (default: 20)",
    )
    tune.add_argument("--fields", help="which fields to search, such as dropout,learning_rate")
    tune.set_defaults(call=_tune, interrupted="completed trials are kept; rerun the command to resume")
    bench = verbs.add_parser("bench", help="measure score, time and pace against their goals, in one run")
    run_options.add_data_option(bench)
    bench.add_argument("--whole", action="store_true", help="run recipe best whole too, which takes two hours")
    bench.set_defaults(call=_bench, interrupted=run_options.MEMBERS_KEPT)
    notebook = verbs.add_parser("notebook", help="open the way through on the sample, step by step, in JupyterLab")
    notebook.set_defaults(call=lambda given: _notebook(), interrupted="rerun the command to open the notebook")
    doctor = verbs.add_parser("doctor", help="look at Python, packages, devices, data, credentials, the account")
    run_options.add_data_option(doctor)
    doctor.set_defaults(call=_doctor, interrupted="nothing was changed, except that runs/cache may hold parsed data")
    return command_line.run_command(parser, words)


def _run(given: argparse.Namespace) -> int:
    """Start ``kernel.py`` with the words of this command line; download the data first where that is possible."""
    run_options.recipe_from(given)  # a wrong recipe is refused before the download
    home = Path.cwd()
    if given.data is None and not dataset.exists(home / "data") and credentials.find():
        _download()
    return launch.run_kernel(given.words[1:], cwd=home)


def _push(given: argparse.Namespace) -> None:
    with connect() as client:
        path = _build(given, client.username())
        address = client.push_kernel(path, files.read_json(path.parent / "kernel-metadata.json"))
    print(f"{_shown(path)}: sent, Kaggle runs it: {address}")
    print("make status follows it, make output brings what it leaves")


def _status(given: argparse.Namespace) -> None:
    from digit_recognizer.kaggle.bundle import KERNEL_SLUG

    with connect() as client:
        slug = f"{client.username()}/{KERNEL_SLUG}"
        status, why = client.kernel_status(slug)
    if why:
        raise KitError(f"{slug}: {status}: {why}")
    print(f"{slug}: {status}")


def _output(given: argparse.Namespace) -> None:
    from digit_recognizer.kaggle.bundle import KERNEL_SLUG

    with connect() as client:
        kernels.fetch(Path.cwd(), client, f"{client.username()}/{KERNEL_SLUG}")


def _download() -> None:
    with connect() as client:
        client.download_data(Path("data"))
    print("data/: train.csv and test.csv of the competition")


def _submit(given: argparse.Namespace) -> None:
    submit.submit(
        Path.cwd(),
        file=given.file,
        run=given.run,
        message=given.message,
        yes=given.yes,
        force=given.force,
        wait=given.wait,
    )


def _add_kernel_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accelerator", default="none", help="none, t4x2 or tpu (default: none)")
    parser.add_argument("--notebook", action="store_true", help="a notebook, a module a cell, instead of a script")


def _made(given: argparse.Namespace) -> None:
    from digit_recognizer.kaggle.bundle import OWNER_PLACEHOLDER

    path = _build(given, OWNER_PLACEHOLDER)
    print(f"{_shown(path)}: made, {path.stat().st_size:,} bytes; make push sends it to Kaggle")


def _shown(path: Path) -> Path:
    """A path as short as it can be written from the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _build(given: argparse.Namespace, owner: str) -> Path:
    """Make the kernel, to run with the options that were given, and see that it starts by itself."""
    from digit_recognizer.kaggle import bundle

    recipe = run_options.recipe_from(given)
    # A recipe file is not uploaded: the options of the standard recipe with each of its fields are, instead.
    words = run_options.recipe_options(recipe, given.recipe)
    words += [] if given.budget is None else ["--budget", f"{given.budget:g}s"]
    make = partial(bundle.build, ROOT, options=words, accelerator=given.accelerator, owner=owner)
    path = make(KERNEL, notebook=given.notebook)
    with tempfile.TemporaryDirectory() as empty:
        script = make(Path(empty) / "src", notebook=False)  # a notebook has the same text
        command = [sys.executable, "-I", str(script), "--help"]
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise KitError(f"{path}: does not start by itself, with nothing beside it: {why}", hint="fix what that names")
    return path


def _compare(given: argparse.Namespace) -> None:
    from digit_recognizer.experiments import compare

    names = command_line.split_names(given.recipes)
    if not names:
        raise BadInput("compare: expected at least one recipe", hint="such as --recipes dense,conv-pool")
    compare.compare(Path.cwd(), given.data, names, given.seeds)


def _tune(given: argparse.Namespace) -> None:
    from digit_recognizer.experiments import tune

    fields = tune.FIELDS if given.fields is None else command_line.split_names(given.fields)
    tune.tune_recipe(
        Path.cwd(),
        given.data,
        run_options.recipe_from(given),
        trials=given.trials,
        fields=fields,
        deadline=run_options.deadline_from(given),
    )


def _bench(given: argparse.Namespace) -> int:
    from digit_recognizer.experiments import benchmark

    return min(1, benchmark.run_benchmark(Path.cwd(), given.data, whole=given.whole))


def _notebook() -> None:
    """Open a copy of the notebook; one that is there already is the user's own work by now."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise KitError(
            "jupyterlab: not installed", hint="use make notebook, or pip install -r requirements/notebook.txt"
        )
    copy = ROOT / "build" / "notebook" / "walkthrough.ipynb"
    if not copy.exists():
        files.write_bytes(copy, (ROOT / "notebooks" / copy.name).read_bytes())
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # as in containers
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *root, str(copy)])


def _doctor(given: argparse.Namespace) -> int:
    from digit_recognizer import doctor

    return min(1, doctor.examine(Path.cwd(), given.data))


def _check(given: argparse.Namespace) -> int:
    made = provenance.find_provenance(Path(os.path.realpath(given.file)).parent.parent, given.file.stem)
    rows = given.rows or made.test_rows or submission.ROWS
    faults, warnings = submission.examine(given.file, rows)
    if faults:
        print("\n".join(printable(f"{given.file}, {fault}") for fault in faults), file=sys.stderr)
        return BadInput.status
    for warning in warnings:
        print(printable(f"warning: {given.file}: {warning}"), file=sys.stderr)
    obstacle = replace(made, test_rows=rows).obstacle
    print(printable(f"{given.file}: good, {rows:,} rows of ImageId,Label{obstacle and '; ' + obstacle}"))
    return 0
