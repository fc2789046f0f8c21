"""The verbs of the command line: arguments → calls. Each verb imports what it needs when it runs."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from digit_recognizer import command_line, hints, launch, run_options
from digit_recognizer import recipe as recipes
from digit_recognizer.command_line import Outcome
from digit_recognizer.errors import BadInput, KitError, printable

ROOT = launch.ROOT
KERNEL = ROOT / "build" / "kernel"
USER_VERBS = {
    "doctor": "check Python, packages, devices, data and credentials",
    "data": "download the competition's files into data/",
    "run": "train an ensemble, score it, write and check a submission",
    "scores": "list all runs with their expected and public scores",
    "merge": "join runs that trained shards of the members into one run",
    "report": "write a page with scores, curves and errors of a run",
    "demo": "open a page that predicts the digits that you draw on it",
    "check": "check a submission file and name every fault by line",
    "submit": "send a submission to Kaggle and wait for its score",
    "compare": "train several recipes on the same rows and compare them",
    "tune": "search for better values of a recipe's fields with Optuna",
    "notebook": "open the walkthrough of a run in JupyterLab",
    "kernel": "write the script that Kaggle runs into build/kernel/",
    "push": "write the kernel, check it and run it on Kaggle",
    "status": "show the state of the pushed kernel",
    "logs": "show and follow the log of the pushed kernel",
    "output": "fetch what the pushed kernel wrote: submission and run",
}
JSON_VERBS = ("doctor", "scores", "check", "compare")
DEVELOPER_VERBS = {"bench": "measure scores, times and training pace against their goals"}


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status: 0 success, 1 failure, 2 bad input, 130 interrupted.

    Args:
        words: the words of the command line; None for those of this process.
    """
    return command_line.run_command(build_parser(), words)


