"""Cells of a grid that are trained together leave what they leave when each is trained by itself."""

import json

import pytest
import torch
from safetensors.torch import load_file

from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.journal import read_journal
from equipoise.pipelines.settings import ProtocolRecipe
from equipoise.protocols.knowledge import run_protocol
from equipoise.testbed.world import model_path

ARMS = "arms={sft: {name: sft}, r-eaft: {name: r-eaft, params: {tau: 1.0}}, recent: {name: r-eaft-recent}}"
# by its folder the model is anybody's: what the testbed knows of itself is not measured, which takes seconds a grid
# Drift is a number of nats and equal but for rounding; what is compared here byte by byte is answers.
FEW = [
    *(f"model.path={model_path()}", "model.dtype=fp32", "data.limit=3", "data.keep=null", "data.skills=null"),
    *("evaluation.answers=bare", "evaluation.drift=false", "evaluation.likelihood=false", "evaluation.general=false"),
]
SMALL = [ARMS, *FEW, "training.epochs=2", "training.learning_rate=0.003"]


def ran(folder, *more, seeds="[1,2]"):
    recipe = resolve(ProtocolRecipe, None, [*SMALL, f"seeds={seeds}", *more])
    return run_protocol(recipe, folder)


def cells(folder):
    return [row["cell"] for row in read_journal(folder / "cells.jsonl").rows]


