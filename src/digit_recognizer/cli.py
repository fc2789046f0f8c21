"""Verbs → calls: the command line, and the one place where errors become a line and an exit status."""

import argparse
import difflib
import importlib.util
import io
import math
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from digit_recognizer import competition, credentials, data, files, sending, submission
from digit_recognizer import recipe as recipes
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.recipe import Recipe
from digit_recognizer.runs import Order

Story = Callable[[Order], None]
ROOT = Path(__file__).parents[2]
REPORT = Path("runs") / "error.log"
BEGAN = time.monotonic()
MOUNTS = (f"competitions/{competition.SLUG}", competition.SLUG)  # today's and the former path
KERNEL_BUDGET = 8.5 * 3600  # seconds: the shortest limit of Kaggle's, 9 hours, less a margin
MIN_BUDGET, MAX_BUDGET = 30, 90 * 86400  # seconds
MAX_WAIT = 7 * 86400  # seconds
KERNEL = ROOT / "build" / "kernel"
KEPT = "trained members are kept; rerun the command to resume"


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb and give its exit status: 0 well, 1 failed, 2 bad input, 130 interrupted."""
    parser = _Parser(prog="python -m digit_recognizer", description="A submission kit for Kaggle's Digit Recognizer.")
    verbs = parser.add_subparsers(required=True, metavar="verb", parser_class=_Parser)
    run = verbs.add_parser("run", help="train an ensemble, score it, write and check a submission")
    _add_run_options(run)
    run.set_defaults(call=lambda given: _run(_story(), given), interrupted=KEPT)
    check = verbs.add_parser("check", help="check a submission file and name every fault by line")
    check.add_argument("--file", type=_path, required=True, help="the submission file")
    check.add_argument(
        "--rows",
        type=_whole(1, 10_000_000),
        help=f"rows of its test file (default: its run's, or the competition's {submission.ROWS:,})",
    )
    check.set_defaults(call=_check)
    submit = verbs.add_parser("submit", help="send a submission to Kaggle, wait for its score, remember both")
    submit.add_argument("--file", type=_path, help="the file to send (default: of the best run not yet sent)")
    submit.add_argument("--run", help="the run whose file to send")
    submit.add_argument("--message", default="", help="goes along with it (default: the run and its score)")
    submit.add_argument("--yes", action="store_true", help="send without asking")
    submit.add_argument("--force", action="store_true", help="send though validation says it is worse than one sent")
    submit.add_argument("--wait", type=_seconds, default=600, help="seconds to wait for the score (default: 600)")
    submit.add_argument("--no-wait", dest="wait", action="store_const", const=0, help="do not wait for the score")
    submit.set_defaults(call=_submit, interrupted="the same command looks at Kaggle's list before it sends again")
    scores = verbs.add_parser("scores", help="the table of all runs: validation, public score, the gap")
    scores.set_defaults(
        call=lambda given: sending.scores(Path.cwd()), interrupted="no run was changed; Kaggle's answers may be stored"
    )
    fetch = verbs.add_parser("data", help="download the competition's files into data/")
    fetch.set_defaults(call=lambda given: _download(), interrupted="rerun the command to resume the download")
    kernel = verbs.add_parser("kernel", help="make the one script that Kaggle runs: build/kernel/")
    _add_recipe_options(kernel)
    _add_kernel_options(kernel)
    kernel.set_defaults(
        call=lambda given: _made(given), interrupted="build/kernel may not be complete; rerun the command"
    )
    push = verbs.add_parser("push", help="make the kernel, check it, send it to Kaggle, which runs it")
    _add_recipe_options(push)
    _add_kernel_options(push)
    push.set_defaults(
        call=_push, interrupted="the kernel may have been sent already: make status shows what runs on Kaggle"
    )
    status = verbs.add_parser("status", help="how the pushed kernel fares")
    status.set_defaults(call=_status)
    output = verbs.add_parser("output", help="bring what the pushed kernel left into submissions/ and runs/")
    output.set_defaults(call=_output, interrupted="some files may have been fetched; rerun the command to fetch all")
    compare = verbs.add_parser("compare", help="train several recipes on the same rows and set them side by side")
    _add_data_option(compare)
    compare.add_argument("--recipes", default=",".join(recipes.SEEDS), help=f"default: {','.join(recipes.SEEDS)}")
    compare.add_argument("--seeds", type=_whole(1, 1000), default=1, help="how many seeds, from 0 (default: 1)")
    compare.set_defaults(call=_compare, interrupted=KEPT)
    tune = verbs.add_parser("tune", help="search a recipe's fields for better values, on Optuna; leaves a recipe file")
    _add_data_option(tune)
    _add_recipe_options(tune)
    tune.add_argument(
        "--trials", type=_whole(1, 100_000), default=20, help="how many the study is to have in all (default: 20)"
    )
    tune.add_argument("--fields", help="which fields to search, such as dropout,learning_rate")
    tune.set_defaults(call=_tune, interrupted="completed trials are kept; rerun the command to resume")
    bench = verbs.add_parser("bench", help="measure score, time and pace against their goals, in one run")
    _add_data_option(bench)
    bench.add_argument("--whole", action="store_true", help="run recipe best whole too, which takes two hours")
    bench.set_defaults(call=_bench, interrupted=KEPT)
    notebook = verbs.add_parser("notebook", help="open the way through on the sample, step by step, in JupyterLab")
    notebook.set_defaults(call=lambda given: _notebook(), interrupted="rerun the command to open the notebook")
    doctor = verbs.add_parser("doctor", help="look at Python, packages, devices, data, credentials, the account")
    _add_data_option(doctor)
    doctor.set_defaults(call=_doctor, interrupted="nothing was changed, except that runs/cache may hold parsed data")
    test = verbs.add_parser("test", help="check style and types, then run the tests")
    test.add_argument("--fast", action="store_true", help="leave out the tests that really train")
    test.set_defaults(call=lambda given: _lint() or _test(given.fast), interrupted="the tests are not complete")
    lint = verbs.add_parser("lint", help="check style and types")
    lint.set_defaults(call=lambda given: _lint(), interrupted="the checks are not complete")
    return _guarded(parser, words)


def script(story: Story, words: Sequence[str] | None = None) -> int:
    """Run ``kernel.py``'s story from its own command line, which is that of the verb ``run``."""
    parser = _Parser(
        prog="kernel.py",
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_run_options(parser)
    parser.set_defaults(call=lambda given: _run(story, given), interrupted=KEPT)
    if words is None and not hasattr(sys.modules["__main__"], "__file__") and Path(sys.argv[0]).name != "kernel.py":
        words = ()  # pasted into a notebook's cell, whose process has a command line of its own
    return _guarded(parser, words)


class _Parser(argparse.ArgumentParser):
    """Refuses words in one line as all errors are, and takes no option by a part of its name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is not known, where argparse would hand it to the parser above."""
        given, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            kind = "option" if word.startswith("-") else "word"
            raise BadInput(f"{self.prog}: unknown {kind} {_shortened(word)!r}", hint=self._hint(word))
        return given, unknown

    def error(self, message: str) -> Any:
        choice = re.search("invalid choice: '(.*?)'", message)
        message = re.sub(r" \(choose from .*\)$", "", message)
        raise BadInput(f"{self.prog}: {message[:300]}", hint=self._hint(choice[1] if choice else ""))

    def _hint(self, word: str) -> str:
        """The option or verb that ``word`` probably stands for."""
        known = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action.choices, dict):
                known += action.choices
        likely = difflib.get_close_matches(word.lower().replace("_", "-"), known, 1)
        return f"did you mean {likely[0]}?" if likely else f"see {self.prog} --help"


