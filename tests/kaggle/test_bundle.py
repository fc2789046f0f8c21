"""The kernel that Kaggle gets: built, pushed, followed, fetched, and run alone as Kaggle runs it."""

import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, one_line
from digit_recognizer import cli, ledger, recipe, submission
from digit_recognizer.data import sample
from digit_recognizer.kaggle import bundle
from kaggle_server import TOKEN, USER, Fault, Server

PYTHON = os.environ.get("KERNEL_PYTHON", sys.executable)  # make image runs these tests with the image's own versions
SHORT = ["--recipe", "quick", "--epochs", "1", "--folds", "2"]


@pytest.fixture(autouse=True)
def kernel_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the verbs ``kernel`` and ``push`` write, instead of the repository's own folder."""
    folder = tmp_path_factory.mktemp("build") / "kernel"
    monkeypatch.setattr(cli, "KERNEL", folder)
    return folder


def build(folder: Path, *options: str, accelerator: str = "none", notebook: bool = False) -> Path:
    return bundle.build(ROOT, folder, options=options, accelerator=accelerator, notebook=notebook)


def test_the_script_is_plain_text_and_the_same_each_time(tmp_path: Path) -> None:
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
    for word in ("KAGGLE_KEY", "kagglesdk", "access_token", "create_submission"):
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


def test_the_metadata_are_what_kaggle_needs(tmp_path: Path) -> None:
    build(tmp_path)
    told = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert told["id"].partition("/")[2] == told["title"].lower().replace(" ", "-"), "the title must give the id"
    assert told["enable_internet"] is False
    assert told["competition_sources"] == ["digit-recognizer"]
    assert "machine_shape" not in told
    build(tmp_path, accelerator="t4x2")
    told = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert (told["machine_shape"], told["enable_gpu"], told["enable_tpu"]) == ("NvidiaTeslaT4", True, False)
    build(tmp_path, accelerator="tpu", notebook=True)
    told = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert (told["machine_shape"], told["enable_gpu"], told["enable_tpu"]) == ("TpuV5E8", False, True)
    assert (told["kernel_type"], told["code_file"]) == ("notebook", "kernel.ipynb")
    assert "'KERAS_BACKEND': 'jax'" in (tmp_path / "kernel.ipynb").read_text()


@pytest.mark.parametrize("accelerator", ["t4x2", "tpu"])
@pytest.mark.parametrize("notebook", [True, False])
def test_a_kernel_knows_what_accelerator_it_was_made_for(tmp_path: Path, accelerator: str, notebook: bool) -> None:
    told = f"'DIGIT_RECOGNIZER_ACCELERATOR': '{accelerator}'"
    assert told in build(tmp_path, accelerator=accelerator, notebook=notebook).read_text()
    assert told not in build(tmp_path, notebook=notebook).read_text()


def test_a_script_replaces_a_notebook_and_a_notebook_a_script(
    kernel_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, name in (([], "kernel.py"), (["--notebook"], "kernel.ipynb"), ([], "kernel.py")):
        assert cli.main(["kernel", *words]) == 0
        assert sorted(path.name for path in kernel_folder.iterdir()) == ["kernel-metadata.json", name]
        assert json.loads((kernel_folder / "kernel-metadata.json").read_text())["code_file"] == name


def test_a_recipe_file_travels_as_its_fields(
    tmp_path: Path, kernel_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(recipe.load_recipe("dense").changed(name="mine", learning_rate=0.0123).toml())
    assert cli.main(["kernel", "--recipe", str(file), "--budget", "3h"]) == 0
    text = (kernel_folder / "kernel.py").read_text()
    options = ast.literal_eval(text[text.index("OPTIONS = ") + 10 : text.index("ENVIRONMENT = ")])
    assert str(file) not in text
    told = dict(zip(options[::2], options[1::2], strict=True))
    assert (told["--recipe"], told["--network"], told["--learning-rate"]) == ("standard", "dense", "0.0123")
    assert (told["--budget"], told["--dropout"]) == ("10800s", "0.5")
    assert "--batch-size" not in told, "what is as in the standard recipe need not be told"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--accelerator", "p100"], "accelerator: expected one of none, t4x2, tpu, found 'p100'"),
        (["--epochs", "0"], "recipe, epochs: expected a number from 1"),
        (["--budget", "soon"], "expected a time such as 3m or 1h30m"),
        (["--budget", "5s"], "at least 30 s, at most 90 days, found '5s'"),
    ],
)
def test_a_kernel_that_cannot_be_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kernel", *words]) == 2
    assert told in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("form", [[], ["--notebook"]])
