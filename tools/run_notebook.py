"""Run notebooks/walkthrough.ipynb on the bundled sample and store its outputs in it, so that plots show on the web."""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "walkthrough.ipynb"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main() -> int:
    """Run the notebook in an empty folder; return the exit status."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, resources=resources, coalesce_streams=True, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if errors := [output.text for output in cell.outputs if output.get("name") == "stderr"]:
            print(f"error: {cell.id}: wrote to standard error: {errors[0].strip()}", file=sys.stderr)
            return 1
        # Keras leaves an empty output when it prints a network's summary.
        cell.outputs = [output for output in cell.outputs if output.get("data", {}).get("text/plain") != ""]
    notebook.metadata = METADATA
    nbformat.write(notebook, NOTEBOOK)  # type: ignore[no-untyped-call]
    print(f"notebooks/{NOTEBOOK.name}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
