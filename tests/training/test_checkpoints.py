"""Killed at any moment, a run goes on bit by bit; damaged checkpoints are walked past, and the last valid one stays."""

import hashlib
import json
import random
import signal
import time
from pathlib import Path

import children
import pytest
import torch
from killable import run
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model

from equipoise import journal
from equipoise.errors import UserError
from equipoise.models.quiet import quiet
from equipoise.training import checkpoints
from equipoise.training.settings import ObjectiveSettings


def digest(value):
    """sha256 of every tensor and number of a checkpoint's state, in a fixed order."""
    out = hashlib.sha256()

    def walk(item):
        if isinstance(item, torch.Tensor):
            out.update(str((item.dtype, tuple(item.shape))).encode())
            out.update(item.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                out.update(str(key).encode())
                walk(item[key])
        elif isinstance(item, list | tuple):
            for part in item:
                walk(part)
        else:
            out.update(repr(item).encode())

    walk(value)
    return out.hexdigest()


def state(folder):
    last = checkpoints.listed(folder / "checkpoints")[-1]
    read = {name: torch.load(last / f"{name}.pt", weights_only=True) for name in ("optimizer", "scheduler")}
    return {
        name: digest(value)
        for name, value in {**read, "weights": load_file(last / "adapter_model.safetensors")}.items()
    }


def log(folder):
    return [
        {k: v for k, v in json.loads(line).items() if k != "seconds"}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


def killed_once(folder, at_step, delay):
    """Start the run in its own process and kill it `delay` seconds after step `at_step` was logged."""
    path = folder / "metrics.jsonl"
    child = children.start_script(Path(__file__).with_name("killable.py"), folder)
    try:
        while child.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < at_step):
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_a_killed_run_resumes_bit_by_bit(tmp_path, undisturbed):
    dice = random.Random()
    at_step, delay = dice.randint(5, 25), dice.random() * 0.03
    killed_once(tmp_path, at_step, delay)
    reached = len(journal.read_journal(tmp_path / "metrics.jsonl").rows)
    run(tmp_path)
    context = f"killed {delay:.3f} s after step {at_step}, at step {reached}"
    assert state(tmp_path) == state(undisturbed), context
    assert log(tmp_path) == log(undisturbed), context
    assert reached >= at_step


@pytest.mark.soak
def test_a_run_killed_many_times_resumes_bit_by_bit(tmp_path, undisturbed):
    dice = random.Random(1)
    for at_step in (1, 6, 13, 20, 21, 27):
        killed_once(tmp_path, at_step, dice.random() * 0.05)
    run(tmp_path)
    assert state(tmp_path) == state(undisturbed) and log(tmp_path) == log(undisturbed)


@pytest.mark.parametrize("stop_after", [4, 12])
def test_resuming_from_any_checkpoint_gives_the_same_run(tmp_path, undisturbed, stop_after):
    """In mid-epoch (4), and at an epoch's end (12)."""
    run(tmp_path, keep_checkpoints=99)
    for checkpoint in checkpoints.listed(tmp_path / "checkpoints"):
        if checkpoints.step_of(checkpoint) > stop_after:
            (checkpoint / "optimizer.pt").write_bytes(b"damaged")
    run(tmp_path, keep_checkpoints=99)
    assert state(tmp_path) == state(undisturbed) and log(tmp_path) == log(undisturbed)


def test_a_threshold_that_moves_goes_on_from_where_it_was(tmp_path):
    options = {"objective": ObjectiveSettings(name="r-eaft-recent", params={"window": 200}), "keep_checkpoints": 99}
    run(tmp_path / "whole", **options)
    run(tmp_path / "cut", **options)
    for checkpoint in checkpoints.listed(tmp_path / "cut" / "checkpoints"):
        if checkpoints.step_of(checkpoint) > 12:
            (checkpoint / "optimizer.pt").write_bytes(b"damaged")
    run(tmp_path / "cut", **options)
    assert state(tmp_path / "cut") == state(tmp_path / "whole") and log(tmp_path / "cut") == log(tmp_path / "whole")
    run(tmp_path / "still", objective=ObjectiveSettings(name="r-eaft"))
    assert state(tmp_path / "still") != state(tmp_path / "whole")


def test_a_full_model_with_tied_weights_resumes_bit_by_bit(tmp_path):
    options = {"architecture": "qwen2", "lora": None, "epochs": 3, "learning_rate": 1e-3}
    whole = run(tmp_path / "whole", **options)
    run(tmp_path / "cut", **options)
    last = checkpoints.listed(tmp_path / "cut" / "checkpoints")[-1]
    (last / "model.safetensors").write_bytes(b"")
    again = run(tmp_path / "cut", **options)
    assert digest(again.model.state_dict()) == digest(whole.model.state_dict())


def test_old_checkpoints_go_and_the_last_valid_one_stays(tmp_path):
    for step in (1, 2, 3, 4):
        with journal.atomic_directory(tmp_path / f"checkpoint-{step}") as aside:
            (aside / "weights").write_text(str(step))
    for step in (3, 4):
        (tmp_path / f"checkpoint-{step}" / "weights").write_text("damaged")
    checkpoints.prune(tmp_path, keep=2)
    assert [checkpoints.step_of(p) for p in checkpoints.listed(tmp_path)] == [2, 3, 4]
    assert checkpoints.step_of(checkpoints.newest(tmp_path)) == 2


def test_pruning_keeps_the_newest(tmp_path, undisturbed):
    assert [checkpoints.step_of(p) for p in checkpoints.listed(undisturbed / "checkpoints")] == [28, 30]
    assert not checkpoints.listed(tmp_path) and checkpoints.newest(tmp_path) is None


def test_a_checkpoint_holds_no_pickled_weights(undisturbed):
    files = {p.name for p in checkpoints.newest(undisturbed / "checkpoints").iterdir()}
    assert "adapter_model.safetensors" in files and "training_args.bin" not in files
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(checkpoints.newest(undisturbed / "checkpoints") / name, weights_only=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"learning_rate": 1e-3}, "training.learning_rate"), ({"batch_size": 4}, "batch_size"), ({"lora": None}, "lora")],
)
def test_other_settings_in_the_same_folder_are_an_error_that_names_them(undisturbed, changes, named):
    with pytest.raises(UserError, match="another training run") as caught:
        run(undisturbed, **changes)
    assert named in str(caught.value)


