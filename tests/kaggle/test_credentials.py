"""Sources of credentials: their order, accepted variants, refused values."""

import json
from pathlib import Path

import pytest

from conftest import ROOT, keep
from digit_recognizer.errors import BadInput
from digit_recognizer.kaggle import credentials
from kaggle_server import KEY, TOKEN, USER


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to an empty folder, because the repository's may contain a ``kaggle.json``."""
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")


def selected() -> tuple[str, str, str]:
    """Return kind, user name and secret of the credentials, of which there must be some."""
    account = credentials.find()
    assert account
    return account.kind, account.username, account.secret


def test_each_source_precedes_the_next(nobody: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert credentials.find() is None
    xdg = keep(nobody / ".config" / "kaggle" / "kaggle.json", {"username": "xdg", "key": "1"})
    assert selected() == ("key", "xdg", "1")
    keep(nobody / ".kaggle" / "credentials.json", {"refresh_token": "r", "username": "login"})
    assert selected() == ("login", "login", "r"), "~/.config/kaggle is skipped if ~/.kaggle exists"
    keep(nobody / ".kaggle" / "kaggle.json", {"username": "home", "key": "2"})
    assert selected() == ("key", "home", "2")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(xdg.parent))
    assert selected() == ("key", "xdg", "1")
    monkeypatch.setenv("KAGGLE_USERNAME", "env")
    assert selected() == ("key", "env", "1"), "each variable replaces its field of the file"
    monkeypatch.setenv("KAGGLE_KEY", "3")
    assert selected() == ("key", "env", "3")
    keep(nobody / ".kaggle" / "access_token.txt", "t1\n")
    assert selected() == ("token", "", "t1")
    keep(nobody / ".kaggle" / "access_token", "t2\n")
    assert selected() == ("token", "", "t2")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "t3")
    assert selected() == ("token", "", "t3")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(keep(tmp_path / "token", "t4")))
    assert selected() == ("token", "", "t4")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_DATA_PROXY_URL", "https://localhost")
    monkeypatch.setenv("KAGGLE_API_V1_TOKEN", str(keep(tmp_path / "v1", "t5")))
    assert selected() == ("token", "", "t5")
    assert "t5" not in repr(credentials.find())


@pytest.mark.parametrize("name", ["kaggle.json", "access_token", "credentials.json"])
def test_file_that_others_can_read_is_refused(name: str, nobody: Path) -> None:
    path = keep(nobody / ".kaggle" / name, {"username": USER, "key": KEY, "refresh_token": "r"}, mode=0o640)
    with pytest.raises(BadInput, match="other users of this machine can read it") as refused:
        credentials.find()
    assert f"chmod 600 {path}; if that has no effect" in refused.value.hint
    assert "set KAGGLE_API_TOKEN" in refused.value.hint


@pytest.mark.parametrize(
    "content", ["{", "[]", "7", '{"username": "ada"}', '{"username": "ada", "key": 7}', "[" * 9999, "{'username': 'a'}"]
)
def test_malformed_key_file_is_refused(content: str, nobody: Path) -> None:
    path = keep(nobody / ".kaggle" / "kaggle.json", content)
    with pytest.raises(BadInput, match=f"^{path}: ") as refused:
        credentials.find()
    assert "get a new one from https://www.kaggle.com/settings" in refused.value.hint


# What editors, shells and web pages add around a secret, some of it invisible.
AROUND = [
    "{}\n",
    "{}\r\n",
    "\r\n{}\r\n\r\n",
    "\t {} ",
    "\ufeff{}",
    "\ufeff{}\r\n",
    "\u200b{}\u200b",
    "{}\u2060",
    "\xa0{}\u3000",
    '"{}"',
    "'{}'\n",
    "“{}”",
    '\ufeff"{}"\r\n',
    "`{}`",
]


