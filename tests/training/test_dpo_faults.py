"""DPO where something is wrong: steps that are not finite, a full memory, pairs and models that cannot be used."""

import math
import warnings

import pytest
import torch
from dpo_run import adapter, after_sft, pairs, rows, run, same_bits, weights
from tiny_models import TEMPLATE, tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.models.loading import Loaded, load_model
from equipoise.models.settings import ModelSettings
from equipoise.records import Message, PreferencePair
from equipoise.training.splitting import split_batch


class Poison(torch.autograd.Function):
    """Spoils the gradient of hidden states and, if asked, the states themselves."""

    @staticmethod
    def forward(ctx, hidden, forward):
        return hidden * float("nan") if forward else hidden.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf"), None


@pytest.mark.parametrize("forward", [True, False], ids=["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_written_down(tmp_path, forward):
    model, calls, seen = after_sft(), [], {}

    def spoil(module, args, output):
        if not torch.is_grad_enabled():
            return output
        calls.append(1)
        return Poison.apply(output, forward) if len(calls) == 3 else output

    model.get_base_model().model.layers[-1].register_forward_hook(spoil)
    result = run(
        tmp_path,
        model,
        batch_size=4,
        gradient_accumulation=1,
        on_step=lambda row: seen.update({row["step"]: adapter(model)}),
    )
    assert all(torch.equal(tensor, seen[2][name]) for name, tensor in seen[3].items())
    assert not all(torch.equal(tensor, seen[3][name]) for name, tensor in seen[4].items())
    (noted,) = rows(tmp_path, "anomalies")
    assert noted["step"] == 3 and noted["rows"] and set(noted["rows"]) <= {pair.id for pair in pairs()}
    assert result.anomalies == [3] and all(p.isfinite().all() for p in adapter(result.model).values())


class Full:
    """A memory that holds `rows` answers at a time, while training."""

    def __init__(self, model, rows):
        self.rows, self.hits = rows, 0
        model.get_base_model().model.layers[-1].register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        if module.training and hidden.shape[0] > self.rows:
            self.hits += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_full_memory_halves_the_batch_and_changes_no_step(tmp_path, capsys):
    options = {"epochs": 2, "learning_rate": 1.0, "optimizer": "sgd", "max_grad_norm": 0.0, "scheduler": "constant"}
    run(tmp_path / "whole", batch_size=4, gradient_accumulation=1, **options)
    model = after_sft()
    full = Full(model, 4)
    run(tmp_path / "split", model, batch_size=4, gradient_accumulation=1, **options)
    assert full.hits == 1 and "out of memory at step 1" in capsys.readouterr().err
    for name, tensor in weights(tmp_path / "split").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "whole")[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "why"), [({}, "one example at a time"), ({"loss_type": "aot"}, "cannot be computed in parts")], ids=str
)
def test_a_memory_too_small_for_a_pair_is_the_end(tmp_path, options, why):
    model = after_sft()
    Full(model, 1)
    with pytest.raises(UserError, match=why) as caught:
        run(tmp_path, model, **options)
    assert "dpo.batch_size" in str(caught.value) and "out-of-memory" in str(caught.value)


def test_pieces_of_a_batch_keep_both_answers_of_a_pair_together():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]])
    batch = {
        "input_ids": torch.arange(24).reshape(6, 4),
        "attention_mask": mask,
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([1.0, 2.0, 3.0]),
        "ref_rejected_logps": torch.tensor([4.0, 5.0, 6.0]),
        "row_index": torch.tensor([7, 8, 9]),
    }
    one, two = split_batch(batch, 2)
    assert one["input_ids"][:, 0].tolist() == [0, 4, 12, 16] and one["row_index"].tolist() == [7, 8]
    assert two["input_ids"].tolist() == [[8, 9, 10], [20, 21, 22]] and two["ref_rejected_logps"].tolist() == [6.0]


def pair(name, chosen, rejected, question="the call"):
    return PreferencePair(id=name, prompt=[Message(role="user", content=question)], chosen=chosen, rejected=rejected)


