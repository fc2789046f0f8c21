"""Whose credentials win, and which are refused."""

from pathlib import Path

import pytest

from conftest import keep
from digit_recognizer import credentials
from digit_recognizer.errors import BadInput
from kaggle_server import KEY, USER


def test_each_source_hides_those_after_it(nobody: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found() -> tuple[str, str, str]:
        person = credentials.find()
        assert person
        return person.kind, person.username, person.secret

    assert credentials.find() is None
    xdg = keep(nobody / ".config" / "kaggle" / "kaggle.json", {"username": "xdg", "key": "1"})
    assert found() == ("key", "xdg", "1")
    keep(nobody / ".kaggle" / "credentials.json", {"refresh_token": "r", "username": "login"})
    assert found() == ("login", "login", "r"), "where ~/.kaggle is, ~/.config/kaggle is not looked into"
    keep(nobody / ".kaggle" / "kaggle.json", {"username": "home", "key": "2"})
    assert found() == ("key", "home", "2")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(xdg.parent))
    assert found() == ("key", "xdg", "1")
    monkeypatch.setenv("KAGGLE_USERNAME", "env")
    assert found() == ("key", "env", "1"), "each half for itself"
    monkeypatch.setenv("KAGGLE_KEY", "3")
    assert found() == ("key", "env", "3")
    keep(nobody / ".kaggle" / "access_token.txt", "t1\n")
    assert found() == ("token", "", "t1")
    keep(nobody / ".kaggle" / "access_token", "t2\n")
    assert found() == ("token", "", "t2")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "t3")
    assert found() == ("token", "", "t3")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(keep(tmp_path / "token", "t4")))
    assert found() == ("token", "", "t4")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_DATA_PROXY_URL", "https://localhost")
    monkeypatch.setenv("KAGGLE_API_V1_TOKEN", str(keep(tmp_path / "v1", "t5")))
    assert found() == ("token", "", "t5")
    assert "t5" not in repr(credentials.find())


@pytest.mark.parametrize("name", ["kaggle.json", "access_token", "credentials.json"])
def test_a_key_that_others_can_read_is_refused_with_the_mend(name: str, nobody: Path) -> None:
    path = keep(nobody / ".kaggle" / name, {"username": USER, "key": KEY, "refresh_token": "r"}, mode=0o640)
    with pytest.raises(BadInput, match=f"chmod 600 {path}"):
        credentials.find()


@pytest.mark.parametrize("content", ["{", "[]", '{"username": "ada"}', '{"username": "ada", "key": 7}'])
def test_a_key_file_of_another_form_is_refused(content: str, nobody: Path) -> None:
    keep(nobody / ".kaggle" / "kaggle.json", content)
    with pytest.raises(BadInput, match=r"take a new one from https://www\.kaggle\.com/settings"):
        credentials.find()


def test_the_example_has_the_form_of_a_key_file(nobody: Path) -> None:
    example = Path(__file__).parents[1] / "kaggle.json.example"
    keep(nobody / ".kaggle" / "kaggle.json", example.read_text())
    person = credentials.find()
    assert person
    assert person.kind == "key"
