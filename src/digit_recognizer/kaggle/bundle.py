"""The package and ``kernel.py`` → one readable script or notebook, since a push to Kaggle sends one file."""

import ast
import json
import pprint
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digit_recognizer import files, provenance
from digit_recognizer.errors import BadInput
from digit_recognizer.kaggle.client import SLUG
from digit_recognizer.training import devices

PACKAGE = "digit_recognizer"
TITLE = "Digit Recognizer Kit"
KERNEL_SLUG = "digit-recognizer-kit"
OWNER_PLACEHOLDER = "your-kaggle-name"
LIMIT = 1_000_000  # bytes of source that Kaggle takes
MACHINE_SHAPES = {"none": "", "t4x2": "NvidiaTeslaT4", "tpu": "TpuV5E8"}
RULE = "# " + "─" * 98
HEAD = '''\
"""{title}: an ensemble of augmented CNNs, with an honest score and a checked submission.

One script made from a package, for a kernel runs one file: each module stands below under its own name, as it is, and
kernel.py, which runs them, at the end. It needs no internet and installs nothing.
"""

import atexit
import importlib.abc
import importlib.machinery
import importlib.util
import os
import shutil
import sys
import tempfile

OPTIONS = {options}
ENVIRONMENT = {environment}
SOURCES = {{}}
FILE = globals().get("__file__")  # None where this text is pasted into a notebook's cell


def file_of(name):
    is_package = any(other.startswith(name + ".") for other in SOURCES)
    return os.path.join(*name.split("."), "__init__.py") if is_package else os.path.join(*name.split(".")) + ".py"


class Modules(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the modules whose text follows."""

    def find_spec(self, name, path=None, target=None):
        if name not in SOURCES:
            return None
        is_package = any(other.startswith(name + ".") for other in SOURCES)
        origin = os.path.join(os.path.abspath(FILE or "kernel.py"), file_of(name))
        spec = importlib.machinery.ModuleSpec(name, self, origin=origin, is_package=is_package)
        spec.has_location = True
        return spec

    def get_source(self, name):
        return SOURCES[name]

    def get_code(self, name):
        return compile(SOURCES[name], "<" + name + ">", "exec", dont_inherit=True)


sys.meta_path.insert(0, Modules())
for variable, value in ENVIRONMENT.items():
    os.environ.setdefault(variable, value)
if FILE is None:
    sys.argv = ["kernel.py", *OPTIONS]  # the notebook's own are not meant for this
elif __name__ == "__main__":
    sys.argv[1:1] = OPTIONS
'''
TAIL = """\
if FILE is None:  # worker processes cannot read a cell: they import the modules from files
    FOLDER = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
    for name, source in SOURCES.items():
        path = os.path.join(FOLDER, file_of(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(source)
    sys.path.insert(0, FOLDER)
"""