def adapter(folder, cell):
    tensors = load_file(folder / "cells" / cell / "final" / "adapter_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def files(folder, cell):
    left = (path.relative_to(folder / "cells" / cell) for path in (folder / "cells" / cell).rglob("*"))
    own = ("checkpoint", "splits")  # of a single run; a cohort keeps them for all of its runs in one place
    return {str(path) for path in left if not str(path).startswith(own) and path.suffix != ".lock"}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grids")
    trace = "evaluation.weights_every=1"
    for how in ("seed", "off"):
        ran(folder / how, f"cohort={how}", trace)
    return folder / "seed", folder / "off"


def test_together_or_by_itself_a_cell_leaves_the_same(both):
    together, alone = both
    assert cells(together) == cells(alone) and len(cells(alone)) == 7
    for cell in cells(alone)[1:]:
        here, there = adapter(together, cell), adapter(alone, cell)
        assert torch.dist(here, there) < 1e-4 * there.norm(), cell
        assert files(together, cell) == files(alone, cell)
        for name in ("predictions.jsonl", "results.json"):
            assert (together / "cells" / cell / name).read_bytes() == (alone / "cells" / cell / name).read_bytes()
        for name, value in (("metrics.jsonl", "loss"), ("tokens.jsonl", "nll")):
            one, other = (read_journal(run / "cells" / cell / name).rows for run in both)
            assert [set(row) for row in one] == [set(row) for row in other]
            assert [row[value] for row in one] == pytest.approx([row[value] for row in other], rel=1e-3, abs=1e-3)
    assert json.loads((together / "analysis.json").read_text()) == json.loads((alone / "analysis.json").read_text())


def test_the_weights_are_followed_in_a_cohort_too(both):
    for cell in ("sft/seed-1", "r-eaft/seed-2"):
        one, other = (read_journal(run / "cells" / cell / "validation.jsonl").rows for run in both)
        assert len(one) == 2 and set(one[0]) == {"step", "updates_weight", "updates_nll"}
        for mine, theirs in zip(one, other, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-3)


def test_a_grid_cut_off_after_some_cells_of_a_cohort_scores_the_others(both, tmp_path):
    import shutil

    folder = tmp_path / "cut"
    shutil.copytree(both[0], folder)
    rows = (folder / "cells.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "cells.jsonl").write_bytes(b"".join(rows[:3]))
    for cell in cells(both[0])[3:]:
        (folder / "cells" / cell / "predictions.jsonl").unlink()
    ran(folder, "cohort=seed", "evaluation.weights_every=1")
    assert cells(folder) == cells(both[0])
    for cell in cells(folder)[1:]:
        assert (folder / "cells" / cell / "predictions.jsonl").read_bytes() == (
            both[0] / "cells" / cell / "predictions.jsonl"
        ).read_bytes()
        assert torch.equal(adapter(folder, cell), adapter(both[0], cell))


def test_the_whole_grid_as_one_cohort(both, tmp_path):
    ran(tmp_path / "grid", "cohort=grid", "evaluation.weights_every=1")
    assert cells(tmp_path / "grid") == cells(both[0])
    assert (tmp_path / "grid" / "cohorts" / "grid" / "plan.json").exists()
    for cell in cells(both[0])[1:]:
        there = adapter(both[0], cell)
        assert torch.dist(adapter(tmp_path / "grid", cell), there) < 1e-4 * there.norm()


WILD = "{name: r-eaft, params: {tau: 1.0, alpha: 1.0e+37, clamp: 10.0}}"


def test_a_cell_that_diverges_costs_the_others_nothing_and_is_named(tmp_path, capfd):
    arms = f"arms={{sft: {{name: sft}}, wild: {WILD}}}"
    for _ in range(2):  # the second time it has nothing left to do
        analysis = ran(tmp_path / "run", arms, "training.epochs=3", "training.batch_size=1")
        assert cells(tmp_path / "run") == ["untrained", *(f"{arm}/seed-{n}" for n in (1, 2) for arm in ("sft", "wild"))]
        assert list(analysis["arms"]) == ["sft"] and analysis["seeds"] == [1, 2]
        assert "wild/seed-2 is left out: training stopped at step 5" in " ".join(analysis["notes"])
    assert "not a finite number in 5 steps in a row" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("cohort", ["seed", "off"])
def test_where_every_training_diverges_it_is_an_error(tmp_path, cohort):
    for _ in range(2):
        with pytest.raises(UserError, match="not a finite number") as told:
            ran(
                tmp_path / "run",
                f"arms={{wild: {WILD}, other: {WILD.replace('10.0', '20.0')}}}",
                f"cohort={cohort}",
                "training.epochs=3",
                "training.batch_size=1",
                seeds="[1]",
            )
        assert "lower the learning rate" in told.value.fix and "wild" in told.value.where


def test_a_signal_in_the_last_step_of_a_cohort_is_heard(tmp_path):
    import os
    import signal

    from equipoise.training.cohort_member import Member
    from equipoise.training.interrupts import Interrupted

    real = Member.log

    def log(self, row):
        if row["step"] == self.steps and self.run.name == "sft/seed-1":
            os.kill(os.getpid(), signal.SIGINT)
        real(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Member, "log", log)
        with pytest.raises(Interrupted):
            ran(tmp_path / "run", "training.epochs=1", "training.batch_size=4")
    assert cells(tmp_path / "run") == ["untrained"]
    ran(tmp_path / "run", "training.epochs=1", "training.batch_size=4")
    assert len(cells(tmp_path / "run")) == 7


def test_the_order_of_the_arms_may_change_between_two_calls(both, tmp_path):
    import shutil

    folder = shutil.copytree(both[0], tmp_path / "run")
    rows = (folder / "cells.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "cells.jsonl").write_bytes(b"".join(rows[:1]))
    arms = "arms={recent: {name: r-eaft-recent}, r-eaft: {name: r-eaft, params: {tau: 1.0}}, sft: {name: sft}}"
    ran(folder, arms, "cohort=seed", "evaluation.weights_every=1")
    assert sorted(cells(folder)) == sorted(cells(both[0]))
    for cell in cells(both[0])[1:]:
        name = f"cells/{cell}/predictions.jsonl"
        assert (folder / name).read_bytes() == (both[0] / name).read_bytes()


def test_weights_are_followed_by_the_epochs_of_the_rows_that_train(tmp_path):
    """Of nine rows one is too long, so that two steps are an epoch and not three."""
    rows = [{"prompt": f"What is {n}?", "completion": "f(x)"} for n in range(8)]
    rows.append({"prompt": "What? " * 80, "completion": "g(x)"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = [
        f"data.updates={tmp_path}/rows.jsonl",
        "data.limit=null",
        "training.max_bad_share=0.5",
        "training.max_length=64",
        "training.batch_size=4",
    ]
    ran(tmp_path / "run", "arms={sft: {name: sft}}", *few, "evaluation.weights_every=1", seeds="[1]")
    book = read_journal(tmp_path / "run" / "cells" / "sft" / "seed-1" / "validation.jsonl").rows
    assert [row["step"] for row in book] == [2, 4] and all("updates_weight" in row for row in book)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")  # PEFT rightly says so to the user
def test_what_cannot_share_is_trained_one_by_one_and_says_why(tmp_path, capfd):
    tables = "training.lora={r: 4, target_modules: [embed_tokens, q_proj]}"
    for change, why in (
        ("training.lora=null", "a cohort trains adapters"),
        (tables, "is no plain LoRA on a linear layer"),
    ):
        folder = tmp_path / change[14:18]
        ran(
            folder,
            change,
            "data.limit=1",
            "training.epochs=1",
            "arms={sft: {name: sft}, dft: {name: dft}}",
            seeds="[1]",
        )
        said = " ".join(capfd.readouterr().err.split())
        assert "trained one by one" in said and why in said
        assert len(cells(folder)) == 3 and not (folder / "cohorts").exists()
