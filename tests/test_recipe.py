"""Recipes and recipe files: fields, digests, and refused values."""

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import damage
from conftest import FUZZ, ROOT, one_line
from digit_recognizer import cli, files, recipe
from digit_recognizer.errors import BadInput

QUICK = recipe.RECIPES["quick"]
SHORTEST = 'network = "dense"\nmembers = 1\nfolds = 5\nepochs = 3\n'


def test_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        QUICK.epochs = 3


def test_digest_depends_on_settings_and_not_on_the_name() -> None:
    assert QUICK.changed(name="mine").digest == QUICK.digest
    assert QUICK.changed(dropout=0.0, rotation=8.0).digest == QUICK.changed(dropout=0, rotation=8).digest
    assert QUICK.changed(dropout=-0.0).digest == QUICK.changed(dropout=0).digest
    assert QUICK.changed(epochs=QUICK.epochs + 1).digest != QUICK.digest


def test_text_of_a_recipe_lists_changed_fields() -> None:
    assert str(QUICK) == "quick"
    assert str(QUICK.changed(epochs=3, seed=7)) == "quick with epochs=3, seed=7"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("members", -1),
        ("holdout", 0.9),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("dropout", -5e-324),
        ("folds", 1),
        ("epochs", 10**400),
        ("seed", -(10**400)),
        ("dropout", 10**400),
    ],
)
def test_value_outside_its_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"recipe, {field}: expected a number from .* found"):
        QUICK.changed(**{field: value})


def test_unknown_network_is_refused() -> None:
    with pytest.raises(BadInput, match=r"network: expected one of slim-conv, .* found 'vit'"):
        QUICK.changed(network="vit")


@pytest.mark.parametrize("change", [{"full_members": 2}, {"full_members": 1, "schedule": "plateau"}])
def test_full_members_need_another_member_and_a_schedule_without_validation(change: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="full_members") as refused:
        QUICK.changed(**change)
    assert refused.value.hint


def test_members_use_several_values_in_turn() -> None:
    networks = QUICK.changed(network="dense+bn-conv")
    assert [networks.of_member(index).network for index in range(3)] == ["dense", "bn-conv", "dense"]
    transforms = QUICK.changed(preprocessing="none+deskew+width")
    assert [transforms.of_member(index).preprocessing for index in range(4)] == ["none", "deskew", "width", "none"]
    with pytest.raises(BadInput, match=r"network: expected one of .* found ''"):
        QUICK.changed(network="dense+")


def test_unknown_recipe_is_refused() -> None:
    with pytest.raises(BadInput, match="expected one of quick, standard, wide, "):
        recipe.load_recipe("fast")
    with pytest.raises(BadInput) as removed:
        recipe.load_recipe("best")
    assert removed.value.hint.startswith("best was removed; --recipe standard")


def test_reference_recipes_have_their_own_networks() -> None:
    assert [recipe.load_recipe(name).network for name in recipe.REFERENCE_RECIPES] == list(recipe.REFERENCE_RECIPES)


def test_recipe_file_is_read_as_written(tmp_path: Path) -> None:
    changed = QUICK.changed(name="mine", learning_rate=1e-5, seed=2**32 - 1)
    (tmp_path / "any.toml").write_text(changed.toml())
    assert recipe.load_recipe(str(tmp_path / "any.toml")) == changed


