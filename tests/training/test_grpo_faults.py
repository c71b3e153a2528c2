"""GRPO on small random models: steps that are not finite, signals, quantized bases, other architectures."""

import json
import os
import signal
import warnings

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.models.loading import Loaded, load_model
from equipoise.models.settings import ModelSettings
from equipoise.records import Message
from equipoise.schedules.curriculum import Curriculum, Schedule
from equipoise.training import checkpoints
from equipoise.training.best import Best
from equipoise.training.grpo import Item, train_grpo
from equipoise.training.grpo_settings import GrpoSettings
from equipoise.training.interrupts import Interrupted

ITEMS = [
    Item(f"t{i}", [Message(role="user", content=f"the call for {i}" + " numpy" * (i % 3))], (), ("place",))
    for i in range(8)
]


def run(folder, model, *, steps=4, on_step=None, validate=None, keep_best=None, **changes):
    """Two prompts of four answers a step; answers are gibberish, so it is their length that makes rewards differ."""
    settings = {
        "group": 4,
        "prompts_per_step": 2,
        "max_new_tokens": 8,
        "learning_rate": 1e-2,
        "rewards": {"soft_f1": 1.0, "length_penalty": 0.5},
        "temperature": 1.0,
        "warmup_ratio": 0.0,
        "checkpoint_every": 2,
        "lora": {"r": 4},
        **changes,
    }
    loaded = model if isinstance(model, Loaded) else Loaded(model, tiny_tokenizer(), "tiny")
    curriculum = Curriculum(Schedule(), [0.5] * len(ITEMS), total_steps=steps, batch=2, seed=3)
    return train_grpo(
        loaded,
        ITEMS,
        curriculum=curriculum,
        settings=GrpoSettings(**settings),
        folder=folder,
        seed=3,
        on_step=on_step,
        validate=validate,
        keep_best=keep_best,
    )


def rows(folder, name="metrics"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def adapter(model):
    return [p.detach().clone() for name, p in model.named_parameters() if "lora_" in name]


class Poison(torch.autograd.Function):
    """Spoils the gradient of hidden states and, if asked, the states themselves."""

    @staticmethod
    def forward(ctx, hidden, forward):
        return hidden * float("nan") if forward else hidden.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf"), None


def poisoned(steps, *, forward):
    """A model whose given passes with a gradient, one a step from 1, go wrong."""
    model, calls = tiny_model(), []

    def spoil(module, args, output):
        if not torch.is_grad_enabled():
            return output
        calls.append(1)
        return Poison.apply(output, forward) if len(calls) in steps else output

    model.model.layers[-1].register_forward_hook(spoil)
    return model


@pytest.mark.parametrize("forward", [True, False], ids=["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_written_down(tmp_path, forward):
    model, seen = poisoned({3}, forward=forward), {}
    result = run(tmp_path, model, on_step=lambda row: seen.update({row["step"]: adapter(model)}))
    assert all(torch.equal(a, b) for a, b in zip(seen[3], seen[2]))
    assert not all(torch.equal(a, b) for a, b in zip(seen[4], seen[3]))
    assert [row["skipped"] for row in rows(tmp_path)] == [False, False, True, False]
    (noted,) = rows(tmp_path, "anomalies")
    assert noted["step"] == 3 and noted["rows"] and set(noted["rows"]) <= {item.id for item in ITEMS}
    assert result.summary.skipped == 1 and all(p.isfinite().all() for p in adapter(result.model))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_the_same_call_goes_on(tmp_path, number):
    def interrupt(row):
        if row["step"] == 1:
            os.kill(os.getpid(), number)

    options = {"lora": {"r": 4, "dropout": 0.3}, "checkpoint_every": None}
    with pytest.raises(Interrupted, match="run the same command again") as caught:
        run(tmp_path / "cut", tiny_model(), on_step=interrupt, **options)
    saved = checkpoints.step_of(checkpoints.newest(tmp_path / "cut" / "checkpoints"))
    assert saved == caught.value.step and saved in (1, 2) and not (tmp_path / "cut" / "final").exists()
    again = run(tmp_path / "cut", tiny_model(), **options)
    whole = run(tmp_path / "whole", tiny_model(), **options)
    assert all(torch.equal(a, b) for a, b in zip(adapter(again.model), adapter(whole.model)))
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_a_signal_in_the_last_step_is_heard_and_costs_no_training(tmp_path):
    options, seen = {"lora": {"r": 4, "dropout": 0.3}, "checkpoint_every": None}, []
    whole = run(tmp_path / "whole", tiny_model(), **options)
    last = rows(tmp_path / "whole")[-1]["step"]

    def interrupt(row):
        if row["step"] == last:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=f"stopped after step {last}"):
        run(tmp_path / "cut", tiny_model(), on_step=interrupt, **options)
    again = run(tmp_path / "cut", tiny_model(), on_step=seen.append, **options)
    assert seen == [] and all(torch.equal(a, b) for a, b in zip(adapter(again.model), adapter(whole.model)))
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.parametrize(("architecture", "beta"), [("qwen2", 0.1), ("gemma2", 0.0), ("gpt2", 0.0), ("gpt2", 0.1)])
def test_the_policy_that_drew_the_first_answers_is_the_base(tmp_path, architecture, beta):
    """Log-probabilities come from our drawing, with its cache, and the base's from TRL's pass over whole answers."""
    model = tiny_model(architecture)
    run(tmp_path, model, beta=beta)
    first, *_, last = (row["kl"] for row in rows(tmp_path))
    assert first == pytest.approx(0, abs=1e-9) and last > 1e-7


def test_an_adapter_trains_on_a_base_of_4_bits(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    tiny_model(hidden_size=64, intermediate_size=128, head_dim=32).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bitsandbytes' own, on a CPU
        loaded = load_model(ModelSettings(path=str(tmp_path / "model"), quantization="4bit", device="cpu"))
        result = run(tmp_path / "run", loaded)
    log = rows(tmp_path / "run")
    assert log[0]["kl"] == pytest.approx(0, abs=1e-4) and log[-1]["kl"] > 1e-6
    assert any(p.dtype == torch.uint8 for p in result.model.parameters())
    assert all(p.dtype == torch.float32 for p in adapter(result.model))


def test_the_base_is_kept_where_nothing_later_was_better(tmp_path):
    result = run(
        tmp_path,
        tiny_model(),
        steps=16,
        eval_every=1,
        validate=lambda model, step: {"target/f1": 1 / (1 + step)},
        keep_best={"best": Best("target/f1", higher_is_better=True)},
        collapse={"window": 4, "z": 0.5, "drop": 0.3},
    )
    assert "fell from 1.000" in (result.summary.stopped or "") and result.summary.steps < 16
    assert not any(p.any() for name, p in result.model.named_parameters() if "lora_B" in name)
