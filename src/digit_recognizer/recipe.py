"""What to train: a frozen dataclass, the named recipes, and recipe files."""

import dataclasses
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digit_recognizer import files, hints
from digit_recognizer.errors import BadInput

NETWORKS = (
    "slim-conv",
    "residual-64",
    "residual-128",
    "residual-256",
    "bn-conv",
    "adaptive-cnn",
    "three-conv",
    "two-conv",
    "conv-pool",
    "dense",
)
KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    float: ((float, int), "a number"),
    int: ((int,), "a whole number"),
    str: ((str,), "a text in quotes"),
}
PREPROCESSING = (
    "none",
    "deskew",
    "width",
    "deskew-width",
    "enlarge",
    "deskew-enlarge",
    "width-enlarge",
    "deskew-width-enlarge",
)
PER_MEMBER = ("network", "preprocessing")  # fields with several values joined by +, used by the members in turn
# Former names of two fields and of the values of one. Digests are still computed from them, so that equal recipes have
# equal digests in old and new rows of a ledger.
FORMER_NAMES = {"preprocessing": "view", "knn_weight": "neighbours"}
FORMER_PREPROCESSING = {"none": "plain", "deskew": "upright", "width": "widened", "deskew-width": "upright-widened"}
# Fields that recipes did not have at first. At their default they are left out of the digest, for the same reason.
LATER_FIELDS = ("distortion", "full_members")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
SCHEDULES = ("one-cycle", "decay", "plateau", "constant")
LIMIT = 1 << 16  # bytes of a recipe file, a hundred times the usual size
FILE_HINT = "name a recipe file such as mine.toml"


def _choice(text: str, values: tuple[str, ...], default: str | None = None) -> Any:
    """Define a field with its help text and its allowed values."""
    metadata = {"help": f"{text}: {', '.join(values)}", "choice": values}
    return field(metadata=metadata) if default is None else field(metadata=metadata, default=default)


def _setting(text: str, low: float, high: float, default: float | None = None) -> Any:
    """Define a field with its help text and the closed range of its value."""
    metadata = {"help": text, "range": (low, high)}
    return field(metadata=metadata) if default is None else field(metadata=metadata, default=default)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of the training; two equal recipes on the same data give the same members.

    Raises:
        BadInput: the value of a field is not allowed.
    """

    name: str
    network: str = _choice("network, or several joined by + for the members in turn", NETWORKS)
    preprocessing: str = _choice("fixed transform of the images, or several joined by +", PREPROCESSING, "none")
    members: int = _setting("number of networks", 1, 1000)
    full_members: int = _setting("how many members, the last ones, train on all rows, unscored", 0, 999, 0)
    folds: int = _setting("stratified folds; member i validates on fold i modulo this number", 2, 100)
    epochs: int = _setting("epochs per member", 1, 10000)
    holdout: float = _setting("fraction of the rows in the holdout", 0, 0.5, 0.1)
    batch_size: int = _setting("images per training step", 1, 65536, 128)
    schedule: str = _choice("learning rate schedule", SCHEDULES, "one-cycle")
    learning_rate: float = _setting("highest learning rate", 1e-8, 10, 2e-3)
    warmup: float = _setting("fraction of the steps in which the learning rate rises", 0, 0.9, 0.2)
    weight_decay: float = _setting("decoupled weight decay of AdamW", 0, 1, 0.01)
    dropout: float = _setting("dropout rate of each dropout layer", 0, 0.95, 0.2)
    rotation: float = _setting("augmentation: largest rotation, degrees in both directions", 0, 180, 10)
    zoom: float = _setting("augmentation: largest relative change of height and width", 0, 0.9, 0.1)
    shift: float = _setting("augmentation: largest shift, as a fraction of the side", 0, 1, 0.1)
    shear: float = _setting("augmentation: largest shear, degrees in both directions", 0, 60, 0)
    distortion: float = _setting("augmentation: largest displacement of the nodes of a grid, pixels", 0, 10, 0)
    resampling: float = _setting("share of each epoch's rows that is sampled by loss", 0, 1, 0)
    knn_weight: float = _setting(
        "weight of the nearest training images in the re-ranking of ambiguous predictions", 0, 50, 0
    )
    precision: str = _choice("number format in training; auto selects it by the machine", PRECISIONS, "auto")
    seed: int = _setting("seed of the folds and the members", 0, 2**32 - 1, 0)

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            kinds, expected = KINDS[setting.type]
            if type(value) not in kinds:
                raise BadInput(f"recipe, {setting.name}: expected {expected}, found {_shown(value)}")
            for part in value.split("+") if setting.name in PER_MEMBER else [value]:
                choices = setting.metadata.get("choice", (part,))
                if part not in choices:
                    raise BadInput(
                        f"recipe, {setting.name}: expected one of {', '.join(choices)}, found {_shown(part)}",
                        hint=_value_hint(setting.name, part),
                    )
            low, high = setting.metadata.get("range", (value, value))
            if not low <= value <= high:
                raise BadInput(
                    f"recipe, {setting.name}: expected a number from {low:g} to {high:g}, found {_shown(value)}"
                )

        if self.full_members >= self.members:
            raise BadInput(
                f"recipe, full_members: expected fewer than the {self.members} members, found {self.full_members}",
                hint=f"set {hints.option('full_members', self.members - 1)}; one member needs validation rows",
            )
        if self.full_members and self.schedule == "plateau":
            raise BadInput(
                "recipe, schedule: plateau needs validation rows, which full_members do not have",
                hint=f"set {hints.option('full_members', 0)}, or another schedule",
            )

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that are equal for recipes with equal settings."""
        fields = dataclasses.asdict(self) | {"name": ""}
        for setting in dataclasses.fields(self):
            if setting.name in LATER_FIELDS and fields[setting.name] == setting.default:
                del fields[setting.name]
        fields["preprocessing"] = "+".join(
            FORMER_PREPROCESSING.get(name, name) for name in self.preprocessing.split("+")
        )
        # 0, 0.0 and -0.0 are the same.
        content = {
            FORMER_NAMES.get(name, name): value if isinstance(value, str) else float(value) + 0.0
            for name, value in fields.items()
        }
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()

    def changed(self, **fields: Any) -> "Recipe":
        """Return this recipe with some fields replaced."""
        return dataclasses.replace(self, **fields)

    def of_member(self, index: int) -> "Recipe":
        """Return the recipe with the network and the preprocessing of member ``index``, counted from 0."""
        several = {name: getattr(self, name).split("+") for name in PER_MEMBER}
        return self.changed(**{name: values[index % len(values)] for name, values in several.items()})

    def toml(self) -> str:
        """Return the text of a recipe file."""
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in dataclasses.asdict(self).items())

    def __str__(self) -> str:
        named = RECIPES.get(self.name, self)
        values = {setting.name: getattr(self, setting.name) for setting in dataclasses.fields(self)}
        changes = [f"{name}={value}" for name, value in values.items() if value != getattr(named, name)]
        return f"{self.name} with {', '.join(changes)}" if changes else self.name


