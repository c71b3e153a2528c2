"""GGUF files as `model.path`: the same model and tokenizer as the folder they were written from, converted once."""

import os

import gguf
import pytest
import torch
from tiny_gguf import write
from tiny_models import TEMPLATE, tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.models import gguf as reading
from equipoise.models.export import merge, save_merged
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_MODELS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(path, **settings):
    return load_model(ModelSettings(path=str(path), device="cpu", **settings))


IDS = torch.tensor([[1, 40, 50, 7]])


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_gives_the_model_and_tokenizer_it_was_written_from(tmp_path, tied):
    model = tiny_model("llama", tie_word_embeddings=tied)
    loaded = load(write(tmp_path / "m.gguf", model, head=not tied))
    torch.testing.assert_close(loaded.model(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)
    text = "<|im_start|>user\nthe call for 12<|im_end|>"
    assert loaded.tokenizer(text).input_ids == tiny_tokenizer()(text).input_ids
    assert loaded.tokenizer.chat_template == TEMPLATE and loaded.tokenizer.eos_token == "<|im_end|>"
    weights = loaded.model.get_input_embeddings().weight, loaded.model.get_output_embeddings().weight
    assert (weights[0] is weights[1]) == tied


def test_a_head_written_out_beside_an_equal_embedding_is_tied_again(tmp_path):
    loaded = load(write(tmp_path / "m.gguf", tiny_model("llama", tie_word_embeddings=True), head=True))
    assert loaded.model.get_input_embeddings().weight is loaded.model.get_output_embeddings().weight
    assert loaded.model.config.tie_word_embeddings


def test_quantised_weights_come_out_as_the_gguf_package_dequantises_them(tmp_path):
    kind = gguf.GGMLQuantizationType.Q8_0
    model = tiny_model("llama", hidden_size=32, head_dim=16)
    loaded = load(write(tmp_path / "m.gguf", model, kind=kind), dtype="fp32")
    weight = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    expected = torch.from_numpy(gguf.dequantize(gguf.quantize(weight, kind), kind)).bfloat16().float()
    assert torch.equal(loaded.model.model.layers[0].mlp.up_proj.weight, expected)


def test_a_second_load_converts_nothing_and_a_damaged_cache_is_rebuilt(tmp_path, home, capsys):
    file = write(tmp_path / "m.gguf", tiny_model())
    first = load(file).model(IDS).logits
    (weights,) = home.glob("converted/*/model.safetensors")
    before = weights.stat().st_mtime_ns
    capsys.readouterr()
    load(file)
    assert "converting" not in capsys.readouterr().err and weights.stat().st_mtime_ns == before
    for damage in (lambda data: data[:-5], lambda data: data[:-4] + bytes([data[-4] ^ 64]) + data[-3:]):
        weights.write_bytes(damage(weights.read_bytes()))
        assert torch.equal(load(file).model(IDS).logits, first)
        assert "converting" in capsys.readouterr().err


def test_the_cache_goes_by_contents_and_not_by_name(tmp_path, home, capsys):
    file = write(tmp_path / "m.gguf", tiny_model())
    first = load(file).model(IDS).logits
    file.rename(tmp_path / "other.gguf")
    capsys.readouterr()
    assert torch.equal(load(tmp_path / "other.gguf").model(IDS).logits, first)
    assert "converting" not in capsys.readouterr().err
    write(tmp_path / "m.gguf", tiny_model(seed=4))
    assert not torch.equal(load(tmp_path / "m.gguf").model(IDS).logits, first)
    assert len(list(home.glob("converted/*/config.json"))) == 2


def test_files_beside_it_are_no_part_of_it(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "auto_map": {"AutoConfig": "evil.py"}}')
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ 1 }}"}')
    loaded = load(write(tmp_path / "m.gguf", tiny_model()))
    assert loaded.model.config.model_type == "llama" and loaded.tokenizer.chat_template == TEMPLATE


def damaged(name, path):
    whole = path.read_bytes()
    cut = {"empty": 0, "magic": 2, "header": 200, "vocabulary": 3000, "weights": len(whole) - 2000}
    if name == "no gguf":
        return b"PK\x03\x04" + whole[4:]
    if name == "counts":
        return whole[:8] + b"\xff" * 16 + whole[24:]
    return whole[: cut[name]]


@pytest.mark.parametrize("name", ["empty", "magic", "header", "vocabulary", "weights", "no gguf", "counts"])
def test_a_damaged_file_is_said_in_words(tmp_path, home, name):
    file = write(tmp_path / "m.gguf", tiny_model())
    file.write_bytes(damaged(name, file))
    with pytest.raises(UserError, match="GGUF file") as found:
        load(file)
    assert "m.gguf" in str(found.value) and not list(home.glob("converted/*/config.json"))


def test_values_that_are_no_numbers(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="not numbers"):
        load(write(tmp_path / "m.gguf", model))


def test_a_file_without_all_of_its_tensors(tmp_path):
    lacking = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(UserError, match=r"lacks 1 tensors .* model\.layers\.1\.mlp\.up_proj"):
        load(write(tmp_path / "m.gguf", tiny_model(), without=(lacking,)))


def test_an_architecture_that_transformers_does_not_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load(write(tmp_path / "m.gguf", tiny_model(), architecture="wavtokenizer-dec"))


def test_a_file_that_is_not_there():
    with pytest.raises(UserError, match=r"there is no GGUF file"):
        load("missing/m.gguf")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_to(tmp_path, home):
    file = write(tmp_path / "m.gguf", tiny_model())
    home.mkdir()
    home.chmod(0o500)
    with pytest.raises(UserError, match="EQUIPOISE_MODELS"):
        load(file)


def test_the_licence_is_read_from_the_file(tmp_path):
    file = write(tmp_path / "m.gguf", tiny_model())
    assert reading.licence(file) == "apache-2.0"
    file.write_bytes(b"GGUF")
    assert reading.licence(file) is None


def test_a_merged_model_loads_with_plain_transformers(tmp_path):
    from transformers import AutoModelForCausalLM

    loaded = load(write(tmp_path / "m.gguf", tiny_model()))
    save_merged(merge(loaded), tmp_path / "out", {})
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(again(IDS).logits, loaded.model(IDS).logits)
