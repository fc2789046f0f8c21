"""Write ``kernel.py`` and the modules that it imports into one script or notebook: Kaggle accepts a single file.

A script holds the text of each module, an importer for them, and ``kernel.py`` at the end. It imports the modules from
these texts, in worker processes too.
"""

import ast
import json
import pprint
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digit_recognizer import files, hints, provenance
from digit_recognizer.errors import BadInput
from digit_recognizer.kaggle.client import SLUG
from digit_recognizer.training import devices

PACKAGE = "digit_recognizer"
TITLE = "Digit Recognizer Kit"
OWNER_PLACEHOLDER = "your-kaggle-name"
MAX_BYTES = 1_000_000  # Kaggle's limit of a kernel's source
MACHINE_SHAPES = {"none": "", "t4x2": "NvidiaTeslaT4", "tpu": "TpuV5E8"}
RULE = "# " + "─" * 98
HEAD = '''\
"""{title}: an ensemble of augmented CNNs, validation scores with intervals, a checked submission.

Generated from a package, since a kernel on Kaggle is a single file. The unchanged text of each module follows under its
name, and kernel.py, which uses them, is at the end. No internet access or installation is needed.
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
FILE = globals().get("__file__")  # None if this text was pasted into a cell of a notebook


def is_package(name):
    return any(other.startswith(name + ".") for other in SOURCES)


def file_of(name):
    return os.path.join(*name.split("."), "__init__.py") if is_package(name) else os.path.join(*name.split(".")) + ".py"


class Modules(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Import modules from SOURCES."""

    def find_spec(self, name, path=None, target=None):
        if name not in SOURCES:
            return None
        origin = os.path.join(os.path.abspath(FILE or "kernel.py"), file_of(name))
        spec = importlib.machinery.ModuleSpec(name, self, origin=origin, is_package=is_package(name))
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
    sys.argv = ["kernel.py", *OPTIONS]  # those of the notebook's process do not apply
elif __name__ == "__main__":
    sys.argv[1:1] = OPTIONS
'''
TAIL = """\
if FILE is None:  # worker processes cannot read a cell; they import the modules from files
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
    shard: tuple[int, int] | None = None,
    owner: str = OWNER_PLACEHOLDER,
) -> Path:
    """Write the kernel and its ``kernel-metadata.json`` into ``folder``. The same sources produce the same bytes.

    Args:
        root: the repository.
        folder: the folder to write, created if it is missing.
        options: the words of ``kernel.py``'s command line on Kaggle.
        accelerator: a key of ``MACHINE_SHAPES``.
        notebook: write a notebook with one module per cell instead of a script.
        shard: the part of the members that the options select; it has a name of its own. None for all.
        owner: user name of the account on Kaggle.

    Returns:
        The script or notebook.

    Raises:
        BadInput: the accelerator is unknown, or a source cannot be bundled.
    """
    if accelerator not in MACHINE_SHAPES:
        raise BadInput(
            f"{hints.option('accelerator')}: expected one of {', '.join(MACHINE_SHAPES)}, found {accelerator!r}",
            hint=hints.option("accelerator", "none"),
        )
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
    if (size := len(text.encode())) > MAX_BYTES:
        raise BadInput(f"{path}: expected at most {MAX_BYTES:,} bytes, Kaggle's limit, found {size:,}")
    metadata = {
        "id": f"{owner}/{slug(shard)}",
        "title": title(shard),
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


def title(shard: tuple[int, int] | None = None) -> str:
    """Return the title of the kernel, or of the kernel of a shard."""
    return f"{TITLE} {shard[0]} of {shard[1]}" if shard else TITLE


def slug(shard: tuple[int, int] | None = None) -> str:
    """Return the kernel's name in its address, which Kaggle derives from the title."""
    return title(shard).lower().replace(" ", "-")


def import_closure(root: Path) -> dict[str, Path]:
    """Return the modules that ``kernel.py`` imports from the package, directly or indirectly: name → file.

    A module follows those that it imports, except in cycles through imports inside functions. Imports for type
    checking are not followed.

    Args:
        root: the repository.
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
    """Return the source file of a module or package, which need not exist."""
    path = root / "src" / Path(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(path: Path, root: Path) -> list[str]:
    """Return the modules that a file imports from the package, in the order of the file."""
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
    """Return the text of each module of the kernel, with commit and source digest filled into the package's own."""
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
    """Return the path of a module's file relative to ``src``."""
    is_package = any(other.startswith(f"{name}.") for other in sources)
    return name.replace(".", "/") + ("/__init__.py" if is_package else ".py")


def _script(sources: dict[str, str], kernel: str, options: Sequence[str], environment: dict[str, str]) -> str:
    parts = [_head(options, environment)]
    for name, source in sources.items():
        parts += [_heading(_file_name(name, sources)), f"SOURCES[{json.dumps(name)}] = r'''{source}'''\n"]
    return "\n".join([*parts, TAIL, _heading("kernel.py"), kernel])


def _head(options: Sequence[str], environment: dict[str, str]) -> str:
    return HEAD.format(title=TITLE, options=pprint.pformat(list(options)), environment=pprint.pformat(environment))


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
        _cell("markdown", f"# {TITLE}\n\nEach cell writes one module of the package; kernel.py, near the end, trains."),
        _cell("code", start),
    ]
    for name, source in sources.items():
        file = _file_name(name, sources)
        cells += [_cell("markdown", f"## {file}"), _cell("code", f"%%writefile {file}\n{source}".rstrip("\n"))]
    show_plots = (
        "from pathlib import Path\n\nfrom IPython.display import Image, display\n\n"
        "for plot in sorted(Path('runs').glob('*/*.png')):\n    display(Image(plot))"
    )
    cells += [_cell("markdown", "## kernel.py"), _cell("code", kernel.rstrip("\n"))]
    cells += [_cell("markdown", "## Plots"), _cell("code", show_plots)]
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
