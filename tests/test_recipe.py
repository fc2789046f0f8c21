"""Recipes: frozen, told apart by what they train, refused where a field makes no sense."""

import dataclasses

import pytest

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


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadInput, match="expected one of quick, standard, best, "):
        recipe.named("fast")


def test_the_systems_of_the_descriptions_are_recipes_with_networks_of_their_own() -> None:
    assert [recipe.named(name).network for name in recipe.SEEDS] == list(recipe.SEEDS)
