"""The verb `export`: what it writes loads in plain transformers and PEFT to the same logits, and says what it is."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.journal import verify_directory
from equipoise.models.loading import load_model
from equipoise.pipelines.card import licence_of
from equipoise.pipelines.trained import trained_model

PROMPT = [5, 9, 12, 40, 7, 300]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "mine"
    own = ["data.limit=4", "data.keep=null", "data.skills=null", "training.epochs=40", "name=mine"]
    said = CliRunner().invoke(app, ["run", "knowledge-update", *own, "--out", str(folder)])
    assert said.exit_code == 0, said.output
    return folder


def export(*words: object) -> None:
    said = CliRunner().invoke(app, ["export", *map(str, words)])
    assert said.exit_code == 0, said.output


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor([PROMPT])).logits.float()


@pytest.fixture(scope="module")
def trained(run):
    return load_model(trained_model(str(run)))


def test_merged_it_reloads_to_the_same_logits(run, trained, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export(run, "--out", tmp_path / "plain")
    assert verify_directory(tmp_path / "plain") == []
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    assert not any("lora" in name for name, _ in plain.named_parameters())
    base = load_model(trained_model("testbed"))
    moved = (logits(trained.model) - logits(base.model)).abs().max()
    assert moved > 1, "the adapter does something"
    torch.testing.assert_close(logits(plain), logits(trained.model), rtol=1e-4, atol=1e-4 * float(moved))
    told = AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert told.get_vocab() == trained.tokenizer.get_vocab() and told.chat_template == trained.tokenizer.chat_template


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT, in plain use
def test_the_adapter_alone_is_loaded_by_peft_alone(run, trained, tmp_path):
    from peft import AutoPeftModelForCausalLM

    export(run, "--adapter", "--out", tmp_path / "adapter")
    assert verify_directory(tmp_path / "adapter") == []
    alone = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    torch.testing.assert_close(logits(alone), logits(trained.model), rtol=1e-5, atol=1e-4)
    assert not list((tmp_path / "adapter").glob("model*.safetensors"))
    ours = load_model(trained_model(str(tmp_path / "adapter")))  # by its base's note, on the testbed's model
    torch.testing.assert_close(logits(ours.model), logits(trained.model), rtol=1e-5, atol=1e-4)


def test_card_and_sheet_say_what_the_run_found(run, tmp_path):
    export(run / "cells" / "r-eaft" / "seed-42", "--out", tmp_path / "plain")
    card = (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head == {"library_name": "transformers", "license": "mit", "tags": ["equipoise"]}
    for section in ("Base", "Data", "Intended use", "Limits and responsible use", "Measured", "Training"):
        assert f"\n## {section}\n" in card
    assert "`testbed:api_change`" in card and "objective:" in card
    sheet = (tmp_path / "plain" / "TESTING.md").read_text(encoding="utf-8")
    for row in json.loads((run / "results.json").read_text(encoding="utf-8")):
        line = f"| {row['method']} | {row['seed']} | {row['task']} | accuracy | {row['value']:.4g} | {row['n']} |"
        assert (line in card) == (line in sheet) == (row["method"] == "r-eaft")
    answers = [json.loads(line) for line in (run / "cells/r-eaft/seed-42/predictions.jsonl").read_text().splitlines()]
    shown = [row for row in answers if row["prompt"] in sheet and row["gold"] in sheet and row["output"] in sheet]
    assert len(shown) >= 4
    assert "AutoModelForCausalLM" in sheet and "AutoPeft" not in sheet


def test_a_model_of_no_run_is_exported_with_what_is_known_of_it(run, tmp_path):
    lone = tmp_path / "lone"
    shutil.copytree(run / "cells" / "r-eaft" / "seed-42" / "final", lone)
    export(lone, "--out", tmp_path / "plain")
    assert "nothing is known of it" in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [(["testbed", "--adapter"], "testbed holds no adapter"), (["./not/there"], "not/there")],
)
def test_a_mistake_is_told_and_nothing_is_left(words, told, tmp_path):
    said = CliRunner().invoke(app, ["export", *words, "--out", str(tmp_path / "out")])
    assert said.exit_code == 2 and told in said.output
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(run, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    said = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path)])
    assert said.exit_code == 2 and "not empty" in said.output
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_the_push_is_asked_for_and_a_failed_one_leaves_the_folder(run, tmp_path, monkeypatch):
    import huggingface_hub

    sent = []

    class Hub:
        def create_repo(self, name, **options):
            sent.append(("create", name, options))

        def upload_folder(self, **options):
            sent.append(("folder", options["folder_path"]))

        def upload_file(self, **options):
            raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    export(run, "--adapter", "--out", tmp_path / "kept")
    assert sent == []
    words = ["export", str(run), "--adapter", "--out", str(tmp_path / "pushed"), "--push-to", "me/mine"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 2 and "no route to host" in said.output and "hf upload me/mine" in said.output
    assert sent[0] == ("create", "me/mine", {"private": True, "exist_ok": True})
    assert verify_directory(tmp_path / "pushed") == []


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# It", "apache-2.0"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("# no head\nlicense: mit\n", None),
        ("---\nlicense: [mit, odd]\n---\n", None),
    ],
)
def test_the_licence_of_a_local_base_is_that_of_its_card(text, licence, tmp_path):
    (tmp_path / "README.md").write_bytes(text.encode())
    assert licence_of(str(tmp_path)) == licence
    assert licence_of(str(tmp_path / "none")) is None
