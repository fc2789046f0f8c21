"""The options of a run: from a command line and the environment to a ``RunConfig``."""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digit_recognizer import command_line, files, hints
from digit_recognizer import recipe as recipes
from digit_recognizer.errors import BadInput
from digit_recognizer.recipe import Recipe

if TYPE_CHECKING:
    from digit_recognizer.runs import RunConfig

STARTED = time.monotonic()
KERNEL_BUDGET = 8.5 * 3600  # seconds: Kaggle's shortest limit of a kernel is 9 hours
EXECUTORS = ("local", "ray")
MEMBERS_KEPT = "trained members and finished epochs are kept; rerun the command to resume"
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "NAME"}


def run_script(pipeline: Callable[["RunConfig"], None], words: Sequence[str] | None = None) -> int:
    """Run the pipeline of ``kernel.py`` with the options of a command line; return the exit status."""
    parser = command_line.Parser(
        prog="kernel.py",
        usage="kernel.py [options]",
        description=sys.modules["__main__"].__doc__,
        epilog="example: python kernel.py --recipe quick --data digit-recognizer.zip\n\n" + command_line.STATUSES,
    )
    add_run_options(parser)
    parser.set_defaults(call=lambda arguments: pipeline(run_config(arguments)), interrupted=MEMBERS_KEPT)
    if words is None and not hasattr(sys.modules["__main__"], "__file__") and Path(sys.argv[0]).name != "kernel.py":
        words = ()  # pasted into a cell of a notebook, where sys.argv is that of the notebook's process
    return command_line.run_command(parser, words)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``."""
    parser.add_argument(
        "--data",
        type=command_line.path_type,
        metavar="PATH",
        help="folder or zip of the competition's files (default: data/, or the bundled sample if data/ has none)",
    )


def add_run_options(parser: command_line.Parser) -> None:
    """Add the options of ``kernel.py``."""
    add_data_option(parser)
    add_recipe_options(parser)
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's logs into the run's folder")
    add_executor_options(parser)
    add_shard_option(parser, "train a part of the members only, such as 1/3; `merge` joins the parts")
    parser.add_argument("--merged", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--kaggle-root", type=Path, default=Path("/kaggle"), help=argparse.SUPPRESS)


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--executor`` and ``--ray-address``."""
    parser.add_argument(
        "--executor",
        default="local",
        metavar="NAME",
        help="where members are trained: local (worker processes) or ray (tasks of Ray) (default: local)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="the address of a Ray cluster (default: the variable RAY_ADDRESS, or else this machine)",
    )