def _value_hint(field_name: str, value: str) -> str:
    """Return the present name of a former value of ``preprocessing``, or else an empty text."""
    present = {former: name for name, former in FORMER_PREPROCESSING.items()}
    return f"{value} is now {present[value]}" if field_name == "preprocessing" and value in present else ""


def _field_hint(name: str) -> str:
    """Return the present name of a former field, or else the names of all fields."""
    present = {former: field_name for field_name, former in FORMER_NAMES.items()}
    if name in present:
        return f"{name} is now {present[name]}"
    return f"the fields are {', '.join(setting.name for setting in dataclasses.fields(Recipe))}"


def recipe_fields() -> list[dataclasses.Field[Any]]:
    """Return the fields that can be set one by one, each with its help text in ``metadata["help"]``."""
    return [setting for setting in dataclasses.fields(Recipe) if setting.name != "name"]


def _plain(name: str, *, dropout: float, epochs: int = 10, folds: int = 10, **fields: Any) -> Recipe:
    """Return a recipe of one network without augmentation and weight decay, at a constant rate unless given."""
    schedule: dict[str, Any] = {"schedule": "constant", "learning_rate": 1e-3} | fields
    return Recipe(
        name=name,
        network=name,
        members=1,
        folds=folds,
        epochs=epochs,
        weight_decay=0,
        dropout=dropout,
        rotation=0,
        zoom=0,
        shift=0,
        **schedule,
    )


