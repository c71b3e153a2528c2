"""The fused objective on many architectures, against plain logits and autograd."""

import copy
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, MixtralConfig

from equipoise.errors import UserError
from equipoise.models.head import HeadFormula
from equipoise.models.quiet import quiet
from equipoise.objectives.weighting import weighting
from equipoise.training.head import Objective, attach, detach

RULE = weighting("r-eaft", tau=1.0, alpha=3.0)
IDS = torch.tensor([[1, 40, 50, 60, 70, 2, 0, 0], [1, 44, 55, 66, 77, 88, 99, 2]])
MASK = (IDS != 0).long()
LABELS = torch.where((torch.arange(8) >= 3) & (MASK == 1), IDS, -100)


def reference(model, *, detach_weights=True):
    """The published form: all logits, softmax, autograd."""
    logits = model(input_ids=IDS, attention_mask=MASK).logits[:, :-1]
    labels = LABELS[:, 1:]
    kept = labels != -100
    logp = logits[kept].log_softmax(-1)
    nll = -logp.gather(1, labels[kept][:, None])[:, 0]
    entropy = -(logp.exp() * logp).sum(-1)
    weights = RULE(nll, entropy / math.log(logits.shape[-1]))
    return ((weights.detach() if detach_weights else weights) * nll).sum() / kept.sum()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def fused(model, base):
    attach(base, Objective(RULE))
    out = model(input_ids=IDS, attention_mask=MASK, labels=LABELS, fused_objective=True)
    return out["loss"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fused_equals_plain_logits_in_loss_and_gradient(architecture):
    model = tiny_model(architecture, dtype=torch.float64)
    expected_loss = reference(model)
    expected = gradients(model, expected_loss)
    loss = fused(model, model)
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-10)
    found = gradients(model, loss)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-9, rtol=1e-8, msg=name)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "granite", "gpt2"])
def test_fused_equals_plain_logits_under_lora(architecture):
    base = tiny_model(architecture, dtype=torch.float64)
    config = LoraConfig(
        r=2,
        target_modules="all-linear",
        init_lora_weights=False,
        task_type="CAUSAL_LM",
        fan_in_fan_out=architecture == "gpt2",
    )
    with quiet():
        model = get_peft_model(base, config, autocast_adapter_dtype=False)
    expected_loss = reference(model)
    expected = gradients(model, expected_loss)
    loss = fused(model, model.get_base_model())
    found = gradients(model, loss)
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-10)
    assert found.keys() == expected.keys() and all("lora" in name for name in found)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-9, rtol=1e-8, msg=name)


@pytest.mark.parametrize(
    ("architecture", "formula"),
    [
        ("llama", HeadFormula(1.0, None)),
        ("gemma2", HeadFormula(1.0, 3.0)),
        ("granite", HeadFormula(0.25, None)),
        ("cohere", HeadFormula(0.25, None)),
    ],
)
def test_scale_and_cap_are_read_from_the_config(architecture, formula):
    assert HeadFormula.of(tiny_model(architecture)) == formula


def test_plain_calls_and_generation_stay_as_they_were():
    model = tiny_model("qwen2")
    before = model(input_ids=IDS, attention_mask=MASK, labels=LABELS)
    attach(model, Objective(RULE))
    after = model(input_ids=IDS, attention_mask=MASK, labels=LABELS)
    assert torch.equal(before.logits, after.logits) and torch.equal(before.loss, after.loss)


def test_a_detached_model_can_be_copied():
    """A copy of a patched model would go on calling the original's forward."""
    model = tiny_model()
    attach(model, Objective(RULE))
    detach(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(input_ids=IDS).logits.any()
    assert model(input_ids=IDS).logits.any()


def test_a_head_that_does_something_else_is_refused():
    model = tiny_model("llama")
    own = type(model.lm_head).forward
    model.lm_head.forward = lambda hidden: own(model.lm_head, torch.tanh(hidden))
    with pytest.raises(UserError, match="computes its logits in a way"):
        attach(model, Objective(RULE))
    scaled = tiny_model("cohere")
    scaled.config.logit_scale = 1.0  # the config no longer says what the model does
    with pytest.raises(UserError, match="differ from hidden"):
        attach(scaled, Objective(RULE))


def test_a_model_without_a_linear_head_is_refused():
    with pytest.raises(UserError, match="no separate backbone"):
        attach(tiny_model().model, Objective(RULE))


def test_a_batch_without_labels_is_a_zero_with_a_graph():
    model = tiny_model()
    attach(model, Objective(RULE))
    out = model(input_ids=IDS, labels=torch.full_like(IDS, -100), num_items=torch.tensor(0), fused_objective=True)
    assert out["loss"].item() == 0 and out["nll"].numel() == 0
    out["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_mixture_of_experts_reports_its_balancing_loss():
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"num_local_experts": 4, "output_router_logits": True, "router_aux_loss_coef": 0.5}
    config = MixtralConfig(vocab_size=100, num_key_value_heads=1, **shape, **experts)
    model = AutoModelForCausalLM.from_config(config)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}
    expected = model(**inputs)
    attach(model, Objective(weighting("sft")))
    out = model(**inputs, output_router_logits=True, fused_objective=True)
    torch.testing.assert_close(out["loss"] + 0.5 * out["aux_loss"], expected.loss)


def test_tiny_models_fit_their_tokenizer():
    assert tiny_model("gpt2").get_input_embeddings().weight.shape[0] == len(tiny_tokenizer())
