"""The stopping rule in training: it ends runs, its state survives kills, and restarts come back with every bit."""

import json
import shutil
import signal
import time
from pathlib import Path

import children
import pytest
import torch
from safetensors.torch import load_file
from stoppable_run import QUICK, run
from torch.utils.data import BatchSampler

from equipoise import journal
from equipoise.config import Section
from equipoise.errors import UserError
from equipoise.schedules.stopping import StoppingSettings as Rule
from equipoise.training import checkpoints
from equipoise.training.restarts import Reshuffled
from equipoise.training.settings import StoppingSettings, TrainSettings
from equipoise.training.stopping import StoppingCallback

RESTARTING = {**QUICK, "window": 0.5, "delta": 0.9, "restarts": 2}


def rows(folder, name="metrics"):
    path = folder / f"{name}.jsonl"
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]


def same(one, two):
    """The runs in two folders have the same log, the same reasons and the same last weights."""
    for name in ("metrics", "stopping"):
        assert rows(one, name) == rows(two, name)
    assert checkpoints.newest(one / "checkpoints").name == checkpoints.newest(two / "checkpoints").name
    weights = [load_file(folder / "final" / "adapter_model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    return folder, run(folder)


def test_a_run_on_a_plateau_ends_before_its_last_epoch_with_a_reason(stopped):
    folder, result = stopped
    assert result.stopped.reason == "plateau" and result.steps == result.stopped.step < 180
    [row] = rows(folder, "stopping")
    assert row["step"] == result.steps and row["action"] == "stop" and row["sentence"] == result.stopped.sentence
    assert rows(folder)[-1]["step"] == result.steps
    assert checkpoints.step_of(checkpoints.newest(folder / "checkpoints")) == result.steps


def test_up_to_the_stop_it_is_the_run_that_would_have_been(stopped, tmp_path):
    folder, result = stopped
    reached = []
    whole = run(tmp_path, stopping={**QUICK, "checks": 10_000}, hooks={"on_step": reached.append}, epochs=60)
    assert whole.stopped is None and whole.steps == 180
    assert rows(folder) == rows(tmp_path)[: result.steps]


def test_a_run_that_stopped_is_not_trained_on(stopped, tmp_path):
    folder, result = stopped
    seen = []
    again = run(folder, hooks={"on_step": seen.append})
    assert seen == [] and again.steps == result.steps and again.stopped == result.stopped
    for (name, a), (_, b) in zip(again.model.named_parameters(), result.model.named_parameters()):
        assert torch.equal(a, b), name


def test_killed_in_the_middle_it_stops_at_the_same_step_with_the_same_bits(stopped, tmp_path):
    child = children.start_script(Path(__file__).with_name("stoppable_run.py"), tmp_path)
    path = tmp_path / "metrics.jsonl"
    while child.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < 22):
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    reached = len(journal.read_journal(path).rows)
    run(tmp_path)
    assert 22 <= reached < stopped[1].steps
    same(tmp_path, stopped[0])


def restarting(folder, **changes):
    """One epoch of 120 steps, so that every plateau comes before the floor."""
    options = {"epochs": 1, "gradient_accumulation": 1, "keep_checkpoints": 99, "checkpoint_every": 20, **changes}
    return run(folder, examples=240, stopping=RESTARTING, **options)


@pytest.fixture(scope="module")
def restarted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restarted")
    return folder, restarting(folder)


def test_a_plateau_before_the_floor_restarts_the_learning_rate(restarted):
    folder, result = restarted
    found = rows(folder, "stopping")
    assert [row["action"] for row in found][:2] == ["restart", "restart"]
    rates = {row["step"]: row["learning_rate"] for row in rows(folder)}
    for row in found[:2]:
        assert rates[row["step"] + 1] == pytest.approx(1e-2) and rates[row["step"]] < 0.9e-2
    assert rates[120 if result.stopped is None else result.steps] < 2e-3  # down again to the end


@pytest.mark.parametrize("last", [20, 60, 80])
def test_restarts_come_back_from_any_checkpoint(restarted, tmp_path, last):
    shutil.copytree(restarted[0], tmp_path / "cut")
    for checkpoint in checkpoints.listed(tmp_path / "cut" / "checkpoints"):
        if checkpoints.step_of(checkpoint) > last:
            shutil.rmtree(checkpoint)
    shutil.rmtree(tmp_path / "cut" / "final")
    for name in ("metrics", "stopping"):
        path = tmp_path / "cut" / f"{name}.jsonl"
        kept = [line for line in path.read_text().splitlines(True) if json.loads(line)["step"] <= last]
        path.write_text("".join(kept))
    restarting(tmp_path / "cut")
    same(tmp_path / "cut", restarted[0])


def test_from_a_cut_on_what_is_left_of_the_epoch_is_shuffled_again():
    cuts = []
    sampler = Reshuffled(20, 3, lambda: cuts)
    sampler.set_epoch(1)
    before = list(sampler)
    drawn = iter(BatchSampler(sampler, 4, False))
    first = [next(drawn), next(drawn)]
    cuts.append([sampler.epoch, sampler.drawn])
    live = [i for batch in [*first, *drawn] for i in batch]
    assert live[:8] == before[:8] and live[8:] != before[8:] and sorted(live) == list(range(20))
    again = Reshuffled(20, 3, lambda: cuts)
    again.set_epoch(1)
    assert list(again) == live
    again.set_epoch(2)
    assert list(again) not in (live, before)


def test_overfitting_stops_and_the_best_model_is_kept(tmp_path):
    def losses(model, step):
        return [abs(step - 9) * 0.1 + i for i in range(10)]

    result = run(tmp_path, stopping={"rises": 1}, hooks={"example_losses": losses})
    assert (result.stopped.reason, result.steps) == ("overfitting", 12)
    assert [row["step"] for row in rows(tmp_path, "validation")] == [3, 6, 9, 12]
    assert rows(tmp_path, "validation")[2]["mean_example_loss"] == 4.5
    best = load_file(tmp_path / "best_loss" / "adapter_model.safetensors")
    final = load_file(tmp_path / "final" / "adapter_model.safetensors")
    assert any(not torch.equal(best[name], final[name]) for name in best)


def test_the_best_model_is_kept_without_a_stopping_rule_too(tmp_path):
    hooks = {"example_losses": lambda model, step: [float(-step)] * 3, "eval_steps": 2}
    result = run(tmp_path, stopping=None, epochs=1, hooks=hooks)
    assert result.stopped is None and (tmp_path / "best_loss").is_dir()


def test_distinct_tokens_are_counted_by_example():
    callback = StoppingCallback({}, 4, 100)
    row = {"loss": 2.0, "tokens": 30}
    callback.observe(1, row, False, {0: 10, 2: 20})
    callback.observe(2, row, False, {2: 20, 3: 40})
    assert callback.rule.seen == 70 and callback.seen.tolist() == [True, False, True, True]
    twin = StoppingCallback(**json.loads(json.dumps(callback.state()["args"])))
    twin.kept = json.loads(json.dumps(callback.state()["attributes"]["kept"]))
    assert twin.state() == callback.state() and twin.seen.tolist() == callback.seen.tolist()


def test_a_step_that_was_skipped_for_its_gradient_counts_as_no_number():
    callback = StoppingCallback({"non_finite": 2}, 1, 10)
    assert callback.observe(1, {"loss": None, "tokens": 5}, True, {0: 10}) is None
    verdict = callback.observe(2, {"loss": 1.0, "tokens": 5}, True, {0: 10})
    assert verdict.reason == "non-finite"


def test_settings_are_those_of_the_rule_and_off_by_default():
    assert TrainSettings().stopping is None
    assert StoppingSettings().model_dump() == vars(Rule())
    assert issubclass(StoppingSettings, Section)


def test_several_processes_do_not_restart(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="single process"):
        restarting(tmp_path)
