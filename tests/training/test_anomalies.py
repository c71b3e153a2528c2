"""Steps that are not finite: skipped with the optimizer untouched, written down, and in numbers the end."""

import json
import math

import pytest
import torch
from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.models.loading import Loaded
from equipoise.training.anomalies import Anomalies
from equipoise.training.settings import ObjectiveSettings, TrainSettings
from equipoise.training.sft import train


class Poison(torch.autograd.Function):
    """Leaves the hidden states as they are (or spoils them) and spoils their gradient."""

    @staticmethod
    def forward(ctx, hidden, forward):
        return hidden * float("nan") if forward else hidden.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf"), None


def poisoned(steps, *, forward=False):
    """A model whose given training steps (from 1, one forward a step) go wrong."""
    model, calls = tiny_model(), []

    def spoil(module, args, output):
        if module.training:
            calls.append(1)
        return Poison.apply(output, forward) if module.training and len(calls) in steps else output

    model.model.layers[-1].register_forward_hook(spoil)
    return model


def run(folder, model, on_step=None, **settings):
    options = {"epochs": 5, "batch_size": 4, "learning_rate": 1e-2, "lora": None, "checkpoint_every": 1, **settings}
    return train(
        Loaded(model, tiny_tokenizer(), "tiny"),
        tiny_examples(),
        objective=ObjectiveSettings(name="sft"),
        settings=TrainSettings(**options),
        folder=folder,
        seed=1,
        on_step=on_step,
    )


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("forward", [True, False], ids=["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_written_down(tmp_path, forward):
    model = poisoned({4}, forward=forward)
    seen = {}

    def watch(row):
        seen[row["step"]] = [p.detach().clone() for p in model.parameters()]

    out = run(tmp_path, model, on_step=watch)
    assert all(torch.equal(a, b) for a, b in zip(seen[4], seen[3]))
    assert not all(torch.equal(a, b) for a, b in zip(seen[5], seen[4]))
    assert out.anomalies == [4] and all(p.isfinite().all() for p in out.model.parameters())
    (noted,) = rows(tmp_path / "anomalies.jsonl")
    assert noted["step"] == 4 and len(noted["rows"]) == 4 and set(noted["rows"]) <= {f"e{i}" for i in range(8)}
    assert noted["grad_norm"] in ("nan", "inf") and (noted["loss"] == "nan") is forward
    log = rows(out.metrics_path)
    assert [row["skipped"] for row in log] == [row["step"] == 4 for row in log]
    assert log[3]["grad_norm"] is None and (log[3]["loss"] is None) is forward


def test_the_optimizer_is_untouched_by_a_skipped_step(tmp_path):
    run(tmp_path, poisoned({4}), keep_checkpoints=99)
    states = [
        torch.load(tmp_path / "checkpoints" / f"checkpoint-{step}" / "optimizer.pt", weights_only=True)["state"]
        for step in (3, 4)
    ]
    for one, two in zip(states[0].values(), states[1].values()):
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_five_in_a_row_stop_the_run_with_the_last_good_checkpoint(tmp_path):
    model = poisoned(set(range(4, 99)))
    with pytest.raises(UserError, match="5 steps in a row") as caught:
        run(tmp_path, model)
    assert "troubleshooting.md#nan" in str(caught.value)
    assert [row["step"] for row in rows(tmp_path / "anomalies.jsonl")] == [4, 5, 6, 7, 8]
    from equipoise.training import checkpoints

    newest = checkpoints.newest(tmp_path / "checkpoints")
    assert checkpoints.step_of(newest) == 7
    checkpoints.load_weights(tiny_model(), newest)
    assert all(p.isfinite().all() for p in model.parameters())


class Book:
    path = "anomalies.jsonl"

    def __init__(self):
        self.rows = []

    def append(self, row):
        self.rows.append(row)


def met(steps, total):
    """At which step the rule stops a run in which `steps` were skipped, or None."""
    anomalies = Anomalies(Book())
    for step in range(1, total + 1):
        if step in steps:
            try:
                anomalies.add(step, loss=math.nan, grad_norm=math.inf, rows=["a"])
            except UserError:
                return step
    return None


def test_one_per_cent_stop_a_run_but_not_the_first_few():
    assert met({10, 20, 30, 40}, 100) is None
    assert met({10, 20, 30, 40, 50}, 100) == 50
    assert met({100, 200, 300, 400, 500}, 1000) is None  # exactly one per cent
    assert met({100, 200, 300, 400, 499}, 1000) == 499
    assert met({1, 2, 3, 4, 900}, 1000) is None


def test_a_resumed_run_counts_what_came_before_its_checkpoint():
    book = Book()
    first = Anomalies(book)
    for step in (7, 8, 9, 10):
        first.add(step, loss=math.nan, grad_norm=1.0, rows=["a"])
    again = Anomalies(book)
    again.restore(book.rows, 8)
    assert again.steps == [7, 8]
    again.add(9, loss=math.nan, grad_norm=1.0, rows=["a"])
    again.add(10, loss=math.nan, grad_norm=1.0, rows=["a"])
    assert [row["step"] for row in book.rows] == [7, 8, 9, 10]  # no step twice
    with pytest.raises(UserError, match="5 steps in a row"):
        again.add(11, loss=math.nan, grad_norm=1.0, rows=["a"])
