"""GRPO in the order of a curriculum: what it learns, measures, resumes and refuses."""

import itertools
import json
import signal
import time
from pathlib import Path

import children
import pytest
import torch
from grpo_run import items, run
from safetensors.torch import load_file

from equipoise.errors import UserError
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.schedules.curriculum import Schedule
from equipoise.training import checkpoints
from equipoise.training.best import Best
from equipoise.training.grpo_settings import GrpoSettings
from equipoise.training.grpo_trainer import k3


def rows(folder, name="metrics"):
    return [json.loads(line) for line in (Path(folder) / f"{name}.jsonl").read_text().splitlines()]


def weights(folder):
    return load_file(Path(folder) / "final" / "adapter_model.safetensors")


def same_bits(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpo")
    return folder, run(folder, held_out=[item.prompt for item in items("source", 4)])


def test_every_step_says_what_it_drew_and_how_far_it_moved(undisturbed):
    folder, result = undisturbed
    steps = rows(folder)
    assert [row["step"] for row in steps] == list(range(1, 7)) and result.summary.steps == 6
    first = steps[0]
    assert first["kl"] == pytest.approx(0, abs=1e-6)  # the policy that drew is still the base
    assert steps[-1]["kl"] > 1e-6
    for name in (
        "reward",
        "reward_soft_f1",
        "entropy",
        "equal_share",
        "share",
        "stage",
        "valid",
        "non_empty",
        "length",
    ):
        assert all(row[name] is not None for row in steps), name
    shares = [row["share"] for row in steps]
    assert shares == sorted(shares) and shares[0] < shares[-1] == 1
    assert all(0 <= row["equal_share"] <= row["equal_share_first"] <= 1 for row in steps)


def test_forward_kl_is_measured_from_the_base_on(undisturbed):
    found = [row["forward_kl"] for row in rows(undisturbed[0], "validation")]
    assert found[0] == pytest.approx(0, abs=1e-6) and abs(found[-1]) > 1e-7


def test_the_base_below_the_adapter_has_not_moved(undisturbed):
    base = load_model(ModelSettings(path="testbed:ner", device="cpu")).model
    ids = torch.arange(5, 25)[None]
    trained = undisturbed[1].model
    with torch.no_grad(), trained.disable_adapter():
        assert torch.equal(trained(ids).logits, base(ids).logits)
    with torch.no_grad():
        assert not torch.equal(trained(ids).logits, base(ids).logits)


def test_what_is_saved_is_what_was_trained(undisturbed):
    folder, result = undisturbed
    again = load_model(ModelSettings(path="testbed:ner", adapter=str(folder / "final"), device="cpu")).model
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, result.model(ids).logits)


def test_right_labels_raise_the_reward(tmp_path):
    run(tmp_path, targets=16, epochs=8, prompts_per_step=8, learning_rate=5e-3, schedule=Schedule("none", replay=0))
    got = [row["reward_soft_f1"] for row in rows(tmp_path)]
    assert sum(got[-4:]) / 4 > sum(got[:4]) / 4 + 0.05


def test_without_a_penalty_the_divergence_is_measured_all_the_same(tmp_path):
    run(tmp_path, beta=0.0)
    assert rows(tmp_path)[-1]["kl"] > 1e-7


class Cut(Exception):
    pass


@pytest.mark.parametrize("at", [3, 5])
def test_a_run_that_was_cut_off_ends_in_the_same_bits(undisturbed, tmp_path, at):
    def cut(row):
        if row["step"] == at:
            raise Cut

    held = [item.prompt for item in items("source", 4)]
    with pytest.raises(Cut):
        run(tmp_path, on_step=cut, held_out=held)
    assert checkpoints.step_of(checkpoints.newest(tmp_path / "checkpoints")) == at - 1
    run(tmp_path, held_out=held)
    assert same_bits(tmp_path, undisturbed[0])
    assert rows(tmp_path) == rows(undisturbed[0])
    assert rows(tmp_path, "validation") == rows(undisturbed[0], "validation")


def test_a_dynamic_curriculum_gets_new_labels_at_each_stage_and_resumes_with_them(tmp_path):
    def refresh(model, step):
        asked.append(step)
        return [(("person", f"Nobody {step}"),)] * 12, [i / 12 for i in range(12)]

    def cut(row):
        if row["step"] == 5:
            raise Cut

    options = {"schedule": Schedule(dynamic=True, stages=3, replay=0.25), "refresh": refresh}
    asked = []
    run(tmp_path / "whole", **options)
    assert asked == [2, 4]
    with pytest.raises(Cut):
        run(tmp_path / "cut", on_step=cut, **options)
    asked = []
    run(tmp_path / "cut", **options)
    assert asked == [4] and same_bits(tmp_path / "whole", tmp_path / "cut")


