"""The documentation: links, commands and options exist, the README stays short, the notebook shows its plots."""

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from digit_recognizer.recipe import recipe_fields

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NOTEBOOK = ROOT / "notebooks" / "walkthrough.ipynb"
IMAGES = sorted((ROOT / "docs" / "images").glob("*.png"))
MAKEFILE = (ROOT / "Makefile").read_text()
FORMER_OPTIONS = {"VIEW", "NEIGHBOURS"}  # named where they are said to be renamed
MAKE_VARIABLES = {"PYTHON", "IMAGE_PYTHON"}
LINK = re.compile(r"""!?\[[^\]]*\]\(([^)\s]+)\)|<img src="([^"]+)\"""")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def links(document: Path) -> list[str]:
    return [markdown or html for markdown, html in LINK.findall(without_code(document.read_text()))]


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(document: Path) -> str:
    """The code blocks and inline code of a document."""
    text = document.read_text()
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", without_code(text))])


def notebook_cells() -> list[dict[str, Any]]:
    return list(json.loads(NOTEBOOK.read_text())["cells"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_and_anchors_exist(document: Path) -> None:
    for link in links(document):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_exist(document: Path) -> None:
    commands = set(re.findall(r"^([a-z]+)[a-z ]*:", MAKEFILE, re.MULTILINE))
    commands |= set(re.search(r"VERBS := ((?:.*\\\n)*.*)", MAKEFILE)[1].replace("\\\n", " ").split())  # type: ignore[index]
    options = set(re.findall(r"\b[A-Z][A-Z_]+\b", MAKEFILE)) | {field.name.upper() for field in recipe_fields()}
    text = code(document)
    unknown = {name for name in re.findall(r"\bmake ((?!PYTHON)[a-z-]+)", text) if name not in commands}
    assert not unknown
    used = set(re.findall(r"(?<![\w.])([A-Z][A-Z_]+)=", text)) - {"KERAS_BACKEND", "FUZZ_CASES", "KILLS", "SEED"}
    if document.name in ("CHANGELOG.md", "recipes.md"):
        used -= FORMER_OPTIONS
    assert used <= options | MAKE_VARIABLES


def test_readme_fits_on_a_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert len(text.split()) <= 1200


def test_architecture_names_every_module() -> None:
    text, package = (ROOT / "docs" / "architecture.md").read_text(), ROOT / "src" / "digit_recognizer"
    paths = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    assert len(paths) > 5
    for path in paths:
        assert (package / path).exists(), path
    unnamed = {path.stem for path in package.rglob("*.py") if not re.search(rf"\b{path.stem}\b", text)}
    assert unnamed <= {"__init__", "__main__"}


def test_pictures_are_small_and_used() -> None:
    used = {link.rpartition("/")[2] for link in itertools.chain.from_iterable(map(links, DOCUMENTS))}
    for picture in IMAGES:
        assert picture.stat().st_size <= 150_000, picture
        assert picture.name in used, picture


def test_notebook_shows_its_plots_without_traces_of_the_machine() -> None:
    assert NOTEBOOK.stat().st_size <= 1_000_000
    outputs = [output for cell in notebook_cells() for output in cell.get("outputs", [])]
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 6
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert not [output for output in outputs if output.get("name") == "stderr" or output["output_type"] == "error"]
    printed = json.dumps([output.get("text", "") for output in outputs])
    assert not re.search(r"/(tmp|home|root|work|Users)/", printed)


def test_notebook_cells_have_stable_ids() -> None:
    assert [cell["id"] for cell in notebook_cells()] == [f"step-{number:02}" for number in range(len(notebook_cells()))]