def build_parser() -> command_line.Parser:
    """Return the parser of all verbs."""
    parser = command_line.Parser(
        prog="digit-recognizer",
        usage="digit-recognizer <verb> [options]",
        description=f"A submission kit for Kaggle's Digit Recognizer competition.\n\n{_verb_list()}",
        epilog="`digit-recognizer <verb> --help` shows the options of a verb. Developers also use `make setup`, "
        f"`make test`, `make fuzz`, `make lint`, `make image` and `make clean`.\n\n{command_line.STATUSES}",
    )
    verbs = parser.add_subparsers(
        required=True, metavar="verb", prog=parser.prog, help=argparse.SUPPRESS, parser_class=command_line.Parser
    )

    def add(
        verb: str, call: Callable[[Any], Outcome | int | None], interrupted: str, /, **example: object
    ) -> command_line.Parser:
        form = "[NAME=value …]" if hints.called_by_make() else "[options]"
        added: command_line.Parser = verbs.add_parser(
            verb,
            usage=f"{hints.command(verb)} {form}",
            description=f"{verb}: {(USER_VERBS | DEVELOPER_VERBS)[verb]}.",
            epilog=f"example: {hints.command(verb, **example)}\n\n{command_line.STATUSES}",
        )
        added.set_defaults(call=call, interrupted=interrupted)
        if verb in JSON_VERBS:
            added.add_argument("--json", action="store_true", help="print JSON; texts go to standard error")
        return added

    doctor = add(
        "doctor", _doctor, "nothing was changed, but runs/cache may hold parsed data", data="digit-recognizer.zip"
    )
    run_options.add_data_option(doctor)

    data = add("data", _data, "rerun the command to resume the download")
    data.add_argument("--force", action="store_true", help="download again if data/ has the files already")

    run = add("run", _run, run_options.MEMBERS_KEPT, recipe="quick", data="digit-recognizer.zip")
    run_options.add_run_options(run)

    add("scores", _scores, "no run was changed; the ledger may hold new answers from Kaggle")

    merge = add("merge", _merge, run_options.MEMBERS_KEPT, runs="standard-20260102-030405,standard-20260102-040506")
    merge.add_argument(
        "--runs", required=True, metavar="NAMES", help="names in runs/, or paths of run folders (required)"
    )
    run_options.add_data_option(merge)

    report = add("report", _report, "the report was not changed", run="standard-20260102-030405")
    report.add_argument("--run", metavar="NAME", help="the run (default: the newest complete one)")
    report.add_argument(
        "--all", action="store_true", help="write a page of all runs instead, which compares two of them"
    )
    run_options.add_data_option(report)

    demo = add("demo", _demo, "nothing was changed", run="standard-20260102-030405")
    demo.add_argument("--run", metavar="NAME", help="the run (default: the newest complete one)")

    check = add("check", _check, "nothing was changed", file="submissions/quick-20260102-030405.csv")
    check.add_argument(
        "--file", type=command_line.path_type, required=True, metavar="PATH", help="the submission file (required)"
    )
    check.add_argument(
        "--rows",
        type=command_line.whole_number_type(1, 10_000_000),
        metavar="N",
        help="rows of the test file, 1 to 10000000 (default: those of its run, or else 28000)",
    )

    submit = add("submit", _submit, "rerun the command: it looks at Kaggle's list before it sends again", yes=True)
    submit.add_argument(
        "--file",
        type=command_line.path_type,
        metavar="PATH",
        help="the file to send (default: that of the best run not yet sent)",
    )
    submit.add_argument("--run", metavar="NAME", help="the run whose file to send")
    submit.add_argument(
        "--message", default="", metavar="TEXT", help="description of the submission (default: run and score)"
    )
    submit.add_argument("--yes", action="store_true", help="send without a prompt")
    submit.add_argument("--force", action="store_true", help="send a file that validated worse than one sent before")
    submit.add_argument(
        "--wait",
        type=command_line.wait_type,
        default=600,
        metavar="SECONDS",
        help=f"longest wait for the score, 0 to {command_line.MAX_WAIT} s (default: 600)",
    )
    submit.add_argument("--no-wait", dest="wait", action="store_const", const=0, help="do not wait for the score")

    compare = add("compare", _compare, run_options.MEMBERS_KEPT, recipes="dense,conv-pool", seeds=3)
    run_options.add_data_option(compare)
    compare.add_argument(
        "--recipes",
        default=",".join(recipes.REFERENCE_RECIPES),
        metavar="A,B",
        help=f"recipes to compare (default: {', '.join(recipes.REFERENCE_RECIPES)})",
    )
    compare.add_argument(
        "--seeds",
        type=command_line.whole_number_type(1, 1000),
        default=1,
        metavar="N",
        help="number of seeds, 0 to N-1; N is 1 to 1000 (default: 1)",
    )
    run_options.add_executor_options(compare)

    tune = add("tune", _tune, "completed trials are kept; rerun the command to resume", recipe="quick", trials=30)
    run_options.add_data_option(tune)
    run_options.add_recipe_options(tune)
    tune.add_argument(
        "--trials",
        type=command_line.whole_number_type(1, 100_000),
        default=20,
        metavar="N",
        help="trials of the whole study, earlier ones included, 1 to 100000 (default: 20)",
    )
    tune.add_argument(
        "--fields",
        metavar="A,B",
        help="fields to search (default: learning rate, batch size, regularisation, augmentation)",
    )

    add("notebook", _notebook, "rerun the command to open the notebook")

    interrupted = "build/kernel may not be complete; rerun the command"
    kernel = add("kernel", _kernel, interrupted, recipe="wide", accelerator="t4x2")
    interrupted = f"the kernel may have been sent already: `{hints.command('status')}` shows it"
    push = add("push", _push, interrupted, recipe="wide", budget="3h")
    for kernel_parser in (kernel, push):
        run_options.add_recipe_options(kernel_parser)
        kernel_parser.add_argument(
            "--accelerator", default="none", metavar="NAME", help="none, t4x2 or tpu (default: none)"
        )
        kernel_parser.add_argument(
            "--notebook", action="store_true", help="write a notebook with one module per cell instead of a script"
        )
        run_options.add_shard_option(
            kernel_parser, "a kernel of its own that trains a part of the members, such as 1/3"
        )
    for verb, call, interrupted in (
        ("status", _status, "nothing was changed"),
        ("logs", _logs, "the kernel continues on Kaggle"),
        ("output", _output, "some files may have been fetched; rerun the command to fetch all"),
    ):
        run_options.add_shard_option(add(verb, call, interrupted), "the kernel of a part of the members, such as 1/3")

    bench = add("bench", _bench, run_options.MEMBERS_KEPT, data="digit-recognizer.zip")
    run_options.add_data_option(bench)
    return parser


