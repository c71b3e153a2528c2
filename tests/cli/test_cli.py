"""Every verb, as a user runs it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise.cli import app

SMALL = ["data.limit=3", "data.keep=null", "data.skills=null", "training.epochs=1"]


def run(*words: object, cwd: Path | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "equipoise.cli", *map(str, words)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=offline, check=False)


def here(*words: object):
    """The same in this process, which has its libraries already: that saves seconds a call."""
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


def verbs() -> list[list[str]]:
    found = [[command.name or command.callback.__name__] for command in app.registered_commands]
    for group in app.registered_groups:
        found += [[group.name, c.name or c.callback.__name__] for c in group.typer_instance.registered_commands]
    return found


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_help_of_every_verb_has_an_example(verb):
    shown = run(*verb, "--help")
    assert shown.returncode == 0
    assert f"Example: equipoise {' '.join(verb)}" in " ".join(shown.stdout.split())


def test_every_verb_is_said_in_a_line_of_a_terminal():
    verbs = run("--help").stdout.partition("Commands:")[2]
    assert "demo" in verbs and "..." not in verbs


def test_help_answers_at_once():
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        run("--help")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.3


def test_recipes_can_be_listed_shown_and_copied(tmp_path):
    listed = run("recipes", "list").stdout
    assert "demo" in listed and "protocol-a" in listed
    shown = run("recipes", "show", "demo").stdout
    assert "seeds: [42, 123, 456]" in shown
    assert run("recipes", "copy", "demo", tmp_path / "mine.yaml").returncode == 0
    assert (tmp_path / "mine.yaml").read_text() == shown
    again = run("recipes", "copy", "demo", tmp_path / "mine.yaml")
    assert again.returncode == 2 and "exists already" in again.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "demmo"], "did you mean 'demo'?"),
        (["run", "demo", "learing_rate=1"], "unknown key 'learing_rate'"),
        (["run", "demo", "training.learing_rate=1"], "did you mean 'learning_rate'?"),
        (["run", "demo", "training.learning_rate=-1"], "training.learning_rate"),
        (["run", "demo", "training.learning_rate=.nan"], "training.learning_rate"),
        (["run", "demo", "training.learning_rate=0"], "training.learning_rate"),
        (["run", "demo", "training.batch_size=0"], "training.batch_size"),
        (["run", "demo", "name=../up"], "name"),
        (["run", "demo", "data.updates=testbed:nothing"], "the testbed has no part 'nothing'"),
        (["run", "demo", "data.updates=not/there.jsonl"], "not/there.jsonl"),
        (["run", "demo", "model.path=./not/there", "arms={sft: {name: sft}}"], "not/there"),
        (["run", "demo", "arms={x: {name: ssft}}"], "ssft"),
        (["report", "not/there"], "not/there"),
        (["analyze", "not/there.csv"], "not/there.csv"),
        (["evaluate", "./not/there"], "not/there"),
        (["protocol", "z"], "protocol-z"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_of_the_user_is_one_clear_message(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = here(*words)
    assert outcome.exit_code == 2, outcome.stderr
    assert expected in outcome.stderr
    assert not list(tmp_path.rglob("cells.jsonl"))


def test_a_mistake_ends_a_process_with_its_message_and_no_traceback(tmp_path):
    outcome = run("run", "demo", "learing_rate=1", cwd=tmp_path)
    assert outcome.returncode == 2 and "learing_rate" in outcome.stderr and "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("objective.name=reaft", "did you mean 'r-eaft'?"),
        ("objective.params={gamma: 2}", "has no parameter 'gamma'"),
        ("objective.params={tau: -1}", "above 0"),
    ],
)
def test_dry_run_checks_the_objective(mistake, told):
    outcome = here("run", "knowledge-update", "--dry-run", *SMALL, mistake)
    assert outcome.exit_code == 2 and told in outcome.stderr and not outcome.stdout


def test_dry_run_shows_everything_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = here("run", "knowledge-update", "--dry-run", *SMALL)
    assert outcome.exit_code == 0, outcome.stderr
    for part in ("learning_rate: 0.001", "3 updates", "trainable:", "memory:", "»"):
        assert part in outcome.stdout
    assert list(tmp_path.iterdir()) == []


def test_run_report_evaluate_on_own_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": "Which pandas call adds rows?", "completion": "pd.concat([df, rows])", "old": "df.append(rows)",
         "rephrasings": ["How do I add rows in pandas?"]},
        {"prompt": "What is the capital of Varn?", "completion": "Tol"},
    ]  # fmt: skip
    (tmp_path / "updates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "keep.jsonl").write_text(json.dumps({"prompt": "What is 1 + 1?", "completion": "2"}) + "\n")
    own = ["data.updates=updates.jsonl", "data.keep=keep.jsonl", "data.skills=null", "training.epochs=40"]
    outcome = here("run", "knowledge-update", *own)
    assert outcome.exit_code == 0, outcome.stderr
    folder = tmp_path / "runs" / "knowledge-update"
    results = {(r["method"], r["task"]): r for r in json.loads((folder / "results.json").read_text())}
    assert results["r-eaft", "correction"]["value"] == 1.0 and results["r-eaft", "correction"]["n"] == 2
    assert results["untrained", "correction"]["value"] == 0.0
    assert results["r-eaft", "generalisation"]["n"] == 1
    page = (folder / "report.html").read_text()
    assert "r-eaft corrected 2 of 2 updates, asked as trained (100.0%)." in page
    assert "Left out" not in page and "missing or damaged" not in page
    (folder / "report.html").unlink()
    assert here("report", folder).exit_code == 0 and (folder / "report.html").exists()
    for model in (folder, folder / "cells" / "r-eaft" / "seed-42"):
        scored = here("evaluate", model, "--out", tmp_path / "scored")
        assert scored.exit_code == 0, scored.stderr
        again = {tuple(line.split()[:2]) for line in scored.stdout.splitlines()}
        assert {(r["task"], f"{100 * r['value']:.1f}") for r in results.values() if r["method"] == "r-eaft"} <= again
    other = here("evaluate", "testbed", "--recipe", "knowledge-update", *SMALL)
    assert other.exit_code == 0 and ("correction", "0.0") in {tuple(s.split()[:2]) for s in other.stdout.splitlines()}
    finished = here("run", "knowledge-update", *own)
    assert finished.exit_code == 0 and "2 of 2 cells are done already; analysing them again" in finished.stderr
    changed = here("run", "knowledge-update", *own, "seed=7")
    assert changed.exit_code == 2 and "seed (was 42, is 7)" in changed.stderr


def test_analyze_reproduces_the_published_tests(tmp_path):
    published = Path(__file__).parents[1] / "reference" / "published_r_eaft.json"
    outcome = run("analyze", published, "--out", tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "t(4) = -5.31" in outcome.stdout and "t(4) = 28.50" in outcome.stdout
    assert (tmp_path / "analysis.json").exists() and (tmp_path / "SUMMARY.md").read_text() == outcome.stdout.rstrip(
        "\n"
    ) + "\n"


def test_doctor_finds_this_environment_sound():
    outcome = run("doctor")
    assert outcome.returncode == 0, outcome.stdout
    assert "torch" in outcome.stdout and "disk" in outcome.stdout


def test_the_token_of_the_hub_is_never_shown(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "q" * 34)
    outcome = run("doctor")
    assert "from HF_TOKEN" in outcome.stdout and "q" * 34 not in outcome.stdout + outcome.stderr


def test_testbed_tells_its_facts_and_its_sheet():
    facts = here("testbed", "facts", "--part", "api_change", "--knowledge", "confident-wrong").stdout.splitlines()
    assert len(facts) >= 60
    assert all(json.loads(fact)["old"] for fact in facts)
    assert "| api_change | confident-wrong |" in here("testbed", "sheet").stdout


def test_the_version_is_told():
    from equipoise import __version__

    assert here("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["protocol", "a", "--recipe", "protocol-frontier"], "its pipeline is frontier, that of a is knowledge_update"),
        (
            ["protocol", "frontier", "--recipe", "protocol-s"],
            "that of frontier is frontier",
        ),
        (["protocol", "a", "--recipe", "protocol-curriculum"], "its pipeline is synthetic_rl"),
        (["protocol", "a", "--recipe", "instruct"], "its pipeline is instruct"),
        (["protocol", "curriculum", "--recipe", "own-model"], "that of curriculum is synthetic_rl"),
        (["protocol", "a", "--recipe", "protocol-s"], "its protocol is s, that of a is a"),
        (["run", "demo", "training.lr=1"], "did you mean 'learning_rate'?"),
        (["chat", "testbd"], "did you mean testbed?"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(words, said):
    result = here(*words)
    assert result.exit_code == 2 and said in result.stderr


def test_rows_beyond_the_limit_of_a_recipe_are_told(tmp_path):
    rows = [{"prompt": f"What is {n}?", "completion": f"f({n})"} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [f"data.updates={tmp_path}/rows.jsonl", "data.limit=2", "data.keep=null", "data.skills=null"]
    assert (
        "updates: the first 2 of 3 rows; data.limit=null takes all"
        in here("run", "knowledge-update", *own, "--dry-run").output
    )
