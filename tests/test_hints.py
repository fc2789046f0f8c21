"""Commands and options in the form of the caller."""

import pytest

from digit_recognizer import hints


@pytest.mark.parametrize(
    ("name", "value", "flag", "variable"),
    [
        ("data", "", "--data", "DATA="),
        ("learning_rate", 0.01, "--learning-rate 0.01", "LEARNING_RATE=0.01"),
        ("seed", 0, "--seed 0", "SEED=0"),
        ("no_wait", True, "--no-wait", "NO_WAIT=1"),
        ("data", "it's here/a.zip", "--data 'it'\"'\"'s here/a.zip'", "DATA='it'\"'\"'s here/a.zip'"),
    ],
)
def test_option_has_the_form_of_the_caller(
    name: str, value: object, flag: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hints.option(name, value) == flag
    monkeypatch.setenv(hints.CALLER_VARIABLE, "make")
    assert hints.option(name, value) == variable


def test_command_has_the_form_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hints.command("scores") == "digit-recognizer scores"
    assert hints.command("run", recipe="quick", seed=1) == "digit-recognizer run --recipe quick --seed 1"
    monkeypatch.setenv(hints.CALLER_VARIABLE, "make")
    assert hints.command("scores") == "make scores"
    assert hints.command("submit", run="quick-1", yes=True) == "make submit RUN=quick-1 YES=1"


@pytest.mark.parametrize(("value", "by_make"), [("make", True), ("", False), ("other", False)])
def test_caller_is_make_only_if_the_variable_names_it(
    value: str, by_make: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hints.CALLER_VARIABLE, value)
    assert hints.called_by_make() == by_make
