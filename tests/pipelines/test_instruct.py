"""From raw instructions to an aligned model, for real, in small: every stage, cut off anywhere, with other files."""

import json
import signal
import time

import children
import pytest
from instruct_run import RECIPE, make, rows, run, write
from safetensors.torch import load_file
from tiny_models import tiny_folder
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.evaluation.instruct_analysis import analyse
from equipoise.pipelines import instruct
from equipoise.pipelines.instruct_data import prepare
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.testbed.instructions import load_instructions, load_preferences


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instruct")
    result = run(make(folder), folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run", result.output


def bits(folder):
    """All that the run says of its models: weights of every stage, answers, pair scores, training losses."""
    found = {
        stage: {name: tensor.tolist() for name, tensor in load_file(path).items()}
        for stage in ("sft", "dpo")
        for path in [folder / "cells" / stage / "seed-1" / "final" / "adapter_model.safetensors"]
    }
    found |= {name: rows(folder / name) for name in ("predictions.jsonl", "pairs.jsonl")}
    for stage in ("sft", "dpo"):
        log = rows(folder / "cells" / stage / "seed-1" / "metrics.jsonl")
        found[f"{stage}-log"] = [{k: v for k, v in row.items() if k != "seconds"} for row in log]
    return found


def test_every_stage_is_measured_on_the_same_held_out_rows(done):
    folder, output = done
    for name, n in (("predictions.jsonl", 20), ("pairs.jsonl", 16)):
        asked = {}
        for row in rows(folder / name):
            asked.setdefault(row["method"], []).append(row["id"])
        assert list(asked) == ["untrained", "sft", "dpo"]
        assert all(len(ids) == n and ids == asked["sft"] for ids in asked.values())
    sanity = rows(folder / "sanity.jsonl")
    assert {row["method"] for row in sanity} == {"untrained", "sft", "dpo"} and any(row["passed"] for row in sanity)
    analysis = json.loads((folder / "instruct.json").read_text())
    assert analysis["stages"] == ["untrained", "sft", "dpo"]
    assert analysis["scores"]["sft"]["loss"]["mean"] < analysis["scores"]["untrained"]["loss"]["mean"]
    assert set(analysis["parts"]) == {row.meta["form"] for row in load_instructions("test")[:20]}
    assert "answer loss" in output and "dpo against sft" in output
    assert all(f"{stage}, seed 1: 6/6" in output for stage in ("sft", "dpo"))
    assert "untrained: measuring 20 answers and 16 pairs" in output
    flat = json.loads((folder / "results.json").read_text())
    assert {row["metric"] for row in flat} == {"loss", "exact", "length", "pairs", "pairs_per_token"}


def test_dpo_starts_from_the_sft_model(done):
    folder, _ = done
    first = rows(folder / "cells" / "dpo" / "seed-1" / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(0.6931, abs=2e-3)  # policy and reference are one at the first step
    before, after = (
        load_file(folder / "cells" / s / "seed-1" / "final" / "adapter_model.safetensors") for s in ("sft", "dpo")
    )
    assert before.keys() == after.keys() and any((before[k] != after[k]).any() for k in before)


def test_a_second_call_runs_nothing_again(done):
    folder, _ = done
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    before = bits(folder)
    result = run(folder.parent / "recipe.yaml", folder)
    assert result.exit_code == 0 and "clean already" in result.output
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")} == times and bits(folder) == before


def test_the_run_means_its_last_model(done):
    folder, _ = done
    result = CliRunner().invoke(app, ["export", str(folder), "--out", str(folder.parent / "merged")])
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "model.json").read_text()) == {"model": "cells/dpo/seed-1/final"}
    result = CliRunner().invoke(app, ["evaluate", str(folder), "--out", str(folder.parent / "again")])
    assert result.exit_code == 0, result.output
    again = [row["output"] for row in rows(folder.parent / "again" / "predictions.jsonl")]
    assert again == [row["output"] for row in rows(folder / "predictions.jsonl") if row["method"] == "dpo"]


def killed_at(recipe, out, path, lines):
    """Start the run in its own process and kill it once a file of it has so many lines."""
    child = children.start("run", recipe, "--out", out)
    try:
        while child.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= lines):
            time.sleep(0.005)
        assert child.poll() is None, "it ended before it could be killed"
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()


