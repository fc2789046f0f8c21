"""The script and the notebook of a kernel: content, metadata, imports."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, one_line
from digit_recognizer import provenance
from digit_recognizer.kaggle import bundle
from kernel_script import PYTHON, SHORT, build, kernel_environment

# Packages of Kaggle's image; rich is a dependency of Keras.
IMAGE_PACKAGES = {"keras", "matplotlib", "numpy", "pandas", "rich", "scipy", "sklearn", "tensorflow"}
OPTIONAL_PACKAGES = {"filelock", "ray"}  # imported inside try
REPORT_PACKAGES = {"PIL", "cleanlab", "jinja2", "plotly"}  # imported by functions that a kernel does not call


def paste(root: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a text like a cell of a notebook: without ``__file__``, and with the command line of another program."""
    environment = kernel_environment(root)
    notebook_words = ["-f", "/home/me/.local/share/jupyter/runtime/kernel-1.json"]
    return subprocess.run(
        [PYTHON, "-I", "-c", "import sys; exec(sys.stdin.read())", *notebook_words],
        input=text,
        cwd=root / "working",
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_script_is_reproducible_and_contains_the_modules_as_text(tmp_path: Path) -> None:
    first, second = (build(tmp_path / name, *SHORT).read_text() for name in "ab")
    assert first == second
    assert len(first.encode()) < 400_000
    assert first.endswith((ROOT / "kernel.py").read_text())
    for name, path in bundle.import_closure(ROOT).items():
        assert f"# {path.relative_to(ROOT / 'src').as_posix()}\n" in first
        assert name == "digit_recognizer" or path.read_text() in first
    ast.parse(first)


def test_script_has_no_code_for_submitting(tmp_path: Path) -> None:
    modules = bundle.import_closure(ROOT)
    assert not [name for name in modules if re.search(r"\.(kaggle|experiments|cli|doctor|runs_table)\b", name)]
    text = build(tmp_path).read_text()
    for word in ("KAGGLE_KEY", "kagglesdk", "access_token", "create_submission", "credentials"):
        assert word not in text


def test_imports_for_type_checking_are_not_bundled(tmp_path: Path) -> None:
    package = tmp_path / "src" / "digit_recognizer"
    package.mkdir(parents=True)
    (tmp_path / "kernel.py").write_text("from digit_recognizer import one\n")
    (package / "__init__.py").touch()
    (package / "one.py").write_text(
        "if TYPE_CHECKING:\n    from digit_recognizer import types_only\n"
        "def f():\n    from digit_recognizer.two import name\n"
    )
    (package / "two.py").touch()
    (package / "types_only.py").touch()
    assert list(bundle.import_closure(tmp_path)) == ["digit_recognizer", "digit_recognizer.two", "digit_recognizer.one"]


def test_metadata_match_the_accelerator(tmp_path: Path) -> None:
    build(tmp_path)
    metadata = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert metadata["id"].partition("/")[2] == metadata["title"].lower().replace(" ", "-"), (
        "Kaggle derives the id from the title"
    )
    assert metadata["enable_internet"] is False
    assert metadata["competition_sources"] == ["digit-recognizer"]
    assert "machine_shape" not in metadata
    build(tmp_path, accelerator="t4x2")
    metadata = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert (metadata["machine_shape"], metadata["enable_gpu"], metadata["enable_tpu"]) == ("NvidiaTeslaT4", True, False)
    build(tmp_path, accelerator="tpu", notebook=True)
    metadata = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert (metadata["machine_shape"], metadata["enable_gpu"], metadata["enable_tpu"]) == ("TpuV5E8", False, True)
    assert (metadata["kernel_type"], metadata["code_file"]) == ("notebook", "kernel.ipynb")
    assert "'KERAS_BACKEND': 'jax'" in (tmp_path / "kernel.ipynb").read_text()


def test_script_and_notebook_replace_each_other(tmp_path: Path) -> None:
    for notebook, name in ((False, "kernel.py"), (True, "kernel.ipynb"), (False, "kernel.py")):
        build(tmp_path, notebook=notebook)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel-metadata.json", name]
        assert json.loads((tmp_path / "kernel-metadata.json").read_text())["code_file"] == name


@pytest.mark.parametrize("accelerator", ["t4x2", "tpu"])
@pytest.mark.parametrize("notebook", [True, False])
def test_kernel_contains_its_accelerator(tmp_path: Path, accelerator: str, notebook: bool) -> None:
    setting = f"'DIGIT_RECOGNIZER_ACCELERATOR': '{accelerator}'"
    assert setting in build(tmp_path, accelerator=accelerator, notebook=notebook).read_text()
    assert setting not in build(tmp_path, notebook=notebook).read_text()


def test_pasted_script_uses_only_its_own_options(tmp_path: Path) -> None:
    process = paste(tmp_path, build(tmp_path / "pasted", "--recipe", "none-such").read_text())
    assert process.returncode == 2
    assert "recipe: expected one of" in one_line(process.stderr)


@pytest.mark.skipif("KERNEL_PYTHON" in os.environ, reason="the package is not installed there")
def test_kernel_of_the_repository_can_be_pasted(tmp_path: Path) -> None:
    text = (ROOT / "kernel.py").read_text()
    code = text.replace("run_script(main)", "run_script(lambda config: print(config.recipe))")
    process = paste(tmp_path, f"import os\ndel os.environ['KAGGLE_KERNEL_RUN_TYPE']\n{code}")
    assert (process.returncode, process.stdout, process.stderr) == (0, "standard\n", "")


def test_workers_of_a_pasted_script_import_its_modules(tmp_path: Path) -> None:
    text = build(tmp_path / "pasted").read_text().removesuffix((ROOT / "kernel.py").read_text())
    jobs = """
import operator
from digit_recognizer.training.executors import local
from digit_recognizer.training.progress import Progress
silent = Progress(0, 0, (), 0)
local.run_jobs(operator.is_, [0, 1], silent, workers=2, threads=1, done=lambda *result: print(*result))
"""
    process = paste(tmp_path, text + jobs)
    assert (process.returncode, process.stderr) == (0, "")
    assert sorted(process.stdout.splitlines()) == ["0 False", "1 False"]
    assert list((tmp_path / "tmp").glob("*/digit_recognizer")) == [], "the files of the modules are removed at the end"


def test_script_without_data_names_the_input_to_add(tmp_path: Path) -> None:
    script, environment = build(tmp_path), kernel_environment(tmp_path)
    command = [PYTHON, "-I", str(script), "--kaggle-root", str(tmp_path)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 2
    assert "add the competition Digit Recognizer to the kernel's input" in one_line(process.stderr)


def test_script_contains_commit_and_source_digest(tmp_path: Path) -> None:
    text = build(tmp_path).read_text()
    assert f"CODE: str | None = {provenance.source_digest()!r}\n" in text
    assert f"COMMIT: str | None = {provenance.commit()!r}\n" in text


def test_script_imports_only_packages_of_the_image() -> None:
    packages = set()
    for path in [*bundle.import_closure(ROOT).values(), ROOT / "kernel.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                packages |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                packages.add(node.module.partition(".")[0])
    packages -= sys.stdlib_module_names
    assert packages <= {"digit_recognizer"} | IMAGE_PACKAGES | OPTIONAL_PACKAGES | REPORT_PACKAGES


def test_modules_follow_their_imports_at_the_top(tmp_path: Path) -> None:
    package = tmp_path / "src" / "digit_recognizer"
    (package / "deep").mkdir(parents=True)
    (tmp_path / "kernel.py").write_text("try:\n    import digit_recognizer.deep.c\nexcept ImportError:\n    pass\n")
    for name in ("__init__", "deep/__init__", "deep/a"):
        (package / f"{name}.py").touch()
    (package / "b.py").write_text("from digit_recognizer.deep import a\n")
    (package / "deep" / "c.py").write_text("from digit_recognizer import b\nfrom digit_recognizer.deep.a import name\n")
    names = [name.removeprefix("digit_recognizer").strip(".") for name in bundle.import_closure(tmp_path)]
    assert names == ["", "deep", "deep.a", "b", "deep.c"]
