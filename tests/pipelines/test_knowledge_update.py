"""What is said of a run before it is made is what PEFT and the trainer then do."""

import json

import pytest
from tiny_models import tiny_model

from equipoise.errors import UserError
from equipoise.models.quiet import quiet
from equipoise.pipelines.knowledge_data import load_data, step_count, training_rows
from equipoise.pipelines.knowledge_update import trainable_parameters
from equipoise.pipelines.settings import DataSettings, KnowledgeTrainSettings, KnowledgeUpdateRecipe
from equipoise.training.settings import LoraSettings, TrainSettings


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi"])
@pytest.mark.parametrize("targets", ["all-linear", r".*\.(0|1)\..*(q_proj|c_attn)"])
def test_trainable_parameters_are_those_that_peft_counts(architecture, targets):
    from peft import LoraConfig, get_peft_model

    model = tiny_model(architecture)
    settings = TrainSettings(lora=LoraSettings(r=3, target_modules=targets))
    said = trainable_parameters(model, settings)
    config = LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM", fan_in_fan_out=architecture == "gpt2")
    with quiet():
        assert said == get_peft_model(model, config).get_nb_trainable_parameters()[0] > 0


def test_full_fine_tuning_trains_every_parameter():
    model = tiny_model("llama")
    assert trainable_parameters(model, TrainSettings(lora=None)) == sum(p.numel() for p in model.parameters())


def test_rows_to_keep_are_trained_only_when_rehearsed_and_never_overlap(tmp_path):
    for name, texts in {"updates": "abc", "keep": "de", "both": "cd"}.items():
        rows = [{"prompt": f"What is {t}?", "completion": t.upper()} for t in texts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"updates": str(tmp_path / "updates.jsonl"), "keep": str(tmp_path / "keep.jsonl"), "skills": None}
    data = load_data(DataSettings(**own))
    plain = KnowledgeUpdateRecipe(data=DataSettings(**own), training=KnowledgeTrainSettings(epochs=2, batch_size=2))
    rehearsing = plain.model_copy(update={"data": DataSettings(**own, rehearse=True)})
    assert [row.completion for row in training_rows(plain, data)] == ["A", "B", "C"]
    rehearsed = load_data(rehearsing.data)
    assert [row.completion for row in training_rows(rehearsing, rehearsed)] == ["A", "B", "C", "D", "E"]
    assert (step_count(plain, data), step_count(rehearsing, rehearsed)) == (4, 6)
    half = plain.model_copy(update={"data": DataSettings(**own, rehearse="half")})
    parted = load_data(half.data)
    assert [row.completion for row in training_rows(half, parted)] == ["A", "B", "C", "D"]
    assert [row.completion for row in parted.keep] == ["E"]
    assert set(data.hashes) == {"updates", "keep"}
    with pytest.raises(UserError, match="c"):
        load_data(DataSettings(**{**own, "keep": str(tmp_path / "both.jsonl")}))