@pytest.mark.parametrize("around", AROUND)
def test_quotes_and_white_space_around_a_secret_are_removed_in_every_source(
    around: str, nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, name, key = around.format(TOKEN), around.format(USER), around.format(KEY)
    from_token, from_key = ("token", "", TOKEN), ("key", USER, KEY)
    keep(nobody / ".kaggle" / "credentials.json", {"refresh_token": around.format("r-1"), "username": name})
    assert selected() == ("login", USER, "r-1")
    keep(nobody / ".kaggle" / "kaggle.json", {"username": name, "key": key})
    assert selected() == from_key
    (nobody / ".kaggle" / "kaggle.json").unlink()
    monkeypatch.setenv("KAGGLE_USERNAME", name)
    monkeypatch.setenv("KAGGLE_KEY", key)
    assert selected() == from_key
    keep(nobody / ".kaggle" / "access_token", token)
    assert selected() == from_token
    (nobody / ".kaggle" / "access_token").unlink()
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    assert selected() == from_token
    path = keep(tmp_path / "a token", token)
    monkeypatch.setenv("KAGGLE_API_TOKEN", around.format(path))
    assert selected() == from_token


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["access_token", "access_token.txt", "kaggle.json", "credentials.json"])
def test_file_may_be_utf_8_or_utf_16(name: str, encoding: str, nobody: Path) -> None:
    path = keep(nobody / ".kaggle" / name, "")
    content = {"username": USER, "key": KEY, "refresh_token": "r"}
    text = f"{TOKEN}\r\n" if name.startswith("access") else f"{json.dumps(content)}\r\n"
    path.write_bytes(text.encode(encoding))
    assert selected() in (("token", "", TOKEN), ("key", USER, KEY), ("login", USER, "r"))


@pytest.mark.parametrize("content", [b"\xff\xfeK", b"\xff\xff\xff", bytes(range(128, 160)), b"x" * 70_000])
def test_file_of_another_encoding_or_too_large_is_refused(content: bytes, nobody: Path) -> None:
    path = keep(nobody / ".kaggle" / "access_token", "")
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"^{path}: "):
        credentials.find()


INSIDE = [f"{TOKEN[:9]}{wrong}{TOKEN[9:]}" for wrong in (" ", "\n", "\r\n", "\t", "ü", "а", "\x1b", "\x00", "\u2028")]


@pytest.mark.parametrize("token", [*INSIDE, f"export KAGGLE_API_TOKEN={TOKEN}", f"Bearer {TOKEN}", f"{TOKEN} {TOKEN}"])
def test_secret_with_invalid_characters_is_refused_and_never_shown(
    token: str, nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: str) -> None:
        with pytest.raises(BadInput, match=source) as error:
            credentials.find()
        message = f"{error.value}\n{error.value.hint}"
        assert not any(part in message for part in (TOKEN, TOKEN[:9], TOKEN[9:], token.splitlines()[0]))

    path = keep(nobody / ".kaggle" / "access_token", token)
    refused(f"^{path}: the token contains")
    path.unlink()
    path = keep(nobody / ".kaggle" / "kaggle.json", {"username": USER, "key": token})
    refused(f"^{path}: the (key|token) contains")
    if "\x00" not in token:
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)
        refused("^KAGGLE_API_TOKEN: the token contains")
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        monkeypatch.setenv("KAGGLE_USERNAME", USER)
        monkeypatch.setenv("KAGGLE_KEY", token)
        refused("^KAGGLE_(USERNAME and KAGGLE_)?KEY: the (key|token) contains")


