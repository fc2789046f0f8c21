"""Times of training and prediction."""

import subprocess
import sys

# TensorFlow's automatic tuning of a data pipeline made prediction wait, longest in a process with one core.
PREDICT_ON_ONE_CORE = """
import os, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[name] = "1"
import numpy as np
from digit_recognizer.models import architectures
from digit_recognizer.training import trainer
network, images = architectures.build("conv-pool", dropout=0), np.zeros((12000, 28, 28), np.uint8)
trainer.predict(network, images[:1])
start, cpu_start = time.monotonic(), time.process_time()
for rows in (3000, 4200, 6000, 8400, 12000):  # the waits would double each time, so some would overlap the work
    trainer.predict(network, images[:rows])
print((time.process_time() - cpu_start) / (time.monotonic() - start))
"""


def test_prediction_keeps_a_core_busy() -> None:
    command = [sys.executable, "-c", PREDICT_ON_ONE_CORE]
    shares = [float(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout) for _ in range(2)]
    assert max(shares) > 0.85
