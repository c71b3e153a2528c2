"""What a user gets wrong in a recipe is said before anything is written; what does not fit is left out, not fatal."""

import json

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.evaluation.tokens import token_rows
from equipoise.models.generation import generate_greedy
from equipoise.models.loading import Loaded
from equipoise.models.quiet import quiet
from equipoise.pipelines import knowledge_update as pipeline
from equipoise.pipelines.knowledge_data import load_data
from equipoise.pipelines.settings import DataSettings, KnowledgeTrainSettings, KnowledgeUpdateRecipe, ProtocolRecipe
from equipoise.protocols import knowledge, single
from equipoise.testbed.world import model_path
from equipoise.training.meter import Meter
from equipoise.training.settings import ObjectiveSettings

ARMS = "arms={sft: {name: sft}}"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seeds=[-1]", "seeds"),
        ("seeds=[1,1]", "stands twice"),
        ("arms={a/b: {name: sft}}", "a/b"),
        ("arms={../../up: {name: sft}}", "no name for an arm"),
        ("arms={untrained: {name: sft}}", "untrained"),
        ("objective.name=dft", "change arms"),
        ("objective.params={tau: 3.0}", "change arms"),
        ("seed=7", "change seeds"),
        ("training.lora.target_modules=(", "regular expression"),
    ],
)
def test_a_grid_refuses_what_would_be_ignored_or_break_it(override, said):
    with pytest.raises(UserError, match=said):
        resolve(ProtocolRecipe, None, [ARMS, override])


def test_a_single_run_and_its_resolved_config_are_grids(tmp_path):
    (tmp_path / "one.yaml").write_text("objective: {name: eaft}\nseed: 7\n")
    settings = single.resolve_grid(tmp_path / "one.yaml", [])
    assert (list(settings.arms), settings.seeds) == (["eaft"], [7])
    odd = single.resolve_grid(tmp_path / "one.yaml", ["objective.name=no/such"])
    assert [arm.name for arm in odd.arms.values()] == ["no/such"]  # refused later, by name
    (tmp_path / "config.yaml").write_text(json.dumps(settings.model_dump(mode="json")))
    assert single.resolve_grid(tmp_path / "config.yaml", []) == settings


@pytest.mark.parametrize(
    ("override", "said"),
    [("training.optimizer=adamw_torchh", "adamw_torch"), ("training.lora.target_modules=[q_projj]", "q_proj")],
)
def test_what_only_the_model_can_tell_leaves_no_folder(tmp_path, override, said):
    recipe = resolve(ProtocolRecipe, None, [ARMS, "data.limit=1", "data.keep=null", "data.skills=null", override])
    with pytest.raises(UserError, match=said):
        knowledge.run_protocol(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _with_a_long_row(tmp_path):
    rows = [{"id": f"r{i}", "prompt": f"the call for pandas {i}", "completion": f"concat({i})"} for i in range(4)]
    rows[1]["completion"] = "stack " * 300
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = DataSettings(updates=str(tmp_path / "rows.jsonl"), keep=None, skills=None)
    return KnowledgeUpdateRecipe(data=own, training=KnowledgeTrainSettings(max_length=64, max_bad_share=0.5)), own


def test_a_row_that_training_leaves_out_does_not_stop_the_scoring(tmp_path):
    recipe, own = _with_a_long_row(tmp_path)
    data = load_data(own)
    loaded = Loaded(tiny_model(), tiny_tokenizer(), "tiny")
    rows = list(token_rows(loaded, data.updates, max_length=recipe.training.max_length))
    assert {row["item"] for row in rows} == {"r0", "r2", "r3"}
    seen = pipeline.preview(loaded, recipe, data)
    assert any("r1" in note and "64" in note for note in seen["notes"])
    assert pipeline.preview(loaded, recipe, data, bases=2)["memory_mb"] > seen["memory_mb"]


def test_an_adapter_asks_for_the_last_logits_only():
    from peft import LoraConfig, get_peft_model

    model = tiny_model()
    with quiet():
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda module, given, out: shapes.append(out.shape[1]))
    generate_greedy(adapted, tiny_tokenizer(), [[4, 5, 6, 7], [8, 9]], max_new_tokens=2)
    hook.remove()
    assert set(shapes) == {1}


def test_the_meter_needs_no_float64(monkeypatch):
    """The Apple GPU has none."""

    def none_here(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    meter = Meter(10, ObjectiveSettings())
    ones = torch.ones(3)
    meter.add(torch.tensor(0.5), {"nll": ones, "entropy": ones, "weights": ones, "correct": ones.bool()})
    monkeypatch.setattr(torch.Tensor, "double", none_here)
    assert meter.read(type("One", (), {"num_processes": 1}))["token_accuracy"] == 1.0


def test_only_the_last_cell_uses_up_the_base(tmp_path, monkeypatch):
    kept, real = [], knowledge.run_cell

    def spy(*args, keep_base, **kwargs):
        kept.append(keep_base)
        return real(*args, keep_base=keep_base, **kwargs)

    monkeypatch.setattr(knowledge, "run_cell", spy)
    small = [
        f"model.path={model_path()}",
        "data.limit=1",
        "data.keep=null",
        "data.skills=null",
        "training.epochs=1",
        "seeds=[1,2]",
    ]
    knowledge.run_protocol(resolve(ProtocolRecipe, None, [ARMS, *small]), tmp_path / "run")
    assert kept == [True, False]


def test_evaluate_hears_settings_of_the_model_of_a_run_and_minds_its_folder_first(tmp_path, monkeypatch):
    from equipoise.models import loading

    run = tmp_path / "run"
    run.mkdir()
    (run / "cells.jsonl").touch()
    (run / "cells" / "sft" / "seed-1" / "final").mkdir(parents=True)
    (run / "cells" / "sft" / "seed-1" / "final" / "adapter_config.json").write_text("{}")
    (run / "config.yaml").write_text("arms: {sft: {name: sft}}\nseeds: [1]\n")
    asked = []

    def stop(settings):
        asked.append(settings)
        raise UserError("far enough")

    monkeypatch.setattr(loading, "load_model", stop)
    with pytest.raises(UserError, match="far enough"):
        single.evaluate_model(str(run), None, ["model.device=cpu", "model.dtype=bf16"], None)
    assert (asked[0].device, asked[0].dtype) == ("cpu", "bf16")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        single.evaluate_model(str(run), None, [], tmp_path / "file")
    assert len(asked) == 1
