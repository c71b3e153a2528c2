"""Progress of a grid counts all that takes time, by kind, and comes out even."""

import json
from collections import defaultdict
from contextlib import contextmanager

import pytest

from equipoise.protocols import grid
from equipoise.protocols.single import run_recipe

FUNCTION = {
    "task_id": "own/more",
    "prompt": 'def more(x):\n    """Return x + 1."""\n',
    "entry_point": "more",
    "canonical_solution": "    return x + 1\n",
    "test": "def check(candidate):\n    assert candidate(3) == 4\n",
}
ARMS = "arms={sft: {name: sft}, r-eaft: {name: r-eaft}}"
SMALL = ["seeds=[1]", ARMS, "data.limit=3", "data.keep_limit=4", "data.skills=null", "training.batch_size=2"]


class Recorded:
    """A bar that remembers what it was told: by kind what was expected, and what came with and without a doing."""

    def __init__(self):
        self.total: dict[str, float] = {}
        self.while_doing: dict[str, float] = defaultdict(float)
        self.made_up_for: dict[str, float] = defaultdict(float)

    def advance(self, n: float = 1, note: str = "", kind: str = "") -> None:
        doing = note.partition(" ")[0] in {words.partition(" ")[0] for words in grid.DOING.values()}
        (self.while_doing if doing else self.made_up_for)[kind] += n

    def skip(self, n: float, kind: str = "") -> None:
        self.total[kind] -= n


@pytest.fixture
def bar(monkeypatch) -> Recorded:
    found = Recorded()

    @contextmanager
    def progress(total, label):
        found.total = dict(total)
        yield found

    monkeypatch.setattr(grid, "progress", progress)
    return found


def check(bar: Recorded, kinds: set[str]) -> None:
    assert set(bar.total) == kinds
    for kind, total in bar.total.items():
        assert total > 0
        assert bar.while_doing[kind] + bar.made_up_for[kind] == pytest.approx(total)
        assert abs(bar.made_up_for[kind]) < 0.2 * total, f"{kind} is told while it is done, not at the end"


@pytest.mark.parametrize("cohort", ["off", "seed"])
def test_every_measure_of_a_knowledge_update_is_counted(bar, tmp_path, cohort):
    (tmp_path / "functions.jsonl").write_text(json.dumps(FUNCTION) + "\n")
    (tmp_path / "held-out.jsonl").write_text(json.dumps({"text": "The rain in the north fell all day."}) + "\n")
    measures = ["evaluation.likelihood=true", "evaluation.drift=true", f"data.held_out={tmp_path}/held-out.jsonl"]
    more = [f"data.functions={tmp_path}/functions.jsonl", "training.epochs=2", f"cohort={cohort}"]
    run_recipe("demo", [*SMALL, *measures, *more], tmp_path / "run")
    check(bar, {"train", "ask", "read", "complete"})


@pytest.mark.parametrize("cohort", ["off", "seed"])
def test_a_frontier_counts_its_readings(bar, tmp_path, cohort):
    more = ["learning_rates=[1e-3]", "score_at=[1,2]", f"cohort={cohort}"]
    run_recipe("protocol-frontier", [*SMALL, *more], tmp_path / "run")
    check(bar, {"train", "ask"})


def test_what_is_done_already_is_not_counted_again(bar, tmp_path):
    words = [*SMALL, "training.epochs=1", "cohort=off"]
    run_recipe("demo", words, tmp_path / "run")
    whole = dict(bar.total)
    rows = (tmp_path / "run" / "cells.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "cells.jsonl").write_text("".join(rows[:-1]))
    bar.__init__()
    run_recipe("demo", words, tmp_path / "run")
    assert bar.total["train"] == pytest.approx(whole["train"] / 2)
    assert bar.total["ask"] < whole["ask"]