@pytest.mark.parametrize(
    "name", ["адa", "ada lovelace", "ada/x", "ada:x", "ada\n", "ада@example.com", "李", "\x1b[2J", TOKEN + "é"]
)
def test_user_name_with_invalid_characters_is_refused(name: str, nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"x{name}x"
    path = keep(nobody / ".kaggle" / "kaggle.json", {"username": name, "key": KEY})
    with pytest.raises(BadInput, match=f"^{path}: the user name contains") as refused:
        credentials.find()
    assert name not in str(refused.value), "it may be a token in place of the user name"
    path.unlink()
    keep(nobody / ".kaggle" / "credentials.json", {"username": name, "refresh_token": "r"})
    with pytest.raises(BadInput, match="the user name contains"):
        credentials.find()
    monkeypatch.setenv("KAGGLE_USERNAME", name)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    with pytest.raises(BadInput, match=r"^KAGGLE_USERNAME and KAGGLE_KEY: the user name contains"):
        credentials.find()


def test_token_in_place_of_a_key_is_accepted(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fields in ({"username": USER, "key": TOKEN}, {"key": TOKEN}, {"username": "", "key": f" {TOKEN}\n"}):
        keep(nobody / ".kaggle" / "kaggle.json", fields)
        assert selected() == ("token", "", TOKEN)
    (nobody / ".kaggle" / "kaggle.json").unlink()
    monkeypatch.setenv("KAGGLE_KEY", TOKEN)
    assert selected() == ("token", "", TOKEN)
    monkeypatch.setenv("KAGGLE_USERNAME", USER)
    assert selected() == ("token", "", TOKEN)


def test_text_of_kaggle_json_in_place_of_a_token_is_accepted(
    nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"username": USER, "key": KEY})
    path = keep(nobody / ".kaggle" / "access_token", f"\ufeff{text}\r\n")
    assert selected() == ("key", USER, KEY)
    path.unlink()
    for name, value in (
        ("KAGGLE_KEY", text),
        ("KAGGLE_API_TOKEN", text),
        ("KAGGLE_API_TOKEN", f"'{text}'"),
        ("KAGGLE_API_TOKEN", str(keep(tmp_path / "kaggle.json", text))),
    ):
        monkeypatch.setenv(name, value)
        assert selected() == ("key", USER, KEY)
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_API_TOKEN", text[:-3])
    with pytest.raises(BadInput, match=r"^KAGGLE_API_TOKEN: not valid JSON") as refused:
        credentials.find()
    assert KEY[:8] not in str(refused.value)


def test_tilde_in_a_path_is_the_home_folder(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(nobody / "folder" / "kaggle.json", {"username": USER, "key": KEY})
    for path in ("~/folder", '"~/folder"', "~/folder/", "~/folder/kaggle.json", str(nobody / "folder")):
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", path)
        assert selected() == ("key", USER, KEY), path
    keep(nobody / "folder" / "token", TOKEN)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "~/folder/token")
    assert selected() == ("token", "", TOKEN)


@pytest.mark.parametrize("value", ["~/nothing", "/nowhere/token", "./token", "~nobody-of-that-name/token", "C:\\token"])
def test_path_of_a_missing_file_is_not_used_as_a_token(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", value)
    with pytest.raises(BadInput, match="KAGGLE_API_TOKEN: looks like a path, but no such file exists"):
        credentials.find()


def test_folder_in_place_of_a_token_is_refused(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(nobody))
    with pytest.raises(BadInput, match="KAGGLE_API_TOKEN: expected a token or a file with one, found the folder"):
        credentials.find()


@pytest.mark.parametrize("content", ["", "\n", "\ufeff", '""', " \u200b\r\n"])
@pytest.mark.parametrize("name", ["access_token", "kaggle.json", "credentials.json"])
def test_empty_file_is_skipped_and_reported_if_no_source_has_credentials(
    name: str, content: str, nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep(nobody / ".kaggle" / name, content)
    with pytest.raises(BadInput, match=f"^{path}: empty"):
        credentials.find()
    last = keep(Path("kaggle.json"), {"username": USER, "key": KEY})
    assert selected() == ("key", USER, KEY)
    last.unlink()
    monkeypatch.setenv("KAGGLE_API_TOKEN", content)
    with pytest.raises(BadInput, match=f"^{path}: empty"):
        credentials.find()


def test_kaggle_json_in_current_folder_is_the_last_source(nobody: Path) -> None:
    keep(Path("kaggle.json"), {"username": "last", "key": KEY})
    assert selected() == ("key", "last", KEY)
    account = credentials.find()
    assert account
    assert account.source == "kaggle.json"
    keep(nobody / ".kaggle" / "credentials.json", {"refresh_token": "r", "username": USER})
    assert selected() == ("login", USER, "r")
    (nobody / ".kaggle" / "credentials.json").unlink()
    Path("kaggle.json").chmod(0o644)
    with pytest.raises(BadInput, match=r"^kaggle\.json: other users of this machine can read it") as refused:
        credentials.find()
    assert "chmod 600 kaggle.json" in refused.value.hint


def test_example_is_a_valid_key_file(nobody: Path) -> None:
    example = ROOT / "kaggle.json.example"
    keep(nobody / ".kaggle" / "kaggle.json", example.read_text())
    account = credentials.find()
    assert account
    assert account.kind == "key"
