"""Kernels and the files that they find on Kaggle's machines."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from digit_recognizer.data import sample
from digit_recognizer.kaggle import bundle

PYTHON = os.environ.get("KERNEL_PYTHON", sys.executable)  # `make image` sets it to a Python with Kaggle's versions
SHORT = ["--recipe", "quick", "--epochs", "1", "--folds", "2", "--knn-weight", "0"]
MOUNT, FORMER_MOUNT = "input/competitions/digit-recognizer", "input/digit-recognizer"


def build(folder: Path, *options: str, accelerator: str = "none", notebook: bool = False) -> Path:
    """Write a kernel of the repository into ``folder``, and return its file."""
    return bundle.build(ROOT, folder, options=options, accelerator=accelerator, notebook=notebook)


def kernel_environment(root: Path) -> dict[str, str]:
    """Create the working and temporary folders of a kernel; return its environment."""
    for name in ("working", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy")}
    return kept | {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "TMPDIR": str(root / "tmp")}


def kernel_tree(root: Path, mount: str = MOUNT) -> tuple[Path, dict[str, str]]:
    """Create the folders of a kernel, input and source read-only; return its script and environment."""
    sample.write_sample(root / mount)
    (root / mount / sample.SAMPLE_MARK).unlink()
    script = build(root / "src", *SHORT).rename(root / "src" / "script.py")
    (root / "src" / "kernel-metadata.json").unlink()
    for path in (script, root / "src", *(root / mount).iterdir(), root / mount):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return script, kernel_environment(root)


def run_script(root: Path, *words: str, mount: str = MOUNT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a kernel as Kaggle does, with more options."""
    script, base = kernel_tree(root, mount)
    return subprocess.run(
        [PYTHON, "-I", str(script), "--kaggle-root", str(root), *words],
        cwd=root / "working",
        env=base | environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
