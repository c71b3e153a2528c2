"""DPO from the model that supervised training left: what its reference is, what it learns, resumes and refuses."""

import math
import os
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import get_args

import children
import pytest
import torch
from dpo_run import adapter, after_sft, loaded, pairs, rows, run, same_bits, weights
from pydantic import ValidationError
from tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer

from equipoise.evaluation.preferences import score_pairs, summarise_pairs
from equipoise.models.loading import Loaded, load_model
from equipoise.models.settings import ModelSettings
from equipoise.training import checkpoints
from equipoise.training.best import Best
from equipoise.training.dpo_settings import SMOOTHED, DPOSettings
from equipoise.training.interrupts import Interrupted


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpo")
    return folder, run(folder)


# ---- the reference


@pytest.mark.parametrize(
    ("start", "options"),
    [
        (after_sft, {}),
        (tiny_model, {"lora": {"r": 4, "dropout": 0.5}}),
        (tiny_model, {"lora": None, "learning_rate": 1e-3}),
        (after_sft, {"precision": "bf16"}),
    ],
    ids=["adapter", "new-adapter", "full", "bf16"],
)
def test_before_the_first_step_the_policy_is_the_reference(tmp_path, start, options):
    run(tmp_path, start(), epochs=1, **options)
    first, *_, last = rows(tmp_path)
    close = 1e-2 if options.get("precision") == "bf16" else 1e-5
    assert first["loss"] == pytest.approx(math.log(2), abs=close)
    assert first["rewards/chosen"] == pytest.approx(0, abs=close)
    assert first["rewards/rejected"] == pytest.approx(0, abs=close)
    assert first["kl_estimate"] == pytest.approx(0, abs=close)
    assert last["rewards/margins"] > 0.01


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_rewards_are_what_evaluation_measures_relative_to_the_start(tmp_path, architecture):
    """TRL's fused head and our evaluation, after each step, on all pairs: one step is one batch of all of them."""
    start = loaded(after_sft(architecture))
    reference = score_pairs(start, pairs())
    found = {}

    def validate(model, step):
        scored = score_pairs(Loaded(model, start.tokenizer, "tiny"), pairs(), reference=reference)
        found[step] = summarise_pairs(scored, beta=0.3)
        return {"accuracy": found[step]["accuracy"]}

    run(
        tmp_path,
        start,
        batch_size=11,
        gradient_accumulation=1,
        beta=0.3,
        validate=validate,
        epochs=4,
        warmup_ratio=0.0,
    )
    log = rows(tmp_path)
    assert set(found) == {1, 2, 3, 4}
    for before, row in zip([found[1], found[2], found[3]], log[1:]):
        for mine, trl in (("chosen", "chosen"), ("rejected", "rejected"), ("margin", "margins")):
            assert row[f"rewards/{trl}"] == pytest.approx(before[f"reward_{mine}"], abs=2e-4)
        assert row["logps/chosen"] == pytest.approx(before["chosen_logprob"], abs=1e-3)
        assert row["rewards/accuracies"] == pytest.approx(before["reward_accuracy"])
    assert found[4]["reward_margin"] > found[1]["reward_margin"] > 0


def test_the_loss_is_that_of_the_paper(tmp_path):
    """One pair a step: -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)), Rafailov et al. 2023."""
    run(tmp_path, batch_size=1, gradient_accumulation=1, data=pairs(4))
    for row in rows(tmp_path):
        assert row["loss"] == pytest.approx(math.log1p(math.exp(-row["rewards/margins"])), abs=1e-6)


def test_the_better_answers_can_be_held_up(tmp_path):
    """With `sft_weight` the loss has so many times their nll in nats a token beside it, and they stay likelier."""
    data = pairs(4)
    tokens = {row.id: score.chosen_tokens for row, score in zip(data, score_pairs(loaded(), data))}
    order = {}
    for weight in (0.0, 2.0):
        folder = tmp_path / str(weight)
        options = {"batch_size": 1, "gradient_accumulation": 1, "data": data, "sft_weight": weight, "epochs": 20}
        run(folder, **options)
        order[weight] = rows(folder)
    for row in order[2.0]:
        rest = (row["loss"] - math.log1p(math.exp(-row["rewards/margins"]))) / 2
        assert any(rest == pytest.approx(-row["logps/chosen"] / n, abs=1e-4) for n in tokens.values())
    last = {weight: sum(row["logps/chosen"] for row in found[-4:]) for weight, found in order.items()}
    assert last[2.0] > last[0.0] + 1


def test_the_adapter_of_supervised_training_goes_on_and_reloads(tmp_path, undisturbed):
    folder, result = undisturbed
    assert list(result.model.peft_config) == ["default"] and not (folder / "final" / "ref").exists()
    start = adapter(after_sft())
    assert start.keys() == adapter(result.model).keys()
    assert not all(torch.equal(tensor, start[name]) for name, tensor in adapter(result.model).items())
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    again = load_model(ModelSettings(path=str(tmp_path), adapter=str(folder / "final"), device="cpu")).model
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, result.model(ids).logits)
        assert not torch.equal(again(ids).logits, after_sft().eval()(ids).logits)


def test_the_model_has_its_own_forward_back_also_after_a_failure(tmp_path):
    model = after_sft()
    with pytest.raises(Cut):
        run(tmp_path / "cut", model, on_step=cut_at(1))
    assert "forward" not in model.get_base_model().__dict__
    kept = adapter(after_sft())
    untouched = after_sft()
    run(tmp_path / "copy", untouched, keep_base=True)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in adapter(untouched).items())


# ---- steps


