"""Published tables beside what was measured, and the protocols' definitions as recipes have them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise.catalogue import find
from equipoise.cli import app
from equipoise.config import resolve
from equipoise.objectives.weighting import weighting
from equipoise.pipelines.frontier_settings import FrontierRecipe
from equipoise.pipelines.settings import ProtocolRecipe
from equipoise.protocols.analysis import analyze
from equipoise.protocols.definitions import PROTOCOLS
from equipoise.protocols.published import compare_published, orders, published
from equipoise.records import Result
from equipoise.runs import Run


@pytest.mark.parametrize("letter", PROTOCOLS)
def test_a_definition_and_its_recipe_speak_of_the_same_arms(letter):
    recipe = resolve(ProtocolRecipe, find(PROTOCOLS[letter].recipe))
    assert recipe.protocol == letter and len(recipe.seeds) == 5
    for claim in PROTOCOLS[letter].claims:
        assert {claim.arm, claim.other} <= set(recipe.arms)
    for by_arm in published()[letter].values():
        if isinstance(by_arm, dict):
            assert set(by_arm) <= set(recipe.arms)
    for arm in recipe.arms.values():
        known = arm if arm.false_alarm is None else arm.with_tau(1.0)
        assert weighting(arm.name, **known.params).name == arm.name


def results(arms, seeds=(1, 2, 3)):
    return [
        Result(
            method=arm, seed=seed, task="correction", metric="accuracy", value=value + (n * len(arm)) % 3 / 100, n=50
        )
        for arm, value in arms.items()
        for n, seed in enumerate(seeds)
    ]


def test_every_claim_of_a_protocol_is_judged_or_said_to_be_untested():
    arms = {"sft": 0.9, "tau-5": 0.8, "soft": 0.6, "hard": 0.7, "supershock": 0.85}
    judged = {row["id"]: row["verdict"] for row in analyze(results(arms), protocol="s")["hypotheses"]}
    assert judged["S1"] == judged["S2"] == judged["S4"] == "supported"
    assert judged["S3"] == "not supported"
    assert judged["S5"] == "cannot be tested"  # no locality in the table


def a_run(folder, arms):
    recipe = resolve(ProtocolRecipe, find("protocol-s"))
    Run.open_or_create(folder, recipe, data_hashes={}, seed=42, device="cpu")
    analysis = analyze(results(arms), protocol="s")
    (folder / "analysis.json").write_text(json.dumps(analysis))
    return folder


def test_published_and_measured_stand_side_by_side(tmp_path, capsys):
    run = a_run(tmp_path / "run", {"sft": 0.9, "tau-5": 0.8, "soft": 0.6})
    text = compare_published([run], tmp_path / "compared.md")
    assert (tmp_path / "compared.md").read_text() == text
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "75.0%" in lines["sft"] and "90.0%" in lines["sft"] and "+15.0 points" in lines["sft"]
    assert "not measured" in lines["hard"]
    assert "1.5B" in text and "levels are not comparable" in text
    assert "+15.0 points" in capsys.readouterr().out


def test_every_published_pair_is_confirmed_contradicted_or_left_open():
    """By hand: soft above tau-5 is the other way round here; hard varies too much to tell; dft is in one table only."""
    values = {"sft": (0.9, 0.91, 0.92), "tau-5": (0.5, 0.51, 0.49), "soft": (0.8, 0.81, 0.82)}
    values |= {"hard": (0.2, 0.95, 0.5), "dft": (0.1, 0.1, 0.1)}
    table = [
        Result(method=arm, seed=seed, task="correction", metric="accuracy", value=value, n=50)
        for arm, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]
    found = orders(analyze(table, protocol="s"), published()["s"])
    assert (found.alike, found.open, found.untested, found.pairs) == (1, 3, 1, 6)
    (said,) = found.contrary
    assert "published, tau-5 71.4% against 58.0% for soft" in said and "tau-5 corrected fewer items than soft" in said
    assert "6 pairs" in found.sentence and "1 contrary" in found.sentence and "1 could not be tested" in found.sentence


def test_a_pair_that_was_published_as_equal_can_only_be_contradicted():
    values = {"sft": (0.9, 0.92, 0.91), "eaft": (0.5, 0.54, 0.49), "r-eaft": (0.9, 0.93, 0.9)}
    table = [
        Result(method=arm, seed=seed, task="retention", metric="accuracy", value=value, n=50)
        for arm, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]
    found = orders(analyze(table, protocol="a"), published()["a"])
    assert (found.alike, found.open, found.untested, len(found.contrary)) == (0, 0, 0, 2)
    assert all("100.0% against 100.0% for" in said for said in found.contrary)


def test_the_published_numbers_are_those_of_the_reference():
    reference = Path(__file__).parents[3] / "shared" / "reference" / "published_r_eaft.json"
    if not reference.exists():
        pytest.skip("../shared is missing")
    given, ours = json.loads(reference.read_text()), published()
    assert ours["a"]["correction"] == given["protocol_a"]["correction"]
    assert ours["b"]["correction"] == given["protocol_b_reported"]["correction"]
    assert ours["b"]["locality"] == given["protocol_b_reported"]["retention"]
    for letter in ("s", "t"):
        theirs = given[f"protocol_{letter}_reported"]
        assert sorted(ours[letter]["correction"].values()) == sorted(theirs.values())


def test_what_is_no_finished_protocol_is_an_error(tmp_path):
    result = CliRunner().invoke(app, ["protocol", "compare", str(tmp_path)])
    assert result.exit_code == 2 and "no run directory" in result.output
    run = a_run(tmp_path / "run", {"sft": 0.9, "tau-5": 0.8})
    (run / "analysis.json").unlink()
    result = CliRunner().invoke(app, ["protocol", "compare", str(run)])
    assert result.exit_code == 2 and "no analysis" in result.output


def test_a_run_with_nothing_published_to_compare_is_told_so(tmp_path):
    recipe = resolve(FrontierRecipe, find("protocol-frontier"))
    Run.open_or_create(tmp_path / "run", recipe, data_hashes={}, seed=42, device="cpu")
    result = CliRunner().invoke(app, ["protocol", "compare", str(tmp_path / "run")])
    assert result.exit_code == 2 and "protocol a, b, s, t" in result.output and "equipoise report" in result.output
