"""SIGINT and SIGTERM: the step is finished and saved, and the same call goes on from there."""

import os
import signal
import time
from pathlib import Path

import children
import pytest
import torch
from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.models.loading import Loaded
from equipoise.training import checkpoints
from equipoise.training.interrupts import Interrupted, StopRequest
from equipoise.training.settings import LoraSettings, ObjectiveSettings, TrainSettings
from equipoise.training.sft import train


def run(folder, on_step=None):
    return train(
        Loaded(tiny_model(), tiny_tokenizer(), "tiny"),
        tiny_examples(),
        objective=ObjectiveSettings(name="sft"),
        settings=TrainSettings(
            epochs=6, learning_rate=1e-2, lora=LoraSettings(r=2, dropout=0.2), checkpoint_every=None
        ),
        folder=folder,
        seed=1,
        on_step=on_step,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_resume(tmp_path, number):
    before = signal.getsignal(number)

    def interrupt(row):
        if row["step"] == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="run the same command again") as caught:
        run(tmp_path / "cut", interrupt)
    assert isinstance(caught.value, KeyboardInterrupt) and number.name in str(caught.value)
    # the signal came in step 5 after the decision to stop there, so at the latest step 6 is the last
    saved = checkpoints.step_of(checkpoints.newest(tmp_path / "cut" / "checkpoints"))
    assert saved == caught.value.step and saved in (5, 6)
    assert signal.getsignal(number) is before
    again, whole = run(tmp_path / "cut"), run(tmp_path / "whole")
    assert again.steps == whole.steps == 12
    for (name, a), (_, b) in zip(again.model.named_parameters(), whole.model.named_parameters()):
        assert torch.equal(a, b), name


def test_a_signal_in_the_last_step_is_heard_and_costs_no_training(tmp_path):
    def interrupt(row):
        if row["step"] == 12:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped after step 12"):
        run(tmp_path / "cut", interrupt)
    assert (tmp_path / "cut" / "final").is_dir()
    seen = []
    again, whole = run(tmp_path / "cut", seen.append), run(tmp_path / "whole")
    assert seen == [] and again.steps == whole.steps == 12
    for (name, a), (_, b) in zip(again.model.named_parameters(), whole.model.named_parameters()):
        assert torch.equal(a, b), name


def test_a_second_signal_is_not_held_back():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert stop.requested == "SIGINT"
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_in_a_process_of_its_own_leaves_a_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    child = children.start_script(Path(__file__).with_name("killable.py"), tmp_path)
    while child.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < 3):
        time.sleep(0.005)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode != 0 and "everything is saved" in errors
    assert checkpoints.newest(tmp_path / "checkpoints") is not None
