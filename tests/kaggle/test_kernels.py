"""Kernels: built, pushed, followed, and their output fetched."""

import ast
import os
import re
import time
from pathlib import Path

import pytest

from conftest import ROOT, keep, one_line
from digit_recognizer import cli, ledger, recipe
from digit_recognizer.kaggle import bundle, client, kernels
from digit_recognizer.ledger import Row
from kaggle_server import TOKEN, USER, Fault, Server, submission
from kernel_script import SHORT
from submissions import ledger_row, refused, store_submission

real_sleep = time.sleep


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that is ready to be submitted; pauses are shortened."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 50))
    store_submission(tmp_path, "standard-1", wrong=100, errors=20)
    return tmp_path


@pytest.fixture
def kernel_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that ``kernel`` and ``push`` write, in place of the repository's."""
    folder = tmp_path_factory.mktemp("build") / "kernel"
    monkeypatch.setattr(cli, "KERNEL", folder)
    return folder


@pytest.fixture
def start_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels be built without starting them."""
    monkeypatch.setattr(kernels, "build_kernel", lambda folder, **options: bundle.build(ROOT, folder, **options))


def kernel_output(home: Path, *runs: str, **fields: str) -> dict[str, bytes]:
    """Return the output of a kernel with these runs: path → content."""
    kernel_home = home.parent / f"{home.name}-kernel"
    for run in runs:
        store_submission(kernel_home, run, wrong=7, errors=9)
        ledger.update(kernel_home / "submissions", run, **fields)
        keep(kernel_home / "runs" / run / "run.json", {"test_rows": 28_000})
        keep(kernel_home / "runs" / run / "members" / "00" / "member.json", {})
    paths = [path for path in kernel_home.rglob("*.*") if path.is_file()]
    return {path.relative_to(kernel_home).as_posix(): path.read_bytes() for path in paths}


def contents(home: Path) -> dict[str, bytes]:
    """Return the files of a folder that are not hidden: path → content."""
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name[0] != "."}


def write_output(output: dict[str, bytes], folder: Path) -> None:
    """Write the output of a kernel into a folder, in place of a download."""
    for name, content in output.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("status", ["COMPLETE", "ERROR"])
def test_output_is_fetched_once_and_overwrites_nothing(
    status: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.kernel_status = status
    kaggle.output = kernel_output(
        home, "a-1", reference="666", status="complete", public_score="1.0", message="planted"
    )
    kaggle.output |= {"runs/a-1/evil.py": b"x", "runs/a-1/members/00/x.pkl": b"x", "runs/a-1/deep/er/x.json": b"x"}
    kaggle.output |= {"runs/b-2/run.json": b"x", "submissions/b-2.csv": b"x", "Makefile": b"x", "cache/x.json": b"x"}
    before = contents(home)
    assert cli.main(["output"]) == 0
    assert "a-1: fetched into submissions/ and runs/" in capsys.readouterr().out
    assert {str(Path(name).relative_to(home)) for name in contents(home).keys() - before.keys()} == {
        "submissions/a-1.csv", "runs/a-1/run.json", "runs/a-1/members/00/member.json",
    }  # fmt: skip
    fetched = ledger_row(home, "a-1")
    assert (fetched.reference, fetched.status, fetched.public_score, fetched.message, fetched.holdout_errors) == (
        "",
        "",
        "",
        "",
        9,
    )
    ledger.update(home / "submissions", "a-1", status="sending", message="m")
    keep(home / "runs" / "a-1" / "run.json", "mine")
    unchanged = contents(home)
    assert cli.main(["output"]) == 0
    assert contents(home) == unchanged, "neither the status sending nor the run's folder is overwritten"
    ledger.update(home / "submissions", "a-1", status="pending", reference="7")
    unchanged = contents(home)
    assert cli.main(["output"]) == 0
    assert contents(home) == unchanged


@pytest.mark.parametrize(
    "name",
    [
        "../digit_recognizer", "..", "../../x", "/tmp/x", "a/b", "a\\b", ".hidden", "a\x1b[2J", "cache", "Cache",
        "studies", "compare.md", "compare.json", "error.log", "bench-20261122-105003", "bench.json", "ledger", "LEDGER",
        "sample-ledger",
    ],
)  # fmt: skip
def test_run_with_unsafe_name_is_refused_and_nothing_is_kept(
    name: str,
    home: Path,
    kaggle: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = kernel_output(home, "a-1", "b-2")
    output["submissions/ledger.csv"] = output["submissions/ledger.csv"].replace(b"a-1", name.encode())
    renamed = {os.path.normpath(path.replace("a-1", name)): content for path, content in output.items()}
    output = {path: content for path, content in renamed.items() if not path.startswith((".", "/"))}
    monkeypatch.setattr(
        client.Client, "download_kernel_output", lambda client, slug, folder: write_output(output, folder)
    )
    parents = [sorted(folder.iterdir()) for folder in home.parents[:2]]
    before = contents(home)
    error = refused(["output"], capsys, 2)
    assert re.search("expected a plain file name|has the reserved name|csv, line 1: expected the header", error)
    assert "digit-recognizer-kit: " in error
    assert ".output-" not in error
    assert contents(home) == before
    assert [sorted(folder.iterdir()) for folder in home.parents[:2]] == parents


@pytest.mark.parametrize("existing", ["file", "run as file", "run as link", "row"])
def test_fetched_run_that_conflicts_is_refused(
    existing: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.output = kernel_output(home, "a-1")
    if existing == "file":
        (home / "submissions" / "a-1.csv").write_bytes(submission(8))
    elif existing == "run as file":
        (home / "runs" / "a-1").write_text("x")
    elif existing == "run as link":
        (home / "runs" / "a-1").symlink_to(home / "submissions")
    else:
        ledger.record(home / "submissions", Row(run="a-1", file_sha256="ab"))
    before = contents(home)
    refused(["output"], capsys, 2)
    assert contents(home) == before


@pytest.mark.parametrize("kind", ["link", "folder as link", "submission as link", "fifo", "run as file"])
def test_links_are_refused_and_other_files_dropped(
    kind: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = kernel_output(home, "a-1")

    def download(client: client.Client, slug: str, folder: Path) -> None:
        write_output(output, folder)
        run = folder / "runs" / "a-1"
        if kind == "link":
            (run / "test.npy").symlink_to("/etc/passwd")
        elif kind == "folder as link":
            (run / "members" / "01").symlink_to("/etc")
        elif kind == "submission as link":
            (folder / "submissions" / "a-1.csv").rename(folder / "b")
            (folder / "submissions" / "a-1.csv").symlink_to(folder / "b")
        elif kind == "fifo":
            os.mkfifo(run / "test.npy")
        else:
            run.rename(folder / "c")
            run.touch()

    monkeypatch.setattr(client.Client, "download_kernel_output", download)
    before = contents(home)
    if kind == "fifo":
        assert cli.main(["output"]) == 0
        assert not (home / "runs" / "a-1" / "test.npy").exists()
    else:
        assert cli.main(["output"]) in (1, 2)
        one_line(capsys.readouterr().err)
        assert contents(home) == before


def test_damaged_ledger_of_a_kernel_is_reported(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"\xff", b"x,y\n", b"run,oof_errors\na,x\n", b"run\na\na\n" + b"run,members\n"):
        kaggle.output = {"submissions/ledger.csv": content}
        assert "digit-recognizer-kit: submissions/ledger.csv" in refused(["output"], capsys, 2)
    kaggle.output = {"submissions/ledger.csv": b"run\na\n"}
    assert "the submission of a is incomplete" in refused(["output"], capsys, 1)


@pytest.mark.usefixtures("kernel_folder")
@pytest.mark.parametrize("form", [[], ["--notebook"]])
def test_kernel_that_does_not_start_is_not_pushed(
    form: list[str], kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closure = bundle.import_closure
    monkeypatch.setattr(
        bundle,
        "import_closure",
        lambda root: {name: path for name, path in closure(root).items() if name != "digit_recognizer.ledger"},
    )
    assert cli.main(["push", *form]) == 1
    assert "does not start on its own: ImportError" in one_line(capsys.readouterr().err)
    assert "SaveKernel" not in kaggle.calls


def test_kernel_is_pushed_and_followed(kaggle: Server, kernel_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["push", *SHORT, "--accelerator", "t4x2"]) == 0
    output = capsys.readouterr().out
    assert f"running on Kaggle: https://www.kaggle.com/code/{USER}/digit-recognizer-kit" in output
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


@pytest.mark.usefixtures("start_unchecked")
def test_push_shows_the_quota_of_the_accelerator(
    kaggle: Server, kernel_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kernel_folder
    assert cli.main(["push", *SHORT, "--accelerator", "t4x2"]) == 0
    assert "quota: GPU 25.5 of 30 h left this week\n" in capsys.readouterr().out
    kaggle.quota = None
    assert cli.main(["push", *SHORT, "--accelerator", "t4x2"]) == 0
    assert "quota: not known\n" in capsys.readouterr().out
    assert cli.main(["push", *SHORT]) == 0
    assert "quota" not in capsys.readouterr().out
    kaggle.fail("GetAcceleratorQuotaStatistics", Fault(403), always=True)
    assert cli.main(["push", *SHORT, "--accelerator", "tpu"]) == 0, "a refused quota does not stop the push"


LOG = ["data: train.csv\nepo", "ch 1\n", "  4 \x1b[2J", f"x\nkey {TOKEN}\n", "end"]
LINES = ["data: train.csv", "epoch 1", "  4 \N{REPLACEMENT CHARACTER}[2Jx", "key …", "end"]


@pytest.mark.parametrize("breaks", [[], [0], [3, 2, 0, 4], [1, 2, 3, 4]])
@pytest.mark.parametrize("status", ["RUNNING", "COMPLETE"])
def test_log_is_followed_to_its_end(
    status: str,
    breaks: list[int],
    kaggle: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 50))
    kaggle.kernel_status, kaggle.log, kaggle.log_breaks = status, LOG, list(breaks)
    assert cli.main(["logs"]) == 0
    assert capsys.readouterr().out.splitlines() == LINES
    if status == "RUNNING":
        assert kaggle.calls.count("GetKernelSessionLogsStream") == len(breaks) + 1


def test_log_that_always_breaks_off_ends_with_an_error(
    kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 50))
    kaggle.kernel_status, kaggle.log, kaggle.log_breaks = "RUNNING", LOG, [2] * 50
    assert cli.main(["logs"]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == LINES[:2]
    assert one_line(captured.err)
    assert kaggle.calls.count("GetKernelSessionLogsStream") == client.TRIES


def test_log_of_a_failed_kernel_ends_with_its_reason(kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.kernel_status, kaggle.kernel_failure, kaggle.log = "ERROR", f"it broke {TOKEN}", LOG
    assert cli.main(["logs"]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == LINES
    assert captured.err == f"error: {USER}/digit-recognizer-kit: error: it broke …\n"


@pytest.mark.usefixtures("kernel_folder")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(500), "Kaggle: server error (500"),
        (Fault(), "Kaggle cannot be reached"),
        (Fault(200, {"error": "Maximum batch GPU session count of 2 reached."}), "Maximum batch GPU session count"),
    ],
)
def test_failed_push_is_not_repeated(
    fault: Fault,
    message: str,
    kaggle: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "build_kernel", lambda folder, **options: bundle.build(ROOT, folder, **options))
    kaggle.fail("SaveKernel", fault, always=True)
    assert cli.main(["push"]) == 1
    assert message in one_line(capsys.readouterr().err)
    assert kaggle.calls.count("SaveKernel") == 1


@pytest.mark.usefixtures("start_unchecked")
def test_recipe_file_becomes_options(tmp_path: Path, kernel_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(recipe.load_recipe("dense").changed(name="mine", learning_rate=0.0123).toml())
    assert cli.main(["kernel", "--recipe", str(file), "--budget", "3h"]) == 0
    text = (kernel_folder / "kernel.py").read_text()
    options = ast.literal_eval(text[text.index("OPTIONS = ") + 10 : text.index("ENVIRONMENT = ")])
    assert str(file) not in text
    values = dict(zip(options[::2], options[1::2], strict=True))
    assert (values["--recipe"], values["--network"], values["--learning-rate"]) == ("standard", "dense", "0.0123")
    assert (values["--budget"], values["--dropout"]) == ("10800s", "0.5")
    assert "--batch-size" not in values, "it is the same in recipe standard"


@pytest.mark.usefixtures("kernel_folder")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--accelerator", "p100"], "--accelerator: expected one of none, t4x2, tpu, found 'p100'"),
        (["--epochs", "0"], "recipe, epochs: expected a number from 1"),
        (["--budget", "soon"], "expected a time such as 3m or 1h30m"),
        (["--budget", "5s"], "at least 30 s, at most 90 days, found '5s'"),
    ],
)
def test_invalid_options_of_a_kernel_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["kernel", *words]) == 2
    assert message in one_line(capsys.readouterr().err)


def test_output_of_a_running_kernel_is_refused(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.kernel_status = "RUNNING"
    error = refused(["output"], capsys, 1)
    assert "not complete (running)\nhint: `digit-recognizer status` shows its state" in error


def test_output_without_a_run_is_refused(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.kernel_status, kaggle.kernel_failure = "ERROR", "out of memory"
    error = refused(["output"], capsys, 1)
    assert "no run in its output; it failed: out of memory\nhint: `digit-recognizer push`" in error


def test_file_outside_the_output_folder_is_refused(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.output = kernel_output(home, "a-1") | {"../outside": b"x"}
    before = contents(home)
    assert "points outside" in refused(["output"], capsys, 1)
    assert contents(home) == before
    assert not list(home.parent.glob("**/outside"))


@pytest.mark.usefixtures("start_unchecked")
def test_kernel_of_a_shard_has_a_name_of_its_own(
    home: Path, kaggle: Server, kernel_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["push", *SHORT, "--shard", "2/3"]) == 0
    (sent,) = kaggle.kernels
    assert (sent["slug"], sent["newTitle"]) == (f"{USER}/digit-recognizer-kit-2-of-3", "Digit Recognizer Kit 2 of 3")
    assert "'--shard', '2/3'" in re.sub(r"\s+", " ", (kernel_folder / "kernel.py").read_text())
    assert "output --shard 2/3" in capsys.readouterr().out


def test_incomplete_run_of_a_kernel_is_fetched(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = {f"runs/a-1/{name}": b"{}" for name in ("run.json", "members/01/member.json", "members/01/evil.py")}
    asked: list[str] = []

    def download(client: client.Client, slug: str, folder: Path) -> None:
        asked.append(slug)
        write_output(output, folder)

    monkeypatch.setattr(client.Client, "download_kernel_output", download)
    monkeypatch.setattr(client.Client, "kernel_status", lambda client, slug: ("complete", ""))
    for _ in range(2):
        assert cli.main(["output", "--shard", "1/2"]) == 0
    assert asked == [f"{USER}/digit-recognizer-kit-1-of-2"] * 2
    assert "a-1: fetched into runs/, incomplete, 1 member\n" in capsys.readouterr().out
    kept = {path.relative_to(home / "runs").as_posix() for path in (home / "runs").rglob("*") if path.is_file()}
    assert {"a-1/run.json", "a-1/members/01/member.json"} <= kept
    assert "a-1/members/01/evil.py" not in kept
    assert not (home / "submissions" / "a-1.csv").exists()