def _guarded(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> int:
    _make_printing_safe()
    given = argparse.Namespace()
    try:
        parser.parse_args(words, given)
        return int(given.call(given) or 0)
    except KitError as error:
        where = _report(traceback.format_exc()) if hasattr(error, "__notes__") else ""
        print(f"error: {printable(' '.join(str(error).splitlines()))}{where}", file=sys.stderr)
        if error.hint:
            print(f"hint: {printable(error.hint)}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(f"\ninterrupted; {getattr(given, 'interrupted', 'nothing was changed')}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        where = _report(traceback.format_exc())
        # What the system refuses (a full disk, a folder that is gone) is no fault of the program's.
        kind = "" if isinstance(error, OSError) else f"internal error: {type(error).__name__}: "
        print(f"error: {kind}{printable(' '.join(str(error).split()))}{where}", file=sys.stderr)
        return 1


def _make_printing_safe() -> None:
    """Let no character and no closed stream end a run: what cannot be encoded is printed as ``?``."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _report(text: str) -> str:
    """Write a traceback to a file, for whoever fixes it."""
    try:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(text, encoding="utf-8")
    except OSError:
        return ""
    return f"; the details are in {REPORT}"


def _add_data_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=_path, help="folder or zip of the competition's files (default: data/, else the sample)"
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    _add_data_option(parser)
    _add_recipe_options(parser)
    parser.add_argument("--kaggle-root", type=Path, default=Path("/kaggle"), help=argparse.SUPPRESS)


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe", default="standard", help=f"{', '.join(recipes.RECIPES)}, or a .toml file (default: standard)"
    )
    parser.add_argument(
        "--budget",
        type=_duration,
        help="time for the whole, such as 3m or 1h30m; fewer members, epochs or trials are trained where not all fit",
    )
    group = parser.add_argument_group("single fields of the recipe")
    read: dict[Any, Callable[[str], Any]] = {int: _integer, float: _number, str: str}
    for setting in recipes.settings():
        group.add_argument(
            f"--{setting.name.replace('_', '-')}", type=read[setting.type], help=setting.metadata["help"]
        )


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def _path(text: str) -> Path:
    """Read a path, with ``~`` as the home folder: make hands it on unread."""
    try:
        path = Path(text).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # fails where it contains NUL or is too long
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"{_shortened(text)!r} cannot be used: {why}") from None
    return path


def _integer(text: str) -> int:
    """Read a whole number that is written in digits, not too many."""
    if not re.fullmatch("[+-]?[0-9]{1,20}", text.strip()):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {_shortened(text)!r}")
    return int(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    """Make a reader of whole numbers from ``low`` to ``high``."""

    def read(text: str) -> int:
        number = _integer(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, found {number}")
        return number

    return read


def _number(text: str) -> float:
    """Read a finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, found {_shortened(text)!r}")
    return number


def _seconds(text: str) -> float:
    """Read how long to wait, in seconds."""
    seconds = _number(text)
    if not 0 <= seconds <= MAX_WAIT:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to {MAX_WAIT}, found {_shortened(text)!r}")
    return seconds


def _listed(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _recipe(given: argparse.Namespace) -> Recipe:
    fields = {s.name: value for s in recipes.settings() if (value := getattr(given, s.name)) is not None}
    return recipes.named(given.recipe).changed(**fields)


def _deadline(given: argparse.Namespace) -> float | None:
    return None if given.budget is None else BEGAN + float(given.budget)


def _run(story: Story, given: argparse.Namespace) -> None:
    recipe, deadline = _recipe(given), _deadline(given)
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        story(_in_a_kernel(recipe, given, deadline))
        return
    home = Path.cwd()
    if given.data is None and not data.present(home / "data") and credentials.find():
        began = time.monotonic()
        _download()
        if deadline is not None:  # a budget is for training, and a network may be slow
            deadline += time.monotonic() - began
    story(Order(recipe=recipe, data=given.data, home=home, cache=home / "runs" / "cache", deadline=deadline))


def _in_a_kernel(recipe: Recipe, given: argparse.Namespace, deadline: float | None) -> Order:
    """What a run on Kaggle is: data is mounted, what is to be kept lies in the working folder, time is limited."""
    mounts = [given.kaggle_root / "input" / folder for folder in MOUNTS]
    mounted = next((mount for mount in mounts if mount.exists()), None)
    if given.data is None and mounted is None:
        raise BadInput(
            f"{mounts[0]}: not there; add the competition Digit Recognizer to the kernel's input (competition_sources)"
        )
    working = given.kaggle_root / "working"
    return Order(
        recipe=recipe,
        data=given.data or mounted,
        home=working,
        cache=Path(tempfile.gettempdir()) / "digit-recognizer",
        also=working / "submission.csv",
        deadline=deadline or BEGAN + KERNEL_BUDGET,
    )


def _duration(text: str) -> float:
    """Read a time such as 90s, 3m, 11h30m or 1.5h, in seconds."""
    parts = re.fullmatch(r"(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?", text.strip().lower())
    try:
        hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    except ValueError:
        hours = minutes = seconds = 0
    total = 3600 * hours + 60 * minutes + seconds
    if not MIN_BUDGET <= total <= MAX_BUDGET:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 3m or 1h30m, at least {MIN_BUDGET} s, at most {MAX_BUDGET // 86400} days, "
            f"found {_shortened(text)!r}"
        )
    return total


def _push(given: argparse.Namespace) -> None:
    with competition.signed_in() as door:
        path = _build(given, door.account())
        address = door.push(path, files.read_json(path.parent / "kernel-metadata.json"))
    print(f"{_shown(path)}: sent, Kaggle runs it: {address}")
    print("make status follows it, make output brings what it leaves")


def _status(given: argparse.Namespace) -> None:
    from digit_recognizer.bundle import KERNEL_SLUG

    with competition.signed_in() as door:
        slug = f"{door.account()}/{KERNEL_SLUG}"
        status, why = door.kernel_status(slug)
    if why:
        raise KitError(f"{slug}: {status}: {why}")
    print(f"{slug}: {status}")


def _output(given: argparse.Namespace) -> None:
    from digit_recognizer.bundle import KERNEL_SLUG

    with competition.signed_in() as client:
        sending.fetch(Path.cwd(), client, f"{client.account()}/{KERNEL_SLUG}")


def _download() -> None:
    with competition.signed_in() as door:
        door.download(Path("data"))
    print("data/: train.csv and test.csv of the competition")


def _submit(given: argparse.Namespace) -> None:
    sending.submit(
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
    from digit_recognizer.bundle import NOBODY

    path = _build(given, NOBODY)
    print(f"{_shown(path)}: made, {path.stat().st_size:,} bytes; make push sends it to Kaggle")


def _shown(path: Path) -> Path:
    """A path as short as it can be written from the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _build(given: argparse.Namespace, owner: str) -> Path:
    """Make the kernel, to run with the options that were given, and see that it starts by itself."""
    from digit_recognizer import bundle

    recipe = _recipe(given)
    # A recipe file stays behind: the standard recipe with each of its fields goes instead.
    named = recipes.RECIPES.get(given.recipe, recipes.RECIPES["standard"])
    chosen = {"recipe": named.name} | ({} if given.budget is None else {"budget": f"{given.budget:g}s"})
    for setting in recipes.settings():
        if (value := getattr(recipe, setting.name)) != getattr(named, setting.name):
            chosen[setting.name] = str(value)
    words = [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", value)]
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
    from digit_recognizer import compare

    names = _listed(given.recipes)
    if not names:
        raise BadInput("compare: expected at least one recipe", hint="such as --recipes dense,conv-pool")
    compare.compare(Path.cwd(), given.data, names, given.seeds, _story())


def _tune(given: argparse.Namespace) -> None:
    from digit_recognizer import tune

    fields = tune.FIELDS if given.fields is None else _listed(given.fields)
    tune.tune(Path.cwd(), given.data, _recipe(given), trials=given.trials, fields=fields, deadline=_deadline(given))


def _bench(given: argparse.Namespace) -> int:
    from digit_recognizer import bench

    return min(1, bench.bench(Path.cwd(), given.data, _story(), whole=given.whole))


def _notebook() -> None:
    """Open a copy of the notebook; one that is there already is the user's own work by now."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise KitError(
            "jupyterlab: not installed", hint="use make notebook, or pip install -r requirements-notebook.txt"
        )
    copy = ROOT / "build" / "notebook" / "way-through.ipynb"
    if not copy.exists():
        files.write_bytes(copy, (ROOT / "src" / "notebooks" / copy.name).read_bytes())
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # as in containers
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *root, str(copy)])


def _doctor(given: argparse.Namespace) -> int:
    from digit_recognizer import doctor

    return min(1, doctor.examine(Path.cwd(), given.data))


def _story() -> Story:
    kernel = ROOT / "kernel.py"
    if not kernel.exists():
        raise KitError(f"{kernel}: not found; the verb run needs the whole repository, not the installed package alone")
    story: Story = runpy.run_path(str(kernel))["main"]
    return story


def _check(given: argparse.Namespace) -> int:
    made = sending.made_from(Path(os.path.realpath(given.file)).parent.parent, given.file.stem)
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


def _lint() -> int:
    commands = (("ruff", "check", "-q", "."), ("ruff", "format", "-q", "--check", "."), ("mypy", "--no-error-summary"))
    return max(_tool(*command) for command in commands)


def _test(fast: bool) -> int:
    """Run the tests, two at a time; those that measure a time come last, with nothing beside them."""
    if fast:
        return _tool("pytest", "-q", "-n", "2", "--dist", "worksteal", "-m", "not slow and not timed")
    # A file's tests share what one of them has trained, so a file stays together.
    together = _tool("pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "not timed")
    return together or _tool("pytest", "-q", "-m", "timed")


def _tool(module: str, *words: str) -> int:
    if importlib.util.find_spec(module) is None:
        raise KitError(f"{module}: not installed", hint="run make test, or pip install -r requirements-dev.txt")
    return subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT).returncode
