"""The use of the processor while rows are fed to a network."""

import subprocess
import sys

PREDICT_ON_ONE_CORE = """
import os, time
if hasattr(os, "sched_setaffinity"):  # pipeline tuning delayed epochs on a single core
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[name] = "1"
import numpy as np
from digit_recognizer.models import architectures
from digit_recognizer.training.trainer import predict
network, images = architectures.build("conv-pool", dropout=0), np.zeros((12000, 28, 28), np.uint8)
predict(network, images[:1])
start, cpu_start = time.monotonic(), time.process_time()
for rows in (3000, 4200, 6000, 8400, 12000):  # the tuner doubles its sleep, so not all end as it wakes
    predict(network, images[:rows])
print((time.process_time() - cpu_start) / (time.monotonic() - start))
"""


def test_core_is_busy_during_prediction() -> None:
    command = [sys.executable, "-c", PREDICT_ON_ONE_CORE]
    busy = [float(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout) for _ in range(2)]
    assert max(busy) > 0.85