def build(
    root: Path,
    folder: Path,
    *,
    options: Sequence[str],
    accelerator: str,
    notebook: bool,
    owner: str = OWNER_PLACEHOLDER,
) -> Path:
    """Write the kernel and its ``kernel-metadata.json`` into ``folder``; the same sources give the same bytes.

    Args:
        root: the repository.
        folder: made where it is missing.
        options: words of ``kernel.py``'s command line that the kernel runs with.
        accelerator: a name of ``SHAPES``.
        notebook: a notebook with a module a cell instead of a script.
        owner: the Kaggle user whose kernel it is.

    Returns:
        The kernel's file.

    Raises:
        BadInput: an unknown accelerator, or a source that cannot travel.
    """
    if accelerator not in MACHINE_SHAPES:
        raise BadInput(f"accelerator: expected one of {', '.join(MACHINE_SHAPES)}, found {accelerator!r}")
    environment = {} if accelerator == "none" else {devices.ACCELERATOR_VARIABLE: accelerator}
    if accelerator == "tpu":
        environment["KERAS_BACKEND"] = "jax"
    kernel = (root / "kernel.py").read_text(encoding="utf-8")
    sources = _sources(root)
    script, cells = folder / "kernel.py", folder / "kernel.ipynb"
    if notebook:
        path, other, text = cells, script, _notebook(sources, kernel, options, environment)
    else:
        path, other, text = script, cells, _script(sources, kernel, options, environment)
    if len(text.encode()) > LIMIT:
        raise BadInput(f"{path}: {len(text.encode()):,} bytes, more than the {LIMIT:,} that Kaggle takes")
    metadata = {
        "id": f"{owner}/{KERNEL_SLUG}",
        "title": TITLE,
        "code_file": path.name,
        "language": "python",
        "kernel_type": "notebook" if notebook else "script",
        "is_private": True,
        "enable_gpu": accelerator == "t4x2",
        "enable_tpu": accelerator == "tpu",
        "enable_internet": False,
        "competition_sources": [SLUG],
        "dataset_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }
    if MACHINE_SHAPES[accelerator]:
        metadata["machine_shape"] = MACHINE_SHAPES[accelerator]
    files.write_bytes(path, text.encode())
    files.write_json(folder / "kernel-metadata.json", metadata)
    with files.explained(other):
        other.unlink(missing_ok=True)
    return path


def import_closure(root: Path) -> dict[str, Path]:
    """Return the modules of the package that ``kernel.py`` imports, directly or not: name → file, dependencies first.

    Imports inside functions count; those for type checking do not.
    """
    found: dict[str, Path] = {}
    visited: set[str] = set()

    def visit(name: str) -> None:
        if name in visited:
            return
        visited.add(name)
        path = _file_of(root, name)
        if package := name.rpartition(".")[0]:
            visit(package)
        for imported in _imports(path, root):
            visit(imported)
        found[name] = path

    for imported in _imports(root / "kernel.py", root):
        visit(imported)
    return found


def _file_of(root: Path, name: str) -> Path:
    path = root / "src" / Path(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(path: Path, root: Path) -> list[str]:
    """Return the modules of the package that a file imports, in their order in the file."""
    names: list[str] = []

    def collect(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names.append(name if _file_of(root, name).exists() else node.module)
        for child in ast.iter_child_nodes(node):
            collect(child)

    collect(ast.parse(path.read_text(encoding="utf-8")))
    return [name for name in names if name.split(".")[0] == PACKAGE]


def _sources(root: Path) -> dict[str, str]:
    """Return the text of each module of the kernel; the package's own holds its commit and source digest."""
    sources = {}
    for name, path in import_closure(root).items():
        source = path.read_text(encoding="utf-8")
        if "'''" in source or not source.endswith("\n"):
            raise BadInput(f"{path}: cannot be bundled; expected no three single quotes, and a line end at the end")
        sources[name] = source
    for name, value in (("COMMIT", provenance.commit()), ("CODE", provenance.source_digest())):
        blank = f"{name}: str | None = None\n"
        if blank not in sources[PACKAGE]:
            raise BadInput(f"{_file_of(root, PACKAGE)}: expected the line {blank.strip()!r}")
        sources[PACKAGE] = sources[PACKAGE].replace(blank, f"{name}: str | None = {value!r}\n")
    return sources


def _file_name(name: str, sources: dict[str, str]) -> str:
    """Return the path of a module's file, relative to ``src``."""
    is_package = any(other.startswith(f"{name}.") for other in sources)
    return name.replace(".", "/") + ("/__init__.py" if is_package else ".py")


def _script(sources: dict[str, str], kernel: str, options: Sequence[str], environment: dict[str, str]) -> str:
    parts = [_head(options, environment)]
    for name, source in sources.items():
        parts += [_heading(_file_name(name, sources)), f"SOURCES[{json.dumps(name)}] = r'''{source}'''\n"]
    return "\n".join([*parts, TAIL.format(package=PACKAGE), _heading("kernel.py"), kernel])


def _head(options: Sequence[str], environment: dict[str, str]) -> str:
    shown = {"options": pprint.pformat(list(options)), "environment": pprint.pformat(environment)}
    return HEAD.format(title=TITLE, package=PACKAGE, **shown)


def _heading(name: str) -> str:
    return f"\n{RULE}\n# {name}\n{RULE}\n"


def _notebook(sources: dict[str, str], kernel: str, options: Sequence[str], environment: dict[str, str]) -> str:
    folders = sorted({_file_name(name, sources).rpartition("/")[0] for name in sources})
    start = (
        "import os\nimport sys\n\n"
        f"os.environ.update({environment!r})\n"
        f"sys.argv = ['kernel.py', *{list(options)!r}]\n"
        f"for folder in {folders!r}:\n    os.makedirs(folder, exist_ok=True)"
    )
    cells = [
        _cell("markdown", f"# {TITLE}\n\nEach module of the package is a cell of its own; the last one runs them."),
        _cell("code", start),
    ]
    for name, source in sources.items():
        file = _file_name(name, sources)
        cells += [_cell("markdown", f"## {file}"), _cell("code", f"%%writefile {file}\n{source}".rstrip("\n"))]
    pictures = (
        "from pathlib import Path\n\nfrom IPython.display import Image, display\n\n"
        "for picture in sorted(Path('runs').glob('*/*.png')):\n    display(Image(picture))"
    )
    cells += [_cell("markdown", "## kernel.py"), _cell("code", kernel.rstrip("\n"))]
    cells += [_cell("markdown", "## Pictures of the run"), _cell("code", pictures)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02}"
    body = {
        "cells": cells,
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, source: str) -> dict[str, Any]:
    code: dict[str, Any] = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source} | code
