"""A finished knowledge update is scored again from its stored answers: what was damaged is restored, bit by bit."""

import json
import shutil
from contextlib import chdir
from pathlib import Path

import pytest

from equipoise.errors import UserError
from equipoise.journal import read_journal
from equipoise.protocols.single import analyze_run, run_recipe

FUNCTIONS = [
    {
        "task_id": f"own/{name}",
        "prompt": f'def {name}(x):\n    """Return x {sign} 1."""\n',
        "entry_point": name,
        "canonical_solution": f"    return x {sign} 1\n",
        "test": f"def check(candidate):\n    assert candidate(3) == 3 {sign} 1\n",
    }
    for name, sign in (("more", "+"), ("less", "-"))
]
UPDATES = [
    {"prompt": f"Which number belongs to {name}?", "completion": str(number), "old": "7", "rephrasings": [f"{name}?"]}
    for number, name in enumerate(("Ada", "Ben", "Cleo"), 10)
]


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run whose cells hold answers of every task; started in another folder than the one that tests run in."""
    home = tmp_path_factory.mktemp("rescoring")
    (home / "updates.jsonl").write_text(lines(UPDATES))
    (home / "functions.jsonl").write_text(lines(FUNCTIONS))
    (home / "held-out.jsonl").write_text(lines([{"text": "The rain in the north fell all day and all night."}]))
    with chdir(home):
        run_recipe(
            "demo",
            [
                *("seeds=[1]", "arms={sft: {name: sft}, r-eaft: {name: r-eaft}}", "training.epochs=15"),
                *("data.updates=updates.jsonl", "data.functions=functions.jsonl"),
                "data.held_out=held-out.jsonl",
                *("data.keep_limit=6", "data.skills=null", "evaluation.max_new_tokens=16"),
                *("evaluation.answers=stated", "evaluation.likelihood=true", "evaluation.drift=true"),
            ],
            home / "run",
        )
    return home / "run"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_changes_where_nothing_is_wrong(finished, run, capsys):
    before = contents(finished)
    analyze_run(run, None)
    after = contents(run)
    assert {name for name in after if after[name] != before.get(name)} == set()
    assert set(after) == set(before)
    assert "the scores of 0 changed" in capsys.readouterr().err


def test_damaged_scores_are_restored(finished, run, capsys):
    damaged = 0
    for path in (run / "cells").rglob("predictions.jsonl"):
        rows = read_journal(path).rows
        damaged += len(rows)
        wrong = [row | {"score": 1 - row["score"], "call": 0.5, "exact": 7, "published_score": "no"} for row in rows]
        path.write_text(lines(wrong))
        (path.parent / "results.json").write_text("[]")
    for name in ("predictions.jsonl", "results.json", "analysis.json", "SUMMARY.md", "changes.jsonl", "report.html"):
        (run / name).write_text("")
    assert damaged > 30
    analyze_run(run, None)
    assert f"the scores of {damaged} changed" in capsys.readouterr().err
    before, after = contents(finished), contents(run)
    assert {name for name in before if after[name] != before[name]} == set()


def test_something_was_learned_and_something_was_not_so_scores_differ(finished):
    """Without this a scorer that always says the same would pass."""
    scores = {row["score"] for row in read_journal(finished / "predictions.jsonl").rows}
    assert {0.0, 1.0} <= scores


def test_rows_that_have_changed_are_refused(finished, run):
    updates = finished.parent / "updates.jsonl"
    whole, before = updates.read_text(), contents(run)
    updates.write_text(whole.replace("10", "11"))
    try:
        with pytest.raises(UserError, match="data of updates"):
            analyze_run(run, None)
    finally:
        updates.write_text(whole)
    assert contents(run) == before


def test_an_answer_to_no_question_of_the_recipe_is_named(run):
    path = run / "cells" / "untrained" / "predictions.jsonl"
    first, *rest = read_journal(path).rows
    path.write_text(lines([first | {"item": "nobody"}, *rest]))
    with pytest.raises(UserError, match=r"no item 'nobody' of the task 'correction'"):
        analyze_run(run, None)
    path.write_text(lines([{"task": "correction"}, *rest]))
    with pytest.raises(UserError, match=r"no stored answer") as error:
        analyze_run(run, None)
    assert "predictions.jsonl:1" in str(error.value)


def test_other_folders_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        analyze_run(tmp_path, None)
    with pytest.raises(UserError, match="its own folder"):
        analyze_run(run, tmp_path / "elsewhere")
    (run / "config.yaml").write_text("pipeline: frontier\n")
    with pytest.raises(UserError, match="frontier"):
        analyze_run(run, None)
