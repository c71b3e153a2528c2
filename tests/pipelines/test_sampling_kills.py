"""A sampler killed at any moment loses what was under way, and the next one ends where it would have ended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLER = Path(__file__).with_name("killable_sampler.py")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")


def kill(folder, kills, seed):
    told = subprocess.run(
        [sys.executable, str(SAMPLER), str(folder), str(kills), str(seed)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["kills"] == kills and found["lengths"] > 5
    return found


def test_killed_samplers_end_as_an_undisturbed_one(tmp_path):
    kill(tmp_path, 5, 0)


@pytest.mark.soak
def test_200_killed_samplers_end_as_undisturbed_ones(tmp_path):
    found = kill(tmp_path, 200, 1)
    assert found["at_work"] >= 100, "most were killed before their first sample; the test saw little"