def test_parts_of_a_step_weigh_by_their_pairs(tmp_path):
    """Eleven pairs by four leave three: as two and one they must be the same step as all three at once."""
    options = {"epochs": 2, "learning_rate": 1.0, "optimizer": "sgd", "max_grad_norm": 0.0, "scheduler": "constant"}
    run(tmp_path / "whole", batch_size=4, gradient_accumulation=1, **options)
    run(tmp_path / "parts", batch_size=2, gradient_accumulation=2, **options)
    for name, tensor in weights(tmp_path / "parts").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "whole")[name], rtol=1e-4, atol=1e-6)
    for one, two in zip(rows(tmp_path / "whole"), rows(tmp_path / "parts"), strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"rewards/accuracies"}:  # of ties, at the first step, rounding decides
            assert one[name] == pytest.approx(two[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("loss_type", get_args(DPOSettings.model_fields["loss_type"].annotation))
def test_every_loss_trains(tmp_path, loss_type):
    smoothing = {"label_smoothing": 0.1} if loss_type in SMOOTHED else {}
    run(tmp_path, batch_size=6, gradient_accumulation=1, epochs=4, loss_type=loss_type, warmup_ratio=0.0, **smoothing)
    first, *_, last = rows(tmp_path)
    gained = last["rewards/margins"] - first["rewards/margins"]
    # the slope of discopop points the wrong way where policy and reference agree (arXiv:2406.08414)
    assert gained < -0.01 if loss_type == "discopop" else gained > 0.01


@pytest.mark.parametrize(
    "bad",
    [
        {"beta": 0},
        {"beta": math.inf},
        {"loss_type": "sigmoidal"},
        {"loss_type": "sft"},
        {"label_smoothing": 0.1},
        {"loss_type": "exo_pair"},
        {"loss_type": "robust", "label_smoothing": 0.5},
        {"learning_rate": 0},
        {"packing": True},
        {"checkpoint_every": 0},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_errors(bad):
    with pytest.raises(ValidationError):
        DPOSettings(**bad)


@pytest.mark.parametrize(("scheduler", "rises"), [("linear", 0), ("cosine", 0), ("cosine_with_restarts", 2)])
def test_the_learning_rate_follows_its_schedule(tmp_path, scheduler, rises):
    run(tmp_path, scheduler=scheduler, cycles=3, warmup_ratio=0.0, data=pairs(12), epochs=4)
    rates = [row["learning_rate"] for row in rows(tmp_path)]
    assert len(rates) == 12 and rates[0] == pytest.approx(1e-2)
    assert sum(after > before for before, after in pairwise(rates)) == rises


def test_checkpointing_of_activations_changes_no_number(tmp_path, undisturbed):
    run(tmp_path, gradient_checkpointing=True)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, weights(undisturbed[0])[name], rtol=1e-4, atol=1e-6)


def test_the_best_validation_is_kept(tmp_path):
    numbers = iter([0.5, 0.8, 0.7])
    seen = {}

    def validate(model, step):
        assert not model.training
        seen[step] = adapter(model)
        return {"accuracy": next(numbers)}

    run(tmp_path, validate=validate, keep_best={"best": Best("accuracy", higher_is_better=True)})
    assert [row["accuracy"] for row in rows(tmp_path, "validation")] == [0.5, 0.8, 0.7]
    best = sorted(seen)[1]
    kept = weights(tmp_path, "best")
    assert all(torch.equal(kept[name.replace(".default", "")], tensor) for name, tensor in seen[best].items())


# ---- broken off


class Cut(Exception):
    pass


def cut_at(step):
    def cut(row):
        if row["step"] == step:
            raise Cut

    return cut


@pytest.mark.parametrize("at", [3, 6])
def test_a_run_that_was_cut_off_ends_in_the_same_bits(undisturbed, tmp_path, at):
    with pytest.raises(Cut):
        run(tmp_path, on_step=cut_at(at))
    assert checkpoints.newest(tmp_path / "checkpoints") is not None
    run(tmp_path)
    assert same_bits(tmp_path, undisturbed[0]) and rows(tmp_path) == rows(undisturbed[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_the_same_call_goes_on(undisturbed, tmp_path, number):
    def interrupt(row):
        if row["step"] == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="run the same command again") as caught:
        run(tmp_path, on_step=interrupt)
    assert checkpoints.step_of(checkpoints.newest(tmp_path / "checkpoints")) == caught.value.step
    assert not (tmp_path / "final").exists()
    run(tmp_path)
    assert same_bits(tmp_path, undisturbed[0]) and rows(tmp_path) == rows(undisturbed[0])


def test_a_signal_in_the_last_step_is_heard_and_costs_no_training(undisturbed, tmp_path):
    last, seen = rows(undisturbed[0])[-1]["step"], []

    def interrupt(row):
        if row["step"] == last:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=f"stopped after step {last}"):
        run(tmp_path, on_step=interrupt)
    run(tmp_path, on_step=seen.append)
    assert seen == [] and same_bits(tmp_path, undisturbed[0])


def killed(folder, at_step, delay=0.0):
    """Start the run in its own process and kill it `delay` seconds after step `at_step` was logged."""
    path = folder / "metrics.jsonl"
    child = children.start_script(Path(__file__).with_name("dpo_run.py"), folder)
    try:
        while child.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < at_step):
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_a_killed_run_ends_in_the_same_bits(undisturbed, tmp_path):
    killed(tmp_path, 4)
    run(tmp_path)
    assert same_bits(tmp_path, undisturbed[0]) and rows(tmp_path) == rows(undisturbed[0])


@pytest.mark.soak
def test_twenty_kills_end_in_the_same_bits(undisturbed, tmp_path):
    for kill in range(20):
        killed(tmp_path, min(kill // 3, 8), 0.02 * (kill % 7))
    run(tmp_path)
    assert same_bits(tmp_path, undisturbed[0]) and rows(tmp_path) == rows(undisturbed[0])