def test_a_pair_that_is_too_long_is_left_out_and_listed(tmp_path):
    data = [*pairs(), pair("long", "pandas", "numpy " * 60)]
    result = run(tmp_path, data=data, max_length=64, max_bad_share=0.1, epochs=1)
    assert [name for name, _ in result.dropped] == ["long"] and "rejected: truncation to 64" in result.dropped[0][1]
    whole = run(tmp_path / "whole", max_length=64, epochs=1)
    assert result.steps == whole.steps and same_bits(tmp_path, tmp_path / "whole")


@pytest.mark.parametrize(
    ("data", "options", "why"),
    [
        ([], {}, "there are no pairs"),
        (pairs(), {"max_length": 8}, "11 of 11 pairs"),
        ([*pairs(), pair("long", "pandas", "numpy " * 60)], {"max_length": 64}, "1 of 12 pairs"),
        ([*pairs(3), pair("same", "pandas", "pandas")], {}, "chosen equals rejected"),
        ([*pairs(3), pair("empty", "pandas", " ")], {}, "the answer is empty"),
    ],
    ids=["none", "all-too-long", "one-too-many", "38-equal", "31-empty"],
)
def test_pairs_that_cannot_be_learned_from_are_refused(tmp_path, data, options, why):
    with pytest.raises(UserError, match=why) as caught:
        run(tmp_path, data=data, **options)
    assert "dpo.max_bad_share" in str(caught.value)
    assert not (tmp_path / "training.json").exists()


def test_38_answers_that_the_template_makes_equal_are_no_pair(tmp_path):
    template = TEMPLATE.replace("message['content']", "message['content'] | trim")
    start = Loaded(after_sft(), tiny_tokenizer(chat_template=template), "tiny")
    result = run(tmp_path, start, data=[*pairs(), pair("spaces", "pandas", "pandas ")], max_bad_share=0.1, epochs=1)
    assert result.dropped == [("spaces", "chosen equals rejected, token by token")]


def test_34_a_control_token_in_a_pair_stays_plain_text(tmp_path):
    data = [*pairs(), pair("spelled", "pandas<|im_end|>", "numpy", question="what ends <|im_end|> a turn")]
    assert run(tmp_path, data=data, epochs=1).dropped == []


def test_52_a_prompt_without_a_template_says_what_to_do(tmp_path):
    start = Loaded(after_sft(), tiny_tokenizer(chat_template=None), "tiny")
    with pytest.raises(UserError, match="no chat template") as caught:
        run(tmp_path, start)
    assert "model.chat_template" in str(caught.value)


def test_59_fp16_on_a_cpu_and_58_other_settings_in_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="needs a GPU"):
        run(tmp_path, precision="fp16")
    run(tmp_path, epochs=1)
    with pytest.raises(UserError, match="another training run"):
        run(tmp_path, epochs=1, beta=0.2)
    with pytest.raises(UserError, match="another training run"):
        run(tmp_path, epochs=1, data=pairs(10))


def test_a_frozen_adapter_is_refused(tmp_path):
    with pytest.raises(UserError, match="is frozen"):
        run(tmp_path, after_sft().requires_grad_(False))


def test_a_model_whose_numbers_are_broken_is_refused(tmp_path):
    model = after_sft()
    next(p for name, p in model.named_parameters() if "lora_A" in name).data[:] = float("nan")
    with pytest.raises(UserError, match=r"not numbers|not a finite"):
        run(tmp_path, model)


def test_an_adapter_on_a_base_of_4_bits_goes_on_unrounded(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    from peft import LoraConfig, get_peft_model

    tiny_model(hidden_size=64, intermediate_size=128, head_dim=32).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bitsandbytes' own, on a CPU
        start = load_model(ModelSettings(path=str(tmp_path / "model"), quantization="4bit", device="cpu"))
        config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        start.model = get_peft_model(start.model, config)
        with torch.no_grad():
            for parameter in adapter_parameters(start.model):
                parameter.normal_(0, 0.1)
        before = adapter(start.model)
        seen = {}
        result = run(tmp_path / "run", start, max_grad_norm=0.0, learning_rate=1e-12, optimizer="sgd", epochs=1)
        seen = adapter(result.model)
    assert rows(tmp_path / "run")[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert all(p.dtype == torch.float32 for p in seen.values())
    for name, tensor in seen.items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-6)


def adapter_parameters(model):
    return [p for name, p in model.named_parameters() if "lora_" in name]
