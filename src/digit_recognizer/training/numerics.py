"""What decides a result beside recipe, data, code and versions: the backend, the precision, environment variables.

Cheap to import: Keras and TensorFlow stay outside, so that a run's identity is known before they start.
"""

import importlib.util
import os
import subprocess
from pathlib import Path

from digit_recognizer.errors import BadInput
from digit_recognizer.training import devices

BACKENDS = ("tensorflow", "jax", "torch")
# Removed before Keras is imported: two of them cut training short, the third is another implementation of JAX layers.
REMOVED = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")
# Part of a run's identity where they are set: they select kernels or number formats, and whoever sets one means it. The
# instruction sets a library may use (ONEDNN_MAX_CPU_ISA) are left out, as the machine is.
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
    """The variables of ``VARIABLES`` that are set, with their values."""
    return {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}


def keras_backend() -> str:
    """The backend that Keras runs on: ``KERAS_BACKEND`` where it is set, else tensorflow.

    Raises:
        BadInput: the variable names no backend that can train, or one that is not installed.
    """
    name = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if name not in BACKENDS:
        raise BadInput(
            f"KERAS_BACKEND: expected one of {', '.join(BACKENDS)}, found {name!r}", hint="unset the variable"
        )
    if importlib.util.find_spec(name) is None:
        raise BadInput(f"KERAS_BACKEND: {name} is not installed", hint=f"pip install {name}, or unset the variable")
    return name


def resolved_precision(setting: str) -> str:
    """Return the precision that a network is trained with here: float32, bfloat16 or float16.

    16-bit formats (with weights in float32) where the machine multiplies them faster: bfloat16 on TPUs, on GPUs of
    compute capability 8 and on processors with instructions for it; float16 on GPUs of capability 7, such as the T4.

    Args:
        setting: one of ``recipe.PRECISIONS``; all but ``auto`` are returned as they are.
    """
    if setting != "auto":
        return setting
    if devices.tpu():
        return "bfloat16"
    if devices.gpus():
        capability = _capability()
        return "bfloat16" if capability >= 8 else "float16" if capability >= 7 else "float32"
    # XLA, by which JAX computes, gains nothing by it on processors.
    fast = keras_backend() == "tensorflow" and _instructions() & {"avx512_bf16", "amx_bf16"}
    return "bfloat16" if fast else "float32"


def _capability() -> float:
    """The lowest compute capability of the machine's NVIDIA GPUs; 0 where the driver does not report it."""
    words = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        output = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(float(line) for line in output.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def _instructions() -> set[str]:
    """The processor's flags, as Linux reports them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
