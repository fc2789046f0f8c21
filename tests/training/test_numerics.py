"""The backend, the precision and the environment variables that change a result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import keep, kit
from digit_recognizer.errors import BadInput
from digit_recognizer.training import devices, numerics

IMPORT_WITHOUT_KERAS = """
import sys
from digit_recognizer.training import numerics
sys.exit(bool({'keras', 'tensorflow', 'jax'} & {*sys.modules}))
"""
# The settings that a network is built and trained with, and a sum that another number format would change.
SETTINGS = """
import json
from digit_recognizer.training import backend
from digit_recognizer.training.trainer import predict
from digit_recognizer.models import architectures
from digit_recognizer.training.backend import keras
import numpy as np
keras.utils.set_random_seed(0)
network = architectures.build("conv-pool", dropout=0)
images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
trainer = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
trainer.compile("sgd", "mse")
epochs = len(trainer.fit(np.ones((8, 3)), np.ones(8), batch_size=2, epochs=3, verbose=0).history["loss"])
config = keras.config
print(json.dumps([
    config.backend(), config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy().name, epochs,
    predict(network, images).tolist(),
]))
"""


def test_numerics_imports_neither_keras_nor_a_backend() -> None:
    assert not subprocess.run([sys.executable, "-c", IMPORT_WITHOUT_KERAS]).returncode


@pytest.mark.parametrize(
    ("gpus", "tpu", "flags", "capability", "resolved"),
    [
        (0, False, "fpu avx512f", "", "float32"),
        (0, False, "fpu avx512f avx512_bf16", "", "bfloat16"),
        (0, False, "fpu amx_bf16", "", "bfloat16"),
        (2, False, "fpu", "7.5\n7.5\n", "float16"),
        (2, False, "fpu", "9.0\n7.5\n", "float16"),
        (1, False, "fpu", "9.0\n", "bfloat16"),
        (1, False, "fpu avx512_bf16", "6.0\n", "float32"),
        (1, False, "fpu", "[N/A]\n", "float32"),
        (1, False, "fpu", None, "float32"),
        (0, True, "fpu", None, "bfloat16"),
    ],
)
def test_auto_precision_follows_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    gpus: int,
    tpu: bool,
    flags: str,
    capability: str | None,
    resolved: str,
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\nprintf '{capability}'\n" if capability is not None else "#!/bin/sh\nexit 9\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(devices, "gpus", lambda: gpus)
    monkeypatch.setattr(devices, "tpu", lambda: tpu)
    monkeypatch.setattr(numerics, "_cpu_flags", lambda: set(flags.split()))
    assert numerics.resolved_precision("auto") == resolved
    assert numerics.resolved_precision("float16") == "float16"


def test_jax_on_a_processor_uses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(numerics, "_cpu_flags", lambda: {"amx_bf16"})
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert numerics.resolved_precision("auto") == "float32"


@pytest.mark.parametrize(
    ("value", "found"), [(None, "tensorflow"), ("", "tensorflow"), ("tensorflow", "tensorflow"), ("jax", "jax")]
)
def test_backend_is_the_variable_or_tensorflow(monkeypatch: pytest.MonkeyPatch, value: str | None, found: str) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if value is not None:
        monkeypatch.setenv("KERAS_BACKEND", value)
    assert numerics.keras_backend() == found


@pytest.mark.parametrize("value", ["theano", "TensorFlow", "openvino", "numpy", " ", "jax\n"])
def test_backend_that_cannot_train_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("KERAS_BACKEND", value)
    with pytest.raises(BadInput, match="KERAS_BACKEND: expected one of tensorflow, jax, torch, found"):
        numerics.keras_backend()


def test_missing_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="KERAS_BACKEND: torch is not installed"):
        numerics.keras_backend()


def test_environment_lists_variables_that_change_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in numerics.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    assert numerics.environment() == {}
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=2")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert numerics.environment() == {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_XLA_FLAGS": "--tf_xla_auto_jit=2"}


def _settings(home: Path, **variables: str) -> list[object]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    command = [sys.executable, "-c", SETTINGS]
    done = subprocess.run(
        command, env=environment | {"HOME": str(home)} | variables, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    read: list[object] = json.loads(done.stdout.splitlines()[-1])
    return read


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The settings in an empty home, which stays empty."""
    home = tmp_path_factory.mktemp("bare")
    settings = _settings(home)
    assert settings[:6] == ["tensorflow", "float32", 1e-7, "channels_last", "float32", 3]
    assert not list(home.rglob("keras.json"))
    return settings


@pytest.mark.slow
def test_keras_json_does_not_change_a_result(plain: list[object], tmp_path: Path) -> None:
    other = {"floatx": "float64", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}
    keep(tmp_path / ".keras" / "keras.json", other)
    assert _settings(tmp_path) == plain


@pytest.mark.slow
def test_damaged_keras_json_and_debug_variables_do_not_change_a_result(plain: list[object], tmp_path: Path) -> None:
    keep(tmp_path / "keras.json", {"floatx": "int8"})
    limits = {"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "none"}
    assert _settings(tmp_path, KERAS_HOME=str(tmp_path), KERAS_BACKEND="", **limits) == plain


@pytest.mark.slow
def test_run_with_unknown_backend_prints_error_and_hint(tmp_path: Path) -> None:
    done = kit("run", "--recipe", "dense", "--epochs", "1", cwd=tmp_path, env=os.environ | {"KERAS_BACKEND": "theano"})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 2
    assert "KERAS_BACKEND: expected one of" in done.stderr
