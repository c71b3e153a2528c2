"""The frontier through the command line, and its analysis on numbers made by hand."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from equipoise.catalogue import find
from equipoise.cli import app
from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.journal import read_journal
from equipoise.pipelines.frontier_settings import FrontierRecipe
from equipoise.protocols.frontier_analysis import ArmScores, analyse

SEEDS = [1, 2]


def own_recipe(folder, **more):
    """Two arms, a learning rate each, two seeds, two epochs, four updates and eight rows to keep."""
    recipe = {
        "pipeline": "frontier",
        "name": "tiny",
        "seeds": SEEDS,
        "data": {"limit": 4, "keep_limit": 8, "skills": None},
        "arms": {"sft": {"name": "sft"}, "replay": {"name": "sft", "rehearse": True, "learning_rates": [0.002]}},
        "learning_rates": [0.003],
        "score_at": [1, 2],
        "training": {"batch_size": 4, "scheduler": "constant", "checkpoint_every": None},
        **more,
    }
    (folder / "tiny.yaml").write_text(json.dumps(recipe))
    return folder / "tiny.yaml"


def protocol(recipe, out, *overrides):
    return CliRunner().invoke(
        app, ["protocol", "frontier", *overrides, "--recipe", str(recipe), "--out", str(out)], catch_exceptions=False
    )


def answers(folder, cell, name):
    rows = read_journal(folder / "cells" / cell / f"{name}.jsonl").rows
    return [(row["task"], row["item"], row["output"]) for row in rows]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    result = protocol(own_recipe(folder), folder / "run")
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_a_frontier_leaves_what_is_promised(ran):
    folder, shown = ran
    run = folder / "run"
    cells = [row["cell"] for row in read_journal(run / "cells.jsonl").rows]
    assert cells == ["untrained", *(f"{arm}/seed-{seed}" for seed in SEEDS for arm in ("sft@0.003", "replay@0.002"))]
    analysis = json.loads((run / "frontier.json").read_text())
    assert analysis["n"] == {"correction": 4, "locality": 4, "rehearsed": 4} and analysis["kept"] == ["locality"]
    assert len(analysis["points"]) == 2 * 2 * 2
    results = json.loads((run / "results.json").read_text())
    assert {row["method"] for row in results} == {
        "untrained", *(f"{arm}x{epoch}" for arm in ("sft@0.003", "replay@0.002") for epoch in (1, 2))
    }  # fmt: skip
    assert analysis["answers"][0]["sentence"] in " ".join(shown.split())
    page = (run / "report.html").read_text()
    assert "At equal correction" in page and "replay" in page and "Left out" not in page


def test_rows_that_are_rehearsed_are_others_than_those_that_measure(ran):
    folder, _ = ran
    asked = {task: set() for task in ("locality", "rehearsed")}
    for task, item, _ in answers(folder / "run", "replay@0.002/seed-1", "epoch-2"):
        asked.get(task, set()).add(item)
    assert len(asked["locality"]) == len(asked["rehearsed"]) == 4 and not asked["locality"] & asked["rehearsed"]
    plain = {task for task, _, _ in answers(folder / "run", "sft@0.003/seed-1", "epoch-2")}
    assert plain == {"correction", "locality"}


def test_what_is_read_on_the_way_is_what_a_shorter_training_gives(ran, tmp_path):
    """With a constant learning rate, the model after one epoch of two is the model of one epoch."""
    folder, _ = ran
    arms = '{"sft": {"name": "sft"}}'
    short = protocol(own_recipe(tmp_path, arms=json.loads(arms)), tmp_path / "run", "score_at=[1]", "seeds=[1]")
    assert short.exit_code == 0, short.output
    told = [[row for row in answers(f, "sft@0.003/seed-1", "epoch-1") if row[0] == "correction"]
            for f in (folder / "run", tmp_path / "run")]  # fmt: skip
    assert told[0] == told[1] != []


def test_a_finished_frontier_is_analysed_again_to_the_same_bytes(ran):
    folder, _ = ran
    before = (folder / "run" / "frontier.json").read_bytes()
    again = protocol(folder / "tiny.yaml", folder / "run")
    assert again.exit_code == 0 and "5 of 5 cells are done already" in again.output
    assert (folder / "run" / "frontier.json").read_bytes() == before


def test_a_training_that_was_cut_off_keeps_what_it_read_and_ends_in_the_same_answers(tmp_path, monkeypatch):
    """Cut off while it is read after the second of three epochs, it goes on from the checkpoint of the first."""
    from equipoise.pipelines import frontier

    how = {"arms": {"sft": {"name": "sft"}}, "seeds": [1], "score_at": [1, 2, 3]}
    recipe = own_recipe(tmp_path, **how, training={"batch_size": 4, "scheduler": "constant", "checkpoint_every": 1})
    asked, ask = [], frontier.evaluate

    def failing(*args, **kwargs):
        asked.append(kwargs["method"])
        if len(asked) == 3:
            raise OSError("the power went out")
        return ask(*args, **kwargs)

    monkeypatch.setattr(frontier, "evaluate", failing)
    with pytest.raises(OSError, match="power"):
        protocol(recipe, tmp_path / "cut")
    cell = tmp_path / "cut" / "cells" / "sft@0.003" / "seed-1"
    written = (cell / "epoch-1.jsonl").stat().st_ino
    assert not (cell / "epoch-2.jsonl").exists()
    assert protocol(recipe, tmp_path / "cut").exit_code == 0
    assert (cell / "epoch-1.jsonl").stat().st_ino == written and len(asked) == 5
    assert protocol(recipe, tmp_path / "whole").exit_code == 0
    for name in ("epoch-1", "epoch-2", "epoch-3"):
        whole = tmp_path / "whole" / "cells" / "sft@0.003" / "seed-1" / f"{name}.jsonl"
        assert (cell / f"{name}.jsonl").read_bytes() == whole.read_bytes()
    assert (tmp_path / "cut" / "frontier.json").read_bytes() == (tmp_path / "whole" / "frontier.json").read_bytes()


def test_trained_together_or_one_by_one_the_answers_are_the_same_also_after_a_cut(tmp_path, monkeypatch):
    """Arms of different lengths, one of them stopped; the cohort is cut off when it is read for the second time."""
    from equipoise.pipelines import frontier_cohort

    arms = {
        "sft": {"name": "sft"},
        "replay": {"name": "sft", "rehearse": True},
        "stop": {"name": "sft", "stopping": {"divergence": 1.0001, "block": 2}},
    }
    training = {"batch_size": 4, "scheduler": "constant", "checkpoint_every": 1}
    recipe = own_recipe(tmp_path, arms=arms, seeds=[1], score_at=[1, 2, 3], training=training)
    asked, ask = [], frontier_cohort.evaluate_stack

    def failing(*args, **kwargs):
        asked.append(len(kwargs["runs"]))
        if len(asked) == 2:
            raise OSError("the power went out")
        return ask(*args, **kwargs)

    monkeypatch.setattr(frontier_cohort, "evaluate_stack", failing)
    with pytest.raises(OSError, match="power"):
        protocol(recipe, tmp_path / "together")
    assert protocol(recipe, tmp_path / "together").exit_code == 0
    assert protocol(recipe, tmp_path / "alone", "cohort=off").exit_code == 0
    for name in ("frontier.json", "results.json"):
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    read = sorted(path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone" / "cells").rglob("e*.jsonl"))
    assert len(read) == 1 + 3 + 3 + 1
    for path in read:
        assert (tmp_path / "together" / path).read_bytes() == (tmp_path / "alone" / path).read_bytes()
    one, other = (read_journal(tmp_path / run / "cells.jsonl").rows for run in ("together", "alone"))
    assert [row | {"seconds": 0} for row in one] == [row | {"seconds": 0} for row in other]


def test_one_of_its_models_can_be_asked_again(ran, tmp_path):
    folder, _ = ran
    cell = folder / "run" / "cells" / "sft@0.003" / "seed-1"
    again = CliRunner().invoke(app, ["evaluate", str(cell), "--out", str(tmp_path)], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    told = {(row["task"], row["item"]): row["output"] for row in read_journal(tmp_path / "predictions.jsonl").rows}
    corrected = [(task, item, out) for task, item, out in answers(folder / "run", "sft@0.003/seed-1", "epoch-2")]
    assert all(told[task, item] == out for task, item, out in corrected if task == "correction")


def test_an_arm_with_a_rule_is_scored_where_it_ended(tmp_path):
    stopped = {"sft": {"name": "sft"}, "stop": {"name": "sft", "stopping": {"divergence": 1.0001, "block": 2}}}
    recipe = own_recipe(tmp_path, arms=stopped, seeds=[1], score_at=[1, 2])
    assert protocol(recipe, tmp_path / "run").exit_code == 0
    cells = {row["cell"]: row for row in read_journal(tmp_path / "run" / "cells.jsonl").rows}
    assert list(cells["stop@0.003/seed-1"]["epochs"]) == ["end"]
    analysis = json.loads((tmp_path / "run" / "frontier.json").read_text())
    assert (analysis["arms"]["sft"]["settings"], analysis["arms"]["stop"]["settings"]) == (2, 1)
    assert analysis["arms"]["sft"]["hypervolume"]["locality"]["reached"] == 1


def test_the_built_in_recipe_is_the_promised_grid():
    recipe = resolve(FrontierRecipe, find("protocol-frontier"))
    assert len(list(recipe.trainings())) == 8 * 3 * 5
    assert recipe.score_at == [2, 5, 10, 20] and recipe.training.scheduler == "constant"
    assert [arm for arm, how in recipe.arms.items() if how.rehearse] == ["sft-replay"]
    assert recipe.settings_of("sft-stopping", 1e-3).stopping is not None
    assert recipe.rates_of("dft") == [1e-3, 3e-3, 1e-2] and recipe.rates_of("sft") == [3e-4, 1e-3, 3e-3]
    assert recipe.settings_of("sft", 1e-3).model_dump()["epochs"] == 20


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs=7", "score_at"),
        ("training.learning_rate=0.1", "learning_rates"),
        ("training.stopping={}", "arms.NAME.stopping"),
        ("training.packing=true", "packing"),
        ("data.rehearse=true", "arms.NAME.rehearse"),
        ("data.keep=null", "data.keep"),
        ("against=sfft", "no arm"),
        ("seeds=[1,1]", "twice in seeds"),
        ("learning_rates=[1e-3,0.001]", "twice in learning_rates"),
        ("arms.replay.learning_rates=[1e-3,0.001]", "twice in arms.replay.learning_rates"),
        ("arms.replay.learning_rates=[]", "arms.replay.learning_rates"),
        ("levels=[1.5]", "levels"),
        ("score_at=[]", "score_at"),
        ("learning_rates=[-1]", "learning_rates"),
    ],
)
def test_what_a_frontier_cannot_be_is_told(tmp_path, override, said):
    with pytest.raises(UserError) as told:
        resolve(FrontierRecipe, own_recipe(tmp_path), [override])
    assert said in str(told.value)


def test_a_model_is_asked_what_the_frontier_asked_not_what_it_rehearsed(ran, tmp_path):
    folder, _ = ran
    cell = folder / "run" / "cells" / "replay@0.002" / "seed-1"
    asked = CliRunner().invoke(app, ["evaluate", str(cell), "--out", str(tmp_path)], catch_exceptions=False)
    assert asked.exit_code == 0, asked.output
    told = [(row["task"], row["item"], row["output"]) for row in read_journal(tmp_path / "predictions.jsonl").rows]
    assert sorted(told) == sorted(answers(folder / "run", "replay@0.002/seed-1", "epoch-2"))


def test_a_learning_rate_at_which_training_diverges_is_left_out_and_named(tmp_path):
    arms = {"sft": {"name": "sft"}, "wild": {"name": "sft", "learning_rates": [0.003, 1e30]}}
    wild = {"name": "r-eaft", "learning_rates": [0.001], "params": {"tau": 1.0, "alpha": 1e37, "clamp": 10.0}}
    recipe = own_recipe(tmp_path, arms=arms | {"lost": wild}, score_at=[8])
    result = protocol(recipe, tmp_path / "run", "training.batch_size=1")
    said = " ".join(result.output.split())
    assert result.exit_code == 0, said
    assert "wild at a learning rate of 1e+30 is left out: it diverged with seed 1, 2." in said
    analysis = json.loads((tmp_path / "run" / "frontier.json").read_text())
    assert list(analysis["arms"]) == ["sft", "wild"] and analysis["arms"]["wild"]["settings"] == 1
    assert "lost at a learning rate of 0.001" in (tmp_path / "run" / "report.html").read_text()
    assert protocol(recipe, tmp_path / "run", "training.batch_size=1").exit_code == 0


def test_a_reference_that_diverges_everywhere_is_told(tmp_path):
    recipe = own_recipe(
        tmp_path, arms={"sft": {"name": "sft", "learning_rates": [1e30]}, "dft": {"name": "dft"}}, seeds=[1]
    )
    result = protocol(recipe, tmp_path / "run", "training.batch_size=1", "score_at=[8]")
    assert result.exit_code == 2 and "sft, which the others are compared with, diverged" in result.output


def test_rows_that_are_left_out_are_told_the_first_at_once_and_all_on_demand(tmp_path, capfd):
    from equipoise.protocols.frontier import preview_frontier
    from equipoise.protocols.knowledge import tell

    recipe, keep = own_recipe(tmp_path), tmp_path / "keep.jsonl"
    rows = [json.dumps({"prompt": f"What is {n} and {n}?", "completion": f"f({n + n})"}) for n in range(8)]
    keep.write_text("\n".join(rows + ['{"prompt": "no answer"}'] * 7) + "\n")
    preview_frontier(recipe, ["data.max_bad_share=0.9", f"data.keep={keep}"])
    notes = [line for line in capfd.readouterr().out.splitlines() if "left out" in line]
    assert len(notes) == 7
    tell(notes)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 6 and said[-1] == "and 2 more; --dry-run lists all of them"


def test_too_few_rows_to_rehearse_and_to_ask_are_told(tmp_path):
    result = protocol(own_recipe(tmp_path), tmp_path / "run", "data.keep_limit=1")
    assert result.exit_code == 2 and "data.keep" in result.output and "at least four" in result.output


def test_a_single_update_cannot_be_halved(tmp_path):
    result = CliRunner().invoke(
        app,
        ["protocol", "frontier", "data.limit=1", "--recipe", str(own_recipe(tmp_path)), "--out", str(tmp_path / "r")],
    )
    assert result.exit_code == 2 and "chosen on one half" in result.output
    assert not (tmp_path / "r").exists()


def test_what_the_untrained_model_does_not_know_is_not_measured(tmp_path):
    keep = tmp_path / "keep.jsonl"
    rows = [json.dumps({"prompt": f"What is {n} and {n}?", "completion": f"f({n + n})"}) for n in range(8)]
    keep.write_text("\n".join(rows) + "\n")
    how = ("seeds=[1]", "score_at=[1]", f"data.keep={keep}", "data.skills=testbed:function", "evaluation.drift=true")
    result = protocol(own_recipe(tmp_path), tmp_path / "run", *how)
    assert result.exit_code == 0, result.output
    analysis = json.loads((tmp_path / "run" / "frontier.json").read_text())
    assert analysis["kept"] == ["retention", "stability"] and "locality cannot be measured" in analysis["notes"][0]
    assert analysis["untrained"]["retention"] == analysis["untrained"]["stability"] == 1.0
    moved = [row["stability"] for row in analysis["points"]]
    assert all(0 < value < 1 for value in moved)
    texts = [row for row in read_journal(tmp_path / "run" / "cells" / "sft@0.003" / "seed-1" / "epoch-1.jsonl").rows
             if row["task"] == "stability"]  # fmt: skip
    assert len(texts) == analysis["n"]["stability"]


# ---- the analysis


def arm(correction, kept, *, seeds=4, items=(40, 80), rng=None):
    """An arm whose settings truly correct and keep these shares."""
    rng = rng or np.random.default_rng(0)
    scores = {
        task: (rng.random((seeds, len(levels), n)) < np.array(levels)[:, None]).astype(float)
        for task, levels, n in (("correction", correction, items[0]), ("locality", kept, items[1]))
    }
    settings: list[tuple[float, int | None]] = [(1e-3, epoch + 1) for epoch in range(len(correction))]
    return ArmScores(settings, scores, np.tile(np.arange(1.0, len(correction) + 1), (seeds, 1)))


def analysed(arms, levels=(0.8, 0.95), seeds=4):
    return analyse(
        arms,
        seeds=list(range(seeds)),
        against="sft",
        levels=levels,
        untrained={"correction": 0, "locality": 1},
        resamples=300,
    )


def test_a_method_that_truly_keeps_more_is_found_and_one_that_does_not_is_not():
    rng = np.random.default_rng(5)
    arms = {
        "sft": arm([0.5, 1.0], [0.9, 0.5], rng=rng),
        "better": arm([0.6, 1.0], [0.9, 0.9], rng=rng),
        "same": arm([0.6, 1.0], [0.95, 0.5], rng=rng),
        "weak": arm([0.2, 0.5], [1.0, 0.9], rng=rng),
    }
    found = analysed(arms)
    (told,) = found["answers"]
    assert told["level"] == 0.95 and told["more"] == ["better"] and told["less"] == [] and told["open"] == ["same"]
    assert "weak (0 of 4 seeds)" in told["sentence"] and "sft keeps" in told["sentence"]
    row = found["arms"]["better"]["matched"]["locality"][1]
    assert row["mean"] == pytest.approx(0.9, abs=0.05) and row["corrected"] == 1.0
    assert row["ci"][0] < row["mean"] < row["ci"][1]
    assert row["against"]["estimate"] == pytest.approx(0.4, abs=0.1) and row["against"]["ci"][0] > 0.2
    weak = found["arms"]["weak"]["matched"]["locality"][0]
    assert weak["mean"] is weak["ci"] is weak["against"] is None and weak["reached"] == 0
    assert found["arms"]["weak"]["hypervolume"]["locality"]["mean"] < 0.55


def test_two_methods_that_are_alike_are_seldom_told_apart_and_their_interval_holds_zero():
    """Items differ in how hard they are, seeds in how well they train; the best of six alike settings is chosen."""
    rng, inside, estimates, told = np.random.default_rng(0), 0, [], 0
    for _ in range(30):
        hard = {"correction": rng.normal(2.5, 0.5, 40), "locality": 1.6 + rng.normal(0, 1.5, 100)}
        arms = {}
        for name in ("sft", "alike"):
            shift = rng.normal(0, 0.25, (5, 1, 1))
            items = {
                task: (rng.random((5, 6, len(x))) < 1 / (1 + np.exp(-(x + shift)))).astype(float)
                for task, x in hard.items()
            }
            arms[name] = ArmScores([(1e-3, epoch) for epoch in range(1, 7)], items, np.tile(np.arange(1.0, 7), (5, 1)))
        row = analysed(arms, seeds=5)["arms"]["alike"]["matched"]["locality"][0]["against"]
        inside += row["ci"][0] <= 0 <= row["ci"][1]
        told += row["p"] < 0.05
        estimates.append(row["estimate"])
    assert inside >= 27 and told <= 5  # of 30
    assert abs(np.mean(estimates)) < 0.02


def test_three_seeds_that_differ_much_have_an_interval_that_holds_the_truth():
    """Percentiles over three seeds alone hold it in four of five worlds, not in nineteen of twenty."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(60):
        arms = {}
        for name in ("sft", "alike"):
            kept = np.clip(rng.normal(0.6, 0.1, (3, 1, 1)), 0, 1)
            items = {"correction": np.ones((3, 1, 40)), "locality": (rng.random((3, 1, 290)) < kept).astype(float)}
            arms[name] = ArmScores([(1e-3, 1)], items, np.ones((3, 1)))
        row = analysed(arms, seeds=3)["arms"]["alike"]["matched"]["locality"][0]["against"]
        inside += row["ci"][0] <= 0 <= row["ci"][1]
    assert inside >= 54


