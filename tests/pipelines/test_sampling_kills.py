"""A sampler killed at any moment loses what was under way, and the next one ends where it would have ended."""

import json
import os
from pathlib import Path

import children
import pytest

SAMPLER = Path(__file__).with_name("killable_sampler.py")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")


def kill(folder, kills, seed):
    sampler = children.start_script(SAMPLER, folder, kills, seed)
    out, err = sampler.communicate()
    assert sampler.returncode == 0, err
    found = json.loads(out)
    assert found["kills"] == kills and found["lengths"] > 5
    return found


def test_killed_samplers_end_as_an_undisturbed_one(tmp_path):
    kill(tmp_path, 5, 0)


@pytest.mark.soak
def test_200_killed_samplers_end_as_undisturbed_ones(tmp_path):
    found = kill(tmp_path, 200, 1)
    assert found["at_work"] >= 100, "most were killed before their first sample; the test saw little"
