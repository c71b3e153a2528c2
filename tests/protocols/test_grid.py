"""A grid is journalled cell by cell: killed at any moment it goes on, and no finished cell runs twice."""

import json
import os
import signal
import time

import children
import pytest

from equipoise.journal import read_journal
from equipoise.testbed.world import model_path

TINY = ["data.limit=3", "data.keep=null", "data.skills=null", "training.epochs=2", "seeds=[1,2]"]


def start(folder, *more):
    return children.start("run", "demo", *TINY, *more, "--out", folder)


def digest(folder):
    """What training left, by cell: the bytes of each adapter and the item-level scores."""
    return {
        cell: (
            (folder / "cells" / cell / "final" / "adapter_model.safetensors").read_bytes(),
            (folder / "cells" / cell / "predictions.jsonl").read_bytes(),
        )
        for cell in (row["cell"] for row in read_journal(folder / "cells.jsonl").rows)
        if cell != "untrained"
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid") / "whole"
    assert start(folder).wait(280) == 0
    return folder


def test_a_grid_leaves_what_is_promised(undisturbed):
    for name in ("config.yaml", "manifest.json", "results.json", "predictions.jsonl", "analysis.json", "tokens.jsonl",
                 "detection.json", "missed.json", "SUMMARY.md", "report.html"):  # fmt: skip
        assert (undisturbed / name).stat().st_size > 0, name
    cells = [row["cell"] for row in read_journal(undisturbed / "cells.jsonl").rows]
    assert cells == ["untrained", *(f"{arm}/seed-{seed}" for seed in (1, 2) for arm in ("sft", "eaft", "r-eaft"))]
    for cell in cells:
        assert "scored" in (undisturbed / "cells" / cell / "log.txt").read_text()
    results = json.loads((undisturbed / "results.json").read_text())
    assert {(row["method"], row["seed"]) for row in results} == {
        ("untrained", 0), *((arm, seed) for seed in (1, 2) for arm in ("sft", "eaft", "r-eaft"))
    }  # fmt: skip
    rows = read_journal(undisturbed / "tokens.jsonl").rows
    assert set(rows[0]["weights"]) == set(rows[0]["after"]) == {"sft", "eaft", "r-eaft"}
    assert all(row["weights"]["sft"] == 1 for row in rows)


def test_arms_and_seeds_train_different_models(undisturbed):
    adapters = [weights for weights, _ in digest(undisturbed).values()]
    assert len(set(adapters)) == 6


def test_a_killed_grid_ends_in_the_same_bits(undisturbed, tmp_path):
    folder = tmp_path / "killed"
    process = start(folder)
    while process.poll() is None and len(read_journal(folder / "cells.jsonl").rows) < 4:
        time.sleep(0.02)
    time.sleep(0.3)  # the first seed's cells are done; somewhere in the cohort of the second
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert start(folder).wait(280) == 0
    cells = [row["cell"] for row in read_journal(folder / "cells.jsonl").rows]
    assert len(cells) == len(set(cells)) == 7
    assert digest(folder) == digest(undisturbed)
    assert json.loads((folder / "analysis.json").read_text()) == json.loads((undisturbed / "analysis.json").read_text())


def test_an_interrupted_grid_says_how_to_go_on(tmp_path):
    folder = tmp_path / "interrupted"
    process = start(folder, "training.epochs=500", f"model.path={model_path()}")
    metrics = folder / "cells" / "sft" / "seed-1" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "run the same command again" in err and "Traceback" not in err
