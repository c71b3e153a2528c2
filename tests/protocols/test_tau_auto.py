"""`tau: auto` in a grid: found once, kept in the folder, the same for every cell, the report and a resume."""

import json
import shutil

import pytest
from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.journal import read_journal
from equipoise.models.loading import Loaded
from equipoise.pipelines import thresholds
from equipoise.pipelines.settings import ProtocolRecipe
from equipoise.pipelines.thresholds import read
from equipoise.protocols.knowledge import run_protocol
from equipoise.report.arms import weighting_of
from equipoise.report.reading import open_run
from equipoise.testbed.world import model_path

AUTO, STRICT = "{name: r-eaft, params: {tau: auto}}", "{name: r-eaft, params: {tau: auto, false_alarm: 0.01}}"
ARMS = f"arms={{auto: {AUTO}, strict: {STRICT}, tail: {{name: r-eaft-tail}}}}"
FEW = [f"model.path={model_path()}", "data.limit=3", "data.keep=null", "data.skills=null", "seeds=[1]"]
SMALL = [ARMS, *FEW, "training.epochs=1", "evaluation.weights_every=1"]


def ran(folder, *more):
    return run_protocol(resolve(ProtocolRecipe, None, [*SMALL, *more]), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto") / "run"
    ran(folder)
    return folder


def test_a_number_is_found_for_each_rate_and_every_cell_has_it(run):
    taus = read(run)
    assert set(taus) == {0.05, 0.01} and 0 < taus[0.05] < taus[0.01]
    rows = json.loads((run / "thresholds.json").read_text())
    assert all(row["n"] >= 2000 and row["interval"][0] <= row["tau"] <= row["interval"][1] for row in rows)
    tokens = read_journal(run / "cells" / "untrained" / "tokens.jsonl").rows
    for row in tokens:
        for arm, rate in (("auto", 0.05), ("strict", 0.01)):
            tau, shock = taus[rate], row["shock"]
            expected = 1 + 3 * min(shock / tau, 10) if shock > tau else row["h"]
            assert row["weights"][arm] == pytest.approx(expected, rel=1e-4)
        flagged = row["tail"] < 0.05 and row["entropy"] <= 2.0
        assert (row["weights"]["tail"] > 1) == flagged
    assert any(row["weights"]["tail"] > 1 for row in tokens)
    for arm in ("auto", "strict", "tail"):
        assert read_journal(run / "cells" / arm / "seed-1" / "validation.jsonl").rows[0]["updates_weight"] > 0
    flagged = sum(row["weights"]["tail"] > 1 for row in tokens) / len(tokens)
    steps = read_journal(run / "cells" / "tail" / "seed-1" / "metrics.jsonl").rows
    assert steps[0]["shocked_share"] == pytest.approx(flagged, abs=1e-6)  # all rows are in the first step


def test_a_resume_has_the_same_number_and_samples_no_more(run, tmp_path, monkeypatch):
    folder = tmp_path / "cut"
    shutil.copytree(run, folder)
    rows = (folder / "cells.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "cells.jsonl").write_bytes(b"".join(rows[:2]))
    monkeypatch.setattr("equipoise.pipelines.thresholds.own_tokens", None)
    ran(folder)
    assert (folder / "thresholds.json").read_bytes() == (run / "thresholds.json").read_bytes()
    final = "cells/strict/seed-1/metrics.jsonl"
    losses = [[row["loss"] for row in read_journal(place / final).rows] for place in (folder, run)]
    assert losses[0] == losses[1]


def test_the_report_reads_the_number(run):
    config = open_run(run).config
    assert weighting_of(config, "strict").params["tau"] == read(run)[0.01]
    assert weighting_of(config, "auto").params["tau"] == read(run)[0.05]
    tail = weighting_of(config, "tail")
    assert tail.weight is None and tail.shock_line is None and tail.params["delta"] == 0.05


def test_it_is_found_once_and_said(tmp_path, capfd):
    loaded = Loaded(tiny_model(initializer_range=1.0), tiny_tokenizer(), "tiny")
    thresholds.settle(loaded, tiny_examples(), [0.05], tmp_path, seed=1)
    tau = thresholds.read(tmp_path)[0.05]
    said = " ".join(capfd.readouterr().err.split())
    assert f"tau: auto is {tau:.3g} [" in said and "the published 5 would flag" in said
    thresholds.settle(loaded, tiny_examples(), [0.05], tmp_path, seed=2)
    assert thresholds.read(tmp_path) == {0.05: tau} and not capfd.readouterr().err


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("{name: focal, params: {tau: auto}}", "auto is for r-eaft"),
        ("{name: r-eaft, params: {tau: 5, false_alarm: 0.1}}", "goes with tau: auto"),
        ("{name: r-eaft, params: {tau: auto, false_alarm: 1.5}}", "above 0 and below 1"),
        ("{name: r-eaft, params: {tau: auto, alhpa: 1}}", "did you mean 'alpha'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(objective, message, tmp_path):
    with pytest.raises(UserError, match=message):
        ran(tmp_path / "run", f"arms={{a: {objective}}}")
    assert not (tmp_path / "run").exists()
