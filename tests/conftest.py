"""What every test may use; `tiny_models` beside this file becomes importable through it."""

import gc
import os

# Tiny tensors gain nothing from a second thread, and on a busy machine OpenMP's waiting threads cost 20 times the work
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# What an example takes says more about the machine's other work than about the code
settings.register_profile("equipoise", deadline=None)
settings.load_profile("equipoise")


def pytest_collection_finish() -> None:
    """Take what collection imported out of garbage collection: a trainer collects in full at every start."""
    gc.collect()
    gc.freeze()