def test_an_arm_that_some_seeds_bring_to_the_level_has_no_mean():
    sft, half = arm([1.0], [0.5]), arm([1.0], [0.9])
    half.items["correction"][2:] = 0
    found = analysed({"sft": sft, "half": half})["arms"]["half"]["matched"]["locality"][0]
    assert found["reached"] == 2 and found["mean"] is None and found["values"][2:] == [None, None]


def test_where_the_reference_never_gets_there_nothing_is_matched_with_it():
    found = analysed({"sft": arm([0.3], [0.9]), "other": arm([1.0], [0.5])})
    assert "nothing is matched" in found["answers"][0]["sentence"]
    assert found["arms"]["other"]["matched"]["locality"][0]["against"] is None
    assert found["arms"]["other"]["matched"]["locality"][0]["mean"] == pytest.approx(0.5, abs=0.1)


def test_one_seed_has_intervals_over_items_and_no_test():
    found = analysed({"sft": arm([1.0], [0.5], seeds=1), "other": arm([1.0], [0.9], seeds=1)}, seeds=1)
    row = found["arms"]["other"]["matched"]["locality"][0]["against"]
    assert row["ci"] is not None and row["p"] is None and row["p_holm"] is None
    assert found["answers"][0]["open"] == ["other"]
    said = found["answers"][0]["sentence"]
    assert "One seed has no test. In this run, over its items: more is kept by other (+" in said
    assert "not told apart" not in said


def test_fronts_are_those_of_the_means_and_least_corrected_first():
    found = analysed({"sft": arm([0.2, 0.9, 0.8], [1.0, 0.6, 0.1])})
    assert [row["epoch"] for row in found["fronts"]["sft"]["locality"]] == [1, 2]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