def _verb_list() -> str:
    """Return the verbs as text, separately for users and developers."""
    sections = {"verbs": USER_VERBS, "for developers": DEVELOPER_VERBS}
    return "\n\n".join(
        "\n".join([f" {title}:", *(f"   {verb:<10} {text}" for verb, text in verbs.items())])
        for title, verbs in sections.items()
    )


def _doctor(arguments: argparse.Namespace) -> Outcome:
    from digit_recognizer import doctor

    findings = doctor.examine(Path.cwd(), arguments.data)
    return Outcome(doctor.status(findings), doctor.as_json(findings))


def _data(arguments: argparse.Namespace) -> None:
    if not arguments.force and all((Path("data") / f"{table}.csv").is_file() for table in ("train", "test")):
        print("data/: train.csv and test.csv are already there")
        print(f"hint: `{hints.command('data', force=True)}` downloads them again")
        return
    _download()


def _download() -> None:
    from digit_recognizer.kaggle.client import connect

    with connect() as client:
        client.download_data(Path("data"))
    print("data/: train.csv and test.csv of the competition")


def _run(arguments: argparse.Namespace) -> int:
    """Replace this process by ``kernel.py`` with the same options; download the data first if possible."""
    from digit_recognizer.data import dataset
    from digit_recognizer.kaggle import credentials

    run_options.recipe_from(arguments)  # refuses a wrong recipe before the download
    if arguments.data is None and not dataset.exists(Path.cwd() / "data") and credentials.find():
        _download()
    return launch.become_kernel(arguments.words[1:])


def _scores(arguments: argparse.Namespace) -> Outcome:
    from digit_recognizer.kaggle import sync

    return Outcome(document={"runs": sync.scores(Path.cwd())})


def _merge(arguments: argparse.Namespace) -> int:
    """Join the runs, and then replace this process by ``kernel.py``, which blends and scores the new one."""
    from digit_recognizer import merge

    folder = merge.merge_runs(Path.cwd(), command_line.split_names(arguments.runs))
    print(f"merged: runs/{folder.name}", flush=True)
    return launch.become_kernel(["--merged", folder.name, *(["--data", str(arguments.data)] if arguments.data else [])])


def _report(arguments: argparse.Namespace) -> None:
    from digit_recognizer import runs
    from digit_recognizer.evaluation import report, runs_report

    home, newest = Path.cwd(), None
    if arguments.all:
        with suppress(BadInput):  # the table needs no complete run
            newest = runs.find_run(home, None)
        page = runs_report.write_index(home, report.load_data(newest, arguments.data, home))
    else:
        folder = runs.find_run(home, arguments.run)
        page = report.write_report(folder, report.load_data(folder, arguments.data, home))
    print(f"report: {page.relative_to(home)}")


def _demo(arguments: argparse.Namespace) -> None:
    from digit_recognizer import demo

    demo.serve(Path.cwd(), arguments.run, open_browser=sys.stdout.isatty())


def _check(arguments: argparse.Namespace) -> Outcome:
    from digit_recognizer import provenance, submission

    path = arguments.file
    origin = provenance.find_provenance(Path(os.path.realpath(path)).parent.parent, path.stem)
    rows = arguments.rows or origin.test_rows or submission.ROWS
    faults, warnings = submission.examine(path, rows)
    reason = replace(origin, test_rows=rows).why_not_submittable
    for fault in faults:
        print(printable(f"error: {path}, {fault}"), file=sys.stderr)
    if not faults:
        for warning in warnings:
            print(printable(f"warning: {path}: {warning}"), file=sys.stderr)
        print(printable(f"{path}: valid, {rows:,} rows of ImageId,Label{reason and '; ' + reason}"))
    document = {
        "file": str(path),
        "rows": rows,
        "valid": not faults,
        "faults": faults,
        "warnings": warnings,
        "submittable": not (faults or reason),
        "reason": reason,
    }
    return Outcome(BadInput.status if faults else 0, document)