def add_shard_option(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--shard`` with a help text."""
    parser.add_argument("--shard", type=shard_type, metavar="K/N", help=f"{text} (default: all)")


def shard_type(text: str) -> tuple[int, int]:
    """Read a shard such as 1/3: the first of three."""
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text.strip())
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"expected k/n such as 1/3, with k from 1 to n, found {text[:20]!r}")
    return number, count


def executor_from(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Return the executor and the address of the Ray cluster, None for this machine.

    Raises:
        BadInput: the executor is unknown, or an option does not go with it.
    """
    name, address = arguments.executor, arguments.ray_address
    ray, local = (hints.option("executor", known) for known in ("ray", "local"))
    if name not in EXECUTORS:
        raise BadInput(f"{hints.option('executor')}: expected {' or '.join(EXECUTORS)}, found {name!r}", hint=ray)
    if name == "local":
        if address:
            raise BadInput(f"{hints.option('ray_address')}: only with {ray}", hint=f"add {ray}")
        return name, None
    for option in ("budget", "tensorboard"):  # the pace of other machines is unknown, and their files stay there
        if getattr(arguments, option, None):  # compare has neither
            raise BadInput(f"{hints.option(option)}: not with {ray}", hint=local)
    return name, address or os.environ.get("RAY_ADDRESS") or None


def add_recipe_options(parser: command_line.Parser) -> None:
    """Add ``--recipe``, ``--budget`` and an option for each field of a recipe."""
    parser.add_argument(
        "--recipe",
        default="standard",
        metavar="NAME",
        help=f"{', '.join(recipes.RECIPES)}, or a .toml file (default: standard)",
    )
    parser.add_argument(
        "--budget",
        type=command_line.duration_type,
        metavar="TIME",
        help="time limit such as 90s, 3m or 1h30m, from 30s to 2160h; fewer members, epochs or trials are trained if "
        "not all fit (default: no limit)",
    )
    group = parser.add_argument_group(
        "fields of the recipe",
        "Replace single values of the recipe. In brackets: the value of recipe standard, the range.",
    )
    types: dict[Any, Callable[[str], Any]] = {int: command_line.integer_type, float: command_line.number_type, str: str}
    for setting in recipes.recipe_fields():
        group.add_argument(
            f"--{setting.name.replace('_', '-')}",
            type=types[setting.type],
            metavar=METAVARS[setting.type],
            help=_field_help(setting),
        )
    for name, former in recipes.FORMER_NAMES.items():
        parser.former_options[f"--{former}"] = name


def _field_help(setting: Any) -> str:
    """Return the help text of a recipe's field, with its value in recipe ``standard`` and its range."""
    value = getattr(recipes.RECIPES["standard"], setting.name)
    notes = f"standard: {value if isinstance(value, str) else format(value, 'g')}"
    if limits := setting.metadata.get("range"):
        notes += "; {} to {}".format(*(f"{limit:.10g}" for limit in limits))
    return f"{setting.metadata['help']} ({notes})".replace("%", "%%")


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """Return the recipe that the options select."""
    fields = {s.name: value for s in recipes.recipe_fields() if (value := getattr(arguments, s.name)) is not None}
    return recipes.load_recipe(arguments.recipe).changed(**fields)


def deadline_from(arguments: argparse.Namespace) -> float | None:
    """Return the time of ``time.monotonic`` at which ``--budget`` ends; None without a budget."""
    return None if arguments.budget is None else STARTED + float(arguments.budget)


def recipe_options(recipe: Recipe, name: str) -> list[str]:
    """Return the words of a command line that select ``recipe``: a named recipe and the fields that differ from it.

    Args:
        recipe: the recipe to select.
        name: the recipe to start from; ``standard`` if it is a file.
    """
    named = recipes.RECIPES.get(name, recipes.RECIPES["standard"])
    words = ["--recipe", named.name]
    for field in recipes.recipe_fields():
        if (value := getattr(recipe, field.name)) != getattr(named, field.name):
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return words


def run_config(arguments: argparse.Namespace) -> "RunConfig":
    """Return the configuration of a run, on a user's machine or in a Kaggle kernel."""
    from digit_recognizer.runs import RunConfig, stored_recipe

    recipe, deadline = recipe_from(arguments), deadline_from(arguments)
    executor, address = executor_from(arguments)
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return _kernel_config(recipe, arguments, deadline)
    home = Path.cwd()
    if arguments.merged:
        recipe = stored_recipe(home / "runs" / files.safe_name(arguments.merged, "--merged"))
    return RunConfig(
        recipe=recipe,
        data=arguments.data,
        home=home,
        cache=home / "runs" / "cache",
        deadline=deadline,
        started=STARTED,
        tensorboard=arguments.tensorboard,
        executor=executor,
        ray_address=address,
        shard=arguments.shard,
        merged=arguments.merged,
    )


def _kernel_config(recipe: Recipe, arguments: argparse.Namespace, deadline: float | None) -> "RunConfig":
    """Return the configuration in a Kaggle kernel: data from the mounted input, results in the working folder."""
    from digit_recognizer.data import dataset
    from digit_recognizer.runs import RunConfig

    # The present and the former path of a competition's files.
    mounts = [arguments.kaggle_root / "input" / folder for folder in (f"competitions/{dataset.SLUG}", dataset.SLUG)]
    mounted = next((mount for mount in mounts if mount.exists()), None)
    if arguments.data is None and mounted is None:
        raise BadInput(
            f"{mounts[0]}: not found",
            hint="add the competition Digit Recognizer to the kernel's input (competition_sources), "
            f"or pass {hints.option('data')}",
        )
    working = arguments.kaggle_root / "working"
    return RunConfig(
        recipe=recipe,
        data=arguments.data or mounted,
        home=working,
        cache=Path(tempfile.gettempdir()) / "digit-recognizer",
        copy_to=working / "submission.csv",
        deadline=deadline or STARTED + KERNEL_BUDGET,
        started=STARTED,
        in_kernel=True,
        tensorboard=arguments.tensorboard,
        shard=arguments.shard,
    )
