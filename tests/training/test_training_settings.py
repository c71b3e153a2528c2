"""Training settings: presets, and the values that cannot be meant."""

import pytest
from pydantic import ValidationError
from tiny_models import tiny_model

from equipoise.errors import UserError
from equipoise.training.assembly import pick_precision
from equipoise.training.dpo_settings import DPOSettings
from equipoise.training.grpo_settings import GrpoSettings
from equipoise.training.settings import LoraSettings, SftSettings, TrainSettings


def test_presets_fill_in_what_is_not_given():
    assert TrainSettings(preset="domain").epochs == 3
    surgical = TrainSettings(preset="surgical", learning_rate=1e-3)
    assert (surgical.epochs, surgical.batch_size, surgical.gradient_accumulation) == (50, 1, 8)
    assert surgical.learning_rate == 1e-3
    assert TrainSettings(preset="surgical", epochs=7).epochs == 7


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1e-5},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"batch_size": 0},
        {"gradient_accumulation": 0},
        {"epochs": 0},
        {"checkpoint_every": 0},
        {"checkpoint_every": "step"},
        {"keep_checkpoints": 0},
        {"warmup_ratio": 1.0},
        {"precision": "fp8"},
        {"preset": "huge"},
        {"learing_rate": 1e-5},
        {"lora": {"r": 0}},
        {"batch_size": True},
    ],
    ids=str,
)
def test_values_that_cannot_be_meant_are_errors(bad):
    with pytest.raises(ValidationError):
        TrainSettings(**bad)


def test_lora_is_the_default_and_can_be_turned_off():
    assert TrainSettings().lora == LoraSettings(r=16, alpha=32)
    assert TrainSettings(lora=None).lora is None


@pytest.mark.parametrize(
    ("settings", "section"),
    [
        (TrainSettings(precision="fp16"), "training"),
        (SftSettings(precision="fp16"), "sft"),
        (DPOSettings(precision="fp16"), "dpo"),
        (GrpoSettings(precision="fp16").training(), "grpo"),
    ],
)
def test_an_error_names_settings_as_the_recipe_does(settings, section):
    with pytest.raises(UserError) as told:
        pick_precision(tiny_model(), settings)
    assert told.value.where == f"{section}.precision"