def test_fields_with_a_default_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text('network = "dense"\nmembers = 1\nfolds = 5\nepochs = 3\nlearning_rate = 1\n')
    read = recipe.load_recipe(str(tmp_path / "short.toml"))
    assert (read.name, read.network, read.batch_size, read.learning_rate) == ("short", "dense", 128, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lerning_rate = 1", "unknown field 'lerning_rate'"),
        ("epochs = 2.5", "epochs: expected a whole number, found 2.5"),
        ("epochs = true", "epochs: expected a whole number, found True"),
        ("dropout = 'much'", "dropout: expected a number, found 'much'"),
        ("network = 7", "network: expected a text in quotes, found 7"),
        ("epochs = 0", "recipe, epochs: expected a number from 1 to 10000, found 0"),
        (f"epochs = 1{'0' * 400}", "recipe, epochs: expected a number from 1 to 10000, found 1000"),
        (f"epochs = 1{'0' * 5000}", "expected TOML"),
        (
            f"epochs = 0x{'f' * 9999}",
            "epochs: expected a number from 1 to 10000, found a number of thousands of digits",
        ),
        (f"network = 0x{'f' * 9999}", "network: expected a text in quotes, found a number of thousands of digits"),
        (f"dropout = 1{'0' * 400}", "recipe, dropout: expected a number from 0 to 0.95, found 1000"),
        ("dropout = inf", "recipe, dropout: expected a number from 0 to 0.95, found inf"),
        ("dropout = 1e999", "recipe, dropout: expected a number from 0 to 0.95, found inf"),
        ("dropout = -1e-320", "recipe, dropout: expected a number from 0 to 0.95, found -"),
        ("dropout = false", "dropout: expected a number, found False"),
        ("dropout = 2026-11-22", "dropout: expected a number, found datetime.date"),
        ("network = ''", "network: expected one of slim-conv, "),
        ("network = 'slim-conv+'", "found ''"),
        ("network = 'slim-conv dense'", "found 'slim-conv dense'"),
        (f"preprocessing = '{'v' * 999}'", "…"),
        (f"{'f' * 999} = 1", "unknown field"),
        (f"x = {'[' * 9999}", "expected TOML"),
        ("dropout = nan", "recipe, dropout: expected a number from 0 to 0.95, found nan"),
        ("name = 'standard'", "neither a built-in recipe's name nor one that begins with sample, found 'standard'"),
        ("name = 'sample-mine'", "found 'sample-mine'"),
        ("name = 'sample'", "found 'sample'"),
        ("name = ''", "found ''"),
        ('name = "a\\n"', "found 'a\\n'"),
        (f"name = '{'a' * 61}'", "at most 60"),
        ("name = '../up'", "expected lower-case letters, digits and dashes"),
        ("epochs", "expected TOML: "),
        ("folds = 5\nfolds = 6", "expected TOML"),
        ("", "missing fields: epochs"),
    ],
)
def test_faulty_recipe_file_is_refused(tmp_path: Path, change: str, message: str) -> None:
    lines = ['network = "dense"', "members = 1", "holdout = 0"]
    lines += [] if "folds" in change else ["folds = 5"]
    lines += [] if not change or "epochs" in change else ["epochs = 3"]
    lines = [line for line in lines if line.split()[0] != change.split(" ")[0]]
    (tmp_path / "bad.toml").write_text("\n".join([*lines, change]))
    with pytest.raises(BadInput) as error:
        recipe.load_recipe(str(tmp_path / "bad.toml"))
    assert message in str(error.value)
    assert "bad.toml" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_missing_recipe_file_is_refused() -> None:
    with pytest.raises(BadInput, match=r"none\.toml: No such file"):
        recipe.load_recipe("none.toml")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_folder_pipe_or_device_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "odd.toml")
    with pytest.raises(BadInput, match=r"odd\.toml: expected a file"):
        recipe.load_recipe(str(tmp_path / "odd.toml"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "missing fields: network, members, folds, epochs"),
        (b"\xef\xbb\xbf", "missing fields: network, members, folds, epochs"),
        (SHORTEST.encode("utf-16"), "expected TOML"),
        (SHORTEST.encode() + b"# \xff", "expected TOML"),
        (SHORTEST.replace("\n", "\r").encode(), "expected TOML"),
        (SHORTEST.encode() + b"\0", "expected TOML"),
        (SHORTEST.encode() + b"#" * recipe.LIMIT, "at most 65,536 bytes"),
    ],
)
def test_content_that_is_not_a_recipe_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "odd.toml").write_bytes(content)
    with pytest.raises(BadInput) as error:
        recipe.load_recipe(str(tmp_path / "odd.toml"))
    assert found in str(error.value)
    assert "\n" not in str(error.value)


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    plain = recipe.load_recipe(str(_file(tmp_path, SHORTEST.encode())))
    assert recipe.load_recipe(str(_file(tmp_path, b"\xef\xbb\xbf" + SHORTEST.encode()))) == plain
    assert recipe.load_recipe(str(_file(tmp_path, SHORTEST.replace("\n", "\r\n").encode()))) == plain


@pytest.mark.parametrize(
    "name", ["~nobody-of-that-name/a.toml", "a\0.toml", "a" * 300 + ".toml", "x/y/../z.toml", ".toml"]
)
def test_unusable_path_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput):
        recipe.load_recipe(name)
    assert cli.main(["run", "--recipe", name]) == 2
    one_line(capsys.readouterr().err)


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "fuzzed.toml"
    path.write_bytes(content)
    return path


