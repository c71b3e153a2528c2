"""Two processes are one: the divisor counts the tokens of both, and one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from one_step import step
from safetensors.torch import load_file

from equipoise.training import checkpoints


@pytest.mark.soak
def test_two_processes_take_the_step_of_one(tmp_path):
    step(tmp_path / "one")
    script, folder = str(Path(__file__).with_name("one_step.py")), tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    one, two = (load_file(path / "gradient.safetensors") for path in (tmp_path / "one", folder))
    for name in one:
        torch.testing.assert_close(one[name], two[name], msg=name)
    rows = [json.loads((path / "metrics.jsonl").read_text()) for path in (tmp_path / "one", folder)]
    for field in ("loss", "tokens", "entropy", "shocked_share", "mean_weight"):
        assert rows[0][field] == pytest.approx(rows[1][field], rel=1e-6), field
    saved = checkpoints.newest(folder / "checkpoints")
    assert {p.name for p in saved.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
