"""Who leaves a cohort leaves the others alone; cut off, it goes on with the same bits; what cannot share is told."""

import os
import random
import signal
import subprocess
import time
import warnings
from dataclasses import replace
from pathlib import Path

import children
import pytest
import torch
from cohort_runs import loaded, parameters, run, runs_of
from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.journal import read_journal
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.training import checkpoints
from equipoise.training.cohort import train_cohort
from equipoise.training.cohort_loop import Cohort
from equipoise.training.interrupts import Interrupted
from equipoise.training.settings import LoraSettings

NAMES = [f"{objective}/seed-{k}" for objective in ("recent", "focal") for k in range(3)]


def with_settings(one, **changes):
    return replace(one, settings=type(one.settings).model_validate({**one.settings.model_dump(), **changes}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The cohort of `cohort_runs.run`, never cut off."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


# ---- leaving


def test_runs_of_different_lengths_leave_and_the_rest_goes_on_as_alone(tmp_path):
    runs = [with_settings(one, epochs=1 + i % 3) for i, one in enumerate(runs_of())][:6]
    together = train_cohort(loaded(), runs, folder=tmp_path / "all")
    assert [out.steps for out in together] == [6, 12, 18, 6, 12, 18]
    for i in (1, 2):
        (alone,) = train_cohort(loaded(), [runs[i]], folder=tmp_path / f"alone{i}")
        assert torch.equal(parameters(together[i].final), parameters(alone.final))


def test_a_run_that_diverges_leaves_with_an_error_and_touches_nobody(tmp_path):
    runs = runs_of(objectives=("sft",))
    broken = with_settings(runs[1], learning_rate=1e30, warmup_ratio=0.0)
    together = train_cohort(loaded(), [runs[0], broken, runs[2]], folder=tmp_path / "with")
    without = train_cohort(loaded(), [runs[0], runs[2]], folder=tmp_path / "without")
    assert [out.error is None for out in together] == [True, False, True]
    assert "not a finite number in 5 steps in a row" in str(together[1].error)
    assert not together[1].final.exists() and together[1].steps < 18
    skipped = read_journal(tmp_path / "with" / broken.name / "anomalies.jsonl").rows
    assert [row["step"] for row in skipped] == together[1].anomalies and len(skipped[0]["rows"]) == 2
    for one, other in zip([together[0], together[2]], without):
        assert torch.equal(parameters(one.final), parameters(other.final))
    again = train_cohort(loaded(), [runs[0], broken, runs[2]], folder=tmp_path / "with")
    assert str(again[1].error) == str(together[1].error) and again[1].anomalies == together[1].anomalies


def test_each_run_has_its_own_stopping_rule(whole, tmp_path):
    folder, results = whole
    assert [out.name for out in results] == NAMES
    stopped = [out for out in results if out.stopped is not None]
    assert stopped and all(out.stopped.reason == "plateau" for out in stopped)
    assert len({out.steps for out in results}) > 1
    for out in stopped:
        assert read_journal(folder / out.name / "stopping.jsonl").rows[-1]["step"] == out.steps
        assert [row["step"] for row in read_journal(out.metrics_path).rows] == list(range(1, out.steps + 1))


# ---- memory


def test_runs_that_do_not_fit_follow_in_further_cohorts(tmp_path):
    runs = runs_of()[:5]
    one = train_cohort(loaded(), runs, folder=tmp_path / "one")
    several = train_cohort(loaded(), runs, folder=tmp_path / "several", memory_gb=4.5e-4)
    assert sorted(p.name for p in (tmp_path / "several" / "cohorts").iterdir() if p.is_dir()) == ["1", "2", "3"]
    assert all(torch.equal(parameters(a.final), parameters(b.final)) for a, b in zip(one, several))
    again = train_cohort(loaded(), runs, folder=tmp_path / "several")  # the plan of the start holds
    assert [out.steps for out in again] == [out.steps for out in several]


def test_out_of_memory_computes_fewer_runs_at_a_time_to_the_same_bits(tmp_path, monkeypatch, capfd):
    runs = runs_of(dropout=0.2)[:6]
    plain = train_cohort(loaded(), runs, folder=tmp_path / "plain")
    real = Cohort._pass

    def narrow(self, runs, micro):
        if runs.stop - runs.start > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        real(self, runs, micro)

    monkeypatch.setattr(Cohort, "_pass", narrow)
    tight = train_cohort(loaded(), runs, folder=tmp_path / "tight")
    assert "2 at a time" in capfd.readouterr().err
    assert all(torch.equal(parameters(a.final), parameters(b.final)) for a, b in zip(plain, tight))
    monkeypatch.setattr(Cohort, "_pass", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(UserError, match="even with one run at a time"):
        train_cohort(loaded(), runs, folder=tmp_path / "none")


# ---- cut off


def same(folder, whole):
    for name in NAMES:
        assert torch.equal(parameters(folder / name / "final"), parameters(whole / name / "final")), name
        for file in ("metrics.jsonl", "stopping.jsonl"):
            a, b = (read_journal(place / name / file).rows for place in (folder, whole))
            assert [{**row, "seconds": 0} for row in a] == [{**row, "seconds": 0} for row in b], name


def test_a_signal_finishes_the_step_saves_and_the_same_call_goes_on(whole, tmp_path):
    runs = runs_of(tiny_examples(7), dropout=0.2, objectives=("sft", "focal"))

    def interrupt(name, row):
        if row["step"] == 5 and name == runs[2].name:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped after step 5") as caught:
        train_cohort(loaded(), runs, folder=tmp_path / "cut", on_step=interrupt)
    assert caught.value.step == 5
    again = train_cohort(loaded(), runs, folder=tmp_path / "cut")
    once = train_cohort(loaded(), runs, folder=tmp_path / "once")
    for a, b in zip(again, once):
        assert torch.equal(parameters(a.final), parameters(b.final))
        assert len(read_journal(a.metrics_path).rows) == b.steps


def killed(folder, after):
    """Start the cohort in a process of its own and kill it after so many seconds; whether it was through before."""
    script = Path(__file__).with_name("cohort_runs.py")
    process = children.start_script(script, folder)
    try:
        return process.wait(after) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def wait_for_checkpoint(folder, process):
    while process.poll() is None and checkpoints.newest(folder / "cohorts" / "1") is None:
        time.sleep(0.02)


def test_killed_between_two_checkpoints_it_resumes_to_the_same_bits(whole, tmp_path):
    script = Path(__file__).with_name("cohort_runs.py")
    process = children.start_script(script, tmp_path)
    wait_for_checkpoint(tmp_path, process)
    process.kill()
    process.wait()
    run(tmp_path)
    same(tmp_path, whole[0])


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_twenty_times_at_random_it_resumes_to_the_same_bits(whole, tmp_path):
    chance = random.Random(5)
    script = Path(__file__).with_name("cohort_runs.py")
    kills, progress = 0, []
    while kills < 20:
        process = children.start_script(script, tmp_path)
        lock = tmp_path / NAMES[0] / "metrics.jsonl.owner"
        while process.poll() is None and not lock.exists():
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.6))
        process.kill()
        process.wait()
        lock.unlink(missing_ok=True)
        kills += 1
        newest = checkpoints.newest(tmp_path / "cohorts" / "1")
        progress.append(0 if newest is None else checkpoints.step_of(newest))
    assert progress == sorted(progress) and len(set(progress)) > 3
    run(tmp_path)
    same(tmp_path, whole[0])


def test_another_cohort_or_other_settings_in_the_same_folder_are_refused(tmp_path):
    runs = runs_of()[:2]
    train_cohort(loaded(), runs, folder=tmp_path)
    with pytest.raises(UserError, match="another cohort"):
        train_cohort(loaded(), runs[:1], folder=tmp_path)
    with pytest.raises(UserError, match=r"changed since its start: training\.learning_rate"):
        train_cohort(loaded(), [with_settings(runs[0], learning_rate=0.5), runs[1]], folder=tmp_path)


# ---- what cannot share


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"batch_size": 4}, "agree in batch_size: sft/seed-1 has 4, sft/seed-0 has 2"),
        ({"gradient_accumulation": 2}, "agree in gradient_accumulation"),
        ({"lora": LoraSettings(r=8)}, r"agree in lora\.r"),
        ({"lora": None}, "trains adapters"),
        ({"packing": True}, "packed rows"),
        ({"optimizer": "sgd"}, "adamw_torch, not 'sgd'"),
        ({"precision": "fp16"}, "fp16"),
        ({"stopping": {"restarts": 1}}, "restart"),
    ],
)
def test_settings_that_cannot_share_name_the_run_and_the_field(tmp_path, changes, match):
    runs = runs_of()[:2]
    other = {name: value.model_dump() if isinstance(value, LoraSettings) else value for name, value in changes.items()}
    with pytest.raises(UserError, match=match) as caught:
        train_cohort(loaded(), [runs[0], with_settings(runs[1], **other)], folder=tmp_path)
    assert caught.value.where.startswith("sft/seed-1: training.") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../up", "/abs", "a//b", "", "a:b", "sft/.."])
