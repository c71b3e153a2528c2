"""Grids on SmolLM2: updates are those that it contradicts, training turns its preference, and a frontier rises."""

import json
import math
from pathlib import Path

import pytest
from real_verbs import MODEL, here, rows_of

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("protocol") / "a"
    here(
        *("protocol", "a", "--recipe", "protocol-a-smollm2-135m", "seeds=[1]", "data.limit=8", "data.keep_limit=12"),
        *("data.skills=null", "data.rehearse=false", "training.epochs=10", "training.batch_size=4"),
        "arms={sft: {name: sft}, r-eaft: {name: r-eaft, params: {tau: 5.0, alpha: 3.0}}}",
        *("--out", folder),
    )
    return folder


def margins(folder: Path, method: str, task: str = "correction") -> list[float]:
    rows = [row for row in rows_of(folder / "preferences.jsonl") if (row["method"], row["task"]) == (method, task)]
    return [row["logp_new"] - row["logp_old"] for row in rows]


def test_the_updates_are_those_that_the_model_contradicts(grid):
    chosen = json.loads((grid / "selection.json").read_text())
    contradicted = [item for item, margin in chosen["margins"].items() if margin < -math.log(10)]
    assert len(contradicted) == chosen["preferred"] and 60 <= len(contradicted) <= 130  # of 245; 90 in bf16
    assert len(chosen["ids"]) == 8 and set(chosen["ids"]) <= set(contradicted)
    asked = {row["item"] for row in rows_of(grid / "predictions.jsonl") if row["task"] == "correction"}
    assert asked == set(chosen["ids"])
    assert max(margins(grid, "untrained")) < -2, "asked again in another batch it contradicts them still"


@pytest.mark.parametrize("arm", ["sft", "r-eaft"])
def test_training_turns_the_preference(grid, arm):
    after, before = margins(grid, arm), margins(grid, "untrained")
    assert sum(margin > 0 for margin in after) >= 6
    assert all(a > b for a, b in zip(after, before, strict=True))


def test_all_arms_answer_the_same_questions_and_are_compared(grid):
    asked = {}
    for row in rows_of(grid / "predictions.jsonl"):
        asked.setdefault(row["method"], []).append((row["task"], row["item"], row["phrasing"], row["prompt"]))
    assert asked["untrained"] == asked["sft"] == asked["r-eaft"]
    analysis = json.loads((grid / "analysis.json").read_text())
    assert {"sft", "r-eaft"} <= set(analysis["arms"])
    assert analysis["untrained"]["efficacy"] == 0.0 < analysis["arms"]["sft"]["efficacy"]["mean"]
    assert "efficacy" in (grid / "SUMMARY.md").read_text()


def test_a_trained_cell_is_asked_the_updates_that_its_run_selected(grid, tmp_path):
    here("evaluate", grid / "cells" / "sft" / "seed-1", "data.keep=null", "--out", tmp_path / "asked")
    asked = {row["item"] for row in rows_of(tmp_path / "asked" / "predictions.jsonl") if row["task"] == "correction"}
    assert asked == set(json.loads((grid / "selection.json").read_text())["ids"])


def test_a_second_call_trains_nothing_and_says_the_same(grid):
    cells, analysis = (grid / "cells.jsonl").read_bytes(), (grid / "analysis.json").read_bytes()
    here("protocol", "a", "--recipe", str(grid / "config.yaml"), "--out", grid)
    assert ((grid / "cells.jsonl").read_bytes(), (grid / "analysis.json").read_bytes()) == (cells, analysis)


def test_a_frontier_rises_with_its_epochs_and_the_model_moves(tmp_path):
    here(
        *("protocol", "frontier", f"model.path={MODEL}", "seeds=[1]", "learning_rates=[1e-3]", "score_at=[1,10]"),
        *("data.ask=code", "data.limit=4", "data.keep_limit=8", "data.skills=null", "training.batch_size=4"),
        *("arms={sft: {name: sft}}", "--out", tmp_path / "frontier"),
    )
    points = json.loads((tmp_path / "frontier" / "frontier.json").read_text())["points"]
    first, last = sorted(points, key=lambda point: point["epoch"])
    assert last["correction"] > first["correction"] and last["correction"] >= 0.5
    assert 0 < last["stability"] < first["stability"] < 1
