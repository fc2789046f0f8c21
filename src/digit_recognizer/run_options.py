"""The options of a run: from a command line and the environment to a ``RunConfig``."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from digit_recognizer import command_line
from digit_recognizer import recipe as recipes
from digit_recognizer.data import dataset
from digit_recognizer.errors import BadInput
from digit_recognizer.recipe import Recipe
from digit_recognizer.runs import RunConfig

STARTED = time.monotonic()
MOUNTS = (f"competitions/{dataset.SLUG}", dataset.SLUG)  # today's and the former path
KERNEL_BUDGET = 8.5 * 3600  # seconds: the shortest limit of Kaggle's, 9 hours, less a margin
MEMBERS_KEPT = "trained members are kept; rerun the command to resume"


def run_script(pipeline: Callable[[RunConfig], None], words: Sequence[str] | None = None) -> int:
    """Run the pipeline of ``kernel.py`` with the options of a command line, and return the exit status."""
    parser = command_line.Parser(
        prog="kernel.py",
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run_options(parser)
    parser.set_defaults(call=lambda given: pipeline(run_config(given)), interrupted=MEMBERS_KEPT)
    if words is None and not hasattr(sys.modules["__main__"], "__file__") and Path(sys.argv[0]).name != "kernel.py":
        words = ()  # pasted into a notebook's cell, whose process has a command line of its own
    return command_line.run_command(parser, words)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``."""
    parser.add_argument(
        "--data",
        type=command_line.path_type,
        help="folder or zip of the competition's files (default: data/, else the sample)",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``kernel.py``."""
    add_data_option(parser)
    add_recipe_options(parser)
    parser.add_argument("--kaggle-root", type=Path, default=Path("/kaggle"), help=argparse.SUPPRESS)


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--recipe``, ``--budget`` and an option for each field of a recipe."""
    parser.add_argument(
        "--recipe", default="standard", help=f"{', '.join(recipes.RECIPES)}, or a .toml file (default: standard)"
    )
    parser.add_argument(
        "--budget",
        type=command_line.duration_type,
        help="time for the whole, such as 3m or 1h30m; fewer members, epochs or trials are trained where not all fit",
    )
    group = parser.add_argument_group("single fields of the recipe")
    read: dict[Any, Callable[[str], Any]] = {int: command_line.integer_type, float: command_line.number_type, str: str}
    for setting in recipes.recipe_fields():
        group.add_argument(
            f"--{setting.name.replace('_', '-')}", type=read[setting.type], help=setting.metadata["help"]
        )


def recipe_from(given: argparse.Namespace) -> Recipe:
    """Return the recipe that the options select."""
    fields = {s.name: value for s in recipes.recipe_fields() if (value := getattr(given, s.name)) is not None}
    return recipes.load_recipe(given.recipe).changed(**fields)


def deadline_from(given: argparse.Namespace) -> float | None:
    """Return the time of ``time.monotonic`` at which ``--budget`` ends; None without one."""
    return None if given.budget is None else STARTED + float(given.budget)


def recipe_options(recipe: Recipe, name: str) -> list[str]:
    """Return the words of a command line that select ``recipe``, as the named recipe with some fields changed."""
    named = recipes.RECIPES.get(name, recipes.RECIPES["standard"])
    words = ["--recipe", named.name]
    for field in recipes.recipe_fields():
        if (value := getattr(recipe, field.name)) != getattr(named, field.name):
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return words


def run_config(given: argparse.Namespace) -> RunConfig:
    """Return the configuration of a run, on a laptop or in a Kaggle kernel."""
    recipe, deadline = recipe_from(given), deadline_from(given)
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return _kernel_config(recipe, given, deadline)
    home = Path.cwd()
    return RunConfig(
        recipe=recipe,
        data=given.data,
        home=home,
        cache=home / "runs" / "cache",
        deadline=deadline,
        started=STARTED,
    )


def _kernel_config(recipe: Recipe, given: argparse.Namespace, deadline: float | None) -> RunConfig:
    """What a run on Kaggle is: data is mounted, what is to be kept lies in the working folder, time is limited."""
    mounts = [given.kaggle_root / "input" / folder for folder in MOUNTS]
    mounted = next((mount for mount in mounts if mount.exists()), None)
    if given.data is None and mounted is None:
        raise BadInput(
            f"{mounts[0]}: not there; add the competition Digit Recognizer to the kernel's input (competition_sources)"
        )
    working = given.kaggle_root / "working"
    return RunConfig(
        recipe=recipe,
        data=given.data or mounted,
        home=working,
        cache=Path(tempfile.gettempdir()) / "digit-recognizer",
        copy_to=working / "submission.csv",
        deadline=deadline or STARTED + KERNEL_BUDGET,
        started=STARTED,
        in_kernel=True,
    )