def test_a_name_that_is_no_folder_of_its_own_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name"):
        train_cohort(loaded(), [replace(runs_of()[0], name=name)], folder=tmp_path)


def test_two_runs_of_one_name_and_none_at_all_are_refused(tmp_path):
    with pytest.raises(UserError, match="stands twice"):
        train_cohort(loaded(), [runs_of()[0]] * 2, folder=tmp_path)
    with pytest.raises(UserError, match="at least one run"):
        train_cohort(loaded(), [], folder=tmp_path)


def test_a_base_whose_own_dropout_all_runs_would_share_is_refused(tmp_path):
    with pytest.raises(UserError, match="dropout of its own"):
        train_cohort(loaded("gpt2"), runs_of()[:1], folder=tmp_path)


# ---- other bases and ways to compute


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bf16_products_and_bf16_bases_train(tmp_path, dtype):
    runs = runs_of(precision="bf16", learning_rate=1e-2, epochs=6)[:4]
    base = loaded(dtype=dtype)
    before = {name: p.clone() for name, p in base.model.named_parameters()}
    for out in train_cohort(base, runs, folder=tmp_path):
        losses = [row["loss"] for row in read_journal(out.metrics_path).rows]
        assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
        assert parameters(out.final).dtype == torch.float32
    assert all(torch.equal(p, before[name]) for name, p in base.model.named_parameters())
    assert not base.model.training and type(base.model.model.layers[0].mlp.up_proj) is torch.nn.Linear


def test_checkpointing_of_activations_changes_no_bit(tmp_path):
    runs = runs_of(dropout=0.2)[::4]
    plain = train_cohort(loaded(), runs, folder=tmp_path / "plain")
    saving = [with_settings(one, gradient_checkpointing=True) for one in runs]
    for a, b in zip(plain, train_cohort(loaded(), saving, folder=tmp_path / "saving")):
        assert torch.equal(parameters(a.final), parameters(b.final))


def test_runs_share_a_4bit_base(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    shape = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}
    tiny_model(**shape).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    runs = runs_of(learning_rate=1e-2)[:3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bitsandbytes' own, on a CPU
        base = load_model(ModelSettings(path=str(tmp_path / "model"), quantization="4bit", device="cpu"))
        together = train_cohort(base, runs, folder=tmp_path / "all")
        (alone,) = train_cohort(base, runs[:1], folder=tmp_path / "alone")
    assert torch.equal(parameters(together[0].final), parameters(alone.final))
