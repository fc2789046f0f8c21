"""Determine the backend, the precision and the environment variables that change a result.

This module imports neither Keras nor TensorFlow, so that a run's identity is known before they load.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from digit_recognizer.errors import BadInput
from digit_recognizer.training import devices

BACKENDS = ("tensorflow", "jax", "torch")
# Removed before Keras is imported: two shorten training, the third selects another implementation of JAX layers.
REMOVED = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")
# Part of a run's identity if set: they select kernels or number formats. Variables that restrict instruction sets
# (ONEDNN_MAX_CPU_ISA) are not, because the machine is not part of the identity either.
VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
    "TF_DETERMINISTIC_OPS",
    "TF_CUDNN_DETERMINISTIC",
    "TF_CONV2D_USE_FP16_ACCUMULATE",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "TF_SET_ONEDNN_FPMATH_MODE",
    "XLA_FLAGS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
)


def environment() -> dict[str, str]:
    """Return the variables of ``VARIABLES`` that are set, with their values."""
    return {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}


def keras_backend() -> str:
    """Return the backend of Keras: ``KERAS_BACKEND`` if set, else tensorflow.

    Raises:
        BadInput: the variable names a backend that cannot train or is not installed.
    """
    name = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if name not in BACKENDS:
        raise BadInput(
            f"KERAS_BACKEND: expected one of {', '.join(BACKENDS)}, found {name!r}",
            hint=f"unset KERAS_BACKEND to use {BACKENDS[0]}",
        )
    if importlib.util.find_spec(name) is None:
        raise BadInput(f"KERAS_BACKEND: {name} is not installed", hint=f"{sys.executable} -m pip install {name}")
    return name


def resolved_precision(setting: str) -> str:
    """Return the precision of training on this machine: float32, bfloat16 or float16.

    ``auto`` selects a 16-bit format where the machine multiplies it faster, with weights in float32: bfloat16 on TPUs,
    GPUs of compute capability 8 and processors that support it; float16 on GPUs of capability 7, such as the T4.

    Args:
        setting: one of ``recipe.PRECISIONS``; all values but ``auto`` are returned unchanged.
    """
    if setting != "auto":
        return setting
    if devices.tpu():
        return "bfloat16"
    if devices.gpus():
        capability = _compute_capability()
        return "bfloat16" if capability >= 8 else "float16" if capability >= 7 else "float32"
    # JAX compiles by XLA, which is not faster with bfloat16 on processors.
    fast = keras_backend() == "tensorflow" and _cpu_flags() & {"avx512_bf16", "amx_bf16"}
    return "bfloat16" if fast else "float32"


def _compute_capability() -> float:
    """Return the lowest compute capability of the machine's NVIDIA GPUs; 0 if the driver does not report it."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(float(line) for line in output.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def _cpu_flags() -> set[str]:
    """Return the processor's flags as Linux reports them; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