def _submit(arguments: argparse.Namespace) -> None:
    from digit_recognizer.kaggle import submit

    submit.submit(
        Path.cwd(),
        file=arguments.file,
        run=arguments.run,
        message=arguments.message,
        yes=arguments.yes,
        force=arguments.force,
        wait=arguments.wait,
    )


def _compare(arguments: argparse.Namespace) -> Outcome:
    from digit_recognizer.experiments import compare

    names = command_line.split_names(arguments.recipes)
    if not names:
        raise BadInput(
            f"{hints.option('recipes')}: expected at least one recipe", hint=hints.option("recipes", "dense,conv-pool")
        )
    executor, address = run_options.executor_from(arguments)
    options = ["--executor", executor, *(["--ray-address", address] if address else [])]
    summaries = compare.compare(Path.cwd(), arguments.data, names, arguments.seeds, options)
    return Outcome(document={"recipes": compare.as_json(summaries)})


def _tune(arguments: argparse.Namespace) -> None:
    from digit_recognizer.experiments import tune

    fields = tune.FIELDS if arguments.fields is None else command_line.split_names(arguments.fields)
    tune.tune_recipe(
        Path.cwd(),
        arguments.data,
        run_options.recipe_from(arguments),
        trials=arguments.trials,
        fields=fields,
        deadline=run_options.deadline_from(arguments),
    )


def _bench(arguments: argparse.Namespace) -> int:
    from digit_recognizer.experiments import benchmark

    return min(1, benchmark.run_benchmark(Path.cwd(), arguments.data))


def _notebook(arguments: argparse.Namespace) -> None:
    """Open a copy of the notebook in JupyterLab; a copy that exists is kept, since the user may have changed it."""
    from digit_recognizer import files

    if importlib.util.find_spec("jupyterlab") is None:
        raise KitError(
            "jupyterlab is not installed",
            hint="`make notebook` installs it, and so does `pip install -r requirements/notebook.txt`",
        )
    copy = ROOT / "build" / "notebook" / "walkthrough.ipynb"
    if not copy.exists():
        files.write_bytes(copy, (ROOT / "notebooks" / copy.name).read_bytes())
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # as in containers
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *root, str(copy)])


def _kernel(arguments: argparse.Namespace) -> None:
    from digit_recognizer.kaggle import kernels

    path = kernels.build_kernel(KERNEL, **_kernel_options(arguments))
    print(f"kernel: {kernels.shortened(path)}, {path.stat().st_size:,} bytes")
    print(f"next: `{hints.command('push')}` with the same options runs it on Kaggle")


def _push(arguments: argparse.Namespace) -> None:
    from digit_recognizer.kaggle import kernels

    kernels.push(KERNEL, **_kernel_options(arguments))


def _kernel_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of ``kernels.build_kernel`` and ``kernels.push``."""
    # A recipe file is not uploaded: the fields in which it differs from a named recipe become options.
    words = run_options.recipe_options(run_options.recipe_from(arguments), arguments.recipe)
    if arguments.budget is not None:
        words += ["--budget", f"{arguments.budget:g}s"]
    if arguments.shard:
        words += ["--shard", "{}/{}".format(*arguments.shard)]
    given = ("accelerator", "notebook", "shard")
    return {"options": words, **{name: getattr(arguments, name) for name in given}}


def _status(arguments: argparse.Namespace) -> None:
    from digit_recognizer.kaggle import kernels

    kernels.status(arguments.shard)


def _logs(arguments: argparse.Namespace) -> None:
    from digit_recognizer.kaggle import kernels

    kernels.logs(arguments.shard)


def _output(arguments: argparse.Namespace) -> None:
    from digit_recognizer.kaggle import kernels

    kernels.fetch_output(Path.cwd(), arguments.shard)