def test_killed_while_training_it_ends_in_the_same_bits(done, tmp_path):
    """In SFT and in DPO, each between two checkpoints."""
    whole, _ = done
    recipe, out = whole.parent / "recipe.yaml", tmp_path / "run"
    for stage in ("sft", "dpo"):
        killed_at(recipe, out, out / "cells" / stage / "seed-1" / "metrics.jsonl", 4)
    assert run(recipe, out).exit_code == 0
    assert bits(out) == bits(whole)


@pytest.mark.soak
def test_killed_anywhere_it_ends_in_the_same_bits(done, tmp_path):
    """While cleaning, measuring, scoring pairs, and at other steps of training."""
    whole, _ = done
    recipe, out = whole.parent / "recipe.yaml", tmp_path / "run"
    at = [("manifest.json", 1), ("predictions.jsonl", 2), ("pairs.jsonl", 2), ("predictions.jsonl", 21)]
    at += [(f"cells/sft/seed-1/{name}", 1) for name in ("training.json", "metrics.jsonl", "validation.jsonl")]
    at += [(f"cells/dpo/seed-1/{name}", 1) for name in ("training.json", "metrics.jsonl")]
    at += [("pairs.jsonl", 33), ("predictions.jsonl", 41)]
    for name, lines in at:
        killed_at(recipe, out, out / name, lines)
    assert run(recipe, out).exit_code == 0
    assert bits(out) == bits(whole)


def test_stages_can_be_run_alone(tmp_path):
    recipe = make(tmp_path, RECIPE.replace("epochs: 2", "epochs: 1"))
    out = tmp_path / "run"
    assert run(recipe, out, "--until", "clean").exit_code == 0
    assert (out / "clean" / "examples.jsonl").exists() and not (out / "cells").exists()
    assert run(recipe, out, "--until", "sft").exit_code == 0
    assert (out / "cells" / "sft").exists() and not (out / "cells" / "dpo").exists()
    result = run(recipe, out, "--until", "dop")
    assert result.exit_code == 2 and "clean, sft, dpo" in result.output
    dpo = RECIPE.replace("device: cpu", f"device: cpu, adapter: {out}/cells/sft/seed-1/final")
    alone = make(tmp_path / "alone", dpo.replace("sft: {", "sft: null #").replace("dpo: {epochs: 2", "dpo: {epochs: 1"))
    result = run(alone, tmp_path / "dpo")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "dpo" / "instruct.json").read_text())["stages"] == ["untrained", "dpo"]


def test_data_that_changes_under_a_run_is_refused(done):
    folder, _ = done
    source = folder.parent / "rows.jsonl"
    before = source.read_text()
    source.write_text(before.replace("\n", " \n", 1))
    try:
        result = run(folder.parent / "recipe.yaml", folder)
        assert result.exit_code == 2 and "changed since the run cleaned it" in result.output
    finally:
        source.write_text(before)


def test_shares_are_set_apart_by_question(tmp_path):
    recipe = make(tmp_path)
    write(tmp_path / "rows.jsonl", load_instructions("sft")[:400:4])
    write(tmp_path / "pairs.jsonl", load_preferences("preferences")[:400:4])
    sources = prepare(resolve(InstructRecipe, recipe, ["data.validation=0.2", "data.test=0.3"]), tmp_path / "run")
    for kind in ("examples", "pairs"):
        ids = [{row.id for row in getattr(split, kind)} for split in sources.splits.values()]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 100 and all(ids)
    groups = [{row.meta["group"] for row in [*split.examples, *split.pairs]} for split in sources.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))  # no fact is on two sides, in either kind