NUMBERS = st.one_of(
    st.integers(-3, 12).map(str),
    st.integers().map(str),
    st.floats(0, 1).map(repr),
    st.floats().map(repr),
    st.sampled_from(["-0.0", "nan", "-inf", "1e999", "0x1f", "1_0", "0o7", f"1{'0' * 400}", f"0x{'f' * 5000}"]),
)
TEXTS = st.one_of(
    st.sampled_from(
        [*recipe.NETWORKS, *recipe.PREPROCESSING, *recipe.SCHEDULES, *recipe.PRECISIONS, "dense+bn-conv", "+", ""]
    ),
    st.text(max_size=8),
).map(lambda text: "'" + text.replace("'", "") + "'")
VALUES = st.one_of(NUMBERS, TEXTS, st.sampled_from(["true", "[1]", "{a = 1}", "1979-05-27", '"\\u0000"', "", "'" * 3]))
KNOWN = [setting.name for setting in dataclasses.fields(recipe.Recipe)]
REQUIRED = st.tuples(
    st.sampled_from(recipe.NETWORKS).map("network = '{}'".format),
    st.integers(1, 20).map("members = {}".format),
    st.integers(2, 20).map("folds = {}".format),
    st.integers(1, 20).map("epochs = {}".format),
)
OTHERS = st.tuples(st.sampled_from([*KNOWN[6:], "name", "epochs", "[table]", "#", "a.b"]), VALUES).map(" = ".join)
FILES = st.tuples(REQUIRED, st.lists(OTHERS, max_size=5)).map(
    lambda parts: "\n".join([*parts[0], *parts[1]]).encode("utf-8", "surrogatepass")
)


@pytest.mark.fuzz
@settings(max_examples=FUZZ, deadline=None)
@given(
    st.one_of(
        FILES,
        FILES,
        damage.EDITS.map(lambda edits: damage.edited(QUICK.changed(name="fuzzed").toml().encode(), edits)),
        st.binary(max_size=200),
        st.text().map(lambda text: text.encode("utf-8", "replace")),
    )
)
@example(f"{SHORTEST}holdout = -0.0".encode())
@example(f"{SHORTEST}seed = {2**32}".encode())
def test_any_content_is_a_valid_recipe_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = _file(Path(folder), content)
        try:
            read = recipe.load_recipe(str(path))
        except BadInput as error:
            assert "fuzzed.toml" in str(error)
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) < 1000
            return
        assert recipe.load_recipe(str(_file(Path(folder), read.toml().encode()))) == read
    files.safe_name(read.name, "fuzzed.toml")
    for setting in dataclasses.fields(recipe.Recipe):
        value = getattr(read, setting.name)
        assert type(value) in ((float, int) if setting.type is float else (setting.type,))
        if "range" in setting.metadata:
            assert setting.metadata["range"][0] <= value <= setting.metadata["range"][1]
        if "choice" in setting.metadata:
            assert set(value.split("+")) <= set(setting.metadata["choice"])


def test_makefile_accepts_every_field() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (line,) = [line for line in makefile.splitlines() if line.startswith("override SETTINGS :=")]
    assert set(line.split()[3:]) == {setting.name.upper() for setting in recipe.recipe_fields()}


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('view = "none"', "view is now preprocessing"),
        ("neighbours = 5", "neighbours is now knn_weight"),
        ('preprocessing = "none+upright"', "upright is now deskew"),
        ('preprocessing = "upright-widened"', "upright-widened is now deskew-width"),
        ("neighbors = 5", "the fields are name, network, preprocessing, "),
    ],
)
def test_former_names_are_refused_with_a_hint(tmp_path: Path, line: str, hint: str) -> None:
    (tmp_path / "old.toml").write_text(recipe.load_recipe("dense").changed(name="old").toml() + f"{line}\n")
    text = (tmp_path / "old.toml").read_text()
    if line.startswith("preprocessing"):
        (tmp_path / "old.toml").write_text(text.replace('preprocessing = "none"\n', "", 1))
    with pytest.raises(BadInput) as error:
        recipe.load_recipe(str(tmp_path / "old.toml"))
    assert error.value.hint.startswith(hint)


def test_digests_equal_those_in_earlier_ledgers() -> None:
    assert recipe.load_recipe("deotte15").changed(folds=10).digest == "2472d88b"
    assert QUICK.changed(weight_decay=0.01).digest == "106a7a9d"
    assert QUICK.changed(distortion=1).digest != QUICK.digest
