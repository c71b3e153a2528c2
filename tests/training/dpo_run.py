"""A small DPO run on a random model, which a test can call, or start in a process of its own and kill."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.models.loading import Loaded
from equipoise.models.quiet import quiet
from equipoise.records import Message, PreferencePair
from equipoise.training.dpo import train_dpo
from equipoise.training.dpo_settings import DPOSettings

SMALL = {
    "epochs": 3,
    "batch_size": 2,
    "gradient_accumulation": 2,
    "learning_rate": 1e-2,
    "scheduler": "cosine",
    "warmup_ratio": 0.1,
    "checkpoint_every": 2,
    "lora": {"r": 4},
}


def pairs(count=11):
    """Questions of different lengths; the better answer is short, the worse one talks."""
    return [
        PreferencePair(
            id=f"p{i}",
            prompt=[Message(role="user", content=f"the call for {i}" + " numpy" * (i % 4))],
            chosen=f"pandas.concat{i * 7}",
            rejected=f"stack {i}" + " numpy" * (1 + i % 3),
        )
        for i in range(count)
    ]


def after_sft(architecture="llama", *, dropout=0.2, **changes):
    """A model with an adapter that is no longer without effect, as supervised training leaves it."""
    model = tiny_model(architecture, **changes)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    config.fan_in_fan_out = architecture == "gpt2"
    with quiet():
        adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.05, generator=generator)
    return adapted


def loaded(model=None):
    return Loaded(after_sft() if model is None else model, tiny_tokenizer(), "tiny")


def run(folder, model=None, *, data=None, seed=7, **options):
    """Train; what is no setting goes to `train_dpo`."""
    torch.set_num_threads(1)
    settings = {k: options.pop(k) for k in list(options) if k in DPOSettings.model_fields}
    start = model if isinstance(model, Loaded) else loaded(model)
    return train_dpo(
        start,
        pairs() if data is None else data,
        settings=DPOSettings(**(SMALL | settings)),
        folder=folder,
        seed=seed,
        **options,
    )


def rows(folder, name="metrics"):
    return [json.loads(line) for line in (Path(folder) / f"{name}.jsonl").read_text().splitlines()]


def weights(folder, name="final"):
    return load_file(Path(folder) / name / "adapter_model.safetensors")


def same_bits(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def adapter(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


if __name__ == "__main__":
    run(Path(sys.argv[1]))