def test_equal_groups_are_drawn_again_for_other_prompts(tmp_path):
    run(tmp_path / "none", resample_attempts=0, temperature=0.3)
    run(tmp_path / "some", resample_attempts=3, temperature=0.3)
    assert all(row["equal_share"] == row["equal_share_first"] for row in rows(tmp_path / "none"))
    before, after = ([row[name] for row in rows(tmp_path / "some")] for name in ("equal_share_first", "equal_share"))
    assert sum(after) < sum(before)


def test_a_limit_on_the_divergence_stops_and_says_so(tmp_path):
    result = run(tmp_path, kl_limit=1e-9, kl_action="stop", learning_rate=1e-2)
    assert result.summary.steps < 6 and "kl_limit" in result.summary.stopped
    again = run(tmp_path, kl_limit=1e-9, kl_action="stop", learning_rate=1e-2)
    assert again.summary.steps == result.summary.steps and again.summary.stopped == result.summary.stopped


def test_a_collapse_stops_with_the_best_model_kept(tmp_path):
    scores = itertools.chain([0.5, 0.6], itertools.repeat(0.1))
    result = run(
        tmp_path,
        targets=24,
        epochs=5,
        eval_every=1,
        validate=lambda model, step: {"target/f1": next(scores)},
        keep_best={"best": Best("target/f1", higher_is_better=True)},
        collapse={"window": 2, "z": 0.0, "checks": 2, "drop": 0.05},
        learning_rate=3e-3,
    )
    assert result.summary.stopped and result.summary.steps < 30
    best = load_file(tmp_path / "best" / "adapter_model.safetensors")
    assert all(torch.equal(best[name], tensor) for name, tensor in weights(tmp_path).items())


def test_k3_has_the_divergence_as_its_mean():
    generator = torch.Generator().manual_seed(0)
    own, base = (torch.randn(7, generator=generator).log_softmax(-1) for _ in range(2))
    exact = float((own.exp() * (own - base)).sum())
    each = [k3(own[None, i : i + 1], base[None, i : i + 1], torch.ones(1, 1)) for i in range(7)]
    assert sum(float(p) * value for p, value in zip(own.exp(), each)) == pytest.approx(exact, abs=1e-6)
    assert min(each) >= 0


def test_39_a_group_of_one_is_refused_and_one_of_equal_rewards_accepted(tmp_path):
    with pytest.raises(ValueError, match="nothing to compare"):
        GrpoSettings(group=1)
    nobody = (("person", "Nobody at All"),)  # whom no answer names: every reward is 0
    result = run(tmp_path, label=nobody, rewards={"soft_f1": 0, "exact": 1, "format": 0}, beta=0, epochs=1)
    assert result.summary.equal_share == 1 and result.summary.steps == 3
    assert all(float(tensor.abs().max()) == 0 for name, tensor in weights(tmp_path).items() if "lora_B" in name)


def test_a_reward_of_form_alone_and_unequal_parts_are_refused():
    with pytest.raises(ValueError, match="format alone"):
        GrpoSettings(rewards={"soft_f1": 0})
    with pytest.raises(ValueError, match="divide"):
        GrpoSettings(prompts_per_step=3, group=3, accumulation=2)


def test_parts_of_a_step_give_nearly_the_same_model(tmp_path, undisturbed):
    run(tmp_path, accumulation=4, held_out=[item.prompt for item in items("source", 4)])
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, weights(undisturbed[0])[name], rtol=0.05, atol=2e-4)


def test_a_model_with_an_adapter_of_its_own_is_refused(undisturbed, tmp_path):
    adapted = load_model(ModelSettings(path="testbed:ner", adapter=str(undisturbed[0] / "final"), device="cpu"))
    with pytest.raises(UserError, match="brings one"):
        run(tmp_path, loaded=adapted)


def test_another_seed_in_the_same_folder_is_refused(undisturbed):
    with pytest.raises(UserError, match="another training run"):
        run(undisturbed[0], seed=6)


def killed(folder, at_step, delay):
    """Start the run in its own process and kill it `delay` seconds after step `at_step` was logged."""
    path = folder / "metrics.jsonl"
    child = children.start_script(Path(__file__).with_name("grpo_run.py"), folder)
    try:
        while child.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < at_step):
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


@pytest.mark.soak
def test_twenty_kills_end_in_the_same_bits(tmp_path):
    run(tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    for kill in range(20):
        killed(folder, min(kill // 3, 5), 0.05 * (kill % 7))
    run(folder)
    assert same_bits(folder, tmp_path / "whole") and rows(folder) == rows(tmp_path / "whole")
