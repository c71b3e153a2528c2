"""Which format a model is loaded and trained in on a CPU."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from tiny_models import tiny_folder, tiny_model

from equipoise.models import dtypes
from equipoise.models.loading import load_model
from equipoise.models.lora_sum import DeltaFirst, keep_small_updates
from equipoise.models.quiet import quiet
from equipoise.models.settings import ModelSettings
from equipoise.training.assembly import pick_precision
from equipoise.training.settings import TrainSettings


def capable(monkeypatch, *names):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: name in names for name in dtypes.IN_HARDWARE})


@pytest.mark.parametrize(
    ("names", "stored", "expected"),
    [
        (["avx512_bf16"], "bfloat16", torch.bfloat16),
        (["amx_bf16"], "bfloat16", torch.bfloat16),
        (["avx512_bf16"], "float16", torch.bfloat16),
        (["avx512_bf16"], "float32", torch.float32),
        ([], "bfloat16", torch.float32),
    ],
)
def test_auto_is_bf16_where_the_cpu_computes_in_it_and_the_weights_are_half(
    tmp_path, monkeypatch, capsys, names, stored, expected
):
    capable(monkeypatch, *names)
    folder = tiny_folder(tmp_path / "model", dtype=getattr(torch, stored))
    for _ in range(2):
        loaded = load_model(ModelSettings(path=str(folder), device="cpu"))
    assert loaded.model.dtype == expected
    said = capsys.readouterr().err
    assert said.count("loading") == 1 and ("model.dtype=fp32" in said) == (expected == torch.bfloat16)


def test_the_testbed_stays_in_float32(monkeypatch):
    capable(monkeypatch, "avx512_bf16")
    assert load_model(ModelSettings(path="testbed:ner", device="cpu")).model.dtype == torch.float32


def test_a_torch_that_knows_no_capabilities(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not dtypes.cpu_has_bf16()


def test_all_weights_train_in_float32_with_bf16_products(monkeypatch):
    capable(monkeypatch, "avx512_bf16")
    half, full = tiny_model(dtype=torch.bfloat16), tiny_model()
    assert pick_precision(half, TrainSettings(lora=None)) == "bf16"
    assert pick_precision(half, TrainSettings()) == pick_precision(full, TrainSettings(lora=None)) == "fp32"


def adapted(scale, dtype):
    with quiet():
        model = get_peft_model(
            tiny_model(dtype=dtype),
            LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = scale * torch.randn(weight.shape)
    return model


def layers(model):
    return [module for module in model.modules() if isinstance(module, Linear)]


def test_updates_below_half_a_unit_are_kept_on_average():
    """One number per output: far fewer than half of the outputs may move, but their mean moves by what was added."""
    model = adapted(0.0, torch.bfloat16)
    keep_small_updates(model)
    layer = layers(model)[0]
    assert type(layer) is DeltaFirst
    torch.manual_seed(0)
    x = torch.randn(4096, 16).bfloat16()
    layer.lora_A["default"].weight.data = torch.zeros_like(layer.lora_A["default"].weight)
    layer.lora_A["default"].weight.data[0, 0] = 1.0
    layer.lora_B["default"].weight.data[:, 0] = 2e-4
    x[:, 0] = 1.0
    moved = (layer(x).float() - layer.base_layer(x).float()).mean().item()
    theirs = (Linear.forward(layer, x).float() - layer.base_layer(x).float()).mean().item()
    assert moved == pytest.approx(2e-4, rel=0.2) and theirs < 1.5e-4


def test_sum_and_gradients_are_those_of_float32():
    exact, ours = adapted(0.05, torch.float32), adapted(0.05, torch.bfloat16)
    for one, other in zip(layers(exact), layers(ours)):
        one.base_layer.weight.data = other.base_layer.weight.data.float()
        for name in ("lora_A", "lora_B"):
            getattr(one, name)["default"].weight.data = getattr(other, name)["default"].weight.data.clone()
    keep_small_updates(ours)
    assert all(type(layer) is DeltaFirst for layer in layers(ours))
    torch.manual_seed(2)
    for one, other in zip(layers(exact), layers(ours)):
        x = torch.randn(2, 5, one.in_features).bfloat16()
        out = one(x.float()), other(x)
        torch.testing.assert_close(out[1].float(), out[0], rtol=2e-2, atol=2e-2)
        for result in out:
            result.float().square().sum().backward()
        for name in ("lora_A", "lora_B"):
            theirs, mine = (getattr(layer, name)["default"].weight.grad for layer in (one, other))
            assert torch.nn.functional.cosine_similarity(theirs.flatten(), mine.flatten(), 0) > 0.999


def test_a_switched_off_adapter_changes_nothing():
    model = adapted(0.5, torch.bfloat16)
    keep_small_updates(model)
    ids = torch.tensor([[1, 40, 50]])
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, tiny_model(dtype=torch.bfloat16)(ids).logits)
    assert not torch.equal(model(ids).logits, tiny_model(dtype=torch.bfloat16)(ids).logits)
