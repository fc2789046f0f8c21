"""Safety: files of a run execute no code, names stay in their folder, servers bind loopback, output has no secret."""

import ast
import base64
import io
import json
import pickle
import sys
import time
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT, call, csv_text, keep, one_line
from digit_recognizer import cli, demo, doctor, launch, provenance, runs
from digit_recognizer.data import dataset
from digit_recognizer.ensemble import members, train
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation import report
from digit_recognizer.kaggle import bundle, kernels
from digit_recognizer.models import architectures
from digit_recognizer.recipe import load_recipe
from digit_recognizer.training import trainer
from digit_recognizer.training.backend import keras
from kaggle_server import KEY, LOGIN, TOKEN, USER, Fault, Server
from pages import DATA
from stored_runs import DIGITS, FakeKernel, forget_digests, store_scored_run
from submissions import store_submission

RECIPE = load_recipe("dense")
ARRAYS = ("oof.npy", "holdout.npy", "test.npy", "members/00/fold.npy")


class Code:
    """An object whose unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def pickled(kind: str, marker: Path) -> bytes:
    """Return a file that creates ``marker`` when NumPy reads it with ``allow_pickle=True``."""
    content = io.BytesIO()
    array = np.array([Code(marker)], dtype=object)
    if kind == "array of objects":
        np.save(content, array, allow_pickle=True)
    elif kind == "archive":
        np.savez(content, array)
    else:
        pickle.dump(Code(marker), content)
    return content.getvalue()


def seal(folder: Path, owner: str = "") -> None:
    """Write the digests of a member anew, and its owner if given, as someone does who changes its files on purpose."""
    record = json.loads((folder / members.RECORD).read_text())
    del record["digest"]
    record["owner"] = owner or record["owner"]
    record["digests"] = {name: members.digest_of((folder / name).read_bytes()) for name in members.FILES}
    (folder / members.RECORD).write_text(json.dumps(record | {"digest": members._digest_of_record(record)}))


@pytest.mark.parametrize("kind", ["array of objects", "archive", "pickle"])
def test_no_array_of_a_run_is_unpickled(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    harmful = pickled(kind, marker)
    loaded = np.load(io.BytesIO(harmful), allow_pickle=True)
    if kind == "archive":
        assert loaded["arr_0"].shape == (1,)
    assert marker.exists(), "the file is harmful to a reader that allows pickles"
    marker.unlink()
    folder = store_scored_run(tmp_path, RECIPE, DATA)
    member = folder / "members" / "00"
    assert report.read_run(folder, DATA)
    for name in ARRAYS:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(harmful)
        seal(member)
        forget_digests(folder)
        with pytest.raises(BadInput, match=f"{name}: damaged"):
            report.write_report(folder, DATA)
        if name == "test.npy":
            with pytest.raises(BadInput, match=r"test\.npy: damaged"):
                runs.restore_submission(folder, tmp_path / "file.csv", None)
        if name != ARRAYS[-1]:
            (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"{ARRAYS[-1]}: damaged"):
        demo.BlendNetworks(folder)
    assert not list(runs.complete_runs(tmp_path / "runs", RECIPE, DATA))
    (folder / "scores.json").unlink()
    run = runs.begin(tmp_path / "runs", RECIPE, DATA)
    assert run.resumed
    assert train._stored_member(run, RECIPE, 0) is None, "it is trained again"
    run._lock.close()
    assert not marker.exists()


def test_the_package_has_no_call_that_executes_content_of_files() -> None:
    modules = [*(ROOT / "src").rglob("*.py"), ROOT / "kernel.py"]
    loaders = set()
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {(getattr(node, "module", "") or "")}
                assert not names & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}, path
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "os.system"), path
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("allow_pickle", "False" if called != "np.load" else "") == "False", path
                assert given.get("safe_mode", "True") == "True", path
                assert given.get("shell", "False") == "False", path
                assert "enable_unsafe_deserialization" not in called, path
                if called.endswith(("load_model", "load_weights")):
                    loaders.add(f"{path.stem}: {called}")
    # The first and the last read a file that this process or its parent has just written.
    assert loaders == {
        "trainer: network.load_weights",
        "timing: keras.models.load_model",
    }


def with_config(checkpoint: bytes, config: object) -> bytes:
    """Return a ``.keras`` file with another ``config.json``, a text or a value."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            changed = config if isinstance(config, str) else json.dumps(config)
            new.writestr(name, changed if name == "config.json" else old.read(name))
    return content.getvalue()