ENLARGED = "enlarge+deskew-enlarge+width-enlarge+deskew-width-enlarge"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="quick",
            network="slim-conv",
            preprocessing="none+deskew",
            members=2,
            folds=8,
            epochs=8,
            learning_rate=1.2e-2,
            weight_decay=0.1,
            dropout=0,
            rotation=8,
            zoom=0.08,
            shift=0.05,
            knn_weight=5,
        ),
        Recipe(
            name="standard",
            network="slim-conv",
            preprocessing=ENLARGED,
            members=4,
            folds=40,  # few validation rows: a member that trains on fewer rows lowers the accuracy of the blend
            epochs=14,
            holdout=0.05,
            learning_rate=1e-2,
            weight_decay=0.1,
            dropout=0.1,
            shift=0.07,
            distortion=1,
            knn_weight=5,
        ),
        Recipe(
            name="wide",
            network="residual-256",
            preprocessing=ENLARGED,
            members=16,
            full_members=10,
            folds=40,
            epochs=30,
            holdout=0.05,
            learning_rate=2e-3,
            weight_decay=0.1,
            dropout=0.1,
            shift=0.05,
            distortion=1,
            knn_weight=5,
        ),
        Recipe(
            name="deotte15",
            network="bn-conv",
            members=15,
            folds=40,  # as in standard, so that both have the same folds and holdout
            epochs=45,
            holdout=0.05,
            batch_size=64,
            schedule="decay",
            learning_rate=1e-3,
            weight_decay=0,
            dropout=0.4,
        ),
        Recipe(
            name="adaptive-cnn",
            network="adaptive-cnn",
            members=1,
            folds=10,
            epochs=10,
            schedule="plateau",
            learning_rate=1e-3,
            weight_decay=0,
            resampling=0.5,
        ),
        _plain("three-conv", dropout=0.25, schedule="one-cycle", learning_rate=3e-3),
        _plain("two-conv", dropout=0.0, epochs=3),
        _plain("conv-pool", dropout=0.25, folds=5, schedule="one-cycle", learning_rate=3e-3),
        _plain("dense", dropout=0.5),
    )
}

# Reproductions of five published digit recognisers.
REFERENCE_RECIPES = ("adaptive-cnn", "three-conv", "two-conv", "conv-pool", "dense")


def load_recipe(name: str) -> Recipe:
    """Return the recipe of that name, or the one in the file ``name`` if that ends in ``.toml``.

    Raises:
        BadInput: there is none, or the file is not a recipe.
    """
    if name.endswith(".toml") and "\0" not in name:
        try:
            path = Path(name).expanduser()
        except RuntimeError as error:  # ~user of an unknown user
            raise BadInput(f"{name}: {error}", hint="write the full path") from None
        return _read(path)
    if name not in RECIPES:
        removed = f"best was removed; {hints.option('recipe', 'standard')} has as few errors" if name == "best" else ""
        raise BadInput(
            f"recipe: expected one of {', '.join(RECIPES)} or a .toml file, found {_shown(name)}", hint=removed
        )
    return RECIPES[name]


def _read(path: Path) -> Recipe:
    """Read a recipe file: one line per field; fields with a default may be missing."""
    with files.explained(path):
        if path.exists() and not path.is_file():
            raise BadInput(f"{path}: expected a file, found a folder or device", hint=FILE_HINT)
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise BadInput(f"{path}: expected a recipe file of at most {LIMIT:,} bytes, found more", hint=FILE_HINT)
    try:
        values = {"name": path.stem} | tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # TOML's own error and Unicode's are ValueErrors
        raise BadInput(
            f"{path}: expected TOML: {_shortened(str(error))}", hint="write one line per field, such as epochs = 10"
        ) from None
    settings = {setting.name: setting for setting in dataclasses.fields(Recipe)}
    for name, value in values.items():
        if name not in settings:
            raise BadInput(f"{path}: unknown field {_shown(name)}", hint=_field_hint(name))
        kinds, expected = KINDS[settings[name].type]
        if type(value) not in kinds:
            raise BadInput(f"{path}, {name}: expected {expected}, found {_shown(value)}")
    required = (name for name, setting in settings.items() if setting.default is dataclasses.MISSING)
    if missing := [name for name in required if name not in values]:
        raise BadInput(f"{path}: missing fields: {', '.join(missing)}", hint="add a line for each")
    name = values["name"]
    # A run's name begins with that of its recipe; names of sample runs begin with sample-.
    if not re.fullmatch("[a-z0-9][a-z0-9-]{0,59}", name) or name in RECIPES or re.match("sample(-|$)", name):
        raise BadInput(
            f"{path}, name: expected lower-case letters, digits and dashes, at most 60, and neither a built-in "
            f"recipe's name nor one that begins with sample, found {_shown(name)}",
            hint='rename the file, or add a line such as name = "mine"',
        )
    try:
        return Recipe(**values)
    except BadInput as error:
        raise BadInput(f"{path}: {error}", hint=error.hint) from error


def _shown(value: Any) -> str:
    """Return a value as one short line of text."""
    try:
        return _shortened(f"{value:g}" if isinstance(value, float) else repr(value))
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