def test_what_is_held_out_leaves_the_training_data(tmp_path):
    make(tmp_path)
    write(tmp_path / "test.jsonl", load_instructions("sft")[:5])
    recipe = resolve(InstructRecipe, tmp_path / "recipe.yaml")
    sources = prepare(recipe, tmp_path / "run")
    assert sources.reports["train"]["dropped"]["overlap"] == 5 and len(sources.train.examples) == 19


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.sources=[{rows}]"], "no preference pairs"),
        (["data.sources=[{pairs}]"], "no instruction to train on"),
        (["sft=null", "dpo=null"], "both null"),
        (["data.sources=[testbed:instruction]"], "no part 'instruction'"),
        (["data.test=[nowhere.jsonl]"], "nowhere.jsonl"),
        (["seeds=[1,1]"], "twice"),
        (["evaluation.sanity=nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_run_says_why(tmp_path, overrides, said):
    recipe = make(tmp_path)
    named = [text.format(rows=tmp_path / "rows.jsonl", pairs=tmp_path / "pairs.jsonl") for text in overrides]
    result = run(recipe, tmp_path / "run", *named)
    assert result.exit_code == 2 and said in result.output


def test_a_dry_run_shows_the_data_and_leaves_nothing(tmp_path):
    recipe = make(tmp_path)
    result = run(recipe, tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "24 instructions, 24 pairs" in result.output and "6 of sft, 6 of dpo" in result.output
    assert "»" in result.output and not (tmp_path / "run").exists()


@pytest.mark.parametrize("architecture", ["phi", "llama"])
def test_any_local_model_works_by_its_path(tmp_path, architecture):
    model = tiny_folder(tmp_path / architecture, architecture)
    recipe = make(tmp_path, RECIPE.replace("epochs: 2", "epochs: 1"))
    more = [f"model.path={model}", "sft.max_length=256", "dpo.max_length=256", "evaluation.max_new_tokens=4"]
    result = run(recipe, tmp_path / "run", *more)
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "run" / "instruct.json").read_text())["scores"]
    assert scores["dpo"]["loss"]["mean"] > 0 and 0 <= scores["dpo"]["pairs"]["mean"] <= 1


# ---- the analysis, by hand


def answers(method, seed, nlls, exact):
    return [
        {
            "method": method,
            "seed": seed,
            "id": str(n),
            "group": f"g{n // 2}",
            "nll": nll,
            "tokens": 2,
            "exact": hit,
            "length": 3,
        }
        for n, (nll, hit) in enumerate(zip(nlls, exact, strict=True))
    ]


def test_scores_and_changes_worked_by_hand():
    found = [
        *answers("untrained", 7, [4, 4, 4, 4], [0, 0, 0, 1]),
        *answers("sft", 1, [2, 2, 2, 4], [1, 1, 0, 1]),
        *answers("sft", 2, [2, 2, 2, 2], [1, 1, 1, 1]),
    ]
    pairs = [
        {"method": m, "seed": s, "id": "p", "group": "p", "chosen_logprob": a, "rejected_logprob": b,
         "chosen_tokens": 4, "rejected_tokens": 1}
        for m, s, a, b in (("untrained", 7, -4.0, -2.0), ("sft", 1, -4.0, -4.0), ("sft", 2, -1.0, -2.0))
    ]  # fmt: skip
    out = analyse(found, pairs)
    assert out["scores"]["untrained"]["loss"]["mean"] == pytest.approx(2.0)
    assert out["scores"]["sft"]["loss"]["values"] == pytest.approx([10 / 8, 1.0])
    assert out["scores"]["sft"]["exact"]["mean"] == pytest.approx(0.875)
    assert out["scores"]["sft"]["pairs"]["values"] == [0.5, 1.0]  # a tie is half right
    assert out["scores"]["untrained"]["pairs_per_token"]["mean"] == 1.0
    change = next(row for row in out["changes"] if row["measure"] == "exact")
    assert (change["stage"], change["against"], change["seeds"]) == ("sft", "untrained", 2)
    assert change["by_seed"] == pytest.approx([0.5, 0.75]) and change["estimate"] == pytest.approx(0.625)
    assert out["n"] == {"answers": 4, "answers_groups": 2, "pairs": 1, "pairs_groups": 1}


def test_stages_that_were_asked_other_items_are_not_compared():
    found = [*answers("untrained", 1, [1, 1], [0, 0]), *answers("sft", 1, [1], [0])]
    with pytest.raises(UserError, match="not asked the same items"):
        analyse(found, [])


def test_stage_folders_are_where_the_docs_say(tmp_path):
    assert instruct.stage_folder(tmp_path, "dpo", 3) == tmp_path / "cells" / "dpo" / "seed-3"