def test_what_changes_no_weight_may_change_on_resume(tmp_path):
    run(tmp_path, epochs=1)
    run(tmp_path, epochs=1, checkpoint_every=None, keep_checkpoints=1)


def test_a_folder_of_a_newer_version_is_an_error(tmp_path):
    checkpoints.claim(tmp_path, {"seed": 1})
    noted = json.loads((tmp_path / "training.json").read_text())
    (tmp_path / "training.json").write_text(json.dumps({**noted, "schema_version": noted["schema_version"] + 1}))
    with pytest.raises(UserError, match="newer version"):
        checkpoints.claim(tmp_path, {"seed": 1})


def test_a_16_bit_adapter_keeps_its_dtype(tmp_path):
    """As TRL keeps adapters of quantized models; PEFT's own loading would cast them to float32."""
    with quiet():
        model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    expected = digest(load_file(tmp_path / "adapter_model.safetensors"))
    checkpoints.load_weights(model, tmp_path)
    adapters = {name: p for name, p in model.named_parameters() if "lora" in name}
    assert {p.dtype for p in adapters.values()} == {torch.bfloat16}
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    assert digest(load_file(tmp_path / "adapter_model.safetensors")) == expected


def test_a_checkpoint_of_another_model_is_an_error(tmp_path):
    weights = {name: p for name, p in tiny_model().state_dict().items() if "layers.1" not in name}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        checkpoints.load_weights(tiny_model(), tmp_path)