def test_a_kernel_that_lacks_a_module_is_never_pushed(
    form: list[str], kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closure = bundle.import_closure
    monkeypatch.setattr(
        bundle,
        "import_closure",
        lambda root: {name: path for name, path in closure(root).items() if name != "digit_recognizer.ledger"},
    )
    assert cli.main(["push", *form]) == 1
    assert "does not start by itself, with nothing beside it: ImportError" in one_line(capsys.readouterr().err)
    assert "SaveKernel" not in kaggle.calls


def test_a_kernel_is_pushed_and_followed(
    kaggle: Server, kernel_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["push", *SHORT, "--accelerator", "t4x2"]) == 0
    shown = capsys.readouterr().out
    assert f"sent, Kaggle runs it: https://www.kaggle.com/code/{USER}/digit-recognizer-kit" in shown
    (sent,) = kaggle.kernels
    assert sent["text"] == (kernel_folder / "kernel.py").read_text()
    assert (sent["slug"], sent["newTitle"]) == (f"{USER}/digit-recognizer-kit", "Digit Recognizer Kit")
    assert (sent["isPrivate"], sent["enableInternet"], sent["machineShape"]) == (True, False, "NvidiaTeslaT4")
    assert sent["competitionDataSources"] == ["digit-recognizer"]
    assert cli.main(["status"]) == 0
    assert f"{USER}/digit-recognizer-kit: complete" in capsys.readouterr().out
    kaggle.kernel_status, kaggle.kernel_failure = "ERROR", f"it broke {TOKEN}"
    assert cli.main(["status"]) == 1
    assert "error: it broke …" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(500), "Kaggle failed (500"),
        (Fault(), "Kaggle cannot be reached"),
        (Fault(200, {"error": "Maximum batch GPU session count of 2 reached."}), "Maximum batch GPU session count"),
    ],
)
def test_a_push_that_fails_is_not_repeated(
    fault: Fault, told: str, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail("SaveKernel", fault, always=True)
    assert cli.main(["push"]) == 1
    assert told in one_line(capsys.readouterr().err)
    assert kaggle.calls.count("SaveKernel") == 1


def kernel_tree(root: Path, mount: str = "input/competitions/digit-recognizer") -> tuple[Path, dict[str, str]]:
    """A Kaggle of files as a kernel sees them, and a script that cannot be written; the environment."""
    sample.write_sample(root / mount)
    (root / mount / sample.SAMPLE_MARK).unlink()
    (root / "working").mkdir(exist_ok=True)
    built = build(root / "src", *SHORT)
    script = built.rename(root / "src" / "script.py")
    (root / "src" / "kernel-metadata.json").unlink()
    for path in (script, root / "src", *(root / mount).iterdir(), root / mount):
        path.chmod(0o555 if path.is_dir() else 0o444)
    temporary = root / "tmp"
    temporary.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy")}
    return script, kept | {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "TMPDIR": str(temporary)}


def run_alone(root: Path, *words: str, mount: str = "input/competitions/digit-recognizer", **env: str) -> str:
    """Run the kernel's script as Kaggle does; its output."""
    script, environment = kernel_tree(root, mount)
    done = subprocess.run(
        [PYTHON, "-I", str(script), "--kaggle-root", str(root), *words],
        cwd=root / "working",
        env=environment | env,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_the_script_alone_leaves_a_checked_submission_and_can_be_fetched(
    tmp_path: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run_alone(tmp_path / "kaggle", "--epochs", "4", "--batch-size", "32", "--knn-weight", "5")
    assert "\nneighbours: " in shown
    working = tmp_path / "kaggle" / "working"
    assert submission.check(working / "submission.csv", 359) == []
    assert sorted(path.name for path in working.iterdir()) == ["runs", "submission.csv", "submissions"]
    (run,) = (working / "runs").glob("[!.]*")
    assert json.loads((run / "scores.json").read_text())["holdout"]["accuracy"] > 0.9
    about = json.loads((run / "run.json").read_text())
    assert about["identity"]["code"]
    assert about["commit"]
    assert "\r" not in shown
    # What it left comes back, and its row into the ledger.
    output = {str(path.relative_to(working)): path.read_bytes() for path in working.rglob("*") if path.is_file()}
    kaggle.output = output
    home = tmp_path / "laptop"
    home.mkdir()
    monkeypatch.chdir(home)
    ledger.record(home / "submissions", ledger.Row(run="before"))
    kaggle.kernel_status = "RUNNING"
    assert cli.main(["output"]) == 1
    assert "not done yet (running)" in one_line(capsys.readouterr().err)
    kaggle.kernel_status = "COMPLETE"
    for _ in range(2):
        assert cli.main(["output"]) == 0
        rows = {row.run: row for row in ledger.read(home / "submissions")}
        assert set(rows) == {"before", run.name}
        assert rows[run.name].holdout_rows == 144
        assert (home / "submissions" / f"{run.name}.csv").read_bytes() == output["submission.csv"]
        assert (home / "runs" / run.name / "scores.json").exists()
        assert len(list((home / "runs").iterdir())) == 1, "nothing is left lying about"
    kaggle.output |= {"../outside": b"x"}
    assert cli.main(["output"]) == 1
    assert "points outside" in capsys.readouterr().err
    assert not list(tmp_path.rglob("outside"))


def paste(root: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a text as a notebook's cell runs it: without ``__file__``, and with another program's words."""
    words = ["-f", "/home/me/.local/share/jupyter/runtime/kernel-1.json"]
    _, env = kernel_tree(root)
    return subprocess.run(
        [PYTHON, "-I", "-c", "import sys; exec(sys.stdin.read())", *words],
        input=text,
        cwd=root / "working",
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_what_is_pasted_into_a_cell_heeds_its_own_options_alone(tmp_path: Path) -> None:
    done = paste(tmp_path, build(tmp_path / "pasted", "--recipe", "none-such").read_text())
    assert done.returncode == 2
    assert "recipe: expected one of" in one_line(done.stderr)


@pytest.mark.skipif("KERNEL_PYTHON" in os.environ, reason="the package is not installed in the environment tried here")
def test_the_repository_s_kernel_too_can_be_pasted(tmp_path: Path) -> None:
    text = (ROOT / "kernel.py").read_text()
    code = text.replace("run_script(main)", "run_script(lambda config: print(config.recipe))")
    done = paste(tmp_path, f"import os\ndel os.environ['KAGGLE_KERNEL_RUN_TYPE']\n{code}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "standard\n", "")


def test_worker_processes_of_a_pasted_script_find_its_modules(tmp_path: Path) -> None:
    text = build(tmp_path / "pasted").read_text().removesuffix((ROOT / "kernel.py").read_text())
    story = """
import operator
from digit_recognizer.training.executors import local
from digit_recognizer.training.progress import Progress
silent = Progress(0, 0, (), 0)
local.run_jobs(operator.is_, [0, 1], silent, workers=2, threads=1, done=lambda *told: print(*told))
"""
    done = paste(tmp_path, text + story)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["0 False", "1 False"]
    assert list((tmp_path / "tmp").glob("*/digit_recognizer")) == [], "its modules' files are removed at the end"


def test_without_its_data_the_script_says_what_to_add(tmp_path: Path) -> None:
    script, env = kernel_tree(tmp_path, mount="input/elsewhere")
    words = [PYTHON, "-I", str(script), "--kaggle-root", str(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path / "working", env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "add the competition Digit Recognizer to the kernel's input" in one_line(done.stderr)


@pytest.mark.slow
def test_killed_after_its_first_member_a_valid_submission_is_there(tmp_path: Path) -> None:
    script, env = kernel_tree(tmp_path, mount="input/digit-recognizer")  # the mount's former path
    working = tmp_path / "working"
    process = subprocess.Popen(
        [PYTHON, "-I", str(script), "--kaggle-root", str(tmp_path), "--members", "4", "--network", "dense"],
        cwd=working,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not (working / "submission.csv").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(random.Random().random() * 4)
    os.killpg(process.pid, 9)
    process.wait()
    assert submission.check(working / "submission.csv", 359) == []
    # The same command goes on and trains only what is missing.
    kept = len(list(working.glob("runs/*/members/*/member.json")))
    done = subprocess.run(
        [PYTHON, "-I", str(script), "--kaggle-root", str(tmp_path), "--members", "4", "--network", "dense"],
        cwd=working,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept from before") == kept >= 1
    assert "holdout, blend of 4" in done.stdout


@pytest.mark.slow
def test_a_budget_plans_what_fits_and_the_run_ends_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    shown = run_alone(tmp_path, "--budget", "60s", "--members", "90", "--epochs", "2", "--network", "dense")
    assert time.monotonic() - began < 80, "other tests may take a core after the pace was measured"
    (run,) = (tmp_path / "working" / "runs").glob("[!.]*")
    scores = json.loads((run / "scores.json").read_text())
    assert re.search(r"^budget: time for \d+ of 90 members, [12] epochs each$", shown, re.MULTILINE)
    assert re.search(r"^truncated by the budget: \d+ of 90 members", shown, re.MULTILINE)
    assert 2 <= scores["members"] < 90
    assert submission.check(tmp_path / "working" / "submission.csv", 359) == []


@pytest.mark.slow
@pytest.mark.skipif("KERNEL_PYTHON" in os.environ, reason="JAX is not in the image that is tried here")
def test_jax_gives_a_submission_of_equal_quality(tmp_path: Path) -> None:
    words = [
        "--members",
        "1",
        "--epochs",
        "6",
        "--holdout",
        "0.2",
        "--batch-size",
        "32",
        "--network",
        "conv-pool",
        "--learning-rate",
        "2e-3",
    ]
    run_alone(tmp_path, *words, KERAS_BACKEND="jax")
    (run,) = (tmp_path / "working" / "runs").glob("[!.]*")
    assert json.loads((run / "run.json").read_text())["identity"]["backend"] == "jax"
    assert json.loads((run / "scores.json").read_text())["holdout"]["accuracy"] > 0.9
    assert submission.check(tmp_path / "working" / "submission.csv", 359) == []


@pytest.mark.slow
@pytest.mark.skipif("KERNEL_PYTHON" in os.environ, reason="there is no Jupyter in the environment that is tried here")
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    script, env = kernel_tree(tmp_path)
    shutil.copymode(ROOT / "kernel.py", script.parent)
    script.parent.chmod(0o755)
    words = [*SHORT, "--members", "1", "--network", "dense", "--kaggle-root", str(tmp_path)]
    notebook = nbformat.read(build(tmp_path / "src", *words, notebook=True), as_version=4)
    nbformat.validate(notebook)
    working = tmp_path / "working"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(working)}})
    client.execute(env=os.environ | env)
    printed = "".join(output.get("text", "") for output in notebook.cells[-3].outputs)
    assert "submission: submissions/quick-" in printed
    assert ["image/png" in output["data"] for output in notebook.cells[-1].outputs] == [True] * 3
    assert submission.check(working / "submission.csv", 359) == []
