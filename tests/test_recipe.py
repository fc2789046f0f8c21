"""Recipes: frozen, told apart by what they train, refused where a field makes no sense."""

import dataclasses
from pathlib import Path

import pytest

from conftest import ROOT
from digit_recognizer import recipe
from digit_recognizer.errors import BadInput

QUICK = recipe.RECIPES["quick"]


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        QUICK.epochs = 3


def test_the_digest_is_of_what_is_trained_and_not_of_the_name() -> None:
    assert QUICK.changed(name="mine").digest == QUICK.digest
    assert QUICK.changed(dropout=0.0, rotation=8.0).digest == QUICK.changed(dropout=0, rotation=8).digest
    assert QUICK.changed(epochs=QUICK.epochs + 1).digest != QUICK.digest


def test_changes_are_told() -> None:
    assert str(QUICK) == "quick"
    assert str(QUICK.changed(epochs=3, seed=7)) == "quick with epochs=3, seed=7"


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("members", -1), ("holdout", 0.9), ("learning_rate", float("nan")), ("folds", 1)],
)
def test_a_field_outside_its_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"recipe, {field}: expected a number from .* found"):
        QUICK.changed(**{field: value})


def test_an_unknown_network_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"network: expected one of bn-conv, slim-conv, .* found 'vit'"):
        QUICK.changed(network="vit")


def test_members_take_the_networks_in_turn() -> None:
    mixed = QUICK.changed(network="dense+bn-conv")
    assert [mixed.of_member(index).network for index in range(3)] == ["dense", "bn-conv", "dense"]
    seen = QUICK.changed(view="plain+upright+widened")
    assert [seen.of_member(index).view for index in range(4)] == ["plain", "upright", "widened", "plain"]
    with pytest.raises(BadInput, match=r"network: expected one of .* found ''"):
        QUICK.changed(network="dense+")


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadInput, match="expected one of quick, standard, best, "):
        recipe.named("fast")


def test_the_systems_of_the_descriptions_are_recipes_with_networks_of_their_own() -> None:
    assert [recipe.named(name).network for name in recipe.SEEDS] == list(recipe.SEEDS)


def test_a_recipe_file_gives_back_the_recipe(tmp_path: Path) -> None:
    mine = QUICK.changed(name="mine", learning_rate=1e-5, seed=2**32 - 1)
    (tmp_path / "any.toml").write_text(mine.toml())
    assert recipe.named(str(tmp_path / "any.toml")) == mine


def test_a_recipe_file_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text('network = "dense"\nmembers = 1\nfolds = 5\nepochs = 3\nlearning_rate = 1\n')
    read = recipe.named(str(tmp_path / "short.toml"))
    assert (read.name, read.network, read.batch_size, read.learning_rate) == ("short", "dense", 128, 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("lerning_rate = 1", "found 'lerning_rate'; there are name, network, "),
        ("epochs = 2.5", "epochs: expected a whole number, found 2.5"),
        ("epochs = true", "epochs: expected a whole number, found True"),
        ("dropout = 'much'", "dropout: expected a number, found 'much'"),
        ("network = 7", "network: expected a text in quotes, found 7"),
        ("epochs = 0", "recipe, epochs: expected a number from 1 to 10000, found 0"),
        ("dropout = nan", "recipe, dropout: expected a number from 0 to 0.95, found nan"),
        ("name = 'standard'", "no built-in recipe's name, found 'standard'"),
        ("name = '../up'", "expected lower-case letters, digits and dashes"),
        ("epochs", "expected TOML, a line such as `epochs = 10`"),
        ("folds = 5\nfolds = 6", "expected TOML"),
        ("", "expected epochs too; add a line for each"),
    ],
)
def test_a_recipe_file_with_a_fault_is_refused_in_one_line(tmp_path: Path, change: str, told: str) -> None:
    lines = ['network = "dense"', "members = 1", "holdout = 0"]
    lines += [] if "folds" in change else ["folds = 5"]
    lines += [] if not change or "epochs" in change else ["epochs = 3"]
    lines = [line for line in lines if line.split()[0] != change.split(" ")[0]]
    (tmp_path / "bad.toml").write_text("\n".join([*lines, change]))
    with pytest.raises(BadInput) as refused:
        recipe.named(str(tmp_path / "bad.toml"))
    assert told in str(refused.value)
    assert "bad.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_recipe_file_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInput, match=r"none\.toml: No such file"):
        recipe.named("none.toml")


def test_make_takes_each_setting() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (line,) = [line for line in makefile.splitlines() if line.startswith("SETTINGS :=")]
    assert set(line.split()[2:]) == {setting.name.upper() for setting in recipe.settings()}