def lambda_config(folder: Path, marker: Path) -> str:
    """Return the configuration of a network with a layer whose code creates ``marker``."""
    path = str(marker)
    layer = keras.layers.Lambda(lambda pixels: [open(path, "w"), pixels][1])  # noqa: PTH123, SIM115
    harmful = keras.Sequential([keras.Input((28, 28, 1)), layer])
    harmful.save(folder / "harmful.keras")
    marker.unlink()
    with zipfile.ZipFile(folder / "harmful.keras") as archive:
        return archive.read("config.json").decode()


def test_a_checkpoint_of_a_run_executes_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "planted.py").write_text(f"open({str(marker)!r}, 'w')\nclass Planted: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    harmful = lambda_config(tmp_path, marker)
    configs = {
        "Lambda": harmful,
        "module": {"module": "planted", "class_name": "Planted", "config": {}, "registered_name": None},
        "registered": {"module": "planted", "class_name": "Planted", "config": {}, "registered_name": "a>Planted"},
        "function": {"module": "os", "class_name": "system", "config": f"touch {marker}", "registered_name": "system"},
        "class": {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", f"{marker}"]}},
    }
    folder = store_scored_run(tmp_path, RECIPE, DATA)
    network = architectures.build(RECIPE.network, dropout=0)
    path = folder / "members" / "00" / members.NETWORK
    network.save(path)
    checkpoint = path.read_bytes()
    image = DATA.images[0]
    expected = trainer.predict(network, image[None])[0]
    for kind, config in configs.items():
        path.write_bytes(with_config(checkpoint, config))
        with pytest.raises((ValueError, TypeError)):  # as training and the benchmark read their own files
            keras.models.load_model(path)
        assert not marker.exists(), kind
        with pytest.raises(BadInput, match=r"network\.keras: damaged"):
            demo.BlendNetworks(folder)
        seal(path.parent)
        np.testing.assert_allclose(demo.BlendNetworks(folder).predict(image), expected, rtol=1e-5)
        report.read_run(folder, DATA)
        assert not marker.exists(), kind
    path.write_bytes(checkpoint.replace(b"HEAP", b"heap"))  # a mark inside the weights
    seal(path.parent)
    with pytest.raises(BadInput, match=r"network\.keras: not a checkpoint"):
        demo.BlendNetworks(folder)
    path.write_bytes(with_config(checkpoint, harmful))
    keras.models.load_model(path, safe_mode=False)
    assert marker.exists(), "the file is harmful to a reader that allows code"


@pytest.mark.parametrize("verb", ["report", "demo", "submit"])
def test_a_run_outside_its_folder_is_refused(verb: str, kaggle: Server, tmp_path: Path) -> None:
    store_submission(tmp_path, "standard-1", wrong=100, errors=20)
    for name in ("../x", "..", "/etc", "a\\b"):
        done = call(verb, "--run", name, *(["--yes"] if verb == "submit" else []), cwd=tmp_path)
        assert done.returncode == 2
        assert "expected a plain file name" in one_line(done.stderr)
    assert "CreateSubmission" not in kaggle.calls


def test_the_name_of_a_foreign_recipe_does_not_lead_out_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "become_kernel", lambda words: 0)
    home = tmp_path / "home"
    folders = [store_scored_run(home, RECIPE, DATA) for _ in range(2)]
    for folder in folders:
        about = json.loads((folder / "run.json").read_text())
        about["identity"]["recipe"]["name"] = "../../escaped"
        (folder / "run.json").write_text(json.dumps(about))
        seal(folder / "members" / "00", provenance.member_owner(about["identity"], 0))
    done = call("merge", "--runs", ",".join(folder.name for folder in folders), cwd=home)
    assert done.returncode == 2
    assert "name of the recipe: expected a plain file name" in one_line(done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_demo_is_served_on_loopback_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[dict[str, Any]] = []

    class Page:
        def launch(self, **options: Any) -> tuple[None, str, None]:
            launched.append(options)
            return None, "http://127.0.0.1", None

        def close(self, *, verbose: bool) -> None: ...

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    stand_in = types.SimpleNamespace(__spec__="gradio", themes=types.SimpleNamespace(Default=lambda **_: None))
    monkeypatch.setitem(sys.modules, "gradio", stand_in)
    monkeypatch.setattr(demo, "build_page", lambda home, first: Page())
    monkeypatch.setattr(demo.threading.Event, "wait", interrupt)
    for name in ("no_proxy", "NO_PROXY", "GRADIO_ANALYTICS_ENABLED", "GRADIO_SERVER_NAME", "GRADIO_SHARE"):
        monkeypatch.setenv(name, "0.0.0.0")
    store_scored_run(tmp_path, RECIPE, DATA)
    demo.serve(tmp_path, None, open_browser=False)
    assert [(options["server_name"], options["share"]) for options in launched] == [("127.0.0.1", False)]


VERBS: dict[str, list[str]] = {
    "doctor": [],
    "data": ["--force"],
    "run": ["--recipe", "quick"],
    "scores": [],
    "merge": ["--runs", "standard-1,standard-2"],
    "report": ["--all"],
    "demo": ["--run", "standard-1"],
    "check": ["--file", "submissions/standard-1.csv"],
    "submit": ["--yes"],
    "compare": ["--recipes", "dense"],
    "tune": ["--fields", "nothing"],
    "notebook": [],
    "kernel": [],
    "push": ["--accelerator", "t4x2"],
    "status": [],
    "logs": [],
    "output": [],
    "bench": ["--data", "missing"],
}
REFUSED = {"merge": 2, "demo": 2, "tune": 2, "notebook": 1, "bench": 2}  # these would take long
SECRETS = (TOKEN, KEY, LOGIN, base64.b64encode(f"{USER}:{KEY}".encode()).decode())
# For each verb that uses the network the calls that are refused; the others get the secret in a state or log of Kaggle.
REFUSED_CALLS = {
    "doctor": ["GetCompetition", "GetSubmissionLimits", "GetAcceleratorQuotaStatistics"],
    "data": ["DownloadDataFiles"],
    "run": ["DownloadDataFiles"],
    "scores": ["ListSubmissions"],
    "submit": [],
    "push": ["SaveKernel"],
    "status": [],
    "logs": [],
    "output": [],
}


@pytest.fixture
def cheap(kaggle: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a submission, in which each verb of ``VERBS`` takes little time; the server has all answers."""
    kaggle.pack(train_csv=csv_text("train"), test_csv=csv_text("test"))
    kaggle.log = ["epoch 1\n"]
    kernel = tmp_path / "kernel"
    store_submission(kernel, "wide-1", wrong=7, errors=9)
    kaggle.output = {path.relative_to(kernel).as_posix(): path.read_bytes() for path in kernel.rglob("*.csv")}
    home = tmp_path / "home"
    store_submission(home, "standard-1", wrong=100, errors=20)
    pause = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: pause(seconds / 1000))
    monkeypatch.setattr(doctor, "find_devices", lambda: doctor.Finding(doctor.OK, "none"))
    load = dataset.load
    monkeypatch.setattr(dataset, "load", lambda given, **places: load(given, **places) if given else DIGITS)
    monkeypatch.setattr(launch, "become_kernel", lambda words: 0)
    monkeypatch.setattr(launch, "run_kernel", FakeKernel())
    monkeypatch.setattr(cli, "KERNEL", home / "build" / "kernel")
    monkeypatch.setattr(kernels, "build_kernel", lambda folder, **options: bundle.build(ROOT, folder, **options))
    find_spec: Callable[..., Any] = cli.importlib.util.find_spec
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else find_spec(name))
    return home


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_shows_or_writes_the_token(verb: str, cheap: Path, nobody: Path) -> None:
    done = call(verb, *VERBS[verb], cwd=cheap)
    assert done.returncode == REFUSED.get(verb, 0), done.stderr
    assert not with_secret(done.stdout + done.stderr, cheap, nobody)


@pytest.mark.parametrize("verb", REFUSED_CALLS)
def test_no_verb_shows_or_writes_a_key_that_kaggle_repeats(
    verb: str, cheap: Path, nobody: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    file = keep(nobody / ".kaggle" / "kaggle.json", {"username": USER, "key": KEY})
    message = f"refused: {KEY} and {SECRETS[-1]}"
    kaggle.log, kaggle.kernel_status, kaggle.kernel_failure, kaggle.reject = [message], "ERROR", message, message
    for name in REFUSED_CALLS[verb]:
        kaggle.fail(name, Fault(400, {"code": 400, "message": message}), always=True)
    if verb == "output":
        kaggle.output = {}
    done = call(verb, *VERBS[verb], cwd=cheap)
    assert "refused: …" in done.stdout + done.stderr
    assert with_secret(done.stdout + done.stderr, cheap, nobody) == [str(file)]


def with_secret(output: str, *folders: Path) -> list[str]:
    """Return the files in the folders, and ``output``, that contain a secret."""
    contents = {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    contents["output"] = output.encode()
    return [name for name, content in contents.items() if any(secret.encode() in content for secret in SECRETS)]


def test_the_verbs_above_are_all_verbs() -> None:
    assert VERBS.keys() == (cli.USER_VERBS | cli.DEVELOPER_VERBS).keys()
