"""DPO from the model that supervised training left: what its reference is, what it learns, resumes and refuses."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
from dpo_run import after_sft, loaded, pairs, run
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_models import ARCHITECTURES, TEMPLATE, tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.evaluation.preferences import score_pairs, summarise_pairs
from equipoise.models.loading import Loaded, load_model
from equipoise.models.settings import ModelSettings
from equipoise.records import Message, PreferencePair
from equipoise.training import checkpoints
from equipoise.training.best import Best
from equipoise.training.dpo_settings import SMOOTHED, DPOSettings
from equipoise.training.interrupts import Interrupted
from equipoise.training.splitting import split_batch


def rows(folder, name="metrics"):
    return [json.loads(line) for line in (Path(folder) / f"{name}.jsonl").read_text().splitlines()]


def weights(folder, name="final"):
    return load_file(Path(folder) / name / "adapter_model.safetensors")


def same_bits(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def adapter(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


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


def killed(folder, at_step, delay=0.0):
    """Start the run in its own process and kill it `delay` seconds after step `at_step` was logged."""
    path = folder / "metrics.jsonl"
    child = subprocess.Popen([sys.executable, "-W", "ignore", str(Path(__file__).with_name("dpo_run.py")), str(folder)])
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


# ---- data


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


def test_59_fp16_on_a_cpu_and_58_other_settings_in_a_folder_are_refused(tmp_path, undisturbed):
    with pytest.raises(UserError, match="needs a GPU"):
        run(tmp_path, precision="fp16")
    with pytest.raises(UserError, match="another training run"):
        run(undisturbed[0], beta=0.2)
    with pytest.raises(UserError, match="another training run"):
        run(undisturbed[0], data=pairs(10))


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
