"""Loading: a model that fits its tokenizer, or one clear error for each way in which it cannot be loaded."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import TEMPLATE, tiny_model, tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from equipoise.errors import UserError
from equipoise.models.adapters import fingerprint
from equipoise.models.loading import load_model
from equipoise.models.quiet import quiet
from equipoise.models.settings import ModelSettings


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(path, **settings):
    return load_model(ModelSettings(path=str(path), device="cpu", **settings))


def adapter(folder, target, **shape):
    with quiet():
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        model = get_peft_model(tiny_model(**shape), config)
    model.save_pretrained(target, save_embedding_layers=False)
    return model


def test_a_folder_loads_in_float32_on_a_cpu(folder):
    loaded = load(folder)
    assert loaded.name == str(folder) and not loaded.model.training
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    ids = torch.tensor([[1, 40, 50]])
    assert torch.equal(loaded.model(ids).logits, tiny_model()(ids).logits)
    assert loaded.tokenizer.decode(loaded.tokenizer("the call")["input_ids"]) == "the call"


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_the_dtype_can_be_chosen(folder, name, dtype):
    assert {p.dtype for p in load(folder, dtype=name).model.parameters()} == {dtype}


@pytest.mark.parametrize("path", ["no/such/folder/here", "/nowhere/model", "./missing", "~/missing-model", "a b"])
def test_a_path_that_does_not_exist(path):
    with pytest.raises(UserError, match="there is no model folder"):
        load(path)


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tmp_path)


def test_an_adapter_loads_on_its_base(folder, tmp_path):
    trained = adapter(folder, tmp_path / "adapter")
    loaded = load(folder, adapter=str(tmp_path / "adapter"))
    ids = torch.tensor([[1, 40, 50]])
    torch.testing.assert_close(loaded.model(ids).logits, trained(ids).logits)


@pytest.mark.parametrize("shape", [{"hidden_size": 32, "head_dim": 16}, {"num_hidden_layers": 3}])
def test_an_adapter_of_another_shape(folder, tmp_path, shape):
    adapter(folder, tmp_path / "adapter", **shape)
    with pytest.raises(UserError, match="made for another base"):
        load(folder, adapter=str(tmp_path / "adapter"))


def test_an_adapter_for_other_modules(folder, tmp_path):
    adapter(folder, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["c_attn"]}))
    with pytest.raises(UserError, match="made for another base"):
        load(folder, adapter=str(tmp_path / "adapter"))


def test_an_adapter_for_other_weights_of_the_same_shape(folder, tmp_path):
    adapter(folder, tmp_path / "adapter")
    base = {"name": "x", "fingerprint": fingerprint(tiny_model(seed=9))}
    (tmp_path / "adapter" / "base.json").write_text(json.dumps(base))
    with pytest.raises(UserError, match="not those it was trained on"):
        load(folder, adapter=str(tmp_path / "adapter"))
    base["fingerprint"] = fingerprint(load(folder).model)
    (tmp_path / "adapter" / "base.json").write_text(json.dumps(base))
    load(folder, adapter=str(tmp_path / "adapter"))


def test_an_adapter_that_does_not_exist(folder):
    with pytest.raises(UserError, match="no adapter folder"):
        load(folder, adapter="./missing-adapter")


def test_the_fingerprint_tells_weights_but_not_the_loading_dtype(folder):
    one = fingerprint(load(folder).model)
    assert one == fingerprint(load(folder, dtype="bf16").model) != fingerprint(tiny_model(seed=5))


def test_a_tokenizer_without_a_class_splits_as_its_file_says(tmp_path):
    """`AutoTokenizer` takes Qwen2's class for a Qwen2 model, with Qwen2's own splitting rules."""
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    backend = Tokenizer.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    apart = pre_tokenizers.Split(Regex("."), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([apart, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tiny_model("qwen2").save_pretrained(tmp_path)
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"pad_token": "<|pad|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load(tmp_path)
    assert len(loaded.tokenizer.encode("the call", add_special_tokens=False)) == len("the call")
    assert loaded.tokenizer.eos_token == "<|im_end|>" and loaded.tokenizer.chat_template == TEMPLATE


def test_no_pad_becomes_one_that_is_not_the_end(folder):
    tiny_tokenizer(pad_token=None).save_pretrained(folder)
    loaded = load(folder)
    assert loaded.tokenizer.pad_token == "<|pad|>" and loaded.model.config.pad_token_id == 0
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(tiny_tokenizer())


def test_a_pad_equal_to_the_end_is_replaced_and_no_table_shrinks(tmp_path):
    backend = tiny_tokenizer().backend_tokenizer.to_str().replace("<|pad|>", "<|oddity|>")
    from tokenizers import Tokenizer

    for rows in (305, 400):
        model = tiny_model("gpt2", vocab_size=rows)
        before = model.get_input_embeddings().weight.detach().clone()
        model.save_pretrained(tmp_path / str(rows))
        PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(backend),
            pad_token="<|im_end|>",
            eos_token="<|im_end|>",
            bos_token="<|im_end|>",
            chat_template=TEMPLATE,
        ).save_pretrained(tmp_path / str(rows))
        loaded = load(tmp_path / str(rows))
        after = loaded.model.get_input_embeddings().weight
        assert loaded.tokenizer.pad_token_id not in (None, loaded.tokenizer.eos_token_id)
        assert after.shape[0] >= rows and torch.equal(after[:rows], before)
        assert loaded.tokenizer.pad_token_id < after.shape[0]


def test_a_new_row_does_not_win_the_softmax(tmp_path):
    """Models whose logits are all negative (GPT-2) would predict a row of zeros everywhere."""
    from equipoise.models.tables import grow

    model = tiny_model("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight -= 2.0
    ids = torch.tensor([[5, 6, 7]])
    before = model(ids).logits.log_softmax(-1)
    grow(model, 306)
    after = model(ids).logits.log_softmax(-1)
    assert after.shape[-1] == 306
    torch.testing.assert_close(after[..., :305], before, atol=0.02, rtol=0)


def test_generation_stops_where_the_template_ends_a_turn(folder):
    tiny_tokenizer(eos_token="<|endoftext|>").save_pretrained(folder)
    assert set(load(folder).model.generation_config.eos_token_id) == {2, 3}


def test_a_chat_template_can_be_given(folder, tmp_path):
    tiny_tokenizer(chat_template=None).save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    assert load(folder).tokenizer.chat_template is None
    assert "content" in load(folder, chat_template="plain").tokenizer.chat_template
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }}")
    assert load(folder, chat_template=str(tmp_path / "mine.jinja")).tokenizer.chat_template.startswith("{{ messages")
    with pytest.raises(UserError, match="no chat template file"):
        load(folder, chat_template="nowhere.jinja")


def test_a_tokenizer_larger_than_the_table(tmp_path):
    tiny_model(vocab_size=200).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="highest token id is 304, but the embedding table has 200"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_truncated_weights(folder, keep):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="damaged weights"):
        load(folder)


def test_a_missing_shard(tmp_path):
    tiny_model().save_pretrained(tmp_path, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    load(tmp_path)
    next(tmp_path.glob("model-00002*.safetensors")).unlink()
    with pytest.raises(UserError, match="weights are missing: model-00002"):
        load(tmp_path)


def test_weights_that_lack_tensors(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 tensors .*up_proj"):
        load(folder)


def test_pickled_weights_only(folder):
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickles only"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_does_not_run_unless_asked_for(folder, tmp_path, name):
    config = json.loads((folder / name).read_text())
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (folder / name).write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(UserError, match="auto_map"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_remote_code_runs_when_asked_for(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class C(LlamaConfig):\n    model_type = 'mine'\n"
        "class M(LlamaForCausalLM):\n    config_class = C\n"
    )
    assert type(load(folder, trust_remote_code=True).model).__name__ == "M"


def test_a_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load(folder)
    (folder / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(UserError, match="cannot be loaded"):
        load(folder)


def test_a_name_that_is_neither_a_folder_nor_can_be_looked_up(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"no folder mymodle here.*cannot be reached"):
        load_model(ModelSettings(path="mymodle"))


def test_a_config_that_does_not_fit_the_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(UserError, match="cannot be loaded"):
        load(folder)


def test_an_unknown_device(folder):
    with pytest.raises(UserError, match="device 'tpu9'"):
        load_model(ModelSettings(path=str(folder), device="tpu9"))


def test_device_and_device_map_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        ModelSettings(device="cpu", device_map="auto")


def test_a_device_map_is_followed(folder):
    loaded = load_model(ModelSettings(path=str(folder), device_map={"": "cpu"}))
    assert {p.device for p in loaded.model.parameters()} == {torch.device("cpu")}


class Hub(http.server.BaseHTTPRequestHandler):
    """A Hub that has a gated model and no other."""

    def do_GET(self):
        gated = "/gated/" in self.path
        self.send_response(401 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_gated_model_and_an_unknown_one_are_clear_errors_without_the_token(hub, tmp_path):
    code = """
import sys
from equipoise.errors import UserError
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
for name in ("owner/gated", "owner/unknown"):
    name = name.replace("owner/gated", "gated/model")
    try:
        load_model(ModelSettings(path=name, device="cpu"))
    except UserError as error:
        print(error)
"""
    env = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path),
        "HF_TOKEN": "hf_secretsecret",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert "gated/model is gated, and no token with access was found" in done.stdout, done.stderr
    assert "HF_TOKEN" in done.stdout and "has no model owner/unknown" in done.stdout
    assert "hf_secretsecret" not in done.stdout + done.stderr


def test_the_testbed_has_a_name():
    loaded = load_model(ModelSettings(device="cpu"))
    assert loaded.name == "testbed" and loaded.tokenizer.pad_token_id != loaded.tokenizer.eos_token_id


def test_a_copied_folder_loads_too(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model copy")
    load(tmp_path / "model copy")


def test_the_plain_template_begins_as_the_tokenizer_begins_a_text(folder):
    """Gemma's base models repeat one token without their first."""
    from tokenizers.processors import TemplateProcessing

    turn = [{"role": "user", "content": "the call"}]
    plain = load(folder, chat_template="plain").tokenizer.apply_chat_template(turn, tokenize=False)
    tokenizer = tiny_tokenizer(bos_token="<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    begun = load(folder, chat_template="plain").tokenizer.apply_chat_template(turn, tokenize=False)
    assert begun == "<|endoftext|>" + plain and not plain.startswith("<|endoftext|>")
